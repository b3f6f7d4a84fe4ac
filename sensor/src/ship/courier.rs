//! Delivers batches, each until it is acknowledged or refused for good.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::answer::{Answer, Trouble};
use super::backoff::Backoff;
use super::breaker::{Breaker, BreakerState};
use super::client::Client;
use super::lanes::Lanes;
use super::outbox::OutboxClosed;
use super::parts::Packed;
use crate::config;
use crate::metrics::{Metrics, unix_seconds};
use crate::spool::{Offer, Settlement, Spool, Standing};

/// A failure that goes on is logged again after this time.
const REMIND: Duration = Duration::from_mins(1);
/// Of the longest wait, for a sensor that was revoked: nothing but a person can end it.
const REVOKED_WAITS: u32 = 10;
/// Attempts after the sensor was told to stop, while nothing is at stake: what is not delivered is on disk.
const LAST_ATTEMPTS: u32 = 3;

/// How delivery stands, for the health endpoints.
#[derive(Clone, Debug, Default)]
pub struct Status {
    pub last_success: Option<Instant>,
    /// When the first of the failures since then was.
    pub failing_since: Option<Instant>,
    pub last_failure: Option<String>,
    pub breaker: BreakerState,
    /// What an operator can do about it.
    pub remedy: Option<&'static str>,
}

/// How fast and how patiently.
#[derive(Clone, Debug)]
pub struct Pacing {
    pub backoff: Backoff,
    /// Failures in a row that open the breaker.
    pub breaker_failures: u32,
    pub backlog_per_second: f64,
}

impl From<&config::Shipping> for Pacing {
    fn from(shipping: &config::Shipping) -> Self {
        Self {
            backoff: Backoff::new(shipping.backoff.0, shipping.backoff_max.0),
            breaker_failures: shipping.breaker_failures,
            backlog_per_second: f64::from(shipping.catch_up_batches_per_second),
        }
    }
}

/// Owns the way out of the spool and the connection to the control plane.
pub struct Courier {
    spool: Spool,
    changes: watch::Receiver<Standing>,
    client: Client,
    backoff: Backoff,
    breaker: Breaker,
    lanes: Lanes,
    metrics: Arc<Metrics>,
    status: watch::Sender<Status>,
    /// Turns true when the sensor stops: waits are cut short.
    stopping: watch::Receiver<bool>,
    reminded: Option<Instant>,
    last_attempts: u32,
}

impl Courier {
    pub fn new(
        spool: Spool,
        client: Client,
        pacing: Pacing,
        metrics: Arc<Metrics>,
        status: watch::Sender<Status>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let lanes = Lanes::new(&spool.standing(), pacing.backlog_per_second);
        Self {
            changes: spool.watch(),
            spool,
            client,
            backoff: pacing.backoff,
            breaker: Breaker::new(pacing.breaker_failures),
            lanes,
            metrics,
            status,
            stopping,
            reminded: None,
            last_attempts: 0,
        }
    }

    /// Runs until the intake is closed and nothing waits, or until the sensor stops and the control plane does
    /// not answer while all is on disk. May be dropped at any `.await`: what is not settled is in the spool.
    pub async fn run(&mut self) -> Result<(), OutboxClosed> {
        loop {
            let standing = self.changes.borrow_and_update().clone();
            if self.gives_up(&standing) {
                return Ok(());
            }
            let live = self.spool.first(self.lanes.live_from(&standing)).await?;
            let backlog_at = self.lanes.backlog_at();
            let is_due = backlog_at <= tokio::time::Instant::now();
            let offer = match live {
                Some(offer) => Some(offer),
                None => self.spool.first(0).await?,
            };
            match offer {
                Some(offer) if is_due || !self.lanes.is_backlog(offer.number) => self.deliver(offer).await?,
                Some(_) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(backlog_at) => {}
                        changed = self.changes.changed() => changed.map_err(|_| OutboxClosed)?,
                    }
                }
                None if standing.complete => return Ok(()),
                None => self.changes.changed().await.map_err(|_| OutboxClosed)?,
            }
        }
    }

    /// Whether the end need not wait for the control plane.
    fn gives_up(&self, standing: &Standing) -> bool {
        standing.complete && standing.held_batches == 0 && self.last_attempts >= LAST_ATTEMPTS
    }

    /// One attempt.
    async fn deliver(&mut self, Offer { number, batch }: Offer) -> Result<(), OutboxClosed> {
        self.breaker.attempt();
        self.tell_breaker();
        let started = Instant::now();
        let attempt = self.client.post(&batch).await;
        self.metrics.ship_seconds.observe(started.elapsed().as_secs_f64());
        if let Some(skew) = attempt.clock_skew {
            self.metrics.clock_skew.set(skew);
        }
        match attempt.answer {
            Answer::Delivered { duplicate } => {
                self.delivered(&batch, duplicate, attempt.trace_id.as_deref());
                self.lanes.sent(number);
                let settlement = if duplicate { Settlement::Duplicate } else { Settlement::Shipped };
                self.spool.settle(number, settlement).await
            }
            Answer::Refused { status, detail } => {
                self.refused(&batch, status, &detail, attempt.trace_id.as_deref());
                self.lanes.sent(number);
                self.spool.settle(number, Settlement::Refused { status, detail }).await
            }
            Answer::Again { trouble, after, detail } => {
                self.wait(trouble, after, detail, attempt.trace_id.as_deref()).await;
                Ok(())
            }
        }
    }

    fn delivered(&mut self, batch: &Packed, duplicate: bool, trace_id: Option<&str>) {
        self.reachable();
        self.metrics.shipped_batches.inc();
        self.metrics.shipped_records.inc_by(batch.records);
        self.metrics.shipped_packets.inc_by(batch.packets);
        self.metrics.shipped_bytes.inc_by(batch.body.len() as u64);
        self.metrics.duplicate_batches.inc_by(u64::from(duplicate));
        self.metrics.last_delivery.set(unix_seconds());
        let Packed { epoch, part, records, .. } = *batch;
        tracing::debug!(
            epoch,
            part,
            records,
            duplicate,
            bytes = batch.body.len(),
            trace_id,
            "batch delivered"
        );
    }

    fn refused(&mut self, batch: &Packed, status: u16, detail: &str, trace_id: Option<&str>) {
        self.reachable();
        self.metrics.refused_batches.inc();
        self.metrics.refused_records.inc_by(batch.records);
        self.metrics.refused_packets.inc_by(batch.packets);
        let Packed { generation, epoch, part, records, packets, .. } = *batch;
        tracing::error!(
            status, detail, %generation, epoch, part, records, packets, trace_id,
            "the control plane refused a batch for good; it is in the quarantine and its counts are missing \
             there: see `weir-sensor spool quarantine ls`"
        );
    }

    /// The control plane answered for itself.
    fn reachable(&mut self) {
        self.backoff.reset();
        self.last_attempts = 0;
        self.metrics.misconfigured.set(0);
        self.metrics.revoked.set(0);
        let closed = self.breaker.succeeded();
        self.tell_breaker();
        if self.reminded.take().is_some() || closed {
            tracing::info!(url = %self.client.url(), "the control plane answers again");
        }
        self.status.send_replace(Status { last_success: Some(Instant::now()), ..Status::default() });
    }

    async fn wait(
        &mut self,
        trouble: Trouble,
        after: Option<Duration>,
        detail: String,
        trace_id: Option<&str>,
    ) {
        if self.breaker.failed() {
            self.metrics.breaker_openings.inc();
        }
        self.tell_breaker();
        let own = match trouble {
            Trouble::Revoked => self.backoff.slow_wait() * REVOKED_WAITS,
            _ if trouble.is_misconfiguration() => self.backoff.slow_wait(),
            _ if self.breaker.state() == BreakerState::Open => self.backoff.open_wait(),
            _ => self.backoff.next_wait(),
        };
        // What the server asked for is the least; the jitter keeps sensors from coming back together.
        let wait = after.map_or(own, |after| after + own.min(after / 4));
        self.metrics.retries.with_label_values(&[trouble.label()]).inc();
        self.metrics.misconfigured.set(i64::from(trouble.is_misconfiguration()));
        self.metrics.revoked.set(i64::from(trouble == Trouble::Revoked));
        self.tell(trouble, wait, &detail, trace_id);
        self.status.send_modify(|status| {
            status.failing_since.get_or_insert_with(Instant::now);
            status.last_failure = Some(format!("{}: {detail}", trouble.label()));
            status.remedy = remedy(trouble);
        });
        if matches!(trouble, Trouble::Credential | Trouble::Revoked) {
            match self.client.renew_credential() {
                // A new token is worth an attempt at once.
                Ok(true) => return tracing::info!("control_plane.token_file has a new token"),
                Ok(false) => {}
                Err(error) => tracing::error!(%error, "cannot read the token again"),
            }
        }
        self.sleep(wait).await;
        if self.breaker.state() == BreakerState::Open {
            // The probe is the newest there is; what has piled up is backlog.
            self.lanes.restart(&self.changes.borrow());
        }
    }

    fn tell_breaker(&self) {
        let state = self.breaker.state();
        self.metrics.breaker_state.set(state.number());
        self.status.send_if_modified(|status| std::mem::replace(&mut status.breaker, state) != state);
    }

    /// The first failure and then one a minute; every one at debug.
    fn tell(&mut self, trouble: Trouble, wait: Duration, detail: &str, trace_id: Option<&str>) {
        let url = self.client.url();
        let wait_ms = wait.as_millis() as u64;
        if self.reminded.is_some_and(|at| at.elapsed() < REMIND) {
            tracing::debug!(%url, trouble = trouble.label(), detail, wait_ms, trace_id, "a batch was not delivered");
            return;
        }
        self.reminded = Some(Instant::now());
        let Standing { batches, bytes, .. } = *self.changes.borrow();
        let breaker = self.breaker.state().label();
        if let Some(remedy) = remedy(trouble) {
            tracing::error!(%url, trouble = trouble.label(), detail, wait_ms, batches, bytes, remedy, trace_id,
                "NOTHING IS DELIVERED: batches wait in the spool, up to its bounds");
        } else {
            tracing::warn!(%url, trouble = trouble.label(), detail, wait_ms, batches, bytes, breaker, trace_id,
                "a batch was not delivered; it will be tried again");
        }
    }

    /// Sleeps, but not through the sensor's end: then there is a deadline, and waits are short.
    async fn sleep(&mut self, wait: Duration) {
        const WHILE_STOPPING: Duration = Duration::from_millis(200);
        // A sender that has gone is the sensor's end, too.
        if *self.stopping.borrow() || self.stopping.has_changed().is_err() {
            self.last_attempts += 1;
            return tokio::time::sleep(wait.min(WHILE_STOPPING)).await;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // Worth an attempt at once.
            () = self.client.another_identity() => {}
            _ = self.stopping.wait_for(|stopping| *stopping) => self.backoff.reset(),
        }
    }
}

/// What an operator can do about a trouble that only an operator can end.
fn remedy(trouble: Trouble) -> Option<&'static str> {
    match trouble {
        Trouble::Credential => Some("check control_plane.token_file, or issue a new token for this sensor"),
        Trouble::Revoked => Some(
            "this sensor was revoked or deleted at the control plane: enrol it anew and give it the new token, \
             or stop it",
        ),
        Trouble::Address => Some("check control_plane.url: what answers there is not a control plane"),
        _ => None,
    }
}
