-- What is being erased, what was, and the confirmations that begin it (docs/decisions/0120-erasure.md).

-- One row a subject, for good: the receipt, and the mark that keeps it from coming back.
CREATE TABLE erasure (
    erasure_id    integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind          text NOT NULL CHECK (kind ~ '^[a-z_]{1,16}$'),
    subject_id    bigint NOT NULL,
    -- What traces are found by; goes with the last of them.
    name          text,
    -- The API tokens of a user, which rows of the audit log name by number.
    token_ids     text[] NOT NULL DEFAULT '{}',
    -- Kind and id, no name.
    requested_by  text NOT NULL,
    requested_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    done_at       timestamptz,
    UNIQUE (kind, subject_id),
    CHECK (done_at IS NULL OR name IS NULL)
);
CREATE INDEX erasure_open ON erasure (erasure_id) WHERE done_at IS NULL;

CREATE TABLE erasure_place (
    erasure_id  integer NOT NULL REFERENCES erasure,
    place       text NOT NULL,
    position    integer NOT NULL,
    -- What the confirmation said; null where it was not counted ahead.
    announced   bigint,
    erased      bigint NOT NULL DEFAULT 0,
    -- Where the next step begins: a partition, and how far it is.
    partition   text,
    reached     bigint NOT NULL DEFAULT 0,
    -- Of domains: those that were used after this day stay.
    marked      date,
    done_at     timestamptz,
    PRIMARY KEY (erasure_id, place)
);

-- Domains that an erased sensor's flows had, until it is known whether others have them too.
CREATE TABLE erasure_domain (
    erasure_id  integer NOT NULL REFERENCES erasure,
    domain_id   integer NOT NULL,
    PRIMARY KEY (erasure_id, domain_id)
);

-- The last one that somebody was given for a subject; only the hash is kept.
CREATE TABLE erasure_confirmation (
    principal     text NOT NULL,
    kind          text NOT NULL,
    subject_id    bigint NOT NULL,
    token_sha256  bytea NOT NULL UNIQUE CHECK (octet_length(token_sha256) = 32),
    -- The counts that it confirms, by place.
    announced     json NOT NULL,
    expires_at    timestamptz NOT NULL,
    PRIMARY KEY (principal, kind, subject_id)
);

-- Counts up when names are deleted: an instance that remembers their numbers from before looks them up again.
CREATE TABLE dictionary_edition (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    edition  bigint NOT NULL
) WITH (fillfactor = 10);
INSERT INTO dictionary_edition (edition) VALUES (0);

-- Sensors that are gone, or going.
INSERT INTO erasure (kind, subject_id, requested_by, requested_at, done_at)
SELECT 'sensor', sensor_id, 'unknown', deleted_at, erased_at FROM sensor_gone;
INSERT INTO erasure_place (erasure_id, place, position, erased, done_at)
SELECT erasure_id, place, 0, erased, done_at
FROM erasure JOIN sensor_gone ON kind = 'sensor' AND subject_id = sensor_id
CROSS JOIN LATERAL (VALUES ('flows', flows), ('rollups_1m', rollup_rows), ('batches', batches),
                           ('point_totals', point_totals), ('events', events), ('detections', detections))
                   AS gone (place, erased);
INSERT INTO erasure (kind, subject_id, name, requested_by, requested_at)
SELECT 'sensor', sensor_id, name, 'unknown', deleted_at FROM sensor WHERE deleted_at IS NOT NULL;
DROP TABLE sensor_gone;
ALTER TABLE sensor
    DROP erased_flows, DROP erased_rollup_rows, DROP erased_batches, DROP erased_point_totals,
    DROP erased_events, DROP erased_detections;

-- Still append-only, but for an erasure, which takes names and addresses out of rows that stay.
CREATE OR REPLACE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND current_setting('weir.erasing', true) = 'on' THEN
        IF (NEW.audit_id, NEW.at, NEW.actor_kind, NEW.actor_id, NEW.action, NEW.subject_kind, NEW.subject_id,
            NEW.request_id) IS NOT DISTINCT FROM
           (OLD.audit_id, OLD.at, OLD.actor_kind, OLD.actor_id, OLD.action, OLD.subject_kind, OLD.subject_id,
            OLD.request_id) THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'the audit log is append-only';
END $$;
