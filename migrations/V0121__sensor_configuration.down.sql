DROP TABLE sensor_configuration_report;
DROP TABLE sensor_configuration;
