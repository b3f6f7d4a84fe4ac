DROP TABLE sensor_gone;
ALTER TABLE sensor
    DROP deleted_at, DROP erased_flows, DROP erased_rollup_rows, DROP erased_batches, DROP erased_point_totals;
ALTER TABLE sensor_status
    DROP spool_at, DROP spool_batches, DROP spool_bytes, DROP spool_capacity_bytes, DROP spool_oldest_age_ms,
    DROP spool_quarantined_batches, DROP spool_quarantined_packets, DROP spool_degraded,
    DROP clock_steps, DROP clock_step_ns, DROP clock_stepped_at;
-- Also drops the CHECK that names its columns.
ALTER TABLE batch
    DROP dropped_reason, DROP dropped_records, DROP dropped_packets, DROP dropped_octets,
    DROP clock_shift_ns, DROP clock_flagged, DROP clock_step_ns;
