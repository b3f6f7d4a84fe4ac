//! Delivers batches in order, each until it is acknowledged or refused for good.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

use super::answer::{Answer, Trouble};
use super::backoff::Backoff;
use super::client::Client;
use super::outbox::Deliveries;
use super::parts::Packed;
use crate::metrics::{Metrics, unix_seconds};

/// Refused batches that are kept for whoever looks into it, newest last.
const QUARANTINE_BATCHES: usize = 16;
/// Bytes of them.
const QUARANTINE_BYTES: usize = 8 << 20;
/// A failure that goes on is logged again after this time.
const REMIND: Duration = Duration::from_mins(1);

/// How delivery stands, for the health endpoints.
#[derive(Clone, Debug, Default)]
pub struct Status {
    pub last_success: Option<SystemTime>,
    /// When the first of the failures since then was.
    pub failing_since: Option<SystemTime>,
    pub last_failure: Option<String>,
}

/// Owns the end of the queue and the connection to the control plane.
pub struct Courier<D> {
    deliveries: D,
    client: Client,
    backoff: Backoff,
    quarantine: VecDeque<Packed>,
    metrics: Arc<Metrics>,
    status: watch::Sender<Status>,
    /// Turns true when the sensor stops: waits are cut short.
    stopping: watch::Receiver<bool>,
    reminded: Option<Instant>,
}

impl<D: Deliveries> Courier<D> {
    pub fn new(
        deliveries: D,
        client: Client,
        backoff: Backoff,
        metrics: Arc<Metrics>,
        status: watch::Sender<Status>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self {
            deliveries,
            client,
            backoff,
            quarantine: VecDeque::new(),
            metrics,
            status,
            stopping,
            reminded: None,
        }
    }

    /// Runs until the queue is complete and empty. May be dropped at any `.await`: what is not acknowledged
    /// is still in the queue.
    pub async fn run(&mut self) {
        while let Some(batch) = self.deliveries.next().await {
            self.deliver(&batch).await;
            self.deliveries.settle();
        }
    }

    /// Batches that were refused for good, newest last; at most [`QUARANTINE_BATCHES`].
    #[must_use]
    pub fn quarantine(&self) -> &VecDeque<Packed> {
        &self.quarantine
    }

    /// Batches and bytes that were not delivered.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        self.deliveries.waiting()
    }

    /// Tries until there is an answer that settles the batch.
    async fn deliver(&mut self, batch: &Packed) {
        loop {
            let started = Instant::now();
            let attempt = self.client.post(batch).await;
            self.metrics.ship_seconds.observe(started.elapsed().as_secs_f64());
            if let Some(skew) = attempt.clock_skew {
                self.metrics.clock_skew.set(skew);
            }
            match attempt.answer {
                Answer::Delivered => return self.delivered(batch),
                Answer::Refused { status, detail } => return self.refused(batch, status, &detail),
                Answer::Again { trouble, after, detail } => self.wait(trouble, after, detail).await,
            }
        }
    }

    fn delivered(&mut self, batch: &Packed) {
        self.reachable();
        self.metrics.shipped_batches.inc();
        self.metrics.shipped_records.inc_by(batch.records);
        self.metrics.shipped_packets.inc_by(batch.packets);
        self.metrics.shipped_bytes.inc_by(batch.body.len() as u64);
        self.metrics.last_delivery.set(unix_seconds());
        let Packed { epoch, part, records, .. } = *batch;
        tracing::debug!(epoch, part, records, bytes = batch.body.len(), "batch delivered");
    }

    fn refused(&mut self, batch: &Packed, status: u16, detail: &str) {
        self.reachable();
        self.metrics.refused_batches.inc();
        self.metrics.refused_records.inc_by(batch.records);
        self.metrics.refused_packets.inc_by(batch.packets);
        let Packed { generation, epoch, part, records, packets, .. } = *batch;
        tracing::error!(
            status, detail, %generation, epoch, part, records, packets,
            "the control plane refused a batch for good; it is set aside and its counts are missing there"
        );
        self.quarantine.push_back(batch.clone());
        let bytes = |kept: &VecDeque<Packed>| kept.iter().map(|batch| batch.body.len()).sum::<usize>();
        while self.quarantine.len() > QUARANTINE_BATCHES || bytes(&self.quarantine) > QUARANTINE_BYTES {
            self.quarantine.pop_front();
        }
    }

    /// The control plane answered for itself.
    fn reachable(&mut self) {
        self.backoff.reset();
        self.metrics.misconfigured.set(0);
        if self.reminded.take().is_some() {
            tracing::info!(url = %self.client.url(), "the control plane answers again");
        }
        self.status.send_replace(Status { last_success: Some(SystemTime::now()), ..Status::default() });
    }

    async fn wait(&mut self, trouble: Trouble, after: Option<Duration>, detail: String) {
        let own =
            if trouble.is_misconfiguration() { self.backoff.slow_wait() } else { self.backoff.next_wait() };
        // What the server asked for is the least; the jitter keeps sensors from coming back together.
        let wait = after.map_or(own, |after| after + own.min(after / 4));
        self.metrics.retries.with_label_values(&[trouble.label()]).inc();
        self.metrics.misconfigured.set(i64::from(trouble.is_misconfiguration()));
        self.tell(trouble, wait, &detail);
        self.status.send_modify(|status| {
            status.failing_since.get_or_insert_with(SystemTime::now);
            status.last_failure = Some(format!("{}: {detail}", trouble.label()));
        });
        if trouble == Trouble::Credential {
            match self.client.renew_credential() {
                // A new token is worth an attempt at once.
                Ok(true) => return tracing::info!("control_plane.token_file has a new token"),
                Ok(false) => {}
                Err(error) => tracing::error!(%error, "cannot read the token again"),
            }
        }
        self.sleep(wait).await;
    }

    /// The first failure and then one a minute; every one at debug.
    fn tell(&mut self, trouble: Trouble, wait: Duration, detail: &str) {
        let url = self.client.url();
        let wait_ms = wait.as_millis() as u64;
        if self.reminded.is_some_and(|at| at.elapsed() < REMIND) {
            tracing::debug!(%url, trouble = trouble.label(), detail, wait_ms, "a batch was not delivered");
            return;
        }
        self.reminded = Some(Instant::now());
        let (batches, bytes) = self.deliveries.waiting();
        if trouble.is_misconfiguration() {
            let remedy = match trouble {
                Trouble::Credential => "check control_plane.token_file, or issue a new token for this sensor",
                _ => "check control_plane.url: what answers there is not a control plane",
            };
            tracing::error!(%url, trouble = trouble.label(), detail, wait_ms, batches, bytes, remedy,
                "NOTHING IS DELIVERED: batches wait, then the kernel tables fill");
        } else {
            tracing::warn!(%url, trouble = trouble.label(), detail, wait_ms, batches, bytes,
                "a batch was not delivered; it will be tried again");
        }
    }

    /// Sleeps, but not through the sensor's end: then there is a deadline, and waits are short.
    async fn sleep(&mut self, wait: Duration) {
        const WHILE_STOPPING: Duration = Duration::from_millis(200);
        // A sender that has gone is the sensor's end, too.
        if *self.stopping.borrow() || self.stopping.has_changed().is_err() {
            return tokio::time::sleep(wait.min(WHILE_STOPPING)).await;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = self.stopping.wait_for(|stopping| *stopping) => self.backoff.reset(),
        }
    }
}
