//! A follower on Server-Sent Events: a body that is written as its client takes it.

use std::convert::Infallible;
use std::fmt::Write as _;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use serde_json::json;
use tokio::time::{Interval, MissedTickBehavior};

use crate::config;
use crate::stream::{End, Follower, Told};

/// Bytes of events that are written at once.
const CHUNK: usize = 32 << 10;
/// How long an `EventSource` waits before it connects again.
const RETRY_MS: u32 = 2_000;

/// The answer; dropping its body ends the stream.
pub fn response(follower: Follower, settings: &config::Stream) -> Response {
    let mut beats = tokio::time::interval(settings.heartbeat());
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beats.reset();
    let writer = Writer { follower, beats, state: State::New };
    let body = Body::from_stream(stream::unfold(writer, |mut writer| async {
        let text = writer.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(text)), writer))
    }));
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // Proxies that gather answers would hold events back.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, body).into_response()
}

enum State {
    New,
    Open,
    Over,
}

struct Writer {
    follower: Follower,
    beats: Interval,
    state: State,
}

impl Writer {
    async fn next(&mut self) -> Option<String> {
        match self.state {
            State::New => {
                self.state = State::Open;
                let cursor = self.follower.feed.cursor();
                return Some(format!("retry: {RETRY_MS}\n{}", at("hello", cursor)));
            }
            State::Open => {}
            State::Over => return None,
        }
        let feed = &mut self.follower.feed;
        let end = tokio::select! {
            biased;
            end = self.follower.ending.wait() => end,
            next = feed.next() => match next {
                Err(end) => end,
                Ok(told) => {
                    let mut text = String::new();
                    let mut next = Some(told);
                    while let Some(told) = next {
                        event(&mut text, &told);
                        feed.sent(&told);
                        next = if text.len() < CHUNK { feed.ready() } else { None };
                    }
                    return Some(text);
                }
            },
            _ = self.beats.tick() => return Some(at("heartbeat", feed.position())),
        };
        self.state = State::Over;
        let reason = feed.over(end);
        let data = json!({ "code": end.code(), "reason": reason, "cursor": feed.cursor() });
        Some(format!("event: end\nid: {}\ndata: {data}\n\n", feed.cursor()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !matches!(self.state, State::Over) {
            self.follower.feed.over(End::Left);
        }
    }
}

fn event(text: &mut String, told: &Told) {
    // JSON has no line breaks outside of strings, and in strings they are escaped.
    let (topic, cursor, json) = (told.topic.name(), told.cursor, told.json());
    let _ = write!(text, "event: {topic}\nid: {cursor}\ndata: {json}\n\n");
}

fn at(what: &str, cursor: i64) -> String {
    let data = json!({ "cursor": cursor });
    format!("event: {what}\nid: {cursor}\ndata: {data}\n\n")
}
