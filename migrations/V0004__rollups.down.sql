DROP TABLE rollup_1h;
DROP TABLE rollup_1m;
