//! The rest of a body that its handler did not want.
//!
//! A server that answers before it has read the body and then closes makes the sender's kernel throw the
//! answer away: the sender sees a reset connection, not the 413 or 429 that tells it what to do. So the rest
//! is read and dropped first, within bounds.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use weir_wire::limits;

/// Bytes that are read in vain; whoever sends more finds a closed connection.
const MAX_BYTES: usize = 2 * limits::MAX_COMPRESSED;
/// How long is waited for them.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a handler left of its request's body.
pub struct Rest(Arc<Mutex<Body>>);

/// The body that the handler gets: the same bytes, but dropping it drops none of them.
struct Shared(Arc<Mutex<Body>>);

/// Splits a body into what the handler reads and what is left of it afterwards.
pub fn split(body: Body) -> (Body, Rest) {
    let inner = Arc::new(Mutex::new(body));
    (Body::new(Shared(Arc::clone(&inner))), Rest(inner))
}

impl Rest {
    /// Reads and drops what is left, up to the bounds.
    pub async fn discard(self) {
        // The handler has ended, and its half is gone: nobody else holds the lock.
        let mut body = std::mem::take(&mut *lock(&self.0));
        if body.is_end_stream() {
            return;
        }
        let read = async {
            let mut bytes = 0;
            while bytes <= MAX_BYTES {
                let Some(Ok(frame)) = body.frame().await else { break };
                bytes += frame.data_ref().map_or(0, Bytes::len);
            }
        };
        // Too slow a sender is as good as one that sends too much.
        let _ = tokio::time::timeout(PATIENCE, read).await;
    }
}

/// Held for one poll, and never by two at once.
fn lock(body: &Mutex<Body>) -> MutexGuard<'_, Body> {
    body.lock().unwrap_or_else(PoisonError::into_inner)
}

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *lock(&self.0)).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.0).is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        lock(&self.0).size_hint()
    }
}
