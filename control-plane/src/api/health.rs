//! `/healthz`, `/readyz` and `/metrics`: open to all, for probes and for Prometheus.

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::AppState;
use crate::store::migrations;

/// Readiness answers within a second, whatever its dependencies do.
const PATIENCE: Duration = Duration::from_millis(800);

/// The process answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    #[schema(example = "ok")]
    pub status: &'static str,
    #[schema(example = "0.1.0")]
    pub version: &'static str,
}

/// Whether requests can be served now.
#[derive(Debug, Serialize, ToSchema)]
pub struct Readiness {
    /// `ready` or `unready`
    #[schema(example = "ready")]
    pub status: &'static str,
    pub dependencies: Vec<Dependency>,
}

/// Something that the server needs, or does better with.
#[derive(Debug, Serialize, ToSchema)]
pub struct Dependency {
    /// `database`, `migrations`, or `redis` where it is configured
    #[schema(example = "database")]
    pub name: &'static str,
    /// `up`, `down` or `slow` (no answer in time)
    #[schema(example = "up")]
    pub state: &'static str,
    #[schema(example = 0.8)]
    pub latency_ms: f64,
    /// Without it nothing can be served; without Redis each instance limits by itself
    #[schema(example = true)]
    pub required: bool,
}

/// Liveness
///
/// Says that the process runs, and nothing about its database.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "health",
    responses((status = 200, body = Health, description = "Alive"))
)]
pub async fn healthz() -> Json<Health> {
    Json(Health { status: "ok", version: env!("CARGO_PKG_VERSION") })
}

/// Readiness
///
/// Asks the database a question through the pool that requests use. Answers within a second.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    responses(
        (status = 200, body = Readiness, description = "Ready"),
        (status = 503, body = Readiness, description = "A dependency is down, slow or has another schema"),
    )
)]
pub async fn readyz(State(state): State<AppState>) -> Response {
    // Beside each other: what hangs takes its own time only.
    let (mut dependencies, redis) = tokio::join!(database(&state), state.limits.redis(PATIENCE));
    dependencies.extend(redis.map(|ping| Dependency {
        name: "redis",
        state: ping.state,
        latency_ms: milliseconds(ping.latency),
        required: false,
    }));
    let ready = dependencies.iter().all(|dependency| !dependency.required || dependency.state == "up");
    let body = Readiness { status: if ready { "ready" } else { "unready" }, dependencies };
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}

async fn database(state: &AppState) -> Vec<Dependency> {
    let started = Instant::now();
    let version = tokio::time::timeout(PATIENCE, migrations::version(&state.pool)).await;
    let latency_ms = milliseconds(started.elapsed());
    let (database, schema) = match version {
        Ok(Ok(version)) => ("up", if version == migrations::latest() { "up" } else { "down" }),
        Ok(Err(error)) => {
            tracing::warn!(%error, "not ready");
            ("down", "down")
        }
        Err(_) => ("slow", "slow"),
    };
    [("database", database), ("migrations", schema)]
        .map(|(name, state)| Dependency { name, state, latency_ms, required: true })
        .into()
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Metrics
///
/// Prometheus' text format. Open, since scrapers rarely carry credentials and no label names a person, an
/// address or a sensor; keep it from strangers with the listen address or a proxy.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "health",
    responses((status = 200, body = String, content_type = "text/plain", description = "All metrics"))
)]
pub async fn metrics(State(state): State<AppState>) -> Response {
    let text = state.metrics.render(state.pool.state());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
