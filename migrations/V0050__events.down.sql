ALTER TABLE sensor_gone DROP events;
ALTER TABLE sensor DROP erased_events;
DROP TABLE event_head;
DROP TABLE event;
DROP TABLE event_pending;
