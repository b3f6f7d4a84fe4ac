-- What arrived, exactly once, and the kernel's own totals to hold it against.

CREATE SEQUENCE batch_id AS bigint MAXVALUE 140737488355327;

CREATE TABLE batch (
    sensor_id         integer NOT NULL REFERENCES sensor,
    generation        uuid NOT NULL,
    epoch             bigint NOT NULL CHECK (epoch >= 0),
    part              integer NOT NULL CHECK (part >= 0),
    parts             integer NOT NULL CHECK (parts > part),
    -- The high 48 bits of its rows' `flow_id`.
    batch_id          bigint NOT NULL DEFAULT nextval('batch_id'),
    window_start      timestamptz NOT NULL,
    window_start_ns   bigint NOT NULL,
    window_end_ns     bigint NOT NULL,
    received_at       timestamptz NOT NULL DEFAULT now(),
    clock_skew_ms     bigint,
    records           integer NOT NULL,
    -- Both directions of every record.
    packets           bigint NOT NULL,
    octets            bigint NOT NULL,
    crossing_packets  bigint NOT NULL,
    crossing_octets   bigint NOT NULL,
    -- The key that makes delivery exactly-once. The window is not part of it: a batch keeps its key
    -- whatever a clock says.
    PRIMARY KEY (sensor_id, generation, epoch, part)
);
ALTER SEQUENCE batch_id OWNED BY batch.batch_id;
CREATE INDEX batch_by_window ON batch (sensor_id, window_start);
-- What came lately, for the job that trims the rollups.
CREATE INDEX batch_by_arrival ON batch USING brin (received_at) WITH (pages_per_range = 8, autosummarize = on);

-- The kernel ledger of one observation point in one epoch; comes with part 0.
CREATE TABLE point_total (
    sensor_id        integer NOT NULL,
    generation       uuid NOT NULL,
    epoch            bigint NOT NULL,
    point_id         integer NOT NULL,
    window_start     timestamptz NOT NULL,
    frames           bigint NOT NULL,
    octets_l2        bigint NOT NULL,
    flow_packets     bigint NOT NULL,
    flow_octets      bigint NOT NULL,
    overflow         bigint NOT NULL,
    overflow_octets  bigint NOT NULL,
    non_ip           bigint NOT NULL,
    malformed        bigint NOT NULL,
    filtered         bigint NOT NULL,
    unsampled        bigint NOT NULL,
    PRIMARY KEY (sensor_id, generation, epoch, point_id),
    FOREIGN KEY (sensor_id, point_id) REFERENCES observation_point
);
CREATE INDEX point_total_by_window ON point_total (sensor_id, window_start);
