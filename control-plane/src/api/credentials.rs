//! `/api/v1/sensors/{id}/credentials`, and `/api/v1/sensor/credentials` for the sensor itself: rotation with
//! overlap, and revocation.

use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::{AuthenticatedSensor, Caller};
use super::body::Body;
use super::client::Origin;
use super::error::{Category, Problem};
use super::paging::PageParams;
use super::params::{self, NoParams, Query};
use super::sensors::{named, unknown};
use super::{ApiError, AppState, render};
use crate::auth::{AuthError, SensorToken};
use crate::store::audit::Author;
use crate::store::credentials::{self, NewCredential, RotateError};
use crate::store::{Reference, sensors};

const MAX_OVERLAP_S: u32 = 2_592_000;
const MAX_DAYS: u32 = 3_660;

/// A credential to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"overlap_s": 3_600, "expires_in_days": 90}))]
pub struct CredentialRequest {
    /// How long the ones before go on, unless this one is used before: 0 to 2592000; left out, as configured
    /// (`sensors.rotation_overlap_hours`)
    #[schema(maximum = 2_592_000)]
    pub overlap_s: Option<u32>,
    /// 1 to 3660; left out, as configured (`sensors.credential_days`)
    #[schema(minimum = 1, maximum = 3660)]
    pub expires_in_days: Option<u32>,
}

/// A sensor's credential, without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": 7, "state": "active", "by_sensor": false, "created_at": "2026-01-31T11:00:00.000000000Z",
    "expires_at": null, "revoked_at": null, "first_used_at": "2026-01-31T11:00:06.100000000Z"
}))]
pub struct Credential {
    pub id: i32,
    /// `new` (never used), `active`, `expired` or `revoked`
    pub state: &'static str,
    /// The sensor asked for it by itself
    pub by_sensor: bool,
    pub created_at: String,
    pub expires_at: Option<String>,
    pub revoked_at: Option<String>,
    /// The ones before are void since then
    pub first_used_at: Option<String>,
}

/// A new credential with its secret, which is not shown again.
#[derive(Debug, Serialize, ToSchema)]
pub struct MadeCredential {
    /// For the sensor's `control_plane.token_file`
    #[schema(example = "weir_s_Zm9yIGV4YW1wbGUgb25seSwgbm90IGEgcmVhbCBvbmU")]
    pub token: String,
    #[serde(flatten)]
    pub credential: Credential,
}

/// A page of credentials, in order of id.
#[derive(Debug, Serialize, ToSchema)]
pub struct CredentialPage {
    pub items: Vec<Credential>,
    pub has_more: bool,
    pub continuation: Option<String>,
}

impl From<credentials::Credential> for Credential {
    fn from(row: credentials::Credential) -> Self {
        let over = row.expires_at.is_some_and(|end| end <= SystemTime::now());
        Self {
            id: row.credential_id,
            state: match (row.revoked_at, over, row.first_used_at) {
                (Some(_), _, _) => "revoked",
                (None, true, _) => "expired",
                (None, false, None) => "new",
                (None, false, Some(_)) => "active",
            },
            by_sensor: row.by_sensor,
            created_at: render::system_time(row.created_at),
            expires_at: row.expires_at.map(render::system_time),
            revoked_at: row.revoked_at.map(render::system_time),
            first_used_at: row.first_used_at.map(render::system_time),
        }
    }
}

impl From<RotateError> for ApiError {
    fn from(error: RotateError) -> Self {
        let conflict =
            |slug, title| Self::new(StatusCode::CONFLICT, Category::Conflict, slug, title, error.to_string());
        match error {
            RotateError::Unknown => unknown(),
            RotateError::Revoked => conflict("sensor-revoked", "The sensor is revoked"),
            RotateError::TooMany => conflict("too-many-credentials", "The sensor has too many credentials"),
            RotateError::Store(error) => error.into(),
        }
    }
}

/// List a sensor's credentials
#[utoipa::path(
    get,
    path = "/api/v1/sensors/{id}/credentials",
    tag = "sensors",
    params(("id" = String, Path, description = "Sensor's id or name", example = "edge-1"), PageParams),
    responses(
        (status = 200, body = CredentialPage, description = "A page, without secrets"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such sensor"),
    )
)]
pub async fn list(
    State(state): State<AppState>,
    Path(id): Path<String>,
    Query { value: page, given }: Query<PageParams>,
) -> Result<Json<CredentialPage>, ApiError> {
    let sensor_id = sensors::find(&state.pool, &named(&id)?).await?.ok_or_else(unknown)?;
    let list = format!("credentials of {sensor_id}");
    let after = page.after::<4>(&state, &list, &given)?.map_or(0, i32::from_be_bytes);
    let mut found = credentials::list(&state.pool, sensor_id, after, page.limit() as i64 + 1).await?;
    let continuation = page.next(&state, &list, &given, &mut found, |row| row.credential_id.to_be_bytes());
    let items = found.into_iter().map(Credential::from).collect();
    Ok(Json(CredentialPage { items, has_more: continuation.is_some(), continuation }))
}

/// Make a sensor another credential
///
/// Its secret is in this answer and nowhere else. The ones before go on until this one is used, or until the
/// overlap is over.
#[utoipa::path(
    post,
    path = "/api/v1/sensors/{id}/credentials",
    tag = "sensors",
    params(("id" = String, Path, description = "Sensor's id or name", example = "edge-1")),
    request_body = CredentialRequest,
    responses(
        (status = 200, body = MadeCredential, description = "The credential"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such sensor"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The sensor is revoked, or has too many that work"),
    )
)]
pub async fn add(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    _: Query<NoParams>,
    Body(body): Body<CredentialRequest>,
) -> Result<Response, ApiError> {
    let overlap = match body.overlap_s {
        None => state.sensors.overlap(),
        Some(seconds @ 0..=MAX_OVERLAP_S) => Duration::from_secs(u64::from(seconds)),
        Some(_) => return Err(ApiError::parameter("overlap_s", "is not between 0 and 2592000")),
    };
    let lasts = match body.expires_in_days {
        None => state.sensors.credential_lasts(),
        Some(days @ 1..=MAX_DAYS) => Some(Duration::from_hours(24 * u64::from(days))),
        Some(_) => return Err(ApiError::parameter("expires_in_days", "is not between 1 and 3660")),
    };
    let sensor = named(&id)?;
    let (made, sensor_id) = make(&state, &caller.author(), &sensor, false, overlap, lasts).await?;
    state.auth.forget(sensor_id);
    Ok(made)
}

/// Renew one's own credential
///
/// For sensors. The one that asks goes on until the new one is used, or until the configured overlap is over.
#[utoipa::path(
    post,
    path = "/api/v1/sensor/credentials",
    tag = "ingest",
    responses(
        (status = 200, body = MadeCredential, description = "The credential"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Too many credentials of this sensor work"),
    )
)]
pub async fn renew(
    State(state): State<AppState>,
    sender: AuthenticatedSensor,
    origin: Origin,
    _: Query<NoParams>,
) -> Result<Response, ApiError> {
    let sensor = Reference::Id(sender.sensor_id);
    let author = sender.author(&state, origin).await?;
    let lasts = state.sensors.credential_lasts();
    Ok(make(&state, &author, &sensor, true, state.sensors.overlap(), lasts).await?.0)
}

async fn make(
    state: &AppState,
    author: &Author,
    sensor: &Reference,
    by_sensor: bool,
    overlap: Duration,
    lasts: Option<Duration>,
) -> Result<(Response, i32), ApiError> {
    let token = SensorToken::generate().map_err(AuthError::from)?;
    let expires_at = lasts.map(|lasts| SystemTime::now() + lasts);
    let new = NewCredential { sha256: token.sha256(), by_sensor, overlap, expires_at };
    let (sensor_id, row) = credentials::rotate(&state.pool, author, sensor, new).await?;
    let made = MadeCredential { token: token.expose().to_owned(), credential: row.into() };
    Ok((([(header::CACHE_CONTROL, "no-store")], Json(made)).into_response(), sensor_id))
}

/// Revoke a sensor's credential
///
/// What the sensor has in flight is stored; after that the token is void everywhere within a second, on open
/// connections too. The sensor's other credentials go on.
#[utoipa::path(
    delete,
    path = "/api/v1/sensors/{id}/credentials/{credential}",
    tag = "sensors",
    params(
        ("id" = String, Path, description = "Sensor's id or name", example = "edge-1"),
        ("credential" = i32, Path, description = "Credential's id", minimum = 1, maximum = 2_147_483_647, example = 7),
    ),
    responses(
        (status = 200, body = Credential, description = "It is revoked"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such sensor or credential"),
    )
)]
pub async fn revoke(
    State(state): State<AppState>,
    caller: Caller,
    Path((id, credential)): Path<(String, String)>,
    _: Query<NoParams>,
) -> Result<Json<Credential>, ApiError> {
    let credential = params::id("credential", &credential)?;
    let revoked = credentials::revoke(&state.pool, &caller.author(), &named(&id)?, credential).await?;
    let (sensor_id, row) = revoked.ok_or_else(|| ApiError::not_found("no such sensor or credential"))?;
    state.auth.forget(sensor_id);
    Ok(Json(row.into()))
}
