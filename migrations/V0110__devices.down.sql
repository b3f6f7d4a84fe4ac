-- The extension stays: others may use it.
DROP TABLE device_fact;
DROP TABLE device_key;
DROP TABLE device;
