//! `/api/v1/enrollments`, and `/api/v1/enroll` for who has such a token: how a sensor comes in.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::Caller;
use super::belonging;
use super::body::Body;
use super::client::Origin;
use super::error::{Category, Problem};
use super::paging::PageParams;
use super::params::{NoParams, Query};
use super::{ApiError, AppState, render};
use crate::auth::{AuthError, EnrollmentToken, SensorToken};
use crate::store::enrollments::{self, EnrollError, Enrolling, NewEnrollment};
use crate::store::sensors::{Belonging, is_name};

const MAX_HOURS: u32 = 720;
const DEFAULT_HOURS: u32 = 24;

/// An enrolment to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "edge-7", "site": "ams", "group": "edge", "labels": {"env": "prod"}, "expires_in_hours": 24}))]
pub struct EnrollmentRequest {
    /// The sensor's name; left out, the sensor says its own
    #[schema(max_length = 63, pattern = "^([A-Za-z][A-Za-z0-9._-]*|[0-9]+[A-Za-z._-][A-Za-z0-9._-]*)$")]
    pub name: Option<String>,
    /// 1 to 63 letters, digits, `.`, `_`, `-`, not only digits
    #[schema(max_length = 63, pattern = "^([A-Za-z][A-Za-z0-9._-]*|[0-9]+[A-Za-z._-][A-Za-z0-9._-]*)$")]
    pub site: Option<String>,
    #[schema(max_length = 63, pattern = "^([A-Za-z][A-Za-z0-9._-]*|[0-9]+[A-Za-z._-][A-Za-z0-9._-]*)$")]
    pub group: Option<String>,
    /// At most 32
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// 1 to 720; left out: 24
    #[schema(minimum = 1, maximum = 720)]
    pub expires_in_hours: Option<u32>,
}

/// An enrolment, without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": 4, "name": "edge-7", "site": "ams", "group": "edge", "labels": {"env": "prod"}, "state": "open",
    "created_by": "ann", "created_at": "2026-01-31T11:00:00.000000000Z",
    "expires_at": "2026-02-01T11:00:00.000000000Z", "revoked_at": null, "used_at": null, "sensor_id": null
}))]
pub struct Enrollment {
    pub id: i32,
    pub name: Option<String>,
    pub site: Option<String>,
    pub group: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// `open`, `used`, `expired` or `revoked`
    pub state: &'static str,
    pub created_by: String,
    pub created_at: String,
    pub expires_at: String,
    pub revoked_at: Option<String>,
    pub used_at: Option<String>,
    /// Whom it made
    pub sensor_id: Option<i32>,
}

/// A new enrolment with its secret, which is not shown again.
#[derive(Debug, Serialize, ToSchema)]
pub struct MadeEnrollment {
    /// For `weir-sensor enroll URL TOKEN`, once
    #[schema(example = "weir_e_Zm9yIGV4YW1wbGUgb25seSwgbm90IGEgcmVhbCBvbmU")]
    pub token: String,
    #[serde(flatten)]
    pub enrollment: Enrollment,
}

/// A page of enrolments, in order of id.
#[derive(Debug, Serialize, ToSchema)]
pub struct EnrollmentPage {
    pub items: Vec<Enrollment>,
    pub has_more: bool,
    pub continuation: Option<String>,
}

/// What a sensor brings.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"token": "weir_e_...", "name": "edge-7"}))]
pub struct EnrollRequest {
    #[schema(value_type = String, format = Password)]
    pub token: SecretString,
    /// What the sensor calls itself, where the enrolment leaves it the choice
    #[schema(max_length = 63, pattern = "^([A-Za-z][A-Za-z0-9._-]*|[0-9]+[A-Za-z._-][A-Za-z0-9._-]*)$")]
    pub name: Option<String>,
}

/// A sensor with its credential, which is not shown again.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"sensor_id": 7, "name": "edge-7", "token": "weir_s_...", "expires_at": null}))]
pub struct Enrolled {
    pub sensor_id: i32,
    pub name: String,
    pub token: String,
    pub expires_at: Option<String>,
}

impl From<enrollments::Enrollment> for Enrollment {
    fn from(row: enrollments::Enrollment) -> Self {
        let over = row.expires_at <= SystemTime::now();
        let Belonging { site, group, labels } = row.belonging;
        Self {
            id: row.enrollment_id,
            name: row.name,
            site,
            group,
            labels,
            state: match (row.used_at, row.revoked_at, over) {
                (Some(_), _, _) => "used",
                (None, Some(_), _) => "revoked",
                (None, None, true) => "expired",
                (None, None, false) => "open",
            },
            created_by: row.created_by,
            created_at: render::system_time(row.created_at),
            expires_at: render::system_time(row.expires_at),
            revoked_at: row.revoked_at.map(render::system_time),
            used_at: row.used_at.map(render::system_time),
            sensor_id: row.sensor_id,
        }
    }
}

impl From<EnrollError> for ApiError {
    fn from(error: EnrollError) -> Self {
        let words = error.to_string();
        let conflict =
            |slug, title| Self::new(StatusCode::CONFLICT, Category::Conflict, slug, title, words.clone());
        match error {
            EnrollError::Unknown => Self::unauthenticated("invalid-token", words),
            EnrollError::Revoked => Self::unauthenticated("token-revoked", words),
            EnrollError::Expired => Self::unauthenticated("token-expired", words),
            EnrollError::Used => conflict("enrollment-used", "The token was used"),
            EnrollError::Taken => conflict("name-taken", "The name is taken"),
            EnrollError::Named(_) | EnrollError::Nameless => Self::parameter("name", words),
            EnrollError::Store(error) => error.into(),
        }
    }
}

fn check_name(name: Option<&String>) -> Result<(), ApiError> {
    if name.is_none_or(|name| is_name(name)) {
        return Ok(());
    }
    Err(ApiError::parameter("name", format!("is not {}", belonging::NAME)))
}

/// List enrolments
#[utoipa::path(
    get,
    path = "/api/v1/enrollments",
    tag = "sensors",
    params(PageParams),
    responses((status = 200, body = EnrollmentPage, description = "A page, maybe empty, without secrets"))
)]
pub async fn list(
    State(state): State<AppState>,
    Query { value: page, given }: Query<PageParams>,
) -> Result<Json<EnrollmentPage>, ApiError> {
    let after = page.after::<4>(&state, "enrollments", &given)?.map_or(0, i32::from_be_bytes);
    let mut found = enrollments::list(&state.pool, after, page.limit() as i64 + 1).await?;
    let continuation =
        page.next(&state, "enrollments", &given, &mut found, |row| row.enrollment_id.to_be_bytes());
    let items = found.into_iter().map(Enrollment::from).collect();
    Ok(Json(EnrollmentPage { items, has_more: continuation.is_some(), continuation }))
}

/// Make an enrolment
///
/// Its token is in this answer and nowhere else. A sensor trades it, once, for a credential of its own:
/// `weir-sensor enroll URL TOKEN`.
#[utoipa::path(
    post,
    path = "/api/v1/enrollments",
    tag = "sensors",
    request_body = EnrollmentRequest,
    responses((status = 200, body = MadeEnrollment, description = "The enrolment"))
)]
pub async fn add(
    State(state): State<AppState>,
    caller: Caller,
    _: Query<NoParams>,
    Body(body): Body<EnrollmentRequest>,
) -> Result<Response, ApiError> {
    check_name(body.name.as_ref())?;
    belonging::check(&body.site, &body.group, Some(&body.labels))?;
    let hours = match body.expires_in_hours {
        None => DEFAULT_HOURS,
        Some(hours @ 1..=MAX_HOURS) => hours,
        Some(_) => return Err(ApiError::parameter("expires_in_hours", "is not between 1 and 720")),
    };
    let token = EnrollmentToken::generate().map_err(AuthError::from)?;
    let new = NewEnrollment {
        token_sha256: token.sha256(),
        name: body.name.as_deref(),
        belonging: &Belonging { site: body.site, group: body.group, labels: body.labels },
        expires_at: SystemTime::now() + Duration::from_hours(u64::from(hours)),
    };
    let row = enrollments::add(&state.pool, &caller.author(), &new).await?;
    let made = MadeEnrollment { token: token.expose().to_owned(), enrollment: row.into() };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(made)).into_response())
}

/// Revoke an enrolment
///
/// A sensor that it made already stays; revoke that one by itself.
#[utoipa::path(
    delete,
    path = "/api/v1/enrollments/{enrollment}",
    tag = "sensors",
    params(("enrollment" = i32, Path, description = "Enrolment's id", minimum = 1, maximum = 2_147_483_647, example = 4)),
    responses(
        (status = 200, body = Enrollment, description = "It is void"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such enrolment"),
    )
)]
pub async fn revoke(
    State(state): State<AppState>,
    caller: Caller,
    Path(enrollment): Path<String>,
    _: Query<NoParams>,
) -> Result<Json<Enrollment>, ApiError> {
    let id = enrollment
        .parse()
        .map_err(|_| ApiError::parameter("enrollment", "is not an enrolment's id (a number)"))?;
    let revoked = enrollments::revoke(&state.pool, &caller.author(), id).await?;
    revoked.map(|row| Json(row.into())).ok_or_else(|| ApiError::not_found("no such enrolment"))
}

/// Enrol a sensor
///
/// For who has an enrolment's token, which works once. A refusal leaves it as it was.
#[utoipa::path(
    post,
    path = "/api/v1/enroll",
    tag = "ingest",
    request_body = EnrollRequest,
    responses(
        (status = 200, body = Enrolled, description = "The sensor with its credential"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "No valid token"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The token was used, or the name is taken"),
    )
)]
pub async fn enroll(
    State(state): State<AppState>,
    origin: Origin,
    _: Query<NoParams>,
    Body(body): Body<EnrollRequest>,
) -> Result<Response, ApiError> {
    check_name(body.name.as_ref())?;
    let enrollment = EnrollmentToken::parse(body.token.expose_secret()).ok_or(EnrollError::Unknown)?;
    let token = SensorToken::generate().map_err(AuthError::from)?;
    let expires_at = state.sensors.credential_lasts().map(|lasts| SystemTime::now() + lasts);
    let who = Enrolling {
        enrollment_sha256: enrollment.sha256(),
        name: body.name.as_deref(),
        credential_sha256: token.sha256(),
        expires_at,
        address: origin.address.map(|address| address.to_string()),
        request_id: Some(origin.request_id),
    };
    let (sensor_id, name) = enrollments::enroll(&state.pool, &who).await?;
    let enrolled = Enrolled {
        sensor_id,
        name,
        token: token.expose().to_owned(),
        expires_at: expires_at.map(render::system_time),
    };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(enrolled)).into_response())
}
