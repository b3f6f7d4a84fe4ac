//! `/metrics`, `/healthz` and `/readyz` on `[metrics] listen`.
//!
//! Started by `run`. Reads what the stages publish and owns nothing of theirs: liveness is that epochs are
//! drained, readiness is that and that batches arrive.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::pipeline::Pulse;
use crate::ship::Status;
use crate::spool::Standing;

/// A drain that is late by more than this beside its epoch has stopped.
const LATE: Duration = Duration::from_secs(15);
/// A control plane that has not answered for this long is away.
const AWAY: Duration = Duration::from_mins(1);

/// What the endpoints look at.
#[derive(Clone)]
pub struct Health {
    pub metrics: Arc<Metrics>,
    pub pulse: watch::Receiver<Pulse>,
    /// None where the sensor works alone.
    pub delivery: Option<watch::Receiver<Status>>,
    /// None where there is no control plane.
    pub spool: Option<watch::Receiver<Standing>>,
    /// When the sensor began: before that nothing is late.
    pub started: std::time::Instant,
}

/// Takes the address.
pub async fn bind(listen: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(listen).await
}

/// Serves until the process ends.
pub async fn serve(listener: TcpListener, health: Health) -> std::io::Result<()> {
    axum::serve(listener, router(health)).await
}

/// The routes.
pub fn router(health: Health) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(health)
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    capture: Part,
    control_plane: Part,
    spool: Part,
}

#[derive(Serialize)]
struct Part {
    ok: bool,
    detail: String,
}

async fn metrics(State(health): State<Health>) -> Response {
    match health.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn healthz(State(health): State<Health>) -> Response {
    let capture = health.alive();
    let status = if capture.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, capture.detail).into_response()
}

async fn readyz(State(health): State<Health>) -> Response {
    let (capture, control_plane, spool) = (health.capture(), health.control_plane(), health.spool());
    let ready = capture.ok && control_plane.ok && spool.ok;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, capture, control_plane, spool })).into_response()
}

impl Health {
    /// Epochs are drained, or must not be: a restart would not free a disk.
    fn alive(&self) -> Part {
        let mut capture = self.capture();
        let held = self.spool.as_ref().is_some_and(|spool| spool.borrow().held_batches > 0);
        if held && !capture.ok {
            capture.ok = true;
            capture.detail.push_str("; it is held back until the spool's disk or the control plane is back");
        }
        if let Some(delivery) = &self.delivery {
            let breaker = delivery.borrow().breaker.label();
            capture.detail = format!("{}; the circuit breaker of delivery is {breaker}", capture.detail);
        }
        capture
    }

    fn spool(&self) -> Part {
        let Some(spool) = &self.spool else {
            return Part { ok: true, detail: "none: no control plane is configured".to_owned() };
        };
        let standing = spool.borrow();
        let Standing { batches, bytes, capacity_bytes, quarantined_batches, .. } = *standing;
        let holds = format!(
            "{batches} batches wait ({bytes} of {capacity_bytes} bytes), {quarantined_batches} are in quarantine"
        );
        match &standing.degraded {
            None => Part { ok: true, detail: holds },
            Some(reason) => Part {
                ok: false,
                detail: format!(
                    "DEGRADED, it cannot be written ({reason}): free space or make spool.folder writable; {holds}"
                ),
            },
        }
    }

    fn capture(&self) -> Part {
        let Pulse { last_drain, epoch } = *self.pulse.borrow();
        let age = last_drain.unwrap_or(self.started).elapsed();
        let ok = age <= epoch * 2 + LATE;
        let detail = match last_drain {
            Some(_) => format!("the last epoch was drained {:.1} s ago", age.as_secs_f64()),
            None => "no epoch has been drained yet".to_owned(),
        };
        Part { ok, detail }
    }

    fn control_plane(&self) -> Part {
        let Some(delivery) = &self.delivery else {
            return Part { ok: true, detail: "none is configured; the sensor works alone".to_owned() };
        };
        let Status { last_success, failing_since, last_failure, breaker, remedy } = delivery.borrow().clone();
        let ago = |time: Instant| time.elapsed();
        match (last_success, failing_since) {
            (_, Some(since)) => Part {
                // A trouble that only a person can end is none that passes.
                ok: ago(since) < AWAY && last_success.is_some() && remedy.is_none(),
                detail: format!(
                    "failing for {} s: {}; the circuit breaker is {}{}",
                    ago(since).as_secs(),
                    last_failure.unwrap_or_else(|| "unknown".to_owned()),
                    breaker.label(),
                    remedy.map(|remedy| format!("; {remedy}")).unwrap_or_default()
                ),
            },
            (Some(success), None) => Part {
                ok: true,
                detail: format!("the last batch was taken {} s ago", ago(success).as_secs()),
            },
            (None, None) => Part { ok: false, detail: "no batch has been delivered yet".to_owned() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(last_drain: Option<Duration>, delivery: Option<Status>) -> Health {
        let now = std::time::Instant::now();
        let ago = |age: Duration| now.checked_sub(age).expect("the machine has been up for a minute");
        let pulse = Pulse { last_drain: last_drain.map(ago), epoch: Duration::from_secs(5) };
        Health {
            metrics: Arc::new(Metrics::new().expect("metrics")),
            pulse: watch::channel(pulse).1,
            delivery: delivery.map(|status| watch::channel(status).1),
            spool: None,
            started: now,
        }
    }

    async fn get(health: Health, path: &str) -> (StatusCode, String) {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(serve(listener, health));
        let answer = reqwest::get(format!("http://{address}{path}")).await.expect("it answers");
        (answer.status(), answer.text().await.expect("text"))
    }

    /// O3: capture running, batches arriving.
    #[tokio::test]
    async fn readiness_is_that_epochs_are_drained_and_batches_arrive() {
        let (young, old) = (Duration::from_secs(1), Duration::from_secs(40));
        let success = Status { last_success: Some(Instant::now()), ..Status::default() };
        let failing = |since: Duration| Status {
            failing_since: Instant::now().checked_sub(since),
            last_failure: Some("server: out of cheese".to_owned()),
            ..success.clone()
        };
        for (last_drain, delivery, live, ready) in [
            (None, None, 200, 200),
            (Some(young), None, 200, 200),
            (Some(old), None, 503, 503),
            (Some(young), Some(Status::default()), 200, 503),
            (Some(young), Some(success.clone()), 200, 200),
            (Some(young), Some(failing(young)), 200, 200),
            (Some(young), Some(failing(AWAY * 2)), 200, 503),
        ] {
            let health = health(last_drain, delivery);
            let (status, text) = get(health.clone(), "/healthz").await;
            assert_eq!(status.as_u16(), live, "{text}");
            let (status, text) = get(health, "/readyz").await;
            assert_eq!(status.as_u16(), ready, "{text}");
            assert!(
                serde_json::from_str::<serde_json::Value>(&text)
                    .is_ok_and(|json| json["ready"] == (ready == 200))
            );
        }
        let (_, text) = get(health(Some(young), Some(failing(AWAY * 2))), "/readyz").await;
        assert!(text.contains("out of cheese"), "{text}");
    }

    /// O3: a disk that cannot be written is no reason to restart the sensor, and one not to be ready.
    #[tokio::test]
    async fn a_degraded_spool_is_alive_and_not_ready() {
        let success = Status { last_success: Some(Instant::now()), ..Status::default() };
        let standing = Standing {
            degraded: Some("the disk: No space left on device".to_owned()),
            held_batches: 2,
            ..Standing::default()
        };
        let spool = Some(watch::channel(standing).1);
        let health = Health { spool, ..health(Some(Duration::from_secs(40)), Some(success)) };
        let (status, text) = get(health.clone(), "/healthz").await;
        assert_eq!(status, StatusCode::OK, "{text}");
        assert!(text.contains("held back") && text.contains("breaker of delivery is closed"), "{text}");
        let (status, text) = get(health, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text.contains("No space left") && text.contains("free space"), "{text}");
    }

    /// I5: what only a person can end makes the sensor not ready at once, and says what to do.
    #[tokio::test]
    async fn a_revoked_sensor_is_not_ready_and_says_why() {
        let revoked = Status {
            last_success: Some(Instant::now()),
            failing_since: Some(Instant::now()),
            last_failure: Some("revoked: this sensor was revoked".to_owned()),
            remedy: Some("enrol it anew"),
            ..Status::default()
        };
        let (status, text) = get(health(Some(Duration::from_secs(1)), Some(revoked)), "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text.contains("was revoked") && text.contains("enrol it anew"), "{text}");
    }

    #[tokio::test]
    async fn metrics_are_served() {
        let (status, text) = get(health(None, None), "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(text.contains("# TYPE weir_sensor_drains_total counter"), "{text}");
    }
}
