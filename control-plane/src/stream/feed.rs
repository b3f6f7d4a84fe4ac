//! One follower's events, in order and each once: first what it missed, from the database, then what happens,
//! from its queue.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::hub::{Live, Place};
use super::{End, Shared, Told};
use crate::store::StoreError;
use crate::store::events::{self, Selection};

/// Events of a replay that are in memory at once.
const PAGE: i64 = 250;
/// How long a replay asks a database again that does not answer.
const PATIENCE: Duration = Duration::from_secs(30);
const BACKOFF: Duration = Duration::from_millis(250);

/// A follower: what it gets, and when that ends.
pub struct Follower {
    pub feed: Feed,
    pub ending: Ending,
}

/// When a stream ends though its client does not want it to.
pub struct Ending {
    end: Option<oneshot::Receiver<End>>,
    expiry: Option<Pin<Box<Sleep>>>,
}

/// Events in order. Futures of it may be dropped at any time; what was not [`Feed::sent`] counts as not sent.
pub struct Feed {
    shared: Arc<Shared>,
    selection: Selection,
    /// All that the follower wants up to here is sent.
    cursor: i64,
    /// All that it wants up to here was read from the database.
    read_to: i64,
    /// Where the replay ends and the queue begins, once that is known.
    until: Option<i64>,
    replayed: VecDeque<Arc<Told>>,
    live: Option<Live>,
    failing_since: Option<Instant>,
    place: Place,
}

impl Follower {
    pub(super) fn new(
        shared: Arc<Shared>,
        mut place: Place,
        selection: Selection,
        after: Option<i64>,
        lasts: Option<Duration>,
    ) -> Self {
        let end = place.end.take();
        let expiry = lasts.map(|lasts| Box::pin(tokio::time::sleep(lasts)));
        let mut feed = Feed {
            shared,
            selection,
            cursor: 0,
            read_to: 0,
            until: None,
            replayed: VecDeque::new(),
            live: None,
            failing_since: None,
            place,
        };
        let begin = after.unwrap_or_else(|| feed.go_live());
        (feed.cursor, feed.read_to) = (begin, begin);
        Self { feed, ending: Ending { end, expiry } }
    }
}

impl Ending {
    /// Waits for the end. May be dropped and asked again.
    pub async fn wait(&mut self) -> End {
        let told = async {
            match &mut self.end {
                Some(end) => end.await.unwrap_or(End::Stopping),
                None => std::future::pending().await,
            }
        };
        let expired = async {
            match &mut self.expiry {
                Some(expiry) => expiry.as_mut().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            end = told => end,
            () = expired => End::Expired,
        }
    }
}

impl Feed {
    /// The next event.
    pub async fn next(&mut self) -> Result<Arc<Told>, End> {
        loop {
            if let Some(told) = self.ready() {
                return Ok(told);
            }
            if self.live.is_some() && self.until.is_none() {
                self.wait().await;
            } else {
                self.replay().await?;
            }
        }
    }

    /// The next event, if it needs no wait.
    pub fn ready(&mut self) -> Option<Arc<Told>> {
        if let Some(told) = self.replayed.pop_front() {
            return Some(told);
        }
        let live = self.live.as_mut().filter(|_| self.until.is_none())?;
        while let Ok(told) = live.events.try_recv() {
            live.bytes.fetch_sub(told.bytes(), Ordering::AcqRel);
            // The replay may have gone further than the hub had at that time.
            if told.cursor > self.read_to {
                return Some(told);
            }
        }
        None
    }

    /// Says that an event is on its way for good.
    pub fn sent(&mut self, told: &Told) {
        self.cursor = told.cursor;
        let metrics = &self.shared.metrics.stream;
        metrics.sent.inc();
        metrics.delivery_seconds.observe(told.at.elapsed().unwrap_or_default().as_secs_f64());
    }

    /// Where to resume: everything that the follower wants up to here is sent.
    pub fn position(&mut self) -> i64 {
        // Asked first: what is delivered after it can only make the queue look fuller.
        let position = self.shared.hub.position();
        let caught_up = self.until.is_none() && self.replayed.is_empty();
        if caught_up
            && self.live.as_ref().is_some_and(|live| live.events.is_empty() && !live.events.is_closed())
        {
            self.cursor = self.cursor.max(position);
        }
        self.cursor
    }

    /// Counts the end of the stream and gives its reason.
    pub fn over(&self, end: End) -> String {
        self.shared.metrics.stream.closed.with_label_values(&[end.name()]).inc();
        end.reason(self.cursor)
    }

    #[must_use]
    pub fn cursor(&self) -> i64 {
        self.cursor
    }

    fn go_live(&mut self) -> i64 {
        let (position, live) = self.shared.hub.go_live(self.place.id);
        self.live = Some(live);
        position
    }

    /// Waits until the queue has something and moves it to where [`Self::ready`] finds it.
    async fn wait(&mut self) {
        let Some(live) = &mut self.live else { return };
        match live.events.recv().await {
            Some(told) => {
                live.bytes.fetch_sub(told.bytes(), Ordering::AcqRel);
                if told.cursor > self.read_to {
                    self.replayed.push_back(told);
                }
            }
            // The hub took the queue away, and the ending says why.
            None => std::future::pending().await,
        }
    }

    /// Reads the next page of what was missed. After the last one the queue begins, and what came between
    /// the two is read.
    async fn replay(&mut self) -> Result<(), End> {
        let found = self.page().await?;
        if found.extent.pruned_to > self.read_to {
            self.cursor = found.extent.pruned_to;
            return Err(End::Pruned);
        }
        let whole = found.events.len() as i64 == PAGE;
        for event in found.events {
            self.read_to = event.cursor;
            match Told::new(event) {
                Ok(told) => self.replayed.push_back(Arc::new(told)),
                Err(error) => tracing::error!(%error, "an event cannot be shown"),
            }
        }
        if whole {
            return Ok(());
        }
        if let Some(until) = self.until.take() {
            self.read_to = self.read_to.max(until);
        } else {
            let position = self.go_live();
            self.until = (position > self.read_to).then_some(position);
        }
        Ok(())
    }

    /// Asks again while it may help. The state is kept in here, so that a dropped future begins no new wait.
    async fn page(&mut self) -> Result<events::Found, End> {
        loop {
            let Ok(_turn) = self.shared.replays.acquire().await else { return Err(End::Stopping) };
            let until = self.until.unwrap_or(i64::MAX);
            let read = events::read(&self.shared.pool, &self.selection, self.read_to, until, PAGE);
            match read.await {
                Ok(found) => {
                    self.failing_since = None;
                    return Ok(found);
                }
                Err(error) => {
                    self.shared.metrics.stream.read_failures.inc();
                    let since = *self.failing_since.get_or_insert_with(Instant::now);
                    let may_pass = !matches!(error, StoreError::Database(_) | StoreError::OutOfRange(_));
                    if !may_pass || since.elapsed() > PATIENCE {
                        tracing::error!(%error, "a stream ends: what it missed cannot be read");
                        return Err(End::Failed);
                    }
                }
            }
            tokio::time::sleep(BACKOFF).await;
        }
    }
}
