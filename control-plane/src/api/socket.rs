//! A follower on a WebSocket: one task, which writes, listens for pongs, and says goodbye.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::time::MissedTickBehavior;

use crate::config;
use crate::stream::{End, Feed, Follower};

/// Serves until one of both ends it.
pub async fn serve(socket: WebSocket, mut follower: Follower, settings: config::Stream) {
    let (mut sink, mut messages) = socket.split();
    let heard = Heard::now();
    let end = tokio::select! {
        biased;
        end = follower.ending.wait() => end,
        end = listen(&mut messages, &heard) => end,
        end = heard.silence(settings.idle_timeout()) => end,
        end = write(&mut sink, &mut follower.feed, settings.heartbeat()) => end,
    };
    let reason = follower.feed.over(end);
    if end == End::Left {
        return;
    }
    let frame = CloseFrame { code: end.code(), reason: reason.into() };
    // What is on its way goes first. A client that does not read hears no goodbye, and is cut off.
    let goodbye = async {
        if sink.send(Message::Close(Some(frame))).await.is_ok() {
            while let Some(Ok(_)) = messages.next().await {}
        }
    };
    let _ = tokio::time::timeout(settings.close_timeout(), goodbye).await;
}

async fn write(sink: &mut SplitSink<WebSocket, Message>, feed: &mut Feed, heartbeat: Duration) -> End {
    let mut beats = tokio::time::interval(heartbeat);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beats.reset();
    if sink.send(at("hello", feed.cursor())).await.is_err() {
        return End::Left;
    }
    loop {
        tokio::select! {
            next = feed.next() => {
                let mut next = match next {
                    Ok(told) => Some(told),
                    Err(end) => return end,
                };
                // Sent once it is in the sink: from there it leaves before any goodbye.
                while let Some(told) = next {
                    if sink.feed(Message::Text(told.frame())).await.is_err() {
                        return End::Left;
                    }
                    feed.sent(&told);
                    next = feed.ready();
                }
            }
            _ = beats.tick() => {
                let beat = at("heartbeat", feed.position());
                if sink.feed(beat).await.is_err() || sink.feed(Message::Ping(Bytes::new())).await.is_err() {
                    return End::Left;
                }
            }
        }
        if sink.flush().await.is_err() {
            return End::Left;
        }
    }
}

fn at(what: &str, cursor: i64) -> Message {
    Message::Text(json!({ what: { "cursor": cursor } }).to_string().into())
}

async fn listen(messages: &mut SplitStream<WebSocket>, heard: &Heard) -> End {
    loop {
        match messages.next().await {
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => heard.again(),
            Some(Ok(Message::Text(_) | Message::Binary(_))) => return End::Unwanted,
            Some(Ok(Message::Close(_)) | Err(_)) | None => return End::Left,
        }
    }
}

/// When the client was last heard of.
struct Heard {
    began: Instant,
    after_ms: AtomicU64,
}

impl Heard {
    fn now() -> Self {
        Self { began: Instant::now(), after_ms: AtomicU64::new(0) }
    }

    fn again(&self) {
        self.after_ms.store(self.began.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Returns when nothing was heard for so long.
    async fn silence(&self, bound: Duration) -> End {
        loop {
            let last = Duration::from_millis(self.after_ms.load(Ordering::Relaxed));
            let left = (last + bound).saturating_sub(self.began.elapsed());
            if left.is_zero() {
                return End::Idle;
            }
            tokio::time::sleep(left).await;
        }
    }
}
