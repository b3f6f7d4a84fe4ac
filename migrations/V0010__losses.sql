-- What a sensor could not keep, how its spool and its clock stand, and which sensors are gone.

ALTER TABLE batch
    -- Null where the batch's flows are stored; else why they are not (see ingest/loss.rs), and how much
    -- that was. Such a notice takes the batch's place under its key.
    ADD dropped_reason   smallint,
    ADD dropped_records  bigint NOT NULL DEFAULT 0,
    ADD dropped_packets  bigint NOT NULL DEFAULT 0,
    ADD dropped_octets   bigint NOT NULL DEFAULT 0,
    -- What was added to the sensor's times to place the batch; `window_start_ns` is as the sensor said,
    -- `window_start` is where the batch lies.
    ADD clock_shift_ns   bigint NOT NULL DEFAULT 0,
    -- The sensor's clock was over five minutes off when it sent this, or when it counted it.
    ADD clock_flagged    boolean NOT NULL DEFAULT false,
    -- By how much the sensor's clock was set during the epoch.
    ADD clock_step_ns    bigint NOT NULL DEFAULT 0,
    ADD CHECK ((dropped_reason IS NULL AND dropped_records = 0 AND dropped_packets = 0 AND dropped_octets = 0)
               OR (records = 0 AND packets = 0 AND octets = 0));

ALTER TABLE sensor_status
    -- The spool as the sensor last told, and when that was by our clock.
    ADD spool_at                   timestamptz,
    ADD spool_batches              bigint NOT NULL DEFAULT 0,
    ADD spool_bytes                bigint NOT NULL DEFAULT 0,
    ADD spool_capacity_bytes       bigint NOT NULL DEFAULT 0,
    ADD spool_oldest_age_ms        bigint NOT NULL DEFAULT 0,
    ADD spool_quarantined_batches  bigint NOT NULL DEFAULT 0,
    ADD spool_quarantined_packets  bigint NOT NULL DEFAULT 0,
    ADD spool_degraded             boolean NOT NULL DEFAULT false,
    ADD clock_steps                bigint NOT NULL DEFAULT 0,
    -- The last step, and when the step was stored.
    ADD clock_step_ns              bigint,
    ADD clock_stepped_at           timestamptz;

-- From here on nothing of the sensor is taken; a job deletes what is stored, at last this row.
ALTER TABLE sensor
    ADD deleted_at           timestamptz,
    -- What that job has deleted so far.
    ADD erased_flows         bigint NOT NULL DEFAULT 0,
    ADD erased_rollup_rows   bigint NOT NULL DEFAULT 0,
    ADD erased_batches       bigint NOT NULL DEFAULT 0,
    ADD erased_point_totals  bigint NOT NULL DEFAULT 0;

-- The receipt of a deletion. Whoever still sends with the token is told that its sensor is gone.
CREATE TABLE sensor_gone (
    sensor_id     integer PRIMARY KEY,
    name          text NOT NULL,
    token_sha256  bytea NOT NULL UNIQUE CHECK (octet_length(token_sha256) = 32),
    deleted_at    timestamptz NOT NULL,
    erased_at     timestamptz NOT NULL DEFAULT now(),
    flows         bigint NOT NULL,
    rollup_rows   bigint NOT NULL,
    batches       bigint NOT NULL,
    point_totals  bigint NOT NULL
);
