//! An event as followers get it: one text for all of them.

use std::time::SystemTime;

use axum::extract::ws::Utf8Bytes;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::store::events::{Event, Topic};

/// Around an event's JSON, so that a WebSocket's messages tell what they are.
const BEFORE: &str = "{\"event\":";
const AFTER: &str = "}";

/// Something that happened.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event, example = json!({
    "cursor": 4711, "topic": "flows", "kind": "flows.stored", "sensor_id": 1, "sensor": "edge-1",
    "at": "2026-01-31T12:00:06.100000000Z",
    "data": {
        "generation": "0197a2c0-5d0e-7c3e-9d8b-6f2a1f6f0b1c", "epoch": 17, "part": 0, "parts": 1,
        "window_start": "2026-01-31T12:00:00.000000000Z", "window_end": "2026-01-31T12:00:05.000000000Z",
        "flows": 41, "packets": 1230, "octets": 905_230
    }
}))]
pub struct Shown {
    /// 1, 2, 3, … without a gap; where to go on from
    pub cursor: i64,
    /// `flows`, `ledger`, `sensors`, `alerts`, `detections`, `devices`, `jobs`, `audit`
    pub topic: &'static str,
    /// What happened: `flows.stored`, `ledger.dropped`, `user.create`, …; `erased` where an erasure took the rest
    pub kind: String,
    pub sensor_id: Option<i32>,
    /// The sensor's name, while there is one
    pub sensor: Option<String>,
    /// When it happened
    pub at: String,
    /// By kind; see docs/stream.md
    #[schema(value_type = Object)]
    pub data: Value,
}

impl From<Event> for Shown {
    fn from(event: Event) -> Self {
        Self {
            cursor: event.cursor,
            topic: event.topic.name(),
            kind: event.kind,
            sensor_id: event.sensor_id,
            sensor: event.sensor,
            at: Timestamp::try_from(event.at).map(|at| format!("{at:.9}")).unwrap_or_default(),
            data: event.body,
        }
    }
}

/// An event that is on its way to any number of followers.
#[derive(Debug)]
pub struct Told {
    pub cursor: i64,
    pub topic: Topic,
    pub sensor_id: Option<i32>,
    pub at: SystemTime,
    frame: Utf8Bytes,
}

impl Told {
    pub fn new(event: Event) -> Result<Self, serde_json::Error> {
        let (cursor, topic, sensor_id, at) = (event.cursor, event.topic, event.sensor_id, event.at);
        let text = serde_json::to_string(&Shown::from(event))?;
        let frame = Utf8Bytes::from([BEFORE, &text, AFTER].concat());
        Ok(Self { cursor, topic, sensor_id, at, frame })
    }

    /// The text of a WebSocket's message; copying it costs nothing.
    #[must_use]
    pub fn frame(&self) -> Utf8Bytes {
        self.frame.clone()
    }

    /// The event alone.
    #[must_use]
    pub fn json(&self) -> &str {
        let text = self.frame.as_str();
        &text[BEFORE.len()..text.len() - AFTER.len()]
    }

    #[must_use]
    pub fn bytes(&self) -> usize {
        self.frame.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_holds_the_event_as_the_replay_shows_it() {
        let event = Event {
            cursor: 7,
            topic: Topic::Jobs,
            kind: "test".to_owned(),
            sensor_id: None,
            sensor: None,
            at: SystemTime::UNIX_EPOCH,
            body: serde_json::json!({"text": "é"}),
        };
        let told = Told::new(event.clone()).expect("JSON");
        let shown = serde_json::to_value(Shown::from(event)).expect("JSON");
        assert_eq!(serde_json::from_str::<Value>(told.json()).expect("JSON"), shown);
        let frame: Value = serde_json::from_str(told.frame().as_str()).expect("JSON");
        assert_eq!(frame["event"], shown);
    }
}
