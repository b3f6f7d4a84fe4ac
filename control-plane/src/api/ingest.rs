//! `POST /api/v1/ingest`: a sensor's batch.

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::LengthLimitError;
use serde::Serialize;
use utoipa::ToSchema;
use weir_wire::{CONTENT_ENCODING, CONTENT_TYPE, SENT_AT_HEADER, limits};

use super::access::AuthenticatedSensor;
use super::error::{Category, Problem};
use super::{ApiError, AppState};
use crate::ingest::{self, IngestError};

/// The batch needs not be sent again.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"status": "stored", "kept": "flows", "records": 12_345}))]
pub struct Acknowledged {
    pub status: IngestStatus,
    /// What is kept under the batch's key
    pub kept: Kept,
    /// Flow records of the batch
    pub records: usize,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum IngestStatus {
    /// By this request
    Stored,
    /// By an earlier one; this one changed nothing
    Duplicate,
    /// The window is older than is kept: its flows are not stored, its counts are in the ledger as a loss
    Expired,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kept {
    Flows,
    /// A notice that the sensor dropped the flows
    Dropped,
    /// The counts, of a window that was too old
    Expired,
}

/// Store a batch of flows
///
/// The body is a protobuf `Batch`, compressed with zstd. A batch is stored once, however often it comes:
/// its key is the sensor, the generation, the epoch and the part. A notice that the flows were dropped has
/// the same key: the first of the two that comes is kept, and the answer says which. Answers 408, 429 and
/// 5xx may be repeated with the same bytes, no sooner than `Retry-After` says; other 4xx are final.
#[utoipa::path(
    post,
    path = "/api/v1/ingest",
    tag = "ingest",
    params(
        ("content-encoding" = String, Header, description = "`zstd`", example = "zstd", pattern = "^zstd$"),
        ("weir-sent-at" = Option<i64>, Header, description =
            "The sensor's clock at sending, milliseconds since the Unix epoch; its skew is measured", example = 1_767_225_600_000_i64),
    ),
    request_body(content = Vec<u8>, content_type = "application/x-protobuf", description = "zstd-compressed protobuf"),
    responses(
        (status = 200, body = Acknowledged, description = "The batch needs not be sent again"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "Not a batch, or a wrong header"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "No sensor's token, or a revoked sensor's (`sensor-revoked`)"),
        (status = 410, body = Problem, content_type = "application/problem+json", description = "The sensor was deleted (`sensor-gone`)"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "A field breaks a rule"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "Too many batches of this sensor at once"),
    )
)]
pub async fn ingest(
    State(state): State<AppState>,
    sender: AuthenticatedSensor,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Acknowledged>, ApiError> {
    check_type(&headers)?;
    let sent_at = sent_at(&headers)?;
    if content_length(&headers).is_some_and(|length| length > limits::MAX_COMPRESSED as u64) {
        return Err(too_large());
    }
    let place = state.admission.place(sender.sensor_id).await?;
    let body = to_bytes(body, limits::MAX_COMPRESSED).await.map_err(|error| read_error(&error))?;
    let permit = place.enter().await?;
    let result = state.ingest.accept(sender.sensor_id, body, sent_at, permit).await;
    if matches!(result, Err(IngestError::Revoked | IngestError::Gone)) {
        state.auth.forget(sender.sensor_id);
    }
    let accepted = result?;
    let (status, kept) = match accepted.kept {
        ingest::Kept::Flows => (IngestStatus::Stored, Kept::Flows),
        ingest::Kept::Notice => (IngestStatus::Stored, Kept::Dropped),
        ingest::Kept::Expired => (IngestStatus::Expired, Kept::Expired),
    };
    let status = if accepted.duplicate { IngestStatus::Duplicate } else { status };
    Ok(Json(Acknowledged { status, kept, records: accepted.records }))
}

fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let is = |name, wanted: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(wanted)
    };
    if is(header::CONTENT_TYPE, CONTENT_TYPE) && is(header::CONTENT_ENCODING, CONTENT_ENCODING) {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Category::Validation,
        "unsupported-media-type",
        "The body has another type",
        format!("send Content-Type: {CONTENT_TYPE} and Content-Encoding: {CONTENT_ENCODING}"),
    ))
}

fn sent_at(headers: &HeaderMap) -> Result<Option<i64>, ApiError> {
    let Some(value) = headers.get(SENT_AT_HEADER) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.parse::<i64>().ok());
    number.map(Some).ok_or_else(|| {
        ApiError::parameter(SENT_AT_HEADER, "not a number of milliseconds since the Unix epoch")
    })
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large() -> ApiError {
    let mut error = ApiError::from_status(StatusCode::PAYLOAD_TOO_LARGE);
    error.detail = format!("a batch has at most {} bytes", limits::MAX_COMPRESSED);
    error
}

/// The limit was reached, or the sender went away.
fn read_error(error: &axum::Error) -> ApiError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = source {
        if inner.is::<LengthLimitError>() {
            return too_large();
        }
        source = inner.source();
    }
    let mut problem = ApiError::from_status(StatusCode::BAD_REQUEST);
    "the body ended early".clone_into(&mut problem.detail);
    problem
}
