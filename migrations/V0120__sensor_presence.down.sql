DROP TABLE presence_watch;
DROP TABLE sensor_presence;
