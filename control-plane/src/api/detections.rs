//! `/api/v1/detections`: what sensors say is a problem, and what people say of that.

use std::net::IpAddr;
use std::time::SystemTime;

use axum::Json;
use axum::extract::{Path, State};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use weir_wire::{Severity, limits};

use super::access::Caller;
use super::body::Body;
use super::error::Problem;
use super::paging::PageParams;
use super::params::{self, FromParams, NoParams, Params, Query};
use super::{ApiError, AppState, render};
use crate::ingest::is_word;
use crate::store::detections::{self, Filter};
use crate::store::{Reference, sensors};

/// Characters of a reason.
const MAX_REASON: usize = 500;

/// Which detections.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DetectionsParams {
    /// `active`, `acknowledged`, `dismissed`, or `all` of them
    #[param(value_type = Option<String>, default = "active", example = "active",
        pattern = "^(active|acknowledged|dismissed|all)$")]
    pub state: Option<detections::State>,
    /// At least this bad: `info`, `low`, `medium`, `high`, `critical`
    #[param(value_type = Option<String>, example = "medium", pattern = "^(info|low|medium|high|critical)$")]
    pub severity: Option<Severity>,
    /// Of this kind
    #[param(example = "port_scan", pattern = "^[a-z][a-z0-9_]*$", max_length = 32)]
    pub kind: Option<String>,
    /// Of the sensor with this id or name
    #[param(value_type = Option<String>, example = "edge-1")]
    pub sensor: Option<Reference>,
    /// About this address or network, or about exactly this subject
    #[param(example = "10.0.0.0/8", max_length = 256, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]+$")]
    pub subject: Option<String>,
    /// Seen at or after this time (RFC 3339)
    #[param(value_type = Option<String>, format = "date-time", example = "2026-01-31T00:00:00Z")]
    pub from: Option<Timestamp>,
    /// First seen before this time (RFC 3339)
    #[param(value_type = Option<String>, format = "date-time", example = "2026-02-01T00:00:00Z")]
    pub to: Option<Timestamp>,
}

impl FromParams for DetectionsParams {
    fn read(params: &mut Params) -> Self {
        use detections::State;
        let states = [
            ("active", Some(State::Active)),
            ("acknowledged", Some(State::Acknowledged)),
            ("dismissed", Some(State::Dismissed)),
            ("all", None),
        ];
        let state = params.choice("state", &states).unwrap_or(Some(State::Active));
        let severity = params.choice("severity", &Severity::ALL.map(|severity| (severity.word(), severity)));
        let kind = params
            .parsed("kind", "a word such as `port_scan`", |text| is_word(text).then(|| text.to_owned()));
        let sensor = params.parsed("sensor", "a sensor's id or name", sensors::named);
        let subject = params.parsed("subject", "an address, a network or a subject", |text| {
            let plain = text.chars().count() <= limits::MAX_TEXT && !text.chars().any(char::is_control);
            (plain && !text.is_empty()).then(|| text.to_owned())
        });
        let (from, to) = (params.time("from"), params.time("to"));
        Self { state, severity, kind, sensor, subject, from, to }
    }
}

impl From<DetectionsParams> for Filter {
    fn from(params: DetectionsParams) -> Self {
        let network = params.subject.as_deref().and_then(network);
        Self {
            state: params.state,
            severity: params.severity,
            kind: params.kind,
            sensor: params.sensor,
            subject: params.subject.filter(|_| network.is_none()),
            network,
            from: params.from.map(SystemTime::from),
            to: params.to.map(SystemTime::from),
        }
    }
}

/// An address or a network, as Postgres reads it; bits beyond the prefix are allowed.
pub(super) fn network(text: &str) -> Option<String> {
    let (address, prefix) =
        text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let prefix: u8 = prefix.map_or(Some(most), |prefix| prefix.parse().ok())?;
    (prefix <= most).then(|| format!("{address}/{prefix}"))
}

/// All parameters of the list.
pub struct ListParams {
    filter: DetectionsParams,
    page: PageParams,
}

impl FromParams for ListParams {
    fn read(params: &mut Params) -> Self {
        Self { filter: DetectionsParams::read(params), page: PageParams::read(params) }
    }
}

/// A detection: one kind of trouble with one subject, as one sensor sees it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": 7, "sensor_id": 1, "sensor": "edge-1", "kind": "port_scan", "severity": "high",
    "subject": "10.0.0.66", "address": "10.0.0.66", "technique": "T1046", "source": "flows",
    "first_seen": "2026-01-31T12:00:01.200000000Z", "last_seen": "2026-01-31T12:03:40.000000000Z",
    "count": 254, "evidence": {"mode": ["horizontal"], "port": [445], "host": ["10.0.0.1", "10.0.0.2"]},
    "state": "active", "state_at": null, "state_by": null, "reason": null, "ended_at": null
}))]
pub struct Detection {
    pub id: i64,
    pub sensor_id: i32,
    pub sensor: String,
    /// See `docs/detections.md`; newer sensors know more
    pub kind: String,
    /// `info`, `low`, `medium`, `high` or `critical`: the worst so far
    pub severity: &'static str,
    /// Whom it is about
    pub subject: String,
    /// The subject's address, if it has one
    pub address: Option<String>,
    /// MITRE ATT&CK
    pub technique: String,
    /// What it was found in
    pub source: String,
    pub first_seen: String,
    pub last_seen: String,
    /// What the kind counts: attempts, packets, connections, windows
    pub count: i64,
    /// Each name with its values, as last told
    #[schema(value_type = Object)]
    pub evidence: Value,
    /// `active`, `acknowledged` or `dismissed`
    pub state: String,
    /// When somebody said so
    pub state_at: Option<String>,
    pub state_by: Option<String>,
    /// Why it was dismissed
    pub reason: Option<String>,
    /// It came back after a day of silence: that is another detection
    pub ended_at: Option<String>,
}

impl From<detections::Detection> for Detection {
    fn from(detection: detections::Detection) -> Self {
        Self {
            id: detection.detection_id,
            sensor_id: detection.sensor_id,
            sensor: detection.sensor,
            kind: detection.kind,
            severity: detections::severity(detection.severity),
            subject: detection.subject,
            address: detection.address.map(|address| address.to_string()),
            technique: detection.technique,
            source: detection.source,
            first_seen: render::system_time(detection.first_seen),
            last_seen: render::system_time(detection.last_seen),
            count: detection.count,
            evidence: detection.evidence,
            state: detection.state,
            state_at: detection.state_at.map(render::system_time),
            state_by: detection.state_by,
            reason: detection.reason,
            ended_at: detection.ended_at.map(render::system_time),
        }
    }
}

/// A page of detections, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct DetectionPage {
    pub items: Vec<Detection>,
    #[schema(example = false)]
    pub has_more: bool,
    #[schema(example = json!(null))]
    pub continuation: Option<String>,
}

/// Why it is none.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"reason": "our own vulnerability scanner"}))]
pub struct Dismissal {
    /// Begins with what can be seen, and has no control characters
    #[schema(max_length = 500, pattern = "^[^\\s\\x00-\\x20\\x7f-\\xa0][^\\x00-\\x1f\\x7f-\\x9f]*$")]
    pub reason: String,
}

/// List detections
///
/// Newest first, by when they were opened; active ones unless `state` says otherwise.
#[utoipa::path(
    get,
    path = "/api/v1/detections",
    tag = "detections",
    params(DetectionsParams, PageParams),
    responses((status = 200, body = DetectionPage, description = "A page, maybe empty"))
)]
pub async fn list(
    State(state): State<AppState>,
    Query { value: ListParams { filter, page }, given }: Query<ListParams>,
) -> Result<Json<DetectionPage>, ApiError> {
    let before = page.after::<8>(&state, "detections", &given)?.map(i64::from_be_bytes);
    let mut found = detections::list(&state.pool, &filter.into(), before, page.limit() as i64 + 1).await?;
    let continuation =
        page.next(&state, "detections", &given, &mut found, |found| found.detection_id.to_be_bytes());
    let items = found.into_iter().map(Detection::from).collect();
    Ok(Json(DetectionPage { items, has_more: continuation.is_some(), continuation }))
}

/// Show a detection
#[utoipa::path(
    get,
    path = "/api/v1/detections/{detection}",
    tag = "detections",
    params(("detection" = i64, Path, description = "Detection's id", minimum = 1, maximum = 9_007_199_254_740_991_i64, example = 7)),
    responses(
        (status = 200, body = Detection, description = "The detection"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such detection"),
    )
)]
pub async fn get(
    State(state): State<AppState>,
    Path(detection): Path<String>,
    _: Query<NoParams>,
) -> Result<Json<Detection>, ApiError> {
    shown(detections::get(&state.pool, params::id("detection", &detection)?).await?)
}

/// Acknowledge a detection
///
/// Somebody knows and is on it. It is still added to, and no longer in the list of active ones.
#[utoipa::path(
    post,
    path = "/api/v1/detections/{detection}/acknowledge",
    tag = "detections",
    params(("detection" = i64, Path, description = "Detection's id", minimum = 1, maximum = 9_007_199_254_740_991_i64, example = 7)),
    responses(
        (status = 200, body = Detection, description = "The detection as it is now"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such detection"),
    )
)]
pub async fn acknowledge(
    State(state): State<AppState>,
    caller: Caller,
    Path(detection): Path<String>,
    _: Query<NoParams>,
) -> Result<Json<Detection>, ApiError> {
    judge(&state, &caller, &detection, detections::State::Acknowledged, None).await
}

/// Dismiss a detection
///
/// It is no problem. More of the same is added to it quietly, until it is reopened or forgotten.
#[utoipa::path(
    post,
    path = "/api/v1/detections/{detection}/dismiss",
    tag = "detections",
    params(("detection" = i64, Path, description = "Detection's id", minimum = 1, maximum = 9_007_199_254_740_991_i64, example = 7)),
    request_body = Dismissal,
    responses(
        (status = 200, body = Detection, description = "The detection as it is now"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such detection"),
    )
)]
pub async fn dismiss(
    State(state): State<AppState>,
    caller: Caller,
    Path(detection): Path<String>,
    _: Query<NoParams>,
    Body(body): Body<Dismissal>,
) -> Result<Json<Detection>, ApiError> {
    let reason = body.reason.as_str();
    let visible = reason.chars().next().is_some_and(|first| !first.is_whitespace());
    if !visible || reason.chars().count() > MAX_REASON || reason.chars().any(char::is_control) {
        let message = format!("is not 1 to {MAX_REASON} characters that begin with one that can be seen");
        return Err(ApiError::parameter("reason", message));
    }
    judge(&state, &caller, &detection, detections::State::Dismissed, Some(reason)).await
}

/// Reopen a detection
#[utoipa::path(
    post,
    path = "/api/v1/detections/{detection}/reopen",
    tag = "detections",
    params(("detection" = i64, Path, description = "Detection's id", minimum = 1, maximum = 9_007_199_254_740_991_i64, example = 7)),
    responses(
        (status = 200, body = Detection, description = "The detection, active again"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such detection"),
    )
)]
pub async fn reopen(
    State(state): State<AppState>,
    caller: Caller,
    Path(detection): Path<String>,
    _: Query<NoParams>,
) -> Result<Json<Detection>, ApiError> {
    judge(&state, &caller, &detection, detections::State::Active, None).await
}

async fn judge(
    state: &AppState,
    caller: &Caller,
    detection: &str,
    judgement: detections::State,
    reason: Option<&str>,
) -> Result<Json<Detection>, ApiError> {
    let id = params::id("detection", detection)?;
    shown(detections::judge(&state.pool, &caller.author(), id, judgement, reason).await?)
}

fn shown(detection: Option<detections::Detection>) -> Result<Json<Detection>, ApiError> {
    let detection = detection.ok_or_else(|| ApiError::not_found("no detection has this id"))?;
    Ok(Json(detection.into()))
}
