//! What happens, to whoever follows it.
//!
//! ```text
//! a change -> store::events (pending) -> publisher (cursors) -> reader -> hub -> a queue for each follower
//!                                                                    replay -^ (from its cursor up to now)
//! ```
//!
//! Every instance runs a publisher (Postgres makes them take turns) and one reader, which fans out to bounded
//! queues and waits for nobody. One connection of each instance listens; what it misses is found by looking
//! every [`LOOK_EVERY`]. Called by `api`, which brings followers ([`Stream::follow`]) and writes to them; the
//! order of events is the order of cursors, for every follower, whatever fails on the way (A9, I9).

pub mod access;
mod credentials;
mod end;
mod feed;
mod hub;
mod publisher;
mod reader;
mod told;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, Semaphore, watch};

use crate::auth::Principal;
use crate::config;
use crate::store::events::{self, Selection, Topic};
use crate::store::{Pool, StoreError, notices};
use crate::telemetry::Metrics;
use hub::Hub;

pub use end::End;
pub use feed::{Ending, Feed, Follower};
pub use hub::{Refused, Transport};
pub use told::{Shown, Told};

/// How late an event is whose notice got lost.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Followers that read what they missed at once: the others wait, so that questions have connections, too.
const REPLAYS: usize = 4;

/// The live side of this instance; cheap to clone.
#[derive(Clone)]
pub struct Stream(Arc<Shared>);

struct Shared {
    pool: Pool,
    metrics: Metrics,
    settings: config::Stream,
    hub: Hub,
    /// Events wait for their cursors.
    pending: Notify,
    /// Events have their cursors.
    published: Notify,
    /// A credential may have ended.
    doubt: Notify,
    replays: Semaphore,
}

/// What somebody wants to follow.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Those that the principal may read; never empty.
    pub topics: Vec<Topic>,
    /// Of any sensor or none, if empty.
    pub sensors: Vec<i32>,
    /// From the event after this one; from now on, if none.
    pub after: Option<i64>,
}

impl Stream {
    /// Begins with what happens from now on.
    pub async fn start(pool: Pool, settings: config::Stream, metrics: Metrics) -> Result<Self, StoreError> {
        let hub = Hub::new(events::extent(&pool).await?.last, &settings, Arc::clone(&metrics));
        Ok(Self(Arc::new(Shared {
            pool,
            metrics,
            settings,
            hub,
            pending: Notify::new(),
            published: Notify::new(),
            doubt: Notify::new(),
            replays: Semaphore::new(REPLAYS),
        })))
    }

    /// Says that a transaction with an event was committed.
    pub fn wake(&self) {
        self.0.pending.notify_one();
    }

    /// Ends the streams of a user on this instance; the others find out within the second.
    pub fn end_user(&self, user_id: i32) {
        self.0.hub.end_where(|member| (member.user_id() == Some(user_id)).then_some(End::Revoked));
    }

    /// A place for somebody who may read the topics that they want.
    pub fn follow(
        &self,
        principal: Principal,
        transport: Transport,
        wanted: Wanted,
    ) -> Result<Follower, Refused> {
        // One topic more or less is another plan of the database's, all of them are none.
        let topics = if wanted.topics.len() == Topic::ALL.len() { Vec::new() } else { wanted.topics.clone() };
        let selection = Selection { topics, sensors: wanted.sensors };
        let until = principal.until;
        let place = hub::join(&self.0, principal, transport, wanted.topics, selection.clone())?;
        // What was remembered of the credential may be half a second old.
        self.0.doubt.notify_one();
        Ok(Follower::new(Arc::clone(&self.0), place, selection, wanted.after, remaining(until)))
    }

    #[must_use]
    pub fn settings(&self) -> &config::Stream {
        &self.0.settings
    }

    /// Works until `stop` changes, then says goodbye to every follower.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        let shared = &self.0;
        let heard = |channel: &str| match channel {
            events::PENDING => shared.pending.notify_one(),
            events::PUBLISHED => shared.published.notify_one(),
            _ => {}
        };
        let connected = |up: bool| shared.metrics.stream.listening.set(i64::from(up));
        let channels = [events::PENDING, events::PUBLISHED];
        let mut stopped = stop.clone();
        tokio::join!(
            notices::listen(&shared.pool, &channels, heard, connected, stop.clone()),
            publisher::run(shared, stop.clone()),
            reader::run(shared, stop.clone()),
            credentials::run(shared, stop),
            async {
                let _ = stopped.changed().await;
                shared.hub.close().await;
            }
        );
    }
}

fn remaining(until: Option<SystemTime>) -> Option<Duration> {
    until.map(|until| until.duration_since(SystemTime::now()).unwrap_or_default())
}
