//! What is watched for, and who is told.
//!
//! ```text
//! rules -> samples (what a rule finds) -> states (pending, firing, resolved) -> notices -> deliveries -> receivers
//! ```
//!
//! Two jobs do it, each on one instance at a time ([`crate::jobs`]): `alert-rules` looks at every rule and queues
//! what is to be said, `alert-deliveries` says it. Everything between them is rows, so nothing is forgotten with
//! an instance, and a rule whose question fails keeps its alerts and shows why (decision 61).

mod condition;
mod email;
mod receiver;

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::backoff::Backoff;
use crate::config;
use crate::jobs::{Job, JobError, Run};
use crate::naming::{Naming, Services};
use crate::outbound::Outbound;
use crate::store::alerts::deliveries::{self, Delivery};
use crate::store::alerts::rules::{self, MAX_RULES, Rule};
use crate::store::alerts::samples::{self, Breach, Chosen};
use crate::store::alerts::{notices, states};
use crate::store::devices::{self, HeldError};
use crate::store::{Pool, StoreError, networks};
use crate::telemetry::Metrics;

pub use condition::{Condition, Group, Measure, Weight};
use receiver::Letter;
pub use receiver::{Target, TargetError};

/// Waits between attempts at one receiver.
const RETRY: Backoff = Backoff { first: Duration::from_secs(5), longest: Duration::from_mins(15) };
/// After so many failures in a row a receiver's breaker is open, and only a probe goes to it.
const BREAKER_AFTER: i32 = 5;
/// Rounds of deliveries in one run: with each, every receiver is told one thing.
const MAX_ROUNDS: usize = 200;

/// Whose fault it is that a rule has no answer.
enum Failure {
    Rule(String),
    /// Nobody's: no rule can be looked at now.
    Run(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::Run(error),
            error => Self::Rule(error.to_string()),
        }
    }
}

impl From<HeldError> for Failure {
    fn from(error: HeldError) -> Self {
        match error {
            HeldError::TooMany => Self::Rule(error.to_string()),
            HeldError::Store(error) => error.into(),
        }
    }
}

/// The engine; cheap to clone.
#[derive(Clone)]
pub struct Alerts {
    pool: Pool,
    outbound: Outbound,
    settings: Arc<config::Alerts>,
    services: Arc<Services>,
    metrics: Metrics,
}

impl Alerts {
    #[must_use]
    pub fn new(
        pool: Pool,
        outbound: Outbound,
        settings: config::Alerts,
        services: Arc<Services>,
        metrics: Metrics,
    ) -> Self {
        Self { pool, outbound, settings: Arc::new(settings), services, metrics }
    }

    /// What one instance does for all.
    pub fn jobs(&self) -> Vec<Job> {
        let (interval, delivery) = (self.settings.interval_s, self.settings.delivery_interval_s);
        let (rules, deliveries, history) = (self.clone(), self.clone(), self.clone());
        let minutes = Duration::from_mins;
        vec![
            Job::new("alert-rules", Duration::from_secs(interval), minutes(5), move |run| {
                let this = rules.clone();
                async move { this.evaluate(&run).await }
            }),
            Job::new("alert-deliveries", Duration::from_secs(delivery), minutes(2), move |_| {
                let this = deliveries.clone();
                async move { this.deliver().await }
            }),
            Job::new("alert-history", Duration::from_hours(1), minutes(15), move |_| {
                let this = history.clone();
                async move {
                    states::forget(&this.pool, this.settings.history_days).await?;
                    Ok(())
                }
            }),
        ]
    }

    /// Looks at every rule once, and queues what is new.
    async fn evaluate(&self, run: &Run) -> Result<(), JobError> {
        let mut failures = 0;
        let naming = Arc::new(networks::naming(&self.pool, &self.services).await?);
        for rule in rules::list(&self.pool, 0, MAX_RULES).await?.iter().filter(|rule| rule.enabled) {
            if !self.look(run, rule, &naming).await? {
                failures += 1;
            }
        }
        self.metrics.alerts.failing_rules.set(failures);
        notices::enqueue(&self.pool, run.turn.as_ref()).await?;
        Ok(())
    }

    /// Whether the rule has an answer. An error of its question is the rule's; any other ends the run.
    async fn look(&self, run: &Run, rule: &Rule, naming: &Arc<Naming>) -> Result<bool, StoreError> {
        let found = match self.found(rule, run.now, naming).await {
            Ok(found) => Ok(found),
            Err(Failure::Run(error)) => return Err(error),
            Err(Failure::Rule(told)) => Err(told),
        };
        let (turn, ok) = (run.turn.as_ref(), found.is_ok());
        let bound = format!("it holds for more than {} groups; the worst are watched", samples::MAX_GROUPS);
        let found = found.as_ref().map_or_else(
            |error| Err(error.as_str()),
            |(breaches, more)| Ok((breaches.as_slice(), more.then_some(bound.as_str()))),
        );
        let changes = states::apply(&self.pool, turn, rule, found).await?;
        self.metrics.alerts.transitions("firing", changes.fired);
        self.metrics.alerts.transitions("resolved", changes.resolved);
        Ok(ok)
    }

    /// What the rule's question finds.
    async fn found(
        &self,
        rule: &Rule,
        now: Timestamp,
        naming: &Arc<Naming>,
    ) -> Result<(Vec<Breach>, bool), Failure> {
        let expression = rule.condition.expression().map_err(|error| Failure::Rule(error.to_string()))?;
        let expression = match (expression, rule.condition.window_s()) {
            (Some(expression), Some(window_s)) => {
                let from = now.checked_sub(SignedDuration::from_secs(window_s.into())).unwrap_or(now);
                Some(devices::resolve(&self.pool, &expression, (from, now)).await?)
            }
            // Whoever chooses flows looks back.
            _ => None,
        };
        let chosen = Chosen { expression, naming: Arc::clone(naming) };
        let timeout = self.settings.rule_timeout();
        Ok(samples::breaches(&self.pool, &rule.condition, chosen, now, timeout).await?)
    }

    /// Sends what is due, each receiver's in order, all receivers at once.
    async fn deliver(&self) -> Result<(), JobError> {
        for _ in 0..MAX_ROUNDS {
            let due = deliveries::take(&self.pool).await?;
            if due.is_empty() {
                break;
            }
            let sent =
                futures_util::future::join_all(due.iter().map(|delivery| self.attempt(delivery))).await;
            sent.into_iter().collect::<Result<(), StoreError>>()?;
        }
        Ok(())
    }

    async fn attempt(&self, delivery: &Delivery) -> Result<(), StoreError> {
        let kind = delivery.target.kind();
        let result = self.send(delivery).await;
        let Err(error) = result else {
            deliveries::delivered(&self.pool, delivery).await?;
            self.metrics.alerts.delivery(kind, "delivered");
            return Ok(());
        };
        let failures = delivery.failures.saturating_add(1);
        let (wait, open) = (RETRY.after(failures.cast_unsigned()), failures >= BREAKER_AFTER);
        let give_up = Duration::from_hours(u64::from(self.settings.give_up_hours));
        let error = error.to_string();
        tracing::warn!(receiver = delivery.receiver, delivery = %delivery.key, error, "an alert was not delivered");
        let over = deliveries::failed(&self.pool, delivery, &error, wait, open, give_up).await?;
        self.metrics.alerts.delivery(kind, if over { "given_up" } else { "failed" });
        Ok(())
    }

    async fn send(&self, delivery: &Delivery) -> Result<(), TargetError> {
        let secrets = self.settings.secrets_dir.as_deref();
        match delivery.target.letter(delivery, secrets, Timestamp::now())? {
            Letter::Mail(mail) => Ok(self.outbound.mail(&mail).await?),
            Letter::Request(request) => match self.outbound.send(request).await?.status {
                200..300 => Ok(()),
                status => Err(TargetError::Status(status)),
            },
        }
    }
}
