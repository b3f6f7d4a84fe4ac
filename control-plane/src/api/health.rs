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

/// Something that the server cannot do without.
#[derive(Debug, Serialize, ToSchema)]
pub struct Dependency {
    /// `database` or `migrations`
    #[schema(example = "database")]
    pub name: &'static str,
    /// `up`, `down` or `slow` (no answer in time)
    #[schema(example = "up")]
    pub state: &'static str,
    #[schema(example = 0.8)]
    pub latency_ms: f64,
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
    let started = Instant::now();
    let version = tokio::time::timeout(PATIENCE, migrations::version(&state.pool)).await;
    let latency_ms = (started.elapsed().as_secs_f64() * 1e6).round() / 1e3;
    let (database, schema) = match version {
        Ok(Ok(version)) => ("up", if version == migrations::latest() { "up" } else { "down" }),
        Ok(Err(error)) => {
            tracing::warn!(%error, "not ready");
            ("down", "down")
        }
        Err(_) => ("slow", "slow"),
    };
    let ready = database == "up" && schema == "up";
    let body = Readiness {
        status: if ready { "ready" } else { "unready" },
        dependencies: vec![
            Dependency { name: "database", state: database, latency_ms },
            Dependency { name: "migrations", state: schema, latency_ms },
        ],
    };
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
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
