DROP INDEX detection_by_trigram;
