//! Who follows, and the fan-out to them: a bounded queue each, and no wait for any.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc, oneshot};

use super::{End, Shared, Told};
use crate::auth::{Principal, Who};
use crate::config;
use crate::store::events::{Event, Selection, Topic};
use crate::telemetry::Metrics;

/// How a follower is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    WebSocket,
    EventStream,
}

impl Transport {
    /// For metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::EventStream => "sse",
        }
    }
}

/// Why somebody may not follow now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The caller has as many streams as one may have.
    Caller,
    /// The instance has.
    Total,
    /// The instance stops.
    Stopping,
}

/// All followers of this instance.
pub(super) struct Hub {
    members: Mutex<Members>,
    /// All events up to this one are in the queues of those who want them.
    position: AtomicI64,
    /// Somebody left.
    left: Notify,
    settings: config::Stream,
    metrics: Metrics,
}

#[derive(Default)]
struct Members {
    by_id: HashMap<u64, Member>,
    next_id: u64,
    closed: bool,
}

/// A follower as the hub knows it.
pub(super) struct Member {
    pub(super) principal: Principal,
    /// As resolved when it came, so that a role that shrinks is seen.
    pub(super) topics: Vec<Topic>,
    selection: Selection,
    /// Taken when it is told to end.
    end: Option<oneshot::Sender<End>>,
    /// None before it has caught up, and after it fell behind.
    queue: Option<Queue>,
}

struct Queue {
    events: mpsc::Sender<Arc<Told>>,
    bytes: Arc<AtomicUsize>,
}

/// A follower's end of its queue.
pub(super) struct Live {
    pub(super) events: mpsc::Receiver<Arc<Told>>,
    /// Of what waits in there.
    pub(super) bytes: Arc<AtomicUsize>,
}

/// A place among the followers; given back when dropped.
pub(super) struct Place {
    shared: Arc<Shared>,
    pub(super) id: u64,
    transport: Transport,
    /// For whoever watches over the stream.
    pub(super) end: Option<oneshot::Receiver<End>>,
}

impl Member {
    pub(super) fn user_id(&self) -> Option<i32> {
        match self.principal.who {
            Who::AdminToken => None,
            Who::User { user_id, .. } => Some(user_id),
            Who::Machine { user_id, .. } => user_id,
        }
    }
}

impl Hub {
    pub(super) fn new(position: i64, settings: &config::Stream, metrics: Metrics) -> Self {
        Self {
            members: Mutex::default(),
            position: AtomicI64::new(position),
            left: Notify::new(),
            settings: settings.clone(),
            metrics,
        }
    }

    pub(super) fn position(&self) -> i64 {
        self.position.load(Ordering::Acquire)
    }

    /// Puts the next events into the queues of those who want them. Whose queue is full falls behind.
    pub(super) fn deliver(&self, events: Vec<Event>, position: i64) {
        let mut members = self.members();
        if !members.by_id.is_empty() {
            let told: Vec<Arc<Told>> = events
                .into_iter()
                .filter_map(|event| match Told::new(event) {
                    Ok(told) => Some(Arc::new(told)),
                    Err(error) => {
                        tracing::error!(%error, "an event cannot be shown");
                        None
                    }
                })
                .collect();
            for member in members.by_id.values_mut() {
                member.take(&told, self.settings.buffer_bytes);
            }
        }
        // With the lock held: who joins sees a position that fits what is in the queues.
        self.position.store(position, Ordering::Release);
        self.metrics.stream.cursor.set(position);
    }

    /// From here on the follower's queue is filled; gives the cursor up to which it is not.
    pub(super) fn go_live(&self, id: u64) -> (i64, Live) {
        let (sender, events) = mpsc::channel(self.settings.buffer_events);
        let bytes = Arc::new(AtomicUsize::new(0));
        let mut members = self.members();
        if let Some(member) = members.by_id.get_mut(&id) {
            member.queue = Some(Queue { events: sender, bytes: Arc::clone(&bytes) });
        }
        (self.position(), Live { events, bytes })
    }

    /// Ends those of whom `why` says so.
    pub(super) fn end_where(&self, why: impl Fn(&Member) -> Option<End>) {
        for member in self.members().by_id.values_mut() {
            if let Some(end) = why(member) {
                member.finish(end);
            }
        }
    }

    /// What `look` says of each follower.
    pub(super) fn survey<T>(&self, look: impl Fn(&Member) -> Option<T>) -> Vec<T> {
        self.members().by_id.values().filter_map(look).collect()
    }

    /// Ends everybody, takes nobody any more, and returns when the last one has left.
    pub(super) async fn close(&self) {
        self.members().closed = true;
        self.end_where(|_| Some(End::Stopping));
        loop {
            let left = self.left.notified();
            if self.members().by_id.is_empty() {
                return;
            }
            left.await;
        }
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        // Held for no `await`; a panic elsewhere leaves the map whole.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    fn take(&mut self, told: &[Arc<Told>], max_bytes: usize) {
        let Some(queue) = &self.queue else { return };
        for event in told.iter().filter(|event| self.selection.holds(event.topic, event.sensor_id)) {
            let bytes = event.bytes();
            let waiting = queue.bytes.fetch_add(bytes, Ordering::AcqRel) + bytes;
            if waiting > max_bytes || queue.events.try_send(Arc::clone(event)).is_err() {
                self.finish(End::Behind);
                return;
            }
        }
    }

    fn finish(&mut self, end: End) {
        self.queue = None;
        if let Some(sender) = self.end.take() {
            // It may have left at the same time.
            let _ = sender.send(end);
        }
    }
}

/// Takes a place.
pub(super) fn join(
    shared: &Arc<Shared>,
    principal: Principal,
    transport: Transport,
    topics: Vec<Topic>,
    selection: Selection,
) -> Result<Place, Refused> {
    let hub = &shared.hub;
    let mut members = hub.members();
    let same = |member: &&Member| same_caller(&member.principal.who, &principal.who);
    let refused = if members.closed {
        Some(Refused::Stopping)
    } else if members.by_id.len() >= hub.settings.max_clients {
        Some(Refused::Total)
    } else if members.by_id.values().filter(same).count() >= hub.settings.max_clients_per_caller {
        Some(Refused::Caller)
    } else {
        None
    };
    if let Some(refused) = refused {
        hub.metrics.stream.refused.inc();
        return Err(refused);
    }
    let (sender, end) = oneshot::channel();
    let id = members.next_id;
    members.next_id += 1;
    members.by_id.insert(id, Member { principal, topics, selection, end: Some(sender), queue: None });
    drop(members);
    hub.metrics.stream.clients.with_label_values(&[transport.name()]).inc();
    Ok(Place { shared: Arc::clone(shared), id, transport, end: Some(end) })
}

/// A person's sessions count together.
fn same_caller(one: &Who, other: &Who) -> bool {
    match (one, other) {
        (Who::AdminToken, Who::AdminToken) => true,
        (Who::User { user_id, .. }, Who::User { user_id: other, .. }) => user_id == other,
        (Who::Machine { api_token_id, .. }, Who::Machine { api_token_id: other, .. }) => {
            api_token_id == other
        }
        _ => false,
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let hub = &self.shared.hub;
        hub.members().by_id.remove(&self.id);
        hub.metrics.stream.clients.with_label_values(&[self.transport.name()]).dec();
        hub.left.notify_waiters();
    }
}
