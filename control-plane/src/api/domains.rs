//! `GET /api/v1/domains`: what responders were called.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::paging::PageParams;
use super::params::{FromParams, Params, Query};
use super::{ApiError, AppState, render};
use crate::store::domains;

/// A domain name has no more characters (RFC 1035).
const MAX_PART: usize = 253;

/// Which domains.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DomainParams {
    /// Part of the name, case does not matter; `*` stands for anything
    #[param(max_length = 253, example = "example.org")]
    pub q: Option<String>,
}

/// All parameters of the route.
pub struct ListParams {
    domains: DomainParams,
    page: PageParams,
}

impl FromParams for ListParams {
    fn read(params: &mut Params) -> Self {
        let q = params.parsed("q", "1 to 253 characters of a name", |text| {
            let length = text.chars().count();
            ((1..=MAX_PART).contains(&length) && !text.contains('\0')).then(|| text.to_owned())
        });
        Self { domains: DomainParams { q }, page: PageParams::read(params) }
    }
}

/// A name that a responder was called by.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": 12, "name": "www.example.org", "first_seen_at": "2026-01-31T12:00:06.100000000Z",
    "last_seen_on": "2026-02-02"
}))]
pub struct Domain {
    pub id: i32,
    /// Small letters
    pub name: String,
    pub first_seen_at: String,
    /// A day, UTC
    pub last_seen_on: String,
}

/// A page of domains, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct DomainPage {
    pub items: Vec<Domain>,
    pub has_more: bool,
    pub continuation: Option<String>,
}

/// List domains
///
/// The last that came to be known first. `GET /api/v1/flows?filter=name = "…"` has the flows of one.
#[utoipa::path(
    get,
    path = "/api/v1/domains",
    tag = "domains",
    params(DomainParams, PageParams),
    responses((status = 200, body = DomainPage, description = "A page, maybe empty"))
)]
pub async fn list(
    State(state): State<AppState>,
    Query { value: ListParams { domains: params, page }, given }: Query<ListParams>,
) -> Result<Json<DomainPage>, ApiError> {
    let before = page.after::<4>(&state, "domains", &given)?.map(i32::from_be_bytes);
    let limit = page.limit() as i64 + 1;
    let mut found = domains::list(&state.pool, params.q.as_deref(), before, limit).await?;
    let continuation =
        page.next(&state, "domains", &given, &mut found, |domain| domain.domain_id.to_be_bytes());
    let items = found
        .into_iter()
        .map(|domain| Domain {
            id: domain.domain_id,
            name: domain.name,
            first_seen_at: render::system_time(domain.first_seen_at),
            last_seen_on: domain.last_seen_on,
        })
        .collect();
    Ok(Json(DomainPage { items, has_more: continuation.is_some(), continuation }))
}
