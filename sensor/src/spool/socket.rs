//! A running sensor answers for its spool on a Unix socket: the file is open in one process only.
//!
//! HTTP, for whoever may open the socket (mode 0600). `weir-sensor spool` and `weir-sensor ledger` ask here.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as Segment, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;

use super::{Range, Spool, StoreError};

/// Batches in one answer.
pub const PAGE: usize = 1_000;

/// Takes the socket; one that a killed sensor left behind is replaced.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(known) if known.file_type().is_socket() => std::fs::remove_file(path)?,
        // Anything else is not ours to remove: binding fails and says so.
        Ok(_) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until the process ends.
pub async fn serve(listener: UnixListener, spool: Spool) {
    let routes = Router::new()
        .route("/standing", get(standing))
        .route("/batches", get(batches))
        .route("/batches/{number}/body", get(body))
        .route("/ledger", get(ledger))
        .route("/quarantine/retry", post(retry))
        .with_state(spool);
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::warn!(%error, "the spool's socket has failed");
    }
}

/// From which batch on.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct From {
    #[serde(default)]
    pub from: u64,
}

/// A range of the ledger, nanoseconds since the Unix epoch.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Between {
    pub from_ns: Option<i64>,
    pub to_ns: Option<i64>,
}

/// Which batches of the quarantine: these, or all.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Again {
    pub numbers: Option<Vec<u64>>,
}

/// How many batches wait again.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Moved {
    pub batches: u64,
}

async fn standing(State(spool): State<Spool>) -> Response {
    Json(spool.standing()).into_response()
}

async fn batches(State(spool): State<Spool>, Query(From { from }): Query<From>) -> Response {
    answer(spool.list(from, PAGE).await)
}

async fn body(State(spool): State<Spool>, Segment(number): Segment<u64>) -> Response {
    match spool.body(number).await {
        Ok(Some(body)) => Bytes::from(body).into_response(),
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => failed(&error),
    }
}

async fn ledger(State(spool): State<Spool>, Query(Between { from_ns, to_ns }): Query<Between>) -> Response {
    answer(spool.ledger(Range { from_ns, to_ns }).await)
}

async fn retry(State(spool): State<Spool>, Json(Again { numbers }): Json<Again>) -> Response {
    answer(spool.retry(numbers).await.map(|batches| Moved { batches }))
}

fn answer<T: Serialize>(result: Result<T, StoreError>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(error) => failed(&error),
    }
}

fn failed(error: &StoreError) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response()
}
