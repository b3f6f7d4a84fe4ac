//! `tail`: what happened and what happens. A connection that breaks is made again from the last cursor, and while
//! no stream is to be had, what happens is read in pages: nothing is shown twice, and nothing is left out unsaid.

use std::time::Duration;

use serde_json::Value;

use super::Caller;
use crate::cli::TailArgs;
use crate::client::shapes::Event;
use crate::client::{ClientError, Query, route};
use crate::show::{self, time};

/// Bytes of one event.
const MAX_EVENT: usize = 1 << 20;
/// A stream says something every quarter of a minute; one that says nothing for so long is dead.
const SILENCE: Duration = Duration::from_secs(90);
/// Waits between attempts.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// Where the reader is.
struct Reader {
    caller: Caller,
    which: Query,
    after: Option<i64>,
}

pub async fn tail(caller: Caller, args: &TailArgs) -> Result<(), ClientError> {
    let mut which: Query = Vec::new();
    which.extend(args.topic.clone().map(|topic| ("topic", topic)));
    which.extend(args.sensor.clone().map(|sensor| ("sensor", sensor)));
    let mut reader = Reader { caller, which, after: args.after.map(u64::cast_signed) };
    if !args.follow {
        return reader.replay().await;
    }
    let mut wait = FIRST_WAIT;
    loop {
        let before = reader.after;
        let ended = match reader.caller.renew().await {
            Ok(()) => reader.stream().await,
            Err(error) => Err(error),
        };
        match ended {
            Ok(()) => {}
            Err(error) if error.status() == Some(410) => {
                show::note(&format!(
                    "what came after {} is past its retention; going on with what comes now",
                    before.unwrap_or(0)
                ));
                reader.after = None;
            }
            // An access token that ended with its stream is followed by the next one.
            Err(error)
                if error.status() == Some(401)
                    && reader.caller.session.is_some()
                    && reader.after != before => {}
            Err(error) if error.is_passing() => {
                show::note(&format!("{error}; trying again"));
                // A server that has no room for a stream may have some for a question.
                if reader.after.is_some()
                    && let Err(error) = reader.replay().await
                    && !error.is_passing()
                {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
        wait = if reader.after == before { (wait * 2).min(LONGEST_WAIT) } else { FIRST_WAIT };
        tokio::time::sleep(wait).await;
    }
}

impl Reader {
    fn query(&self) -> Query {
        let after = self.after.map(|after| ("after", after.to_string()));
        self.which.iter().cloned().chain(after).collect()
    }

    /// Everything up to now.
    async fn replay(&mut self) -> Result<(), ClientError> {
        let mut last = None;
        let json = self.caller.json;
        let took = self.caller.client.pages((route::REPLAY, ""), self.query(), None, |event: Value| {
            last = event["cursor"].as_i64().or(last);
            tell(event, json)
        });
        let cursor = took.await;
        // What was shown is not shown again, even if the next page did not come.
        self.after = last.max(self.after);
        self.after = cursor?.max(self.after);
        Ok(())
    }

    /// Events as they come, until the stream ends.
    async fn stream(&mut self) -> Result<(), ClientError> {
        let mut response = self.caller.client.open(route::STREAM, &self.query()).await?;
        let mut buffer = Vec::new();
        loop {
            let chunk = tokio::time::timeout(SILENCE, self.caller.client.chunk(&mut response)).await;
            let Ok(chunk) = chunk else { return Ok(()) };
            let Some(chunk) = chunk? else { return Ok(()) };
            buffer.extend_from_slice(&chunk);
            while let Some(end) = buffer.windows(2).position(|two| two == b"\n\n") {
                let rest = buffer.split_off(end + 2);
                let block = String::from_utf8_lossy(&buffer).into_owned();
                buffer = rest;
                if self.take(&block)? {
                    return Ok(());
                }
            }
            if buffer.len() > MAX_EVENT {
                let url = self.caller.server.url.clone();
                return Err(ClientError::Unexpected { url, error: "an event has no end".to_owned() });
            }
        }
    }

    /// One event of the stream; whether it is the last.
    fn take(&mut self, block: &str) -> Result<bool, ClientError> {
        let field = |name: &str| {
            block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        let kind = field("event").unwrap_or_default();
        let data: Value = serde_json::from_str(field("data").unwrap_or("null")).unwrap_or(Value::Null);
        let cursor = field("id").and_then(|id| id.parse().ok());
        match kind {
            "hello" | "heartbeat" | "" => {}
            "end" => {
                let reason = data["reason"].as_str().unwrap_or_default();
                show::note(&format!("the server ended the stream: {reason}; resuming"));
                self.after = cursor.max(self.after);
                return Ok(true);
            }
            _ => tell(data, self.caller.json)?,
        }
        self.after = cursor.max(self.after);
        Ok(false)
    }
}

fn tell(event: Value, json: bool) -> Result<(), ClientError> {
    if json {
        return show::json(&event);
    }
    let Ok(event) = serde_json::from_value::<Event>(event) else { return Ok(()) };
    let sensor = event.sensor.unwrap_or_else(|| "-".to_owned());
    let text =
        format!("{} {:>8} {:<24} {:<16} {}", time(&event.at), event.cursor, event.kind, sensor, event.data);
    show::line(&show::safe(&text))
}
