//! `/api/v1/auth/*` and the public keys: log in, go on, log out, change one's password, who am I.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::access::Caller;
use super::body::Body;
use super::client::Origin;
use super::error::Problem;
use super::params::{NoParams, Query};
use super::users::{self as user_routes, User};
use super::{ApiError, AppState};
use crate::auth::{Granted, Login as Attempt, Role, SetupToken, Who};
use crate::store::audit::Author;
use crate::store::users;
use crate::store::{StoreError, sessions};

/// A name and a password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "ann", "password": "correct horse battery"}))]
pub struct Login {
    pub name: String,
    #[schema(value_type = String, format = Password)]
    pub password: SecretString,
}

/// The refresh token of the answer before.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"refresh_token": "weir_r_Zm9yIGV4YW1wbGUgb25seSwgbm90IGEgcmVhbCBvbmU"}))]
pub struct Refresh {
    #[schema(value_type = String, format = Password)]
    pub refresh_token: SecretString,
}

/// The first admin.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "setup_token": "weir_u_Zm9yIGV4YW1wbGUgb25seSwgbm90IGEgcmVhbCBvbmU",
    "name": "ann", "password": "correct horse battery"
}))]
pub struct FirstAdmin {
    #[schema(value_type = String, format = Password)]
    pub setup_token: SecretString,
    #[schema(max_length = 63, pattern = "^([A-Za-z][A-Za-z0-9._@-]*|[0-9]+[A-Za-z._@-][A-Za-z0-9._@-]*)$")]
    pub name: String,
    #[schema(value_type = String, format = Password, min_length = 12, max_length = 256)]
    pub password: SecretString,
}

/// The password that was, and the one that will be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "current_password": "correct horse battery", "new_password": "staple under the moon"
}))]
pub struct NewPassword {
    #[schema(value_type = String, format = Password)]
    pub current_password: SecretString,
    /// 12 characters or more, not the name, not a few characters repeated
    #[schema(value_type = String, format = Password, min_length = 12, max_length = 256)]
    pub new_password: SecretString,
}

/// A session's tokens: keep them secret, and the refresh token for one use only.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "access_token": "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCIsImtpZCI6IjEifQ.e30.c2lnbmF0dXJl",
    "token_type": "Bearer", "expires_in_s": 300,
    "refresh_token": "weir_r_Zm9yIGV4YW1wbGUgb25seSwgbm90IGEgcmVhbCBvbmU",
    "session_id": "0197a2c0-5d0e-4c3e-9d8b-6f2a1f6f0b1c",
    "user_id": 1, "name": "ann", "role": "admin"
}))]
pub struct Tokens {
    /// For the header `Authorization: Bearer ...`
    pub access_token: String,
    pub token_type: &'static str,
    pub expires_in_s: u64,
    /// Trade it at `/api/v1/auth/refresh` before the access token ends; using it twice ends the session
    pub refresh_token: String,
    pub session_id: Uuid,
    pub user_id: i32,
    pub name: String,
    pub role: Role,
}

/// Who the caller is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "kind": "user", "user_id": 1, "name": "ann", "role": "admin",
    "session_id": "0197a2c0-5d0e-4c3e-9d8b-6f2a1f6f0b1c"
}))]
pub struct Me {
    /// `user`, or `admin_token` for the token of the configuration
    pub kind: &'static str,
    pub user_id: Option<i32>,
    pub name: String,
    pub role: Role,
    pub session_id: Option<Uuid>,
}

/// How many sessions it ended.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"sessions_ended": 2}))]
pub struct Ended {
    pub sessions_ended: u64,
}

/// Public keys as of RFC 7517.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"keys": [{
    "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "hG6kq0Yd8rE2TzXw",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
}]}))]
pub struct Jwks {
    pub keys: Vec<Jwk>,
}

/// An Ed25519 key (RFC 8037).
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "hG6kq0Yd8rE2TzXw",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
}))]
pub struct Jwk {
    pub kty: &'static str,
    pub crv: &'static str,
    pub alg: &'static str,
    #[serde(rename = "use")]
    pub purpose: &'static str,
    pub kid: String,
    pub x: String,
}

/// Log in
///
/// Gives an access token for a few minutes and a refresh token for the next one. An unknown name, a wrong
/// password and a disabled user get the same answer. After five failures of an account, or twenty from an
/// address, the wait before the next attempt doubles with each, up to a quarter of an hour.
#[utoipa::path(
    post,
    path = "/api/v1/auth/login",
    tag = "auth",
    request_body = Login,
    responses(
        (status = 200, body = Tokens, description = "Logged in"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "The name or the password is wrong"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "Too many failed attempts; `Retry-After` says when to try again"),
    )
)]
pub async fn login(
    State(state): State<AppState>,
    origin: Origin,
    _: Query<NoParams>,
    headers: HeaderMap,
    Body(body): Body<Login>,
) -> Result<Response, ApiError> {
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let attempt = Attempt {
        name: body.name,
        password: body.password,
        address: origin.address,
        user_agent: agent.to_owned(),
        request_id: origin.request_id,
    };
    Ok(answer(state.auth.log_in(&state.pool, attempt).await?))
}

/// Trade a refresh token
///
/// Gives new tokens; the refresh token that was sent is used up. One that comes a second time was stolen,
/// from one side or the other: its whole session ends.
#[utoipa::path(
    post,
    path = "/api/v1/auth/refresh",
    tag = "auth",
    request_body = Refresh,
    responses(
        (status = 200, body = Tokens, description = "The next tokens"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "Not a refresh token that is valid; log in again"),
    )
)]
pub async fn refresh(
    State(state): State<AppState>,
    origin: Origin,
    _: Query<NoParams>,
    Body(body): Body<Refresh>,
) -> Result<Response, ApiError> {
    let token = body.refresh_token.expose_secret();
    let granted = state.auth.refresh(&state.pool, token, origin.address, &origin.request_id).await;
    let granted = granted.map_err(|error| match ApiError::from(error) {
        error if error.slug == "wrong-credentials" => {
            ApiError::unauthenticated("invalid-refresh-token", "the session is over; log in again")
        }
        error => error,
    })?;
    Ok(answer(granted))
}

/// Make the first admin
///
/// With the token of `weir-control-plane setup-link`, once, and only while there is no user.
#[utoipa::path(
    post,
    path = "/api/v1/auth/setup",
    tag = "auth",
    request_body = FirstAdmin,
    responses(
        (status = 200, body = User, description = "The admin, who can log in now"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "The token was used, is over, or there is a user"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The name is taken"),
    )
)]
pub async fn setup(
    State(state): State<AppState>,
    origin: Origin,
    _: Query<NoParams>,
    Body(body): Body<FirstAdmin>,
) -> Result<Json<User>, ApiError> {
    let name = user_routes::name(&body.name)?;
    ApiError::weak_password("password", body.password.expose_secret(), &name)?;
    let token = SetupToken::parse(body.setup_token.expose_secret()).ok_or(users::UserError::NoSetup)?;
    if !users::may_set_up(&state.pool, &token.sha256()).await? {
        return Err(users::UserError::NoSetup.into());
    }
    let hash = state.auth.passwords.hash(body.password).await?;
    let author = Author {
        kind: "nobody",
        id: None,
        name: "holder of the set-up link".to_owned(),
        address: origin.address.map(|address| address.to_string()),
        request_id: Some(origin.request_id),
    };
    Ok(Json(users::set_up(&state.pool, &author, &token.sha256(), &name, &hash).await?.into()))
}

/// Log out
///
/// Ends this session; its tokens are void everywhere within a second.
#[utoipa::path(
    post,
    path = "/api/v1/auth/logout",
    tag = "auth",
    responses((status = 200, body = Ended, description = "The session is over"))
)]
pub async fn logout(
    State(state): State<AppState>,
    caller: Caller,
    _: Query<NoParams>,
) -> Result<Json<Ended>, ApiError> {
    let Who::User { user_id, session_id } = caller.principal.who else { return Err(no_session()) };
    let ended = sessions::end(&state.pool, &caller.author(), session_id, Some(user_id)).await?;
    state.auth.forget_session(session_id);
    Ok(Json(Ended { sessions_ended: u64::from(ended.is_some()) }))
}

/// Change one's own password
///
/// Ends the other sessions. Wrong guesses of the current password count like failed logins.
#[utoipa::path(
    post,
    path = "/api/v1/auth/password",
    tag = "auth",
    request_body = NewPassword,
    responses(
        (status = 200, body = Ended, description = "Changed; how many other sessions it ended"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It was changed at the same time"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "Too many wrong passwords"),
    )
)]
pub async fn password(
    State(state): State<AppState>,
    caller: Caller,
    _: Query<NoParams>,
    Body(body): Body<NewPassword>,
) -> Result<Json<Ended>, ApiError> {
    let Who::User { user_id, session_id } = caller.principal.who else { return Err(no_session()) };
    let name = &caller.principal.name;
    ApiError::weak_password("new_password", body.new_password.expose_secret(), name)?;
    let old = state.auth.prove(&state.pool, name, body.current_password, caller.origin.address).await?;
    let Some(old) = old else {
        return Err(ApiError::parameter("current_password", "is not your password"));
    };
    let new = state.auth.passwords.hash(body.new_password).await?;
    let ended =
        users::change_password(&state.pool, &caller.author(), user_id, session_id, &old, &new).await?;
    let Some(sessions_ended) = ended else {
        return Err(ApiError::conflict("password-changed", "the password was changed at the same time"));
    };
    state.auth.forget_user(user_id);
    Ok(Json(Ended { sessions_ended }))
}

/// Who am I
#[utoipa::path(
    get,
    path = "/api/v1/auth/me",
    tag = "auth",
    responses((status = 200, body = Me, description = "The caller"))
)]
pub async fn me(caller: Caller, _: Query<NoParams>) -> Json<Me> {
    let session_id = match caller.principal.who {
        Who::User { session_id, .. } => Some(session_id),
        Who::AdminToken | Who::Machine { .. } => None,
    };
    Json(Me {
        kind: if session_id.is_some() { "user" } else { "admin_token" },
        user_id: caller.user_id(),
        name: caller.principal.name.to_string(),
        role: caller.principal.role,
        session_id,
    })
}

/// Public keys of the access tokens
///
/// A new key is here two minutes before it signs; an old one stays until its last token has ended.
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    tag = "auth",
    responses((status = 200, body = Jwks, description = "A JSON Web Key Set (RFC 7517)"))
)]
pub async fn jwks(State(state): State<AppState>) -> Json<Jwks> {
    let keys = state.auth.keys.all();
    let jwk = |key: &std::sync::Arc<crate::auth::Key>| Jwk {
        kty: "OKP",
        crv: "Ed25519",
        alg: "EdDSA",
        purpose: "sig",
        kid: key.kid.clone(),
        x: key.public(),
    };
    Json(Jwks { keys: keys.iter().map(jwk).collect() })
}

/// The user that a path or a parameter names.
pub async fn find_user(state: &AppState, text: &str, field: &str) -> Result<users::User, ApiError> {
    let user = users::named(text).ok_or_else(|| {
        ApiError::parameter(
            field,
            "is neither a user's id nor a name of small letters, digits, `.`, `_`, `-`, `@`",
        )
    })?;
    let found: Result<_, StoreError> = users::get(&state.pool, &user).await;
    found?.ok_or_else(|| users::UserError::Unknown.into())
}

fn answer(granted: Granted) -> Response {
    let tokens = Tokens {
        access_token: granted.access_token,
        token_type: "Bearer",
        expires_in_s: granted.access_token_s,
        refresh_token: granted.refresh_token.expose().to_owned(),
        session_id: granted.holder.session_id,
        user_id: granted.holder.user_id,
        name: granted.holder.name,
        role: granted.holder.role,
    };
    ([(header::CACHE_CONTROL, "no-store")], Json(tokens)).into_response()
}

/// The route's access rules it out.
fn no_session() -> ApiError {
    ApiError::unauthenticated("no-session", "this route is for whoever logged in with a password")
}
