DELETE FROM rollup_1m WHERE dimension IN (6, 7, 8);
DELETE FROM rollup_1h WHERE dimension IN (6, 7, 8);
ALTER TABLE rollup_1m RENAME number TO port;
ALTER TABLE rollup_1h RENAME number TO port;
