//! `/api/v1/sessions`: who is logged in from where. People see and end their own, admins everybody's.

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::access::Caller;
use super::auth::{Ended, find_user};
use super::error::Problem;
use super::paging::PageParams;
use super::params::{FromParams, NoParams, Params, Query};
use super::{ApiError, AppState, render};
use crate::auth::{Role, Who};
use crate::store::sessions;

/// Whose.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct OwnerParams {
    /// Of this user (id or name); for admins, who without it see all
    #[param(example = "ann")]
    pub user: Option<String>,
}

/// All parameters of the route.
pub struct OwnedParams {
    pub owner: OwnerParams,
    pub page: PageParams,
}

impl FromParams for OwnedParams {
    fn read(params: &mut Params) -> Self {
        Self { owner: OwnerParams { user: params.text("user") }, page: PageParams::read(params) }
    }
}

impl OwnerParams {
    /// The user whose things the caller may see: their own, or for an admin any or (`None`) all.
    pub async fn resolve(&self, state: &AppState, caller: &Caller) -> Result<Option<i32>, ApiError> {
        let own = caller.user_id();
        let named = match &self.user {
            None => return Ok(if caller.principal.role == Role::Admin { None } else { own }),
            Some(user) if *user == *caller.principal.name => own,
            Some(user) if caller.principal.role == Role::Admin => {
                Some(find_user(state, user, "user").await?.user_id)
            }
            Some(_) => None,
        };
        named.map(Some).ok_or_else(|| ApiError::parameter("user", "only admins see what others have"))
    }
}

/// A login that goes on.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": "0197a2c0-5d0e-4c3e-9d8b-6f2a1f6f0b1c", "user_id": 1, "user": "ann", "current": true,
    "created_at": "2026-01-31T11:00:00.000000000Z", "expires_at": "2026-03-02T11:00:00.000000000Z",
    "last_active_at": "2026-01-31T12:00:06.100000000Z", "address": "192.0.2.7", "user_agent": "Mozilla/5.0"
}))]
pub struct Session {
    pub id: Uuid,
    pub user_id: i32,
    pub user: String,
    /// The one that this request came with
    pub current: bool,
    pub created_at: String,
    pub expires_at: String,
    /// To a few seconds
    pub last_active_at: String,
    /// Where it was opened from
    pub address: String,
    pub user_agent: String,
}

/// A page of sessions, in order of id.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionPage {
    pub items: Vec<Session>,
    pub has_more: bool,
    pub continuation: Option<String>,
}

/// List sessions
#[utoipa::path(
    get,
    path = "/api/v1/sessions",
    tag = "sessions",
    params(OwnerParams, PageParams),
    responses(
        (status = 200, body = SessionPage, description = "A page, maybe empty"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such user"),
    )
)]
pub async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Query { value: params, given }: Query<OwnedParams>,
) -> Result<Json<SessionPage>, ApiError> {
    let owner = params.owner.resolve(&state, &caller).await?;
    let page = params.page;
    let after = page.after::<16>(&state, "sessions", &given)?.map(Uuid::from_bytes);
    let mut found = sessions::list(&state.pool, owner, after, page.limit() as i64 + 1).await?;
    let continuation =
        page.next(&state, "sessions", &given, &mut found, |session| session.session_id.into_bytes());
    let current = current(&caller);
    let items = found
        .into_iter()
        .map(|session| Session {
            id: session.session_id,
            user_id: session.user_id,
            user: session.user,
            current: current == Some(session.session_id),
            created_at: render::system_time(session.created_at),
            expires_at: render::system_time(session.expires_at),
            last_active_at: render::system_time(session.last_active_at),
            address: session.address,
            user_agent: session.user_agent,
        })
        .collect();
    Ok(Json(SessionPage { items, has_more: continuation.is_some(), continuation }))
}

/// End a session
///
/// One's own, or as an admin anybody's. Its tokens are void everywhere within a second.
#[utoipa::path(
    delete,
    path = "/api/v1/sessions/{session}",
    tag = "sessions",
    params(("session" = String, Path, description = "Session's id", example = "0197a2c0-5d0e-4c3e-9d8b-6f2a1f6f0b1c")),
    responses(
        (status = 200, body = Ended, description = "It is over"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such session goes on"),
    )
)]
pub async fn end(
    State(state): State<AppState>,
    caller: Caller,
    Path(session): Path<String>,
    _: Query<NoParams>,
) -> Result<Json<Ended>, ApiError> {
    let id = session.parse().map_err(|_| ApiError::parameter("session", "is not a session's id (a UUID)"))?;
    let owner = if caller.principal.role == Role::Admin { None } else { caller.user_id() };
    let ended = sessions::end(&state.pool, &caller.author(), id, owner).await?;
    state.auth.forget_session(id);
    ended
        .map(|_| Json(Ended { sessions_ended: 1 }))
        .ok_or_else(|| ApiError::not_found("no such session goes on"))
}

/// End one's other sessions
#[utoipa::path(
    delete,
    path = "/api/v1/sessions",
    tag = "sessions",
    responses((status = 200, body = Ended, description = "How many it ended"))
)]
pub async fn end_others(
    State(state): State<AppState>,
    caller: Caller,
    _: Query<NoParams>,
) -> Result<Json<Ended>, ApiError> {
    // The route's access admits sessions only.
    let Some(user_id) = caller.user_id() else { return Ok(Json(Ended { sessions_ended: 0 })) };
    let ended = sessions::end_others(&state.pool, &caller.author(), user_id, current(&caller)).await?;
    state.auth.forget_user(user_id);
    Ok(Json(Ended { sessions_ended: ended.unwrap_or(0) }))
}

fn current(caller: &Caller) -> Option<Uuid> {
    match caller.principal.who {
        Who::User { session_id, .. } => Some(session_id),
        Who::AdminToken | Who::Machine { .. } => None,
    }
}
