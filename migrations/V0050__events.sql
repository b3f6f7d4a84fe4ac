-- What happened, for whoever wants to follow it: written in the transaction of the change that it tells of,
-- numbered after that (docs/decisions/0050-events.md).

-- Committed and not yet numbered. Almost always empty.
CREATE TABLE event_pending (
    pending_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic       text NOT NULL CHECK (topic IN ('flows', 'ledger', 'sensors', 'alerts', 'detections', 'devices',
                                               'jobs', 'audit')),
    kind        text NOT NULL CHECK (octet_length(kind) BETWEEN 1 AND 64),
    -- No foreign key: an event outlives its sensor until it is erased, and ingest needs no more locks.
    sensor_id   integer,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- `json`, not `jsonb`: nobody looks into it here, and it may hold whatever a string may.
    body        json NOT NULL CHECK (octet_length(body::text) <= 16384)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

-- Numbered from 1 on without a gap, in the order in which readers see them.
CREATE TABLE event (
    cursor     bigint PRIMARY KEY,
    topic      text NOT NULL,
    kind       text NOT NULL,
    sensor_id  integer,
    at         timestamptz NOT NULL,
    body       json NOT NULL
);
CREATE INDEX event_by_topic ON event (topic, cursor);
CREATE INDEX event_by_sensor ON event (sensor_id, cursor) WHERE sensor_id IS NOT NULL;

-- One row: the last number given, and the last one that retention took.
CREATE TABLE event_head (
    one        boolean PRIMARY KEY DEFAULT true CHECK (one),
    last       bigint NOT NULL,
    pruned_to  bigint NOT NULL CHECK (pruned_to <= last)
) WITH (fillfactor = 10);
INSERT INTO event_head (last, pruned_to) VALUES (0, 0);

-- An erased sensor's events keep their number and nothing else; the receipt counts them.
ALTER TABLE sensor ADD erased_events bigint NOT NULL DEFAULT 0;
ALTER TABLE sensor_gone ADD events bigint NOT NULL DEFAULT 0;
