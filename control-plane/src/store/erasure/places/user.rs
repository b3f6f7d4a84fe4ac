//! What is stored of a user: who they are goes at once, their name in what others did and wrote goes after.
//!
//! The audit log keeps who did what, by number: names, addresses and user agents go. Of events that told of it only
//! the cursor stays.

use super::{AUDIT_BOUNDS, EVENT_BOUNDS, MAY_ALTER_AUDIT, Place, Step, place};

macro_rules! tokens {
    () => {
        "(SELECT unnest(token_ids) FROM erasure WHERE kind = 'user' AND subject_id = $1)"
    };
}

/// By the user or one of their tokens; or about them, their sessions, their tokens.
macro_rules! theirs {
    ($actor_kind:literal, $actor_id:literal, $subject_kind:literal, $subject_id:literal, $subject:literal) => {
        concat!(
            "(CASE ",
            $actor_kind,
            " WHEN 'user' THEN ",
            $actor_id,
            " = $1::text
                                     WHEN 'token' THEN ",
            $actor_id,
            " = ANY ",
            tokens!(),
            " ELSE false END
              OR CASE ",
            $subject_kind,
            " WHEN 'user' THEN ",
            $subject_id,
            " = $1::text
                                          WHEN 'session' THEN ",
            $subject,
            " = $2
                                          WHEN 'token' THEN ",
            $subject_id,
            " = ANY ",
            tokens!(),
            " ELSE false END)"
        )
    };
}

macro_rules! of_log {
    () => {
        theirs!("actor_kind", "actor_id", "subject_kind", "subject_id", "subject_name")
    };
}

/// An event of the log's topic; no other topic names people. Other bodies are not looked into: they may hold what
/// Postgres cannot show.
macro_rules! of_events {
    () => {
        concat!(
            "CASE WHEN topic <> 'audit' OR kind = 'erased' THEN false ELSE ",
            theirs!(
                "body->>'actor_kind'",
                "body->>'actor_id'",
                "body->>'subject_kind'",
                "body->>'subject_id'",
                "body->>'subject'"
            ),
            " END"
        )
    };
}

const AUDIT: &str = concat!(
    "UPDATE audit SET
         actor_name = CASE WHEN by_them THEN $3 ELSE actor_name END,
         subject_name = CASE WHEN about_them THEN $3 ELSE subject_name END,
         address = CASE WHEN by_them OR about_them AND actor_kind = 'nobody' THEN NULL ELSE address END,
         before = CASE WHEN extras THEN NULL ELSE regexp_replace(before::text, named, '\\1' || $3 || '\"', 'g')::jsonb END,
         after = CASE WHEN extras THEN NULL ELSE regexp_replace(after::text, named, '\\1' || $3 || '\"', 'g')::jsonb END
     FROM (
         SELECT audit_id AS found_id, named,
                CASE actor_kind WHEN 'user' THEN actor_id = $1::text WHEN 'token' THEN actor_id = ANY ",
    tokens!(),
    "                           ELSE false END AS by_them,
                CASE subject_kind WHEN 'user' THEN subject_id = $1::text WHEN 'session' THEN subject_name = $2
                                  WHEN 'token' THEN subject_id = ANY ",
    tokens!(),
    "                             ELSE false END AS about_them,
                -- User agents, and what tokens are called and may do.
                subject_kind = 'token' AND subject_id = ANY ",
    tokens!(),
    "               OR subject_kind = 'session' AND subject_name = $2 AS extras
         FROM audit,
              (SELECT '(\"(by|user|author|created_by|state_by)\": \")' || replace($2, '.', '\\.') || '\"') AS words (named)
         WHERE audit_id > $4 AND audit_id <= $5
           AND (",
    of_log!(),
    "           OR before::text ~ named OR after::text ~ named)
     ) AS found
     WHERE audit_id = found_id"
);

pub const PLACES: &[Place] = &[
    // Refresh tokens and tickets of streams go with these two.
    place(
        "sessions",
        count!("session", "user_id = $1"),
        Step::AtOnce("DELETE FROM session WHERE user_id = $1"),
    ),
    place(
        "tokens",
        count!("api_token", "user_id = $1"),
        Step::AtOnce("DELETE FROM api_token WHERE user_id = $1"),
    ),
    place(
        "failed_logins",
        count!("login_throttle", "kind = 0 AND bucket = $1"),
        Step::AtOnce("DELETE FROM login_throttle WHERE kind = 0 AND bucket = $1"),
    ),
    place(
        "account",
        count!("account", "user_id = $1"),
        Step::AtOnce("DELETE FROM account WHERE user_id = $1"),
    ),
    place(
        "enrollments",
        count!("enrollment", "created_by = $2"),
        Step::Repeat("UPDATE enrollment SET created_by = $3 WHERE created_by = $2"),
    ),
    place(
        "silences",
        count!("alert_silence", "author = $2"),
        Step::Repeat("UPDATE alert_silence SET author = $3 WHERE author = $2"),
    ),
    place(
        "configurations",
        count!("sensor_configuration", "author = $2"),
        Step::Repeat("UPDATE sensor_configuration SET author = $3 WHERE author = $2"),
    ),
    place(
        "detections",
        count!("detection", "state_by = $2"),
        Step::Repeat(concat!(
            "UPDATE detection SET state_by = $3 WHERE ctid = ANY (ARRAY(
                 SELECT ctid FROM detection WHERE state_by = $2 LIMIT ",
            chunk!(),
            "))"
        )),
    ),
    place("audit", count!("audit", of_log!()), Step::Walk { bounds: AUDIT_BOUNDS, range: AUDIT })
        .after(MAY_ALTER_AUDIT),
    // Those without a cursor first: they may get one meanwhile, and are found with it.
    place("events_pending", None, pending_events!("", of_events!())),
    // Their place stays, so that no reader takes what is gone for what got lost.
    place("events", None, events!("", of_events!())),
];
