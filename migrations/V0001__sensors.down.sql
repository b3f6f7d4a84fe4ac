DROP TABLE observation_point;
DROP TABLE sensor_status;
DROP TABLE sensor;
