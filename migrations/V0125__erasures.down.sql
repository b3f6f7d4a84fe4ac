CREATE OR REPLACE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only';
END $$;
ALTER TABLE sensor
    ADD erased_flows         bigint NOT NULL DEFAULT 0,
    ADD erased_rollup_rows   bigint NOT NULL DEFAULT 0,
    ADD erased_batches       bigint NOT NULL DEFAULT 0,
    ADD erased_point_totals  bigint NOT NULL DEFAULT 0,
    ADD erased_events        bigint NOT NULL DEFAULT 0,
    ADD erased_detections    bigint NOT NULL DEFAULT 0;
CREATE TABLE sensor_gone (
    sensor_id     integer PRIMARY KEY,
    name          text NOT NULL,
    deleted_at    timestamptz NOT NULL,
    erased_at     timestamptz NOT NULL DEFAULT now(),
    flows         bigint NOT NULL,
    rollup_rows   bigint NOT NULL,
    batches       bigint NOT NULL,
    point_totals  bigint NOT NULL,
    events        bigint NOT NULL DEFAULT 0,
    detections    bigint NOT NULL DEFAULT 0
);
INSERT INTO sensor_gone
SELECT subject_id, 'erased', requested_at, erasure.done_at,
       coalesce(sum(erased) FILTER (WHERE place = 'flows'), 0),
       coalesce(sum(erased) FILTER (WHERE place IN ('rollups_1m', 'rollups_1h')), 0),
       coalesce(sum(erased) FILTER (WHERE place = 'batches'), 0),
       coalesce(sum(erased) FILTER (WHERE place = 'point_totals'), 0),
       coalesce(sum(erased) FILTER (WHERE place = 'events'), 0),
       coalesce(sum(erased) FILTER (WHERE place = 'detections'), 0)
FROM erasure LEFT JOIN erasure_place USING (erasure_id)
WHERE kind = 'sensor' AND erasure.done_at IS NOT NULL GROUP BY erasure_id;
DROP TABLE dictionary_edition;
DROP TABLE erasure_confirmation;
DROP TABLE erasure_domain;
DROP TABLE erasure_place;
DROP TABLE erasure;
