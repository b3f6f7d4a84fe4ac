//! `/api/v1/tokens`: API tokens of machines. People make, see and revoke their own, admins everybody's.

use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::Caller;
use super::body::Body;
use super::error::Problem;
use super::paging::PageParams;
use super::params::{self, NoParams, Query};
use super::sessions::{OwnedParams, OwnerParams};
use super::{ApiError, AppState, render};
use crate::auth::{ApiToken, AuthError, Role, Scope};
use crate::store::tokens::{self, ApiTokenRow, NewToken};

const MAX_DAYS: u32 = 3_650;

/// A token to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "grafana", "role": "viewer", "scopes": ["flows", "sensors"], "expires_in_days": 90}))]
pub struct TokenRequest {
    /// What it is for: 1 to 63 letters, digits, `.`, `_`, `-`
    #[schema(max_length = 63, pattern = "^([A-Za-z][A-Za-z0-9._-]*|[0-9]+[A-Za-z._-][A-Za-z0-9._-]*)$")]
    pub name: String,
    /// At most one's own
    pub role: Role,
    /// The parts of the API that it opens; at least one
    #[schema(min_items = 1)]
    pub scopes: Vec<Scope>,
    /// 1 to 3650; left out: it does not end by itself
    #[schema(minimum = 1, maximum = 3650)]
    pub expires_in_days: Option<u32>,
}

/// An API token, without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": 3, "name": "grafana", "user_id": 1, "user": "ann", "role": "viewer", "scopes": ["flows", "sensors"],
    "state": "active", "created_at": "2026-01-31T11:00:00.000000000Z",
    "expires_at": "2026-05-01T11:00:00.000000000Z", "revoked_at": null,
    "last_used_at": "2026-01-31T12:00:06.100000000Z"
}))]
pub struct Token {
    pub id: i32,
    pub name: String,
    /// Whose it is; null if the admin token made it
    pub user_id: Option<i32>,
    pub user: Option<String>,
    /// In use never more than its owner's role
    pub role: Role,
    pub scopes: Vec<Scope>,
    /// `active`, `expired` or `revoked`
    pub state: &'static str,
    pub created_at: String,
    pub expires_at: Option<String>,
    pub revoked_at: Option<String>,
    /// To a few seconds
    pub last_used_at: Option<String>,
}

/// A new token with its secret, which is not shown again.
#[derive(Debug, Serialize, ToSchema)]
pub struct MadeToken {
    /// For the header `Authorization: Bearer ...`
    #[schema(example = "weir_a_Zm9yIGV4YW1wbGUgb25seSwgbm90IGEgcmVhbCBvbmU")]
    pub secret: String,
    #[serde(flatten)]
    pub token: Token,
}

/// A page of tokens, in order of id.
#[derive(Debug, Serialize, ToSchema)]
pub struct TokenPage {
    pub items: Vec<Token>,
    pub has_more: bool,
    pub continuation: Option<String>,
}

impl From<ApiTokenRow> for Token {
    fn from(row: ApiTokenRow) -> Self {
        let over = row.expires_at.is_some_and(|end| end <= SystemTime::now());
        Self {
            id: row.api_token_id,
            name: row.name,
            user_id: row.user_id,
            user: row.user,
            role: row.role,
            scopes: row.scopes,
            state: match (row.revoked_at, over) {
                (Some(_), _) => "revoked",
                (None, true) => "expired",
                (None, false) => "active",
            },
            created_at: render::system_time(row.created_at),
            expires_at: row.expires_at.map(render::system_time),
            revoked_at: row.revoked_at.map(render::system_time),
            last_used_at: row.last_used_at.map(render::system_time),
        }
    }
}

/// List API tokens
#[utoipa::path(
    get,
    path = "/api/v1/tokens",
    tag = "tokens",
    params(OwnerParams, PageParams),
    responses(
        (status = 200, body = TokenPage, description = "A page, maybe empty"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such user"),
    )
)]
pub async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Query { value: params, given }: Query<OwnedParams>,
) -> Result<Json<TokenPage>, ApiError> {
    let owner = params.owner.resolve(&state, &caller).await?;
    let page = params.page;
    let after = page.after::<4>(&state, "tokens", &given)?.map_or(0, i32::from_be_bytes);
    let mut found = tokens::list(&state.pool, owner, after, page.limit() as i64 + 1).await?;
    let continuation =
        page.next(&state, "tokens", &given, &mut found, |token| token.api_token_id.to_be_bytes());
    let items = found.into_iter().map(Token::from).collect();
    Ok(Json(TokenPage { items, has_more: continuation.is_some(), continuation }))
}

/// Make an API token
///
/// Its secret is in this answer and nowhere else. It works until it is revoked or ends, and never for more
/// than its owner may.
#[utoipa::path(
    post,
    path = "/api/v1/tokens",
    tag = "tokens",
    request_body = TokenRequest,
    responses((status = 200, body = MadeToken, description = "The token"))
)]
pub async fn add(
    State(state): State<AppState>,
    caller: Caller,
    _: Query<NoParams>,
    Body(body): Body<TokenRequest>,
) -> Result<Response, ApiError> {
    if !crate::store::sensors::is_name(&body.name) {
        return Err(ApiError::parameter(
            "name",
            "is not 1 to 63 letters, digits, `.`, `_`, `-`, not only digits",
        ));
    }
    if body.scopes.is_empty() {
        return Err(ApiError::parameter("scopes", "names no scope"));
    }
    if body.role > caller.principal.role {
        return Err(ApiError::parameter("role", "is more than your own"));
    }
    let mut scopes = body.scopes;
    scopes.sort_unstable();
    scopes.dedup();
    let expires_at = match body.expires_in_days {
        None => None,
        Some(days @ 1..=MAX_DAYS) => Some(SystemTime::now() + Duration::from_hours(24 * u64::from(days))),
        Some(_) => return Err(ApiError::parameter("expires_in_days", "is not between 1 and 3650")),
    };
    let secret = ApiToken::generate().map_err(AuthError::from)?;
    let new = NewToken {
        name: &body.name,
        user_id: caller.user_id(),
        sha256: secret.sha256(),
        role: body.role,
        scopes: &scopes,
        expires_at,
    };
    let row = tokens::add(&state.pool, &caller.author(), &new).await?;
    let row = row.ok_or_else(|| ApiError::unauthenticated("token-revoked", "your account is gone"))?;
    let made = MadeToken { secret: secret.expose().to_owned(), token: row.into() };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(made)).into_response())
}

/// Revoke an API token
///
/// One's own, or as an admin anybody's. It is void everywhere within a second.
#[utoipa::path(
    delete,
    path = "/api/v1/tokens/{token}",
    tag = "tokens",
    params(("token" = i32, Path, description = "Token's id", minimum = 1, maximum = 2_147_483_647, example = 3)),
    responses(
        (status = 200, body = Token, description = "It is revoked"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such token"),
    )
)]
pub async fn revoke(
    State(state): State<AppState>,
    caller: Caller,
    Path(token): Path<String>,
    _: Query<NoParams>,
) -> Result<Json<Token>, ApiError> {
    let id = params::id("token", &token)?;
    let owner = if caller.principal.role == Role::Admin { None } else { caller.user_id() };
    let revoked = tokens::revoke(&state.pool, &caller.author(), id, owner).await?;
    state.auth.forget_token(id);
    revoked.map(|row| Json(row.into())).ok_or_else(|| ApiError::not_found("no such token"))
}
