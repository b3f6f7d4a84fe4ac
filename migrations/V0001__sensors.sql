-- Who may send, and what we last heard of them.

CREATE TABLE sensor (
    sensor_id     integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Never only digits, so that a path or a filter can name a sensor by id or by name.
    name          text NOT NULL UNIQUE
                  CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$' AND name !~ '^[0-9]+$'),
    token_sha256  bytea NOT NULL UNIQUE CHECK (octet_length(token_sha256) = 32),
    created_at    timestamptz NOT NULL DEFAULT now(),
    revoked_at    timestamptz
);

-- Apart from `sensor`, because every batch updates it: ingest holds a shared lock on the sensor's row
-- (a revocation waits for batches in flight, and they for it), and a shared lock that is then upgraded
-- by two batches of one sensor would be a deadlock.
CREATE TABLE sensor_status (
    sensor_id        integer PRIMARY KEY REFERENCES sensor,
    last_seen_at     timestamptz NOT NULL,
    last_window_end  timestamptz NOT NULL,
    -- Our clock less the sensor's at the last batch that told its own; flagged beyond five minutes.
    clock_skew_ms    bigint,
    clock_flagged    boolean NOT NULL DEFAULT false,
    batches          bigint NOT NULL DEFAULT 0,
    records          bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- One direction of one interface of one sensor: a dictionary, so that a flow row holds four bytes.
CREATE TABLE observation_point (
    sensor_id  integer NOT NULL REFERENCES sensor,
    point_id   integer GENERATED ALWAYS AS IDENTITY,
    interface  text NOT NULL CHECK (octet_length(interface) BETWEEN 1 AND 15),
    direction  smallint NOT NULL CHECK (direction IN (0, 1)),
    PRIMARY KEY (sensor_id, point_id),
    UNIQUE (sensor_id, interface, direction)
);
