//! What is done in the background: jobs and alerts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{GaugeVec, HistogramVec, IntCounterVec, IntGauge};

use super::{Builder, JOB};
use crate::store::jobs::Outcome;

/// Background jobs: what this instance ran, and when any did.
#[derive(Debug)]
pub struct JobMetrics {
    /// job, outcome
    pub runs: IntCounterVec,
    /// job
    seconds: HistogramVec,
    /// job
    last_success: GaugeVec,
}

impl JobMetrics {
    pub(super) fn new(b: &Builder) -> Self {
        Self {
            runs: b.counters(
                "weir_job_runs_total",
                "Runs of background jobs that ended on this instance, by outcome: done, failed, overran (cut \
                 off at its deadline), stopped (with the server), lost (to another instance)",
                &["job", "outcome"],
            ),
            seconds: b.histograms(
                "weir_job_duration_seconds",
                "Time that a run of a background job took",
                &["job"],
                JOB,
            ),
            last_success: b.gauges(
                "weir_job_last_success_timestamp_seconds",
                "When the last run of a job that came to its end began, on whichever instance; 0 before the \
                 first",
                &["job"],
            ),
        }
    }

    /// Its series begin at 0.
    pub fn known(&self, job: &str) {
        for outcome in Outcome::ALL {
            self.runs.with_label_values(&[job, outcome.name()]);
        }
        self.last_success.with_label_values(&[job]);
    }

    pub fn ended(&self, job: &str, outcome: Outcome, took: Duration) {
        self.runs.with_label_values(&[job, outcome.name()]).inc();
        self.seconds.with_label_values(&[job]).observe(took.as_secs_f64());
    }

    pub fn succeeded(&self, job: &str, at: Option<SystemTime>) {
        let since = at.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        self.last_success.with_label_values(&[job]).set(since.as_secs_f64());
    }
}

/// Rules and what was told of them, on this instance.
#[derive(Debug)]
pub struct AlertMetrics {
    pub failing_rules: IntGauge,
    /// state
    transitions: IntCounterVec,
    /// kind, outcome
    deliveries: IntCounterVec,
}

impl AlertMetrics {
    pub(super) fn new(b: &Builder) -> Self {
        let alerts = Self {
            failing_rules: b.gauge(
                "weir_alert_rules_failing",
                "Rules whose question had no answer in the last look that this instance took at them",
            ),
            transitions: b.counters(
                "weir_alert_transitions_total",
                "Alerts that began to fire, and that were resolved",
                &["state"],
            ),
            deliveries: b.counters(
                "weir_alert_deliveries_total",
                "Attempts to tell a receiver, by its kind and the outcome: delivered, failed (tried again), given_up",
                &["kind", "outcome"],
            ),
        };
        for state in ["firing", "resolved"] {
            alerts.transitions.with_label_values(&[state]);
        }
        for kind in ["webhook", "alertmanager", "email"] {
            for outcome in ["delivered", "failed", "given_up"] {
                alerts.deliveries.with_label_values(&[kind, outcome]);
            }
        }
        alerts
    }

    pub fn transitions(&self, state: &str, alerts: usize) {
        self.transitions.with_label_values(&[state]).inc_by(alerts as u64);
    }

    pub fn delivery(&self, kind: &str, outcome: &str) {
        self.deliveries.with_label_values(&[kind, outcome]).inc();
    }
}
