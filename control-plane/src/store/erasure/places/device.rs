//! What is stored of a device: its record goes at once, what tells of it after, and its address in what was counted.
//!
//! What to look for was written down when it ended (`store::devices`): the numbers that it had, its keys, and its
//! addresses with the times at which they were its.

use super::{AUDIT_BOUNDS, EVENT_BOUNDS, MAY_ALTER_AUDIT, Place, Step, place};
use crate::store::partitions::Parent;

macro_rules! traces {
    ($which:literal) => {
        concat!(
            "(SELECT value, held_from, held_until FROM erasure_trace JOIN erasure USING (erasure_id)
              WHERE erasure.kind = 'device' AND erasure.subject_id = $1 AND erasure_trace.kind ",
            $which,
            ")"
        )
    };
}

/// Text ids of the device and of those that were joined to it.
macro_rules! ids {
    () => {
        concat!("(SELECT value FROM ", traces!("= 'id'"), " AS trace)")
    };
}

/// Whether a detection was there while the device was what a trace says, where its sensor may have seen it.
macro_rules! while_held {
    () => {
        concat!(
            "detection.sensor_id IN (SELECT value::integer FROM ",
            traces!("= 'sensor'"),
            " AS seer)
             AND (held_from IS NULL OR detection.first_seen <= held_until AND detection.last_seen >= held_from)"
        )
    };
}

/// Detections whose subject is the device, or is it in part (`10.0.0.1 > 192.0.2.1:53`).
macro_rules! detections {
    () => {
        concat!(
            "SELECT detection_id FROM detection WHERE EXISTS (
                 SELECT FROM ",
            traces!("IN ('key', 'address')"),
            " AS trace WHERE ",
            while_held!(),
            r" AND (host(detection.address) = trace.value OR trace.value = ANY (regexp_split_to_array(
                   regexp_replace(detection.subject, '(\]|\.[0-9]+):[0-9]+$', '\1'), '[][ >]+'))))"
        )
    };
}

macro_rules! of_log {
    () => {
        concat!(
            "(action <> 'device.remove' AND CASE subject_kind
                 WHEN 'device' THEN subject_id IN ",
            ids!(),
            // Of whom it was a part, for a while.
            "         OR action IN ('device.merge', 'device.split')
                         AND (before->1->>'id' IN ",
            ids!(),
            "                 OR after->1->>'id' IN ",
            ids!(),
            ")    WHEN 'detection' THEN subject_id IN (SELECT detection_id::text FROM (",
            detections!(),
            ") AS theirs)
                 ELSE false END)"
        )
    };
}

/// Other bodies are not looked into: they may hold what Postgres cannot show.
macro_rules! of_events {
    () => {
        concat!(
            "(kind NOT IN ('erased', 'device.remove') AND CASE topic
                 WHEN 'devices' THEN body->>'id' IN ",
            ids!(),
            "         OR body->>'from' IN ",
            ids!(),
            "    WHEN 'detections' THEN body->>'id' IN (SELECT detection_id::text FROM (",
            detections!(),
            ") AS theirs)
                 WHEN 'audit' THEN CASE body->>'subject_kind'
                      WHEN 'device' THEN body->>'subject_id' IN ",
            ids!(),
            "         WHEN 'detection' THEN body->>'subject_id' IN (SELECT detection_id::text FROM (",
            detections!(),
            ") AS theirs)
                      ELSE false END
                 ELSE false END)"
        )
    };
}

const AUDIT: &str = concat!(
    "UPDATE audit SET subject_name = $3, before = NULL, after = NULL
     WHERE audit_id > $4 AND audit_id <= $5 AND ",
    of_log!()
);

/// Values in what speaks for detections of others.
const EVIDENCE: &str = concat!(
    "UPDATE detection SET evidence = (
         SELECT coalesce(jsonb_object_agg(name, CASE jsonb_typeof(list) WHEN 'array' THEN (
             SELECT coalesce(jsonb_agg(CASE WHEN item #>> '{}' IN (
                        SELECT value FROM ",
    traces!("IN ('key', 'address')"),
    " AS trace WHERE ",
    while_held!(),
    "           ) THEN to_jsonb($3) ELSE item END ORDER BY position), '[]')
             FROM jsonb_array_elements(list) WITH ORDINALITY AS items (item, position)
         ) ELSE list END), '{}') FROM jsonb_each(evidence) AS entries (name, list))
     WHERE detection_id = ANY (ARRAY(
         SELECT detection_id FROM detection WHERE EXISTS (
             SELECT FROM ",
    traces!("IN ('key', 'address')"),
    " AS trace
             WHERE strpos(evidence::text, to_jsonb(trace.value)::text) > 0 AND ",
    while_held!(),
    "    )
         ORDER BY sensor_id, kind, subject LIMIT ",
    chunk!(),
    " FOR UPDATE))"
);

pub const PLACES: &[Place] = &[
    place(
        "facts",
        count!("device_fact", "device_id = $1"),
        Step::AtOnce("DELETE FROM device_fact WHERE device_id = $1"),
    ),
    place(
        "keys",
        count!("device_key", "device_id = $1"),
        Step::AtOnce("DELETE FROM device_key WHERE device_id = $1"),
    ),
    place(
        "device",
        count!("device", "device_id = $1"),
        Step::AtOnce("DELETE FROM device WHERE device_id = $1"),
    ),
    // Also those of devices that became this one.
    place(
        "merges",
        count!("device_merge", "device_id = $1"),
        Step::AtOnce(concat!(
            "DELETE FROM device_merge WHERE device_id IN (SELECT value::bigint FROM ",
            traces!("= 'id'"),
            " AS trace)"
        )),
    ),
    place("flows", None, Step::Pages(Parent::Flow)),
    place("domain_search", None, Step::Search),
    // After the search: sums by the names that only its flows had are there, too.
    place("rollups_1m", None, Step::Pages(Parent::Rollup1m)),
    place("rollups_1h", None, Step::Pages(Parent::Rollup1h)),
    place("domains", None, nameless_domains!("device")),
    // The log and the events before detections, which tell which rows are theirs.
    place(
        "audit",
        count!("audit", "subject_kind = 'device' AND subject_id = $1::text"),
        Step::Walk { bounds: AUDIT_BOUNDS, range: AUDIT },
    )
    .after(MAY_ALTER_AUDIT),
    // Those without a cursor first: they may get one meanwhile, and are found with it.
    place("events_pending", None, pending_events!("sensor_id = NULL, ", of_events!())),
    // Their place stays, so that no reader takes what is gone for what got lost.
    place("events", None, events!("sensor_id = NULL, ", of_events!())),
    // Batches lock them in this order, too.
    place(
        "detections",
        None,
        Step::Repeat(concat!(
            "DELETE FROM detection WHERE detection_id = ANY (ARRAY(",
            detections!(),
            " ORDER BY sensor_id, kind, subject LIMIT ",
            chunk!(),
            " FOR UPDATE))"
        )),
    ),
    place("evidence", None, Step::Repeat(EVIDENCE)),
];
