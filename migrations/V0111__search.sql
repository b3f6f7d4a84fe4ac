-- For `GET /api/v1/search` at any number of detections.
CREATE INDEX detection_by_trigram ON detection USING gin (lower(kind || ' ' || subject) gin_trgm_ops);
