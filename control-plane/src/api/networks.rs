//! `/api/v1/networks`: what operators call the networks that flows have addresses of.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::Caller;
use super::belonging;
use super::body::Body;
use super::error::{Category, Problem};
use super::faults::Faults;
use super::paging::PageParams;
use super::params::{NoParams, Query};
use super::{ApiError, AppState, render};
use crate::store::filter::Network as Prefix;
use crate::store::networks::{self, Change, NetworkError, Said};
use crate::store::{Reference, sensors};

/// Prefixes of one network.
const MAX_PREFIXES: usize = 64;
/// Characters of a description.
const MAX_DESCRIPTION: usize = 500;

/// A network with a name: the longest prefix that holds an address names it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": 3, "name": "office", "prefixes": ["10.1.0.0/16", "2001:db8:1::/48"], "sensor_id": null, "sensor": null,
    "internal": true, "description": "second floor", "created_at": "2026-01-31T12:00:00.000000000Z"
}))]
pub struct Network {
    pub id: i32,
    pub name: String,
    pub prefixes: Vec<String>,
    /// The only sensor that sees it under these addresses; null: all
    pub sensor_id: Option<i32>,
    pub sensor: Option<String>,
    /// Its addresses are ours
    pub internal: bool,
    pub description: String,
    pub created_at: String,
}

/// A page of networks, in order of id.
#[derive(Debug, Serialize, ToSchema)]
pub struct NetworkPage {
    pub items: Vec<Network>,
    #[schema(example = false)]
    pub has_more: bool,
    #[schema(example = json!(null))]
    pub continuation: Option<String>,
}

/// A network to add.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "office", "prefixes": ["10.1.0.0/16", "2001:db8:1::/48"], "description": "second floor"}))]
pub struct NewNetwork {
    #[schema(min_length = 1, max_length = 63, pattern = "^([a-z][a-z0-9._-]*|[0-9]+[a-z._-][a-z0-9._-]*)$")]
    pub name: String,
    /// Networks such as `10.1.0.0/16`; bits behind the prefix are cleared. No other network has them, at the same sensor
    #[schema(min_items = 1, max_items = 64)]
    pub prefixes: Vec<String>,
    /// Id or name of the only sensor that sees it under these addresses; all, if it is left out or null
    #[schema(max_length = 63)]
    pub sensor: Option<String>,
    /// Whether its addresses are ours; `true`, if it is left out
    #[serde(default = "ours")]
    #[schema(default = true)]
    pub internal: bool,
    #[serde(default)]
    #[schema(max_length = 500, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    pub description: String,
}

fn ours() -> bool {
    true
}

/// What changes of a network; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "guests", "internal": false}))]
#[expect(clippy::option_option, reason = "left out, null, or said")]
pub struct NetworkChange {
    #[schema(min_length = 1, max_length = 63, pattern = "^([a-z][a-z0-9._-]*|[0-9]+[a-z._-][a-z0-9._-]*)$")]
    pub name: Option<String>,
    #[schema(min_items = 1, max_items = 64)]
    pub prefixes: Option<Vec<String>>,
    /// Null: all sensors
    #[serde(default, deserialize_with = "belonging::said")]
    #[schema(value_type = Option<String>, max_length = 63)]
    pub sensor: Option<Option<String>>,
    pub internal: Option<bool>,
    #[schema(max_length = 500, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    pub description: Option<String>,
}

impl From<networks::Network> for Network {
    fn from(network: networks::Network) -> Self {
        let (sensor_id, sensor) = network.sensor.unzip();
        Self {
            id: network.network_id,
            name: network.said.name,
            prefixes: network.said.prefixes.iter().map(ToString::to_string).collect(),
            sensor_id,
            sensor,
            internal: network.said.internal,
            description: network.said.description,
            created_at: render::system_time(network.created_at),
        }
    }
}

impl From<NetworkError> for ApiError {
    fn from(error: NetworkError) -> Self {
        let conflict =
            |slug, title| Self::new(StatusCode::CONFLICT, Category::Conflict, slug, title, error.to_string());
        match error {
            NetworkError::Unknown => Self::not_found("no network has this id or name"),
            NetworkError::Taken => conflict("name-taken", "The name is taken"),
            NetworkError::PrefixTaken(..) => conflict("prefix-taken", "Another network has this prefix"),
            NetworkError::TooMany | NetworkError::TooManyPrefixes(_) => {
                conflict("too-many", "There are too many")
            }
            NetworkError::NoSensor => Self::parameter("sensor", error.to_string()),
            NetworkError::Store(error) => error.into(),
        }
    }
}

impl Faults {
    fn network_name(&mut self, name: &str) {
        if !networks::is_name(name) {
            self.add("name", "is not 1 to 63 small letters, digits, `.`, `_`, `-`, not only digits");
        }
    }

    /// Each once.
    fn prefixes(&mut self, texts: &[String]) -> Vec<Prefix> {
        if !(1..=MAX_PREFIXES).contains(&texts.len()) {
            self.add("prefixes", format!("are not 1 to {MAX_PREFIXES}"));
        }
        let mut prefixes = Vec::new();
        for (place, text) in (1..).zip(texts) {
            match Prefix::parse(text) {
                None => self.add("prefixes", format!("number {place} is not a network such as 10.1.0.0/16")),
                Some(prefix) if prefixes.contains(&prefix) => {
                    self.add("prefixes", format!("number {place} is there twice"));
                }
                Some(prefix) => prefixes.push(prefix),
            }
        }
        prefixes
    }

    fn sensor(&mut self, text: &str) -> Option<Reference> {
        let sensor = sensors::named(text);
        if sensor.is_none() {
            self.add("sensor", "is not a sensor's id or name");
        }
        sensor
    }
}

fn which(text: &str) -> Result<Reference, ApiError> {
    networks::named(text).ok_or_else(|| ApiError::parameter("network", "is not a network's id or name"))
}

/// List networks
#[utoipa::path(
    get,
    path = "/api/v1/networks",
    tag = "networks",
    params(PageParams),
    responses((status = 200, body = NetworkPage, description = "A page, maybe empty"))
)]
pub async fn list(
    State(state): State<AppState>,
    Query { value: page, given }: Query<PageParams>,
) -> Result<Json<NetworkPage>, ApiError> {
    let after = page.after::<4>(&state, "networks", &given)?.map_or(0, i32::from_be_bytes);
    let mut found = networks::list(&state.pool, after, page.limit() as i64 + 1).await?;
    let continuation =
        page.next(&state, "networks", &given, &mut found, |network| network.network_id.to_be_bytes());
    let items = found.into_iter().map(Network::from).collect();
    Ok(Json(NetworkPage { items, has_more: continuation.is_some(), continuation }))
}

/// Show a network
#[utoipa::path(
    get,
    path = "/api/v1/networks/{network}",
    tag = "networks",
    params(("network" = String, Path, description = "Network's id or name", example = "office")),
    responses(
        (status = 200, body = Network, description = "The network"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such network"),
    )
)]
pub async fn get(
    State(state): State<AppState>,
    Path(network): Path<String>,
    _: Query<NoParams>,
) -> Result<Json<Network>, ApiError> {
    let found = networks::get(&state.pool, &which(&network)?).await?;
    Ok(Json(found.ok_or(NetworkError::Unknown)?.into()))
}

/// Name a network
///
/// From now on flows with addresses of it have its name, those that are stored already as well. A thousand at most.
#[utoipa::path(
    post,
    path = "/api/v1/networks",
    tag = "networks",
    request_body = NewNetwork,
    responses(
        (status = 200, body = Network, description = "The network"),
        (status = 409, body = Problem, content_type = "application/problem+json",
         description = "The name or a prefix is taken, or there are too many"),
    )
)]
pub async fn add(
    State(state): State<AppState>,
    caller: Caller,
    _: Query<NoParams>,
    Body(body): Body<NewNetwork>,
) -> Result<Json<Network>, ApiError> {
    let mut faults = Faults::default();
    faults.network_name(&body.name);
    faults.text("description", &body.description, MAX_DESCRIPTION);
    let prefixes = faults.prefixes(&body.prefixes);
    let sensor = body.sensor.as_deref().and_then(|sensor| faults.sensor(sensor));
    faults.finish()?;
    let said = Said { name: body.name, prefixes, internal: body.internal, description: body.description };
    Ok(Json(networks::add(&state.pool, &caller.author(), &said, sensor.as_ref()).await?.into()))
}

/// Change a network
///
/// Takes effect at once, for what is stored already as well.
#[utoipa::path(
    patch,
    path = "/api/v1/networks/{network}",
    tag = "networks",
    params(("network" = String, Path, description = "Network's id or name", example = "office")),
    request_body = NetworkChange,
    responses(
        (status = 200, body = Network, description = "The network as it is now"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such network"),
        (status = 409, body = Problem, content_type = "application/problem+json",
         description = "The name or a prefix is taken, or there are too many"),
    )
)]
pub async fn change(
    State(state): State<AppState>,
    caller: Caller,
    Path(network): Path<String>,
    _: Query<NoParams>,
    Body(body): Body<NetworkChange>,
) -> Result<Json<Network>, ApiError> {
    let which = which(&network)?;
    let mut faults = Faults::default();
    if let Some(name) = &body.name {
        faults.network_name(name);
    }
    if let Some(description) = &body.description {
        faults.text("description", description, MAX_DESCRIPTION);
    }
    let prefixes = body.prefixes.as_deref().map(|prefixes| faults.prefixes(prefixes));
    let sensor = body.sensor.map(|sensor| sensor.and_then(|sensor| faults.sensor(&sensor)));
    faults.finish()?;
    let new =
        Change { name: body.name, sensor, prefixes, internal: body.internal, description: body.description };
    Ok(Json(networks::update(&state.pool, &caller.author(), &which, &new).await?.into()))
}

/// Delete a network
///
/// Flows stay; their addresses are named by the next shorter prefix, or by none.
#[utoipa::path(
    delete,
    path = "/api/v1/networks/{network}",
    tag = "networks",
    params(("network" = String, Path, description = "Network's id or name", example = "office")),
    responses(
        (status = 200, body = Network, description = "The network that is gone"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such network"),
    )
)]
pub async fn remove(
    State(state): State<AppState>,
    caller: Caller,
    Path(network): Path<String>,
    _: Query<NoParams>,
) -> Result<Json<Network>, ApiError> {
    Ok(Json(networks::remove(&state.pool, &caller.author(), &which(&network)?).await?.into()))
}
