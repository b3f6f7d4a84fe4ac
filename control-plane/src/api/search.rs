//! `GET /api/v1/search`: one question over devices, addresses, domains and detections.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::access::Caller;
use super::detections::network;
use super::params::{FromParams, Params, Query};
use super::{ApiError, AppState, render};
use crate::store::events::Topic;
use crate::store::search::{self, Kind};
use crate::stream;

/// Trigrams need three characters.
const LEAST: usize = 3;
const MOST: usize = 128;

/// What is looked for.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SearchParams {
    /// Part of a name, a vendor, an owner, a key, a domain or a subject, in any case; or an address, or a network;
    /// without it nothing is found
    #[param(example = "printer", min_length = 3, max_length = 128, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]+$")]
    pub q: Option<String>,
    /// Only these: `device`, `address`, `domain`, `detection`, split by commas
    #[param(value_type = Option<String>, example = "device,domain",
        pattern = "^(device|address|domain|detection)(,(device|address|domain|detection))*$")]
    pub kinds: Option<Vec<Kind>>,
    /// Hits, the best first
    #[param(minimum = 1, maximum = 100, default = 20, example = 20)]
    pub limit: Option<u16>,
}

impl FromParams for SearchParams {
    fn read(params: &mut Params) -> Self {
        let q = params.parsed("q", "3 to 128 characters that can be seen", |text| {
            let plain = (LEAST..=MOST).contains(&text.chars().count()) && !text.chars().any(char::is_control);
            plain.then(|| text.to_owned())
        });
        let kinds = params.parsed("kinds", "a list of device, address, domain, detection", |text| {
            text.split(',').map(|word| Kind::ALL.into_iter().find(|kind| kind.name() == word)).collect()
        });
        let limit = params.number("limit", 1..=100).map(|limit| limit as u16);
        Self { q, kinds, limit }
    }
}

/// Something that was found.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "kind": "device", "id": 7, "title": "office printer", "detail": "printer", "score": 1.0,
    "last_seen": "2026-02-01T09:03:40.000000000Z"
}))]
pub struct Hit {
    /// `device`, `address`, `domain`, `detection`
    pub kind: &'static str,
    /// Of the device, the domain or the detection; of an address that of its device
    pub id: i64,
    pub title: String,
    /// A device's type, an address's device, a detection's state
    pub detail: Option<String>,
    /// How well it fits, 0 to 1
    pub score: f32,
    pub last_seen: String,
}

/// What was found, the best first.
#[derive(Debug, Serialize, ToSchema)]
pub struct SearchResult {
    pub items: Vec<Hit>,
}

/// Search
///
/// Devices, their addresses, domains and detections, of those that the caller may read: a machine's token needs the
/// scopes `flows` and `detections`.
#[utoipa::path(
    get,
    path = "/api/v1/search",
    tag = "search",
    params(SearchParams),
    responses((status = 200, body = SearchResult, description = "The best hits, maybe none"))
)]
pub async fn search(
    State(state): State<AppState>,
    caller: Caller,
    Query { value: SearchParams { q, kinds, limit }, .. }: Query<SearchParams>,
) -> Result<Json<SearchResult>, ApiError> {
    let Some(q) = q else { return Ok(Json(SearchResult { items: Vec::new() })) };
    let topics = stream::access::topics(&caller.principal);
    let may = |kind: &Kind| match kind {
        Kind::Detection => topics.contains(&Topic::Detections),
        Kind::Device | Kind::Address | Kind::Domain => topics.contains(&Topic::Devices),
    };
    let mut kinds = kinds.unwrap_or_else(|| Kind::ALL.to_vec());
    kinds.sort();
    kinds.dedup();
    kinds.retain(may);
    let network = network(q.trim());
    let limit = usize::from(limit.unwrap_or(20));
    let found = search::search(&state.pool, &kinds, &q, network.as_deref(), limit).await?;
    let items = found
        .into_iter()
        .map(|hit| Hit {
            kind: hit.kind.name(),
            id: hit.id,
            title: hit.title,
            detail: hit.detail,
            score: hit.score,
            last_seen: render::system_time(hit.last_seen),
        })
        .collect();
    Ok(Json(SearchResult { items }))
}
