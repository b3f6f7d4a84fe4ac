//! `/api/v1/erasures`: what was erased and how far it is; and the two steps that routes of users, sensors and devices share.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::access::Caller;
use super::error::Problem;
use super::paging::PageParams;
use super::params::{self, FromParams, NoParams, Params, Query};
use super::{ApiError, AppState, render};
use crate::auth::{AuthError, EraseToken};
use crate::store::erasure::{self, Confirmation, EraseError, Kind, Subject};

/// The second step's word.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EraseParams {
    /// `confirmation` of the first step's answer
    #[param(value_type = Option<String>, pattern = "^weir_x_[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$", example = "weir_x_mJq3cV7v0kq1l9cWw9mDk2sYx5b8ZtQfHn4uRj6oTgE")]
    pub confirmation: Option<[u8; 32]>,
}

impl FromParams for EraseParams {
    fn read(params: &mut Params) -> Self {
        let confirmation = params.parsed("confirmation", "a confirmation of an erasure", |text| {
            EraseToken::parse(text).map(|token| token.sha256())
        });
        Self { confirmation }
    }
}

/// What an erasure would take. Nothing changed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "kind": "user", "id": 2, "name": "bob",
    "places": [{"name": "sessions", "count": 1}, {"name": "audit", "count": 12}, {"name": "events", "count": null}],
    "confirmation": "weir_x_mJq3cV7v0kq1l9cWw9mDk2sYx5b8ZtQfHn4uRj6oTgE", "expires_at": "2026-01-31T12:10:00.000000000Z"
}))]
pub struct ErasurePlan {
    /// `user`, `sensor`, `device`
    pub kind: &'static str,
    pub id: i64,
    pub name: String,
    pub places: Vec<PlannedPlace>,
    /// Erases this, once, if the same caller shows it in time
    pub confirmation: String,
    pub expires_at: String,
}

/// A place where something of the subject is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"name": "sessions", "count": 1}))]
pub struct PlannedPlace {
    pub name: &'static str,
    /// Rows; null where counting would take a look at everything
    pub count: Option<i64>,
}

/// An erasure: its progress, and afterwards its receipt.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": 3, "kind": "user", "subject_id": 2, "state": "done", "requested_by": "user:1",
    "requested_at": "2026-01-31T12:00:00.000000000Z", "done_at": "2026-01-31T12:00:00.200000000Z",
    "places": [{"name": "sessions", "announced": 1, "erased": 1, "done": true}]
}))]
pub struct Erasure {
    pub id: i32,
    /// `user`, `sensor`, `device`
    pub kind: &'static str,
    /// The id that it had, and that nothing else gets
    pub subject_id: i64,
    /// `running`, `done`
    pub state: &'static str,
    /// Kind and id of who confirmed it
    pub requested_by: String,
    pub requested_at: String,
    pub done_at: Option<String>,
    /// In the order in which they are erased
    pub places: Vec<ErasedPlace>,
}

/// What went from one place.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"name": "sessions", "announced": 1, "erased": 1, "done": true}))]
pub struct ErasedPlace {
    pub name: String,
    /// Rows, as the first step said; null where they were not counted ahead
    pub announced: Option<i64>,
    /// Rows that were deleted, or that lost what names the subject
    pub erased: i64,
    pub done: bool,
}

/// A page of erasures, in order of id.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErasurePage {
    pub items: Vec<Erasure>,
    pub has_more: bool,
    pub continuation: Option<String>,
}

impl From<erasure::Erasure> for Erasure {
    fn from(erasure: erasure::Erasure) -> Self {
        let place = |place: erasure::Place| ErasedPlace {
            name: place.name,
            announced: place.announced,
            erased: place.erased,
            done: place.done,
        };
        Self {
            id: erasure.erasure_id,
            kind: erasure.kind.name(),
            subject_id: erasure.subject_id,
            state: if erasure.done_at.is_some() { "done" } else { "running" },
            requested_by: erasure.requested_by,
            requested_at: render::system_time(erasure.requested_at),
            done_at: erasure.done_at.map(render::system_time),
            places: erasure.places.into_iter().map(place).collect(),
        }
    }
}

/// The first step without a confirmation, the second one with it.
pub async fn erase(
    state: &AppState,
    caller: &Caller,
    subject: &Subject,
    EraseParams { confirmation }: EraseParams,
) -> Result<Response, ApiError> {
    let author = caller.author();
    let Some(token_sha256) = confirmation else {
        let token = EraseToken::generate().map_err(AuthError::from)?;
        let plan = erasure::plan(&state.pool, &author, subject, &token.sha256()).await?;
        let places = plan.places.into_iter().map(|(name, count)| PlannedPlace { name, count }).collect();
        let answer = ErasurePlan {
            kind: plan.kind.name(),
            id: plan.subject_id,
            name: plan.name,
            places,
            confirmation: token.expose().to_owned(),
            expires_at: render::system_time(plan.expires_at),
        };
        return Ok(Json(answer).into_response());
    };
    let confirmation = Confirmation { token_sha256: &token_sha256 };
    let begun = erasure::begin(&state.pool, &author, subject, confirmation).await?;
    // Whoever reads the answer finds nothing of the subject open here; other instances find out within the second.
    match (subject.kind(), i32::try_from(begun.erasure.subject_id)) {
        (Kind::User, Ok(id)) => {
            state.auth.forget_user(id);
            state.stream.end_user(id);
        }
        (Kind::Sensor, Ok(id)) => state.auth.forget(id),
        _ => {}
    }
    state.jobs.wake();
    Ok((StatusCode::ACCEPTED, Json(Erasure::from(begun.erasure))).into_response())
}

/// List erasures
#[utoipa::path(
    get,
    path = "/api/v1/erasures",
    tag = "operations",
    params(PageParams),
    responses((status = 200, body = ErasurePage, description = "A page, maybe empty"))
)]
pub async fn list(
    State(state): State<AppState>,
    Query { value: page, given }: Query<PageParams>,
) -> Result<Json<ErasurePage>, ApiError> {
    let after = page.after::<4>(&state, "erasures", &given)?.map_or(0, i32::from_be_bytes);
    let mut found = erasure::list(&state.pool, after, page.limit() as i64 + 1).await?;
    let continuation =
        page.next(&state, "erasures", &given, &mut found, |erasure| erasure.erasure_id.to_be_bytes());
    let items = found.into_iter().map(Erasure::from).collect();
    Ok(Json(ErasurePage { items, has_more: continuation.is_some(), continuation }))
}

/// Show an erasure: how far it is, or its receipt
#[utoipa::path(
    get,
    path = "/api/v1/erasures/{erasure}",
    tag = "operations",
    params(("erasure" = i32, Path, description = "The erasure's id", example = 3, minimum = 1)),
    responses(
        (status = 200, body = Erasure, description = "The erasure"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such erasure"),
    )
)]
pub async fn get(
    State(state): State<AppState>,
    Path(erasure): Path<String>,
    _: Query<NoParams>,
) -> Result<Json<Erasure>, ApiError> {
    let found = erasure::get(&state.pool, params::id("erasure", &erasure)?).await?;
    Ok(Json(found.ok_or_else(|| ApiError::not_found("no erasure has this id"))?.into()))
}

impl From<EraseError> for ApiError {
    fn from(error: EraseError) -> Self {
        match error {
            EraseError::Unknown(_) => Self::not_found(error.to_string()),
            EraseError::Running(_) => Self::conflict("being-erased", error.to_string()),
            EraseError::Void => Self::conflict("confirmation-void", error.to_string()),
            EraseError::LastAdmin(error) => error.into(),
            EraseError::Store(error) => error.into(),
        }
    }
}
