DROP TABLE point_total;
DROP TABLE batch;
