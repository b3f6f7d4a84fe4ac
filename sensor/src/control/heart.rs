//! The heartbeat: every few seconds the sensor says that it is there and how it stands; the answer says how long
//! its credential lasts, and the next one is asked for in time.
//!
//! A task of its own beside delivery. What must stay true: whatever goes wrong here, batches go on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng as _;
use reqwest::Url;
use reqwest::header::AUTHORIZATION;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use weir_wire::{DropReason, Spool};

use super::pushed::{Pushed, Report};
use super::renewal::{Renewal, Term};
use super::{ClientError, ControlError, Credential, Line, address, answer, certify, chain, renew};
use crate::config::ControlPlane;
use crate::metrics::{Metrics, unix_seconds};
use crate::spool::Standing;

/// Where it goes.
const PATH: &str = "api/v1/sensor/heartbeat";
/// After a heartbeat that nobody heard: long before two in a row would make the sensor seem gone.
const SOON: Duration = Duration::from_secs(2);
/// Before something new is said: what else is new is said with it.
const NEWS: Duration = Duration::from_millis(50);
/// Of the interval, where only a person can end what is wrong, or nobody there knows of heartbeats.
const SELDOM: u32 = 20;

/// Beats; owns its connection to the control plane.
pub struct Heart {
    control_plane: ControlPlane,
    line: Line,
    url: Url,
    credential: Credential,
    interval: Duration,
    renewal: Renewal,
    certificates: Renewal,
    spool: watch::Receiver<Standing>,
    metrics: Arc<Metrics>,
    began: Instant,
    /// What is wrong, as it was said last.
    trouble: Option<String>,
    /// Where pushed settings go, and what is said of them.
    settings: Option<(mpsc::Sender<Pushed>, watch::Receiver<Report>)>,
}

#[derive(Serialize)]
struct Beat {
    version: &'static str,
    uptime_s: u64,
    clock_ms: u64,
    spool: Waiting,
    ledger: Missing,
    #[serde(skip_serializing_if = "Option::is_none")]
    configuration: Option<Report>,
}

#[derive(Serialize)]
struct Waiting {
    batches: u64,
    bytes: u64,
    capacity_bytes: u64,
    oldest_age_ms: u64,
    quarantined_batches: u64,
    quarantined_packets: u64,
    degraded: bool,
}

#[derive(Serialize)]
struct Missing {
    gaps: u64,
    dropped_packets: u64,
    unaccounted_frames: u64,
}

/// What is known of the answer; a newer control plane may say more.
#[derive(Debug, Deserialize)]
struct Heard {
    credential: Option<Term>,
    configuration: Option<Pushed>,
    /// Certificates are signed.
    #[serde(default)]
    client_certificates: bool,
    /// Of the one that was shown.
    #[serde(default)]
    certificate: Option<Lasting>,
}

/// How long a certificate is there and will be, as the control plane says.
#[derive(Debug, Deserialize)]
struct Lasting {
    age_s: f64,
    ends_in_s: f64,
}

/// Nearly over, and yet there: attempts to get one where there is none go on, up to an hour apart.
const NONE: Lasting = Lasting { age_s: 1e9, ends_in_s: 36_000.0 };
/// Problem types by which the control plane asks for a certificate, or for another one.
const WANTED: [&str; 4] = [
    "urn:weir:problem:certificate-required",
    "urn:weir:problem:certificate-of-another",
    "urn:weir:problem:certificate-over",
    "urn:weir:problem:certificate-untrusted",
];

impl Heart {
    pub fn new(
        settings: &ControlPlane,
        credential: Credential,
        interval: Duration,
        renewal: Renewal,
        spool: watch::Receiver<Standing>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ClientError> {
        Ok(Self {
            control_plane: settings.clone(),
            line: Line::new(settings, credential.identity())?,
            url: address(settings, PATH)?,
            credential,
            interval,
            certificates: renewal.of_certificates(),
            renewal,
            spool,
            metrics,
            began: Instant::now(),
            trouble: None,
            settings: None,
        })
    }

    /// Takes settings that the control plane pushes, and says what came of them.
    #[must_use]
    pub fn taking(mut self, settings: mpsc::Sender<Pushed>, report: watch::Receiver<Report>) -> Self {
        self.settings = Some((settings, report));
        self
    }

    /// Beats until the sensor stops.
    pub async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        let beating = async {
            loop {
                let wait = self.turn().await;
                self.rest(wait).await;
            }
        };
        tokio::select! {
            () = beating => {}
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
    }

    /// Waits for the next, or for something new to say.
    async fn rest(&mut self, wait: Duration) {
        let Some((_, report)) = &mut self.settings else { return tokio::time::sleep(wait).await };
        let news = async {
            if report.changed().await.is_err() {
                // Nobody is left who could have any.
                std::future::pending::<()>().await;
            }
        };
        // A wait that was cut short ends here, and cannot make the sensor beat without a pause.
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = news => tokio::time::sleep(NEWS.min(wait)).await,
        }
    }

    /// One heartbeat, and what follows from its answer; how long until the next.
    async fn turn(&mut self) -> Duration {
        match self.beat().await {
            Ok(heard) => {
                self.metrics.heartbeats.with_label_values(&["answered"]).inc();
                self.metrics.last_heartbeat.set(unix_seconds());
                if self.trouble.take().is_some() {
                    tracing::info!(url = %self.url, "heartbeats are heard again");
                }
                if let (Some(pushed), Some((settings, _))) = (heard.configuration, &self.settings) {
                    // What finds no room is offered again.
                    let _ = settings.try_send(pushed);
                }
                let renewed = match &heard.credential {
                    Some(term) => self.keep_credential(term).await,
                    None => false,
                };
                let ends =
                    heard.certificate.as_ref().map_or(0.0, |lasting| unix_seconds() + lasting.ends_in_s);
                self.metrics.certificate_expiry.set(ends);
                let certified = match heard.certificate {
                    // With another credential goes another key.
                    _ if renewed && heard.client_certificates => self.certify(&NONE).await,
                    Some(lasting) => self.certify(&lasting).await,
                    None if heard.client_certificates && !self.credential.identity().is_shown() => {
                        self.certify(&NONE).await
                    }
                    None => false,
                };
                // The one before ends when the new one was used: at once.
                if renewed || certified { Duration::ZERO } else { self.usual() }
            }
            Err(error) => {
                self.metrics.heartbeats.with_label_values(&["failed"]).inc();
                let wait = self.unheard(&error);
                let wanted = matches!(&error, ControlError::Refused { problem, .. } if WANTED.contains(&problem.as_str()));
                if wanted && !wait.is_zero() {
                    self.credential.identity().set_aside();
                    if self.certify(&NONE).await {
                        return Duration::ZERO;
                    }
                }
                wait
            }
        }
    }

    async fn beat(&mut self) -> Result<Heard, ControlError> {
        let told = self.told();
        let request = self.line.http().post(self.url.clone()).header(AUTHORIZATION, self.credential.header());
        let sent = request.json(&told).send().await.inspect_err(|error| self.line.failed(error));
        answer(sent.map_err(|error| ControlError::Away(chain(&error)))?).await
    }

    fn told(&mut self) -> Beat {
        let configuration = self.settings.as_mut().map(|(_, report)| report.borrow_and_update().clone());
        let Spool {
            batches,
            bytes,
            capacity_bytes,
            oldest_age_ms,
            quarantined_batches,
            quarantined_packets,
            degraded,
        } = self.spool.borrow().wire();
        let dropped =
            |reason: DropReason| self.metrics.spool_dropped_packets.with_label_values(&[reason.word()]).get();
        Beat {
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: self.began.elapsed().as_secs(),
            clock_ms: (unix_seconds() * 1_000.0) as u64,
            spool: Waiting {
                batches,
                bytes,
                capacity_bytes,
                oldest_age_ms,
                quarantined_batches,
                quarantined_packets,
                degraded,
            },
            ledger: Missing {
                gaps: self.metrics.spool_lost_batches.get(),
                dropped_packets: DropReason::GIVEN.map(dropped).iter().sum(),
                unaccounted_frames: self.metrics.unaccounted.get(),
            },
            configuration,
        }
    }

    /// Asks for the next credential where it is time. Whether there is one.
    async fn keep_credential(&mut self, term: &Term) -> bool {
        self.metrics.credential_expiry.set(term.ends_in_s.map_or(0.0, |left| unix_seconds() + left));
        if !self.renewal.is_due(term, Instant::now()) {
            return false;
        }
        // Somebody may have been here before: `weir-sensor rotate`.
        let renewed = match self.credential.read_again() {
            Ok(true) => Ok(()),
            Ok(false) => renew(&self.control_plane, &self.credential).await,
            Err(error) => Err(error.into()),
        };
        let result = if renewed.is_ok() { "done" } else { "failed" };
        self.metrics.credential_renewals.with_label_values(&[result]).inc();
        match renewed {
            Ok(()) => {
                tracing::info!(
                    "the sensor has its next credential; the one before ends when this one is used"
                );
                true
            }
            Err(error) => {
                let wait_s = self.renewal.failed(term, Instant::now()).as_secs();
                tracing::warn!(%error, wait_s, ends_in_s = term.ends_in_s,
                    "the sensor's credential was not renewed; it works on and is renewed later");
                false
            }
        }
    }

    /// Asks for the next certificate where it is time. Whether there is one.
    async fn certify(&mut self, Lasting { age_s, ends_in_s }: &Lasting) -> bool {
        let id = self.credential.identity().version() as i64;
        let term = Term { id, age_s: *age_s, ends_in_s: Some(*ends_in_s) };
        if !self.certificates.is_due(&term, Instant::now()) {
            return false;
        }
        let certified = certify(&self.control_plane, &self.credential, &self.line).await;
        let result = if certified.is_ok() { "done" } else { "failed" };
        self.metrics.certificate_renewals.with_label_values(&[result]).inc();
        match certified {
            Ok(()) => {
                tracing::info!("the sensor has its next certificate");
                true
            }
            Err(error) => {
                let now = Instant::now();
                let wait = match &error {
                    // Not its last word.
                    ControlError::Away(_) | ControlError::Refused { status: 500.., .. } => {
                        self.certificates.again(now, SOON)
                    }
                    _ => self.certificates.failed(&term, now),
                };
                let wait_s = wait.as_secs();
                tracing::warn!(%error, wait_s, "the sensor got no certificate; it asks again");
                self.credential.identity().take_back();
                false
            }
        }
    }

    fn usual(&self) -> Duration {
        self.interval.mul_f64(rand::rng().random_range(0.9..=1.0))
    }

    /// How long to wait after a heartbeat that was not heard; what is wrong is said once.
    fn unheard(&mut self, error: &ControlError) -> Duration {
        let text = error.to_string();
        if self.trouble.as_ref() != Some(&text) {
            tracing::warn!(url = %self.url, error = text, "a heartbeat was not heard");
            self.trouble = Some(text);
        }
        match error {
            ControlError::Refused { status: 401 | 403, .. } => match self.credential.read_again() {
                Ok(true) => {
                    self.certificates.begin_anew();
                    Duration::ZERO
                }
                _ => self.interval.saturating_mul(2),
            },
            // An older control plane, or none of ours.
            ControlError::Refused { status: 400..=499, .. } => self.interval.saturating_mul(SELDOM),
            _ => SOON.min(self.interval),
        }
    }
}
