DROP TABLE device_merge_fact;
DROP TABLE device_merge;
