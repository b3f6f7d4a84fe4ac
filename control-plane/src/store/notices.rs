//! What Postgres tells without being asked: one connection of each instance that listens, and comes back by
//! itself. A notice that is lost meanwhile costs time only: whoever waits for one also looks now and then.

use std::future::poll_fn;
use std::time::Duration;

use tokio::sync::watch;
use tokio_postgres::AsyncMessage;

use super::{Pool, StoreError};

/// First and longest wait before the next try to connect.
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// An idle connection is asked for a sign of life this often: a network that is gone shows.
const PROBE: Duration = Duration::from_secs(10);

/// Listens until `stop` changes. `heard` gets the channel of each notice, and every channel each time the
/// connection is made anew, since nobody knows what was said before.
pub async fn listen(
    pool: &Pool,
    channels: &[&str],
    heard: impl Fn(&str),
    connected: impl Fn(bool),
    mut stop: watch::Receiver<bool>,
) {
    let mut backoff = BACKOFF;
    loop {
        let session = session(pool, channels, &heard, || connected(true));
        let (ended, lived) = tokio::select! {
            ended = session => ended,
            _ = stop.changed() => return,
        };
        connected(false);
        if lived {
            backoff = BACKOFF;
        }
        tracing::warn!(error = %ended, "listening to Postgres ended; it is asked now and then meanwhile");
        tokio::select! {
            () = tokio::time::sleep(backoff) => {}
            _ = stop.changed() => return,
        }
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// One connection, to its end; and whether it ever listened.
async fn session(
    pool: &Pool,
    channels: &[&str],
    heard: &impl Fn(&str),
    connected: impl Fn(),
) -> (StoreError, bool) {
    let (client, mut connection) = match pool.aside().await {
        Ok(both) => both,
        Err(error) => return (error, false),
    };
    let mut lived = false;
    let messages = async {
        loop {
            match poll_fn(|context| connection.poll_message(context)).await {
                Some(Ok(AsyncMessage::Notification(notice))) => heard(notice.channel()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return StoreError::from(error),
                None => return StoreError::Unavailable("the server closed the connection".to_owned()),
            }
        }
    };
    let questions = async {
        let listen = format!("LISTEN {}", channels.join("; LISTEN "));
        if let Err(error) = client.batch_execute(&listen).await {
            return StoreError::from(error);
        }
        lived = true;
        connected();
        for channel in channels {
            heard(channel);
        }
        loop {
            tokio::time::sleep(PROBE).await;
            match tokio::time::timeout(PROBE, client.batch_execute("")).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return StoreError::from(error),
                Err(_) => return StoreError::Timeout(PROBE.as_millis() as u64),
            }
        }
    };
    let ended = tokio::select! {
        ended = messages => ended,
        ended = questions => ended,
    };
    (ended, lived)
}
