//! What is stored of a sensor: what it sent goes, and its name in what others wrote.
//!
//! Its credentials stay: they are hashes, and whoever still sends with one is told that its sensor is gone.

use super::{AUDIT_BOUNDS, EVENT_BOUNDS, MAY_ALTER_AUDIT, Place, Step, place};
use crate::store::partitions::Parent;

/// The first rows that are the sensor's, deleted.
macro_rules! delete {
    ($table:literal) => {
        Step::Repeat(concat!(
            "DELETE FROM ",
            $table,
            " WHERE ctid = ANY (ARRAY(
                 SELECT ctid FROM ",
            $table,
            " WHERE sensor_id = $1 LIMIT ",
            chunk!(),
            "))"
        ))
    };
}

/// A member of a JSON text as this program writes it.
macro_rules! member {
    ($key:literal, $value:literal) => {
        concat!("'\"", $key, "\":' || to_json(", $value, ")::text")
    };
}

/// Rows of the log about the sensor or by it, and of its enrolment, its detections and networks that only it sees.
macro_rules! of_log {
    () => {
        "(actor_kind = 'sensor' AND actor_id = $1::text
          OR CASE subject_kind
                 WHEN 'sensor' THEN subject_id = $1::text
                 WHEN 'enrollment' THEN subject_id = ANY (SELECT enrollment_id::text FROM enrollment WHERE sensor_id = $1)
                 WHEN 'detection' THEN subject_id = ANY (SELECT detection_id::text FROM detection WHERE sensor_id = $1)
                 WHEN 'network' THEN before->>'sensor_id' = $1::text OR after->>'sensor_id' = $1::text
                 ELSE false END)"
    };
}

/// Events of the sensor, of the log about it, and of alerts that name it.
macro_rules! of_events {
    () => {
        concat!(
            "(kind <> 'erased' AND (sensor_id = $1 OR CASE topic
                 WHEN 'audit' THEN body->>'actor_kind' = 'sensor' AND body->>'actor_id' = $1::text
                      OR CASE body->>'subject_kind'
                             WHEN 'sensor' THEN body->>'subject_id' = $1::text
                             WHEN 'enrollment' THEN body->>'subject' = $2
                             WHEN 'detection' THEN body->>'subject_id' = ANY (
                                  SELECT detection_id::text FROM detection WHERE sensor_id = $1)
                             WHEN 'network' THEN body->>'subject_id' = ANY (
                                  SELECT subject_id FROM audit WHERE subject_kind = 'network'
                                     AND (before->>'sensor_id' = $1::text OR after->>'sensor_id' = $1::text))
                             ELSE false END
                 WHEN 'alerts' THEN strpos(body::text, ",
            member!("sensor", "$2"),
            ") > 0
                 ELSE false END))"
        )
    };
}

const AUDIT: &str = concat!(
    "UPDATE audit SET
         actor_name = CASE WHEN actor_kind = 'sensor' AND actor_id = $1::text THEN $3 ELSE actor_name END,
         address = CASE WHEN actor_kind = 'sensor' AND actor_id = $1::text THEN NULL ELSE address END,
         subject_name = $3,
         before = before - ARRAY['name', 'site', 'group', 'labels', 'reason', 'prefixes', 'description'],
         after = after - ARRAY['name', 'site', 'group', 'labels', 'reason', 'prefixes', 'description']
     WHERE audit_id > $4 AND audit_id <= $5 AND ",
    of_log!()
);

/// Whoever just queues what alerts said before is over.
const ALERTS_SETTLED: &str = "SELECT FROM job WHERE name = 'alert-rules' FOR UPDATE";

pub const PLACES: &[Place] = &[
    place(
        "flows",
        Some("SELECT coalesce(sum(records), 0)::bigint FROM batch WHERE sensor_id = $1"),
        Step::Pages(Parent::Flow),
    ),
    place("rollups_1m", None, Step::Pages(Parent::Rollup1m)),
    place("rollups_1h", None, Step::Pages(Parent::Rollup1h)),
    place("domain_search", None, Step::Search),
    place("domains", None, nameless_domains!("sensor")),
    place("point_totals", count!("point_total", "sensor_id = $1"), delete!("point_total")),
    place("batches", count!("batch", "sensor_id = $1"), delete!("batch")),
    place(
        "alerts",
        count!("alert", "labels->>'sensor' = $2"),
        Step::Repeat(concat!(
            "UPDATE alert SET group_key = CASE group_key WHEN $2 THEN $3 ELSE group_key END,
                 labels = replace(labels::text, ",
            member!("sensor", "$2"),
            ", ",
            member!("sensor", "$3"),
            ")::json
             WHERE alert_id = ANY (ARRAY(
                 SELECT alert_id FROM alert WHERE labels->>'sensor' = $2 LIMIT ",
            chunk!(),
            "))"
        )),
    ),
    place(
        "alert_deliveries",
        None,
        Step::Repeat(concat!(
            "UPDATE alert_delivery SET alerts = replace(
                 replace(alerts::text, ",
            member!("sensor", "$2"),
            ", ",
            member!("sensor", "$3"),
            "),
                 ",
            member!("group", "$2"),
            ", ",
            member!("group", "$3"),
            ")::json
             WHERE delivery_id = ANY (ARRAY(
                 SELECT delivery_id FROM alert_delivery WHERE strpos(alerts::text, ",
            member!("sensor", "$2"),
            ") > 0
                 LIMIT ",
            chunk!(),
            "))"
        )),
    )
    .after(ALERTS_SETTLED),
    // The log and the events before detections, which tell which rows are theirs.
    place("audit", count!("audit", of_log!()), Step::Walk { bounds: AUDIT_BOUNDS, range: AUDIT })
        .after(MAY_ALTER_AUDIT),
    // Those without a cursor first: they may get one meanwhile, and are found with it.
    place("events_pending", None, pending_events!("sensor_id = NULL, ", of_events!())),
    // Their place stays, so that no reader takes what is gone for what got lost.
    place("events", count!("event", "sensor_id = $1"), events!("sensor_id = NULL, ", of_events!())),
    place("detections", count!("detection", "sensor_id = $1"), delete!("detection")),
    place(
        "enrollments",
        count!("enrollment", "sensor_id = $1"),
        Step::Repeat(
            "UPDATE enrollment SET name = NULL, site = NULL, group_name = NULL, labels = '{}'
             WHERE sensor_id = $1
               AND (name IS NOT NULL OR site IS NOT NULL OR group_name IS NOT NULL OR labels <> '{}')",
        ),
    ),
    place("observation_points", count!("observation_point", "sensor_id = $1"), delete!("observation_point")),
    place("status", count!("sensor_status", "sensor_id = $1"), delete!("sensor_status")),
    place("presence", count!("sensor_presence", "sensor_id = $1"), delete!("sensor_presence")),
    place(
        "configurations",
        count!("sensor_configuration", "sensor_id = $1"),
        delete!("sensor_configuration"),
    ),
    place(
        "configuration_reports",
        count!("sensor_configuration_report", "sensor_id = $1"),
        delete!("sensor_configuration_report"),
    ),
    place("networks", count!("network", "sensor_id = $1"), delete!("network")),
    place("devices", count!("device_fact", "sensor_id = $1"), Step::Devices),
    // After the facts, which a merge takes its own from; and then those of which nothing is left.
    place("merged_devices", count!("device_merge_fact", "sensor_id = $1"), delete!("device_merge_fact")),
    place(
        "merges",
        None,
        Step::Repeat(concat!(
            "DELETE FROM device_merge WHERE merge_id = ANY (ARRAY(
                 SELECT merge_id FROM device_merge AS merge WHERE NOT EXISTS (
                     SELECT FROM device_merge_fact AS fact WHERE fact.merge_id = merge.merge_id AND of_other)
                 LIMIT ",
            chunk!(),
            "))"
        )),
    ),
    // Last: until here the name is taken.
    place(
        "sensor",
        count!("sensor", "sensor_id = $1"),
        Step::Repeat("DELETE FROM sensor WHERE sensor_id = $1 AND deleted_at IS NOT NULL"),
    ),
];
