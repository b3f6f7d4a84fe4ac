//! Settings that change while the sensor runs: read again on SIGHUP, or pushed by the control plane.
//!
//! Owned by `run`'s loop. No stage is restarted for them: the drain task and the merge task take them between two
//! epochs, so no count is lost. What is pushed is first on trial: the sensor must count and keep some whole epochs with
//! it, else it goes back to what was good before, by itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use crate::config::{Config, ConfigError, Connections};
use crate::control::{Book, Pushed, Report};
use crate::flow::Limits;
use crate::metrics::Metrics;
use crate::pipeline::{Steer, Tuning};
use weir_wire::settings::{self, Settings};

/// Drains after which an epoch was counted, merged and kept under the new settings from its beginning to its end.
const DRAINS: u64 = 3;
/// How much longer than that they may take on a busy host.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads the configuration again, with these settings over the file's.
pub type Reload = Box<dyn Fn(&Settings) -> Result<Config, ConfigError> + Send>;

/// Owns what is in force.
pub struct Steering {
    current: Config,
    reload: Reload,
    drain: mpsc::Sender<Steer>,
    merge: watch::Sender<Arc<Tuning>>,
    /// Without a control plane nothing is pushed.
    book: Option<Book>,
    trial: Option<Trial>,
    report: watch::Sender<Report>,
    metrics: Arc<Metrics>,
}

/// Settings on trial.
struct Trial {
    id: String,
    drains: u64,
    until: Instant,
    /// Whether the kernel side took them.
    taken: Option<oneshot::Receiver<Result<(), String>>>,
}

/// The configuration that a sensor begins with: what was pushed before is in it, if it still fits.
pub fn begin(config: Config, reload: &Reload) -> (Config, Option<Book>, bool) {
    if config.control_plane.is_none() {
        return (config, None, false);
    }
    let mut book = Book::open(&config.spool.folder);
    let mut on_trial = book.begin();
    while let Some(pushed) = book.current().cloned() {
        match check(&pushed).and_then(|()| (reload)(&pushed.settings).map_err(|error| error.to_string())) {
            Ok(config) => {
                tracing::info!(
                    id = pushed.id,
                    on_trial,
                    "settings that the control plane pushed are in force"
                );
                return (config, Some(book), on_trial);
            }
            Err(reason) => {
                tracing::error!(id = pushed.id, reason, "pushed settings do not fit any more");
                book.refuse(&pushed.id, &reason);
                on_trial = false;
            }
        }
    }
    (config, Some(book), false)
}

/// What the stages take, of a configuration.
#[must_use]
pub fn tuning(config: &Config) -> Tuning {
    Tuning { limits: limits(&config.connections), detect: config.detect.clone() }
}

fn limits(connections: &Connections) -> Limits {
    Limits {
        connections: connections.max,
        idle_timeout: connections.idle_timeout.0,
        closed_timeout: connections.closed_timeout.0,
    }
}

/// Deny by default, whatever the control plane thinks.
fn check(pushed: &Pushed) -> Result<(), String> {
    let faults = settings::faults(&pushed.settings);
    if faults.is_empty() {
        return Ok(());
    }
    Err(faults.iter().map(|fault| format!("{}: {}", fault.key, fault.message)).collect::<Vec<_>>().join("; "))
}

impl Steering {
    /// `on_trial`: it is not known yet whether the sensor is well with what the book says.
    pub fn new(
        current: Config,
        reload: Reload,
        (drain, merge): (mpsc::Sender<Steer>, watch::Sender<Arc<Tuning>>),
        (book, on_trial): (Option<Book>, bool),
        metrics: &Arc<Metrics>,
    ) -> Self {
        let metrics = Arc::clone(metrics);
        let report = watch::channel(book.as_ref().map(Book::report).unwrap_or_default()).0;
        let mut steering = Self { current, reload, drain, merge, book, trial: None, report, metrics };
        if on_trial && let Some(pushed) = steering.book.as_ref().and_then(Book::current) {
            let id = pushed.id.clone();
            steering.trial = Some(steering.trial_of(id, None));
        }
        steering
    }

    /// What is in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.current
    }

    /// For heartbeats.
    #[must_use]
    pub fn reports(&self) -> watch::Receiver<Report> {
        self.report.subscribe()
    }

    /// Reads the file again, with what was pushed over it.
    pub async fn reread(&mut self) {
        let pushed = self.book.as_ref().map(Book::settings).unwrap_or_default();
        match (self.reload)(&pushed) {
            Ok(new) => self.apply(&new, None).await,
            Err(error) => {
                self.metrics.reloads.with_label_values(&["refused"]).inc();
                tracing::error!("the configuration stays as it was: {error}");
            }
        }
    }

    /// Takes what the control plane pushed, for a trial, or says why not.
    pub async fn offered(&mut self, pushed: Pushed) {
        let Some(book) = &mut self.book else { return };
        let Report { in_force, trial, refused, .. } = book.report();
        let known = trial.or(in_force);
        if known.as_ref() == Some(&pushed.id) || refused.as_ref() == Some(&pushed.id) {
            return;
        }
        let id = pushed.id.clone();
        let new =
            check(&pushed).and_then(|()| (self.reload)(&pushed.settings).map_err(|error| error.to_string()));
        let new = new.and_then(|new| {
            book.attempt(pushed).map(|()| new).map_err(|error| format!("they cannot be noted: {error}"))
        });
        match new {
            Ok(new) => {
                tracing::info!(id, "the control plane pushed settings: they are on trial");
                let (told, taken) = oneshot::channel();
                self.apply(&new, Some(told)).await;
                self.trial = Some(self.trial_of(id, Some(taken)));
            }
            Err(reason) => self.refuse(&id, &reason),
        }
        self.tell();
    }

    fn trial_of(&self, id: String, taken: Option<oneshot::Receiver<Result<(), String>>>) -> Trial {
        let until = Instant::now() + self.current.epoch.0 * (DRAINS as u32 + 1) + PATIENCE;
        Trial { id, drains: self.metrics.drains.get() + DRAINS, until, taken }
    }

    /// Looks whether the sensor is well with what is on trial. Called every now and then.
    pub async fn look(&mut self) {
        let Some(trial) = &mut self.trial else { return };
        if let Some(taken) = &mut trial.taken {
            match taken.try_recv() {
                Ok(Ok(())) => trial.taken = None,
                Ok(Err(reason)) => return self.give_up(&reason).await,
                Err(oneshot::error::TryRecvError::Empty) => {}
                // The drain task has gone: the supervision tells.
                Err(oneshot::error::TryRecvError::Closed) => return,
            }
        }
        if trial.taken.is_none() && self.metrics.drains.get() >= trial.drains {
            tracing::info!(id = trial.id, "the sensor is well with the pushed settings: they stay");
            self.trial = None;
            self.metrics.pushed.with_label_values(&["applied"]).inc();
            if let Some(book) = &mut self.book {
                book.keep();
            }
            self.tell();
        } else if Instant::now() > trial.until {
            self.give_up("no epoch was counted and kept with them in time").await;
        }
    }

    /// The sensor ends; whether because it was told to.
    pub fn leave(&mut self, told: bool) {
        if let Some(book) = self.book.as_mut().filter(|_| told) {
            book.leave();
        }
    }

    /// Back to what was good before.
    async fn give_up(&mut self, reason: &str) {
        let Some(Trial { id, .. }) = self.trial.take() else { return };
        self.refuse(&id, reason);
        let good = self.book.as_ref().map(Book::settings).unwrap_or_default();
        match (self.reload)(&good) {
            Ok(new) => self.apply(&new, None).await,
            Err(error) => tracing::error!("the settings before cannot be read again: {error}"),
        }
        self.tell();
    }

    fn refuse(&mut self, id: &str, reason: &str) {
        tracing::error!(id, reason, "pushed settings are refused; those before stay in force");
        self.metrics.pushed.with_label_values(&["refused"]).inc();
        if let Some(book) = &mut self.book {
            book.refuse(id, reason);
        }
    }

    fn tell(&self) {
        self.report.send_replace(self.book.as_ref().map(Book::report).unwrap_or_default());
    }

    /// Gives the stages what can change; the rest waits for a restart.
    async fn apply(&mut self, new: &Config, taken: Option<oneshot::Sender<Result<(), String>>>) {
        let applied = Config {
            epoch: new.epoch,
            sampling: new.sampling,
            filter: new.filter.clone(),
            connections: new.connections,
            detect: new.detect.clone(),
            ..self.current.clone()
        };
        if applied != *new {
            let keys = changed(&applied, new);
            tracing::warn!(keys, "these settings have changed but take effect only after a restart");
        }
        let order = Steer {
            epoch: applied.epoch.0,
            sampling_interval: applied.sampling.interval,
            rules: applied.filter.kernel_rules(),
            default: applied.filter.default.into(),
            taken,
        };
        self.merge.send_replace(Arc::new(tuning(&applied)));
        // A drain task that has gone is told by the supervision.
        let _ = self.drain.send(order).await;
        self.current = applied;
    }
}

/// The sections that differ.
fn changed(old: &Config, new: &Config) -> String {
    let sections = [
        ("interfaces", old.interfaces != new.interfaces),
        ("tables", old.tables != new.tables),
        ("threats", old.threats != new.threats),
        ("events", old.events != new.events),
        ("devices", old.devices != new.devices),
        ("control_plane", old.control_plane != new.control_plane),
        ("heartbeat", old.heartbeat != new.heartbeat),
        ("credential", old.credential != new.credential),
        ("spool", old.spool != new.spool),
        ("shipping", old.shipping != new.shipping),
        ("processes", old.processes != new.processes),
        ("metrics", old.metrics != new.metrics),
        ("traces", old.traces != new.traces),
        ("log", old.log != new.log),
    ];
    sections.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}
