ALTER TABLE flow DROP src_process_id, DROP dst_process_id;
DROP TABLE process;
