-- Whether sensors are there, as one job decides it from their signs of life.

CREATE TABLE sensor_presence (
    sensor_id   integer PRIMARY KEY REFERENCES sensor ON DELETE CASCADE,
    -- The last sign of life: a heartbeat, a batch, whatever its credential opened.
    alive_at    timestamptz NOT NULL,
    -- As it was told last, and since when; null until the first look at it.
    online      boolean,
    changed_at  timestamptz NOT NULL DEFAULT now(),
    -- What its last heartbeat said, and when.
    beat        json,
    beat_at     timestamptz,
    CHECK ((beat IS NULL) = (beat_at IS NULL))
) WITH (fillfactor = 50);
INSERT INTO sensor_presence (sensor_id, alive_at, online)
SELECT sensor_id, last_seen_at, true FROM sensor_status;

-- One row: since when sensors are listened for without a break, and when that was looked at last. Whoever was not
-- listened for was not silent.
CREATE TABLE presence_watch (
    one        boolean PRIMARY KEY DEFAULT true CHECK (one),
    since      timestamptz NOT NULL,
    looked_at  timestamptz NOT NULL
) WITH (fillfactor = 10);
INSERT INTO presence_watch (since, looked_at) VALUES (now(), now());
