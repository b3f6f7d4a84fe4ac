//! `/api/v1/sensors`: what is known of them, where they belong, and their end.

use std::collections::BTreeMap;
use std::time::SystemTime;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::access::Caller;
use super::belonging;
use super::body::Body;
use super::erasures::{self, EraseParams, Erasure, ErasurePlan};
use super::error::Problem;
use super::heartbeat::Liveness;
use super::params::{FromParams, NoParams, Params, Query};
use super::render::{self, Point};
use super::{ApiError, AppState};
use crate::store::Reference;
use crate::store::erasure::Subject;
use crate::store::sensors::{self, BelongingChange, Which};

/// Which page of sensors.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SensorsParams {
    /// Sensors in a page
    #[param(minimum = 1, maximum = 1000, default = 1000, example = 100)]
    pub limit: Option<u16>,
    /// Sensors with a greater id; `continuation` of the page before
    #[param(minimum = 0, maximum = 2_147_483_647, example = 0)]
    pub continuation: Option<i32>,
    /// Of this site
    #[param(example = "ams")]
    pub site: Option<String>,
    /// Of this group
    #[param(example = "edge")]
    pub group: Option<String>,
    /// With all of these labels: `key=value`, split by commas
    #[param(value_type = Option<String>, example = "env=prod")]
    pub labels: Option<BTreeMap<String, String>>,
}

impl FromParams for SensorsParams {
    fn read(params: &mut Params) -> Self {
        Self {
            limit: params.number("limit", 1..=1_000).map(|limit| limit as u16),
            continuation: params.number("continuation", 0..=i32::MAX as u64).map(|after| after as i32),
            site: params.parsed("site", belonging::NAME, belonging::name),
            group: params.parsed("group", belonging::NAME, belonging::name),
            labels: params.parsed("labels", "a list of key=value, split by commas", belonging::labels),
        }
    }
}

/// A page of sensors, in order of id.
#[derive(Debug, Serialize, ToSchema)]
pub struct SensorPage {
    pub items: Vec<Sensor>,
    pub has_more: bool,
    pub continuation: Option<String>,
}

/// A sensor and what it last told.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": 1, "name": "edge-1", "state": "active", "created_at": "2026-01-31T11:00:00.000000000Z",
    "revoked_at": null, "last_seen_at": "2026-01-31T12:00:06.100000000Z",
    "last_window_end": "2026-01-31T12:00:05.000000000Z", "clock_skew_ms": 12, "clock_flagged": false,
    "batches": 720, "records": 91_000, "clock_steps": 0, "clock_step_ms": null, "clock_stepped_at": null,
    "deleted_at": null, "site": "ams", "group": "edge", "labels": {"env": "prod"},
    "spool": {"as_of": "2026-01-31T12:00:05.000000000Z", "batches": 0, "bytes": 0,
              "capacity_bytes": 1_073_741_824, "oldest_age_ms": 0, "quarantined_batches": 0,
              "quarantined_packets": 0, "degraded": false},
    "liveness": {"state": "online", "since": "2026-01-31T11:00:06.100000000Z",
                 "last_alive_at": "2026-01-31T12:00:06.100000000Z", "heartbeat_at": null, "heartbeat": null}
}))]
pub struct Sensor {
    pub id: i32,
    pub name: String,
    /// `new` (never sent), `active`, `revoked` or `deleting`
    pub state: &'static str,
    pub created_at: String,
    pub revoked_at: Option<String>,
    /// When its last batch was stored
    pub last_seen_at: Option<String>,
    pub last_window_end: Option<String>,
    /// Our clock less the sensor's, the way of the request included
    pub clock_skew_ms: Option<i64>,
    /// Skew of more than five minutes
    pub clock_flagged: bool,
    pub batches: i64,
    pub records: i64,
    /// Epochs within which the sensor's clock was set
    pub clock_steps: i64,
    /// By how much it was set last; forward is positive
    pub clock_step_ms: Option<f64>,
    /// When that was told
    pub clock_stepped_at: Option<String>,
    /// When it was deleted; what it sent is on its way out
    pub deleted_at: Option<String>,
    /// Where it belongs, as operators say it
    pub site: Option<String>,
    pub group: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// As the sensor last told
    pub spool: Option<Spool>,
    pub liveness: Liveness,
}

/// The state of a sensor's spool.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "as_of": "2026-01-31T12:00:05.000000000Z", "batches": 2, "bytes": 48_320, "capacity_bytes": 1_073_741_824,
    "oldest_age_ms": 7_400, "quarantined_batches": 0, "quarantined_packets": 0, "degraded": false
}))]
pub struct Spool {
    /// When this was so, by our clock
    pub as_of: String,
    /// Batches that wait for delivery
    pub batches: i64,
    pub bytes: i64,
    /// The bound of `bytes`
    pub capacity_bytes: i64,
    pub oldest_age_ms: i64,
    /// Batches that were refused for good and are kept aside
    pub quarantined_batches: i64,
    pub quarantined_packets: i64,
    /// The disk cannot be written: batches wait in memory
    pub degraded: bool,
}

impl From<&(SystemTime, crate::ingest::Spool)> for Spool {
    fn from((as_of, spool): &(SystemTime, crate::ingest::Spool)) -> Self {
        Self {
            as_of: render::system_time(*as_of),
            batches: spool.batches,
            bytes: spool.bytes,
            capacity_bytes: spool.capacity_bytes,
            oldest_age_ms: spool.oldest_age_ms,
            quarantined_batches: spool.quarantined_batches,
            quarantined_packets: spool.quarantined_packets,
            degraded: spool.degraded,
        }
    }
}

/// A sensor with its observation points.
#[derive(Debug, Serialize, ToSchema)]
pub struct SensorDetail {
    #[serde(flatten)]
    pub sensor: Sensor,
    pub points: Vec<Point>,
}

impl From<sensors::Sensor> for Sensor {
    fn from(sensor: sensors::Sensor) -> Self {
        let status = sensor.status.as_ref();
        Self {
            id: sensor.sensor_id,
            state: sensor.state(),
            name: sensor.name,
            created_at: render::system_time(sensor.created_at),
            revoked_at: sensor.revoked_at.map(render::system_time),
            last_seen_at: status.map(|status| render::system_time(status.last_seen_at)),
            last_window_end: status.map(|status| render::system_time(status.last_window_end)),
            clock_skew_ms: status.and_then(|status| status.clock_skew_ms),
            clock_flagged: status.is_some_and(|status| status.clock_flagged),
            batches: status.map_or(0, |status| status.batches),
            records: status.map_or(0, |status| status.records),
            clock_steps: status.map_or(0, |status| status.clock_steps),
            clock_step_ms: status
                .and_then(|status| status.clock_step)
                .map(|(step_ns, _)| step_ns as f64 / 1e6),
            clock_stepped_at: status
                .and_then(|status| status.clock_step)
                .map(|(_, at)| render::system_time(at)),
            deleted_at: sensor.deleted_at.map(render::system_time),
            spool: status.and_then(|status| status.spool.as_ref()).map(Spool::from),
            liveness: Liveness::from(sensor.presence.as_ref()),
            site: sensor.belonging.site,
            group: sensor.belonging.group,
            labels: sensor.belonging.labels,
        }
    }
}

/// List sensors
#[utoipa::path(
    get,
    path = "/api/v1/sensors",
    tag = "sensors",
    params(SensorsParams),
    responses(
        (status = 200, body = SensorPage, description = "A page, maybe empty"),
    )
)]
pub async fn list(
    State(state): State<AppState>,
    Query { value: params, .. }: Query<SensorsParams>,
) -> Result<Json<SensorPage>, ApiError> {
    let limit = usize::from(params.limit.unwrap_or(1_000));
    let which = Which { site: params.site, group: params.group, labels: params.labels.unwrap_or_default() };
    let mut found =
        sensors::list(&state.pool, &which, params.continuation.unwrap_or(0), limit as i64 + 1).await?;
    let has_more = found.len() > limit;
    found.truncate(limit);
    let continuation = found.last().filter(|_| has_more).map(|sensor| sensor.sensor_id.to_string());
    Ok(Json(SensorPage { items: found.into_iter().map(Sensor::from).collect(), has_more, continuation }))
}

/// Show a sensor
#[utoipa::path(
    get,
    path = "/api/v1/sensors/{id}",
    tag = "sensors",
    params(("id" = String, Path, description = "Sensor's id or name", example = "edge-1")),
    responses(
        (status = 200, body = SensorDetail, description = "The sensor"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such sensor"),
    )
)]
pub async fn get(
    State(state): State<AppState>,
    Path(id): Path<String>,
    _: Query<NoParams>,
) -> Result<Json<SensorDetail>, ApiError> {
    let (sensor, points) = sensors::get(&state.pool, &named(&id)?).await?.ok_or_else(unknown)?;
    let points = points
        .into_iter()
        .map(|point| Point { interface: point.interface, direction: render::direction(point.direction) })
        .collect();
    Ok(Json(SensorDetail { sensor: Sensor::from(sensor), points }))
}

/// Where a sensor belongs; what is left out stays, null clears.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"site": "ams", "group": "edge", "labels": {"env": "prod"}}))]
#[expect(clippy::option_option, reason = "left out, null, or said")]
pub struct SensorChange {
    /// 1 to 63 letters, digits, `.`, `_`, `-`, not only digits
    #[serde(default, deserialize_with = "belonging::said")]
    #[schema(value_type = Option<String>, max_length = 63, pattern = "^([A-Za-z][A-Za-z0-9._-]*|[0-9]+[A-Za-z._-][A-Za-z0-9._-]*)$")]
    pub site: Option<Option<String>>,
    /// The same
    #[serde(default, deserialize_with = "belonging::said")]
    #[schema(value_type = Option<String>, max_length = 63, pattern = "^([A-Za-z][A-Za-z0-9._-]*|[0-9]+[A-Za-z._-][A-Za-z0-9._-]*)$")]
    pub group: Option<Option<String>>,
    /// At most 32; they replace the ones before
    pub labels: Option<BTreeMap<String, String>>,
}

/// Say where a sensor belongs
#[utoipa::path(
    patch,
    path = "/api/v1/sensors/{id}",
    tag = "sensors",
    params(("id" = String, Path, description = "Sensor's id or name", example = "edge-1")),
    request_body = SensorChange,
    responses(
        (status = 200, body = Sensor, description = "The sensor as it is now"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such sensor"),
    )
)]
pub async fn place(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    _: Query<NoParams>,
    Body(body): Body<SensorChange>,
) -> Result<Json<Sensor>, ApiError> {
    belonging::check(body.site.iter().flatten(), body.group.iter().flatten(), body.labels.as_ref())?;
    let change = BelongingChange { site: body.site, group: body.group, labels: body.labels };
    let id = sensors::place(&state.pool, &caller.author(), &named(&id)?, &change).await?;
    let found = sensors::get(&state.pool, &Reference::Id(id.ok_or_else(unknown)?)).await?;
    Ok(Json(Sensor::from(found.ok_or_else(unknown)?.0)))
}

/// Revoke a sensor
///
/// Its batches in flight are stored; from the answer on nothing of it is taken, and it is told 401
/// `sensor-revoked`. What it sent stays. Revoking again changes nothing.
#[utoipa::path(
    post,
    path = "/api/v1/sensors/{id}/revoke",
    tag = "sensors",
    params(("id" = String, Path, description = "Sensor's id or name", example = "edge-1")),
    responses(
        (status = 200, body = Sensor, description = "The sensor as it is now"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such sensor"),
    )
)]
pub async fn revoke(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    _: Query<NoParams>,
) -> Result<Json<Sensor>, ApiError> {
    let revoked = sensors::revoke(&state.pool, &caller.author(), &named(&id)?).await?;
    let (id, _) = revoked.ok_or_else(unknown)?;
    state.auth.forget(id);
    let found = sensors::get(&state.pool, &Reference::Id(id)).await?;
    Ok(Json(Sensor::from(found.ok_or_else(unknown)?.0)))
}

/// Erase a sensor and all that it sent, in two steps
///
/// Without `confirmation` nothing changes: the answer says what would go, and has a confirmation for that, good
/// once, for ten minutes, for the caller. With it the sensor ends at once: it is told 410 `sensor-gone`, and what it
/// could not deliver stays in its own ledger. What it sent goes in the background
/// (`GET /api/v1/erasures/{erasure}`); until that is done the sensor is shown as `deleting` and its name is taken.
/// To keep what it sent, revoke it.
#[utoipa::path(
    delete,
    path = "/api/v1/sensors/{id}",
    tag = "sensors",
    params(("id" = String, Path, description = "Sensor's id or name", example = "edge-1"), EraseParams),
    responses(
        (status = 200, body = ErasurePlan, description = "What would go; nothing changed"),
        (status = 202, body = Erasure, description = "The sensor has ended; its data goes in the background"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such sensor"),
        (status = 409, body = Problem, content_type = "application/problem+json",
         description = "It is being erased already, or the confirmation is not good"),
    )
)]
pub async fn remove(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Query { value: params, .. }: Query<EraseParams>,
) -> Result<Response, ApiError> {
    let subject = Subject::Sensor(named(&id)?);
    erasures::erase(&state, &caller, &subject, params).await
}

/// The sensor that a path names.
pub fn named(id: &str) -> Result<Reference, ApiError> {
    sensors::named(id).ok_or_else(|| {
        ApiError::parameter(
            "id",
            "is neither a sensor's id nor a name of 1 to 63 letters, digits, `.`, `_`, `-`",
        )
    })
}

pub fn unknown() -> ApiError {
    ApiError::not_found("no sensor has this id or name")
}
