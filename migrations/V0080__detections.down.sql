ALTER TABLE sensor_gone DROP detections;
ALTER TABLE sensor DROP erased_detections;
DROP TABLE detection;
