-- What operators joined, as it was before: so that a merge can be undone.

CREATE TABLE device_merge (
    merge_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- The one that stayed. No foreign key: it may itself be joined to another one meanwhile, and come back.
    device_id  bigint NOT NULL,
    -- The one that went, with what operators had said of it, and who had become it before.
    other_id   bigint NOT NULL,
    name       text,
    type       text,
    notes      text,
    owner      text,
    formers    bigint[] NOT NULL,
    -- Which of these words filled gaps of the one that stayed.
    filled     text[] NOT NULL,
    merged_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX device_merge_by_device ON device_merge (device_id, merge_id);
CREATE INDEX device_merge_by_time ON device_merge (merged_at);

-- What sensors had told of the one that went, and of the one that stayed where it was the same.
CREATE TABLE device_merge_fact (
    merge_id    bigint NOT NULL REFERENCES device_merge ON DELETE CASCADE,
    of_other    boolean NOT NULL,
    -- A key that led to the one that went.
    leads       boolean NOT NULL,
    sensor_id   integer NOT NULL REFERENCES sensor,
    kind        text NOT NULL,
    source      text NOT NULL,
    value       text COLLATE "C" NOT NULL,
    address     inet,
    weight      integer,
    detail      text,
    first_seen  timestamptz NOT NULL,
    last_seen   timestamptz NOT NULL,
    PRIMARY KEY (merge_id, of_other, sensor_id, kind, source, value)
);
CREATE INDEX device_merge_fact_by_sensor ON device_merge_fact (sensor_id);
