//! `/api/v1/users`: who may log in, for admins.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::Caller;
use super::auth::{Ended, find_user};
use super::body::Body;
use super::erasures::{self, EraseParams, Erasure, ErasurePlan};
use super::error::Problem;
use super::paging::PageParams;
use super::params::{NoParams, Query};
use super::{ApiError, AppState, render};
use crate::auth::Role;
use crate::store::Reference;
use crate::store::erasure::Subject;
use crate::store::sessions;
use crate::store::users::{self, Update};

/// Somebody who may log in.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": 1, "name": "ann", "role": "admin", "state": "active",
    "created_at": "2026-01-31T11:00:00.000000000Z", "password_changed_at": "2026-01-31T11:00:00.000000000Z",
    "disabled_at": null, "last_active_at": "2026-01-31T12:00:06.100000000Z"
}))]
pub struct User {
    pub id: i32,
    pub name: String,
    pub role: Role,
    /// `active` or `disabled`
    pub state: &'static str,
    pub created_at: String,
    pub password_changed_at: String,
    pub disabled_at: Option<String>,
    /// To a few seconds
    pub last_active_at: Option<String>,
}

/// A page of users, in order of id.
#[derive(Debug, Serialize, ToSchema)]
pub struct UserPage {
    pub items: Vec<User>,
    pub has_more: bool,
    pub continuation: Option<String>,
}

/// A user to add.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "bob", "role": "viewer", "password": "staple under the moon"}))]
pub struct NewUser {
    /// 1 to 63 letters, digits, `.`, `_`, `-`, `@`; not only digits; kept in small letters
    #[schema(max_length = 63, pattern = "^([A-Za-z][A-Za-z0-9._@-]*|[0-9]+[A-Za-z._@-][A-Za-z0-9._@-]*)$")]
    pub name: String,
    pub role: Role,
    /// 12 characters or more, not the name, not a few characters repeated
    #[schema(value_type = String, format = Password, min_length = 12, max_length = 256)]
    pub password: SecretString,
}

/// What changes; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"role": "operator"}))]
pub struct UserChange {
    pub role: Option<Role>,
    /// `true` ends the user's sessions and keeps their tokens from working
    pub disabled: Option<bool>,
    /// A new password ends the user's sessions
    #[schema(value_type = Option<String>, format = Password, min_length = 12, max_length = 256)]
    pub password: Option<SecretString>,
}

impl From<users::User> for User {
    fn from(user: users::User) -> Self {
        Self {
            id: user.user_id,
            name: user.name,
            role: user.role,
            state: if user.disabled_at.is_some() { "disabled" } else { "active" },
            created_at: render::system_time(user.created_at),
            password_changed_at: render::system_time(user.password_changed_at),
            disabled_at: user.disabled_at.map(render::system_time),
            last_active_at: user.last_active_at.map(render::system_time),
        }
    }
}

/// List users
#[utoipa::path(
    get,
    path = "/api/v1/users",
    tag = "users",
    params(PageParams),
    responses((status = 200, body = UserPage, description = "A page, maybe empty"))
)]
pub async fn list(
    State(state): State<AppState>,
    Query { value: page, given }: Query<PageParams>,
) -> Result<Json<UserPage>, ApiError> {
    let after = page.after::<4>(&state, "users", &given)?.map_or(0, i32::from_be_bytes);
    let mut found = users::list(&state.pool, after, page.limit() as i64 + 1).await?;
    let continuation = page.next(&state, "users", &given, &mut found, |user| user.user_id.to_be_bytes());
    let items = found.into_iter().map(User::from).collect();
    Ok(Json(UserPage { items, has_more: continuation.is_some(), continuation }))
}

/// Add a user
#[utoipa::path(
    post,
    path = "/api/v1/users",
    tag = "users",
    request_body = NewUser,
    responses(
        (status = 200, body = User, description = "The user, who can log in now"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The name is taken"),
    )
)]
pub async fn add(
    State(state): State<AppState>,
    caller: Caller,
    _: Query<NoParams>,
    Body(body): Body<NewUser>,
) -> Result<Json<User>, ApiError> {
    let name = name(&body.name)?;
    ApiError::weak_password("password", body.password.expose_secret(), &name)?;
    let hash = state.auth.passwords.hash(body.password).await?;
    Ok(Json(users::add(&state.pool, &caller.author(), &name, body.role, &hash).await?.into()))
}

/// Show a user
#[utoipa::path(
    get,
    path = "/api/v1/users/{user}",
    tag = "users",
    params(("user" = String, Path, description = "User's id or name", example = "ann")),
    responses(
        (status = 200, body = User, description = "The user"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such user"),
    )
)]
pub async fn get(
    State(state): State<AppState>,
    Path(user): Path<String>,
    _: Query<NoParams>,
) -> Result<Json<User>, ApiError> {
    Ok(Json(find_user(&state, &user, "user").await?.into()))
}

/// Change a user
///
/// A role holds from the next request on. The last admin who can log in stays one.
#[utoipa::path(
    patch,
    path = "/api/v1/users/{user}",
    tag = "users",
    params(("user" = String, Path, description = "User's id or name", example = "ann")),
    request_body = UserChange,
    responses(
        (status = 200, body = User, description = "The user as it is now"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such user"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It is the last admin"),
    )
)]
pub async fn change(
    State(state): State<AppState>,
    caller: Caller,
    Path(user): Path<String>,
    _: Query<NoParams>,
    Body(body): Body<UserChange>,
) -> Result<Json<User>, ApiError> {
    let user = find_user(&state, &user, "user").await?;
    let password_hash = match body.password {
        None => None,
        Some(password) => {
            ApiError::weak_password("password", password.expose_secret(), &user.name)?;
            Some(state.auth.passwords.hash(password).await?)
        }
    };
    let update = Update { role: body.role, disabled: body.disabled, password_hash };
    let user = Reference::Id(user.user_id);
    let changed = users::update(&state.pool, &caller.author(), &user, &update).await?;
    state.auth.forget_user(changed.user_id);
    Ok(Json(changed.into()))
}

/// Erase a user, in two steps
///
/// Without `confirmation` nothing changes: the answer says what would go, and has a confirmation for that, good
/// once, for ten minutes, for the caller. With it the user's sessions, tokens and account end at once; their name
/// in the audit log and elsewhere goes in the background (`GET /api/v1/erasures/{erasure}`). To keep somebody from
/// logging in and the log as it is, `PATCH` with `disabled`.
#[utoipa::path(
    delete,
    path = "/api/v1/users/{user}",
    tag = "users",
    params(("user" = String, Path, description = "User's id or name", example = "bob"), EraseParams),
    responses(
        (status = 200, body = ErasurePlan, description = "What would go; nothing changed"),
        (status = 202, body = Erasure, description = "The user is gone; the rest goes in the background"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such user"),
        (status = 409, body = Problem, content_type = "application/problem+json",
         description = "It is the last admin, or the confirmation is not good"),
    )
)]
pub async fn remove(
    State(state): State<AppState>,
    caller: Caller,
    Path(user): Path<String>,
    Query { value: params, .. }: Query<EraseParams>,
) -> Result<Response, ApiError> {
    let user_id = find_user(&state, &user, "user").await?.user_id;
    let subject = Subject::User(Reference::Id(user_id));
    erasures::erase(&state, &caller, &subject, params).await
}

/// End all sessions of a user
#[utoipa::path(
    delete,
    path = "/api/v1/users/{user}/sessions",
    tag = "users",
    params(("user" = String, Path, description = "User's id or name", example = "bob")),
    responses(
        (status = 200, body = Ended, description = "How many it ended"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such user"),
    )
)]
pub async fn end_sessions(
    State(state): State<AppState>,
    caller: Caller,
    Path(user): Path<String>,
    _: Query<NoParams>,
) -> Result<Json<Ended>, ApiError> {
    let user = find_user(&state, &user, "user").await?;
    let ended = sessions::end_others(&state.pool, &caller.author(), user.user_id, None).await?;
    state.auth.forget_user(user.user_id);
    Ok(Json(Ended { sessions_ended: ended.ok_or(users::UserError::Unknown)? }))
}

/// A name that may be a user's, in small letters.
pub fn name(text: &str) -> Result<String, ApiError> {
    let name = text.to_lowercase();
    if users::is_name(&name) {
        return Ok(name);
    }
    Err(ApiError::parameter(
        "name",
        "is not 1 to 63 letters, digits, `.`, `_`, `-` or `@`, beginning with a letter or digit, not only digits",
    ))
}
