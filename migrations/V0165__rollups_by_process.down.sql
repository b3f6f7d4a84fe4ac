DROP TABLE erasure_process;
DELETE FROM rollup_1m WHERE dimension = 9;
DELETE FROM rollup_1h WHERE dimension = 9;
