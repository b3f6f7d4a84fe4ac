//! `/api/v1/sensors/{id}/configuration` and `/api/v1/sensor-groups/{group}/configuration`: settings that are pushed
//! to sensors, their versions, and going back to one.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::openapi::schema::{AdditionalProperties, Object, ObjectBuilder, Type};
use utoipa::openapi::{ArrayBuilder, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};
use weir_wire::settings::{self, Kind};

use super::access::Caller;
use super::belonging;
use super::body::Body;
use super::error::{Category, FieldError, Problem};
use super::paging::PageParams;
use super::params::{NoParams, Query};
use super::sensors::{named, unknown};
use super::{ApiError, AppState, render};
use crate::store::configuration::{self, New, Owner, PutError};

const MAX_COMMENT: usize = 256;

/// Settings by key; `docs/configuration.md` has those that may be pushed.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Settings(pub settings::Settings);

impl PartialSchema for Settings {
    fn schema() -> RefOr<Schema> {
        let object = |kind: Type| Object::with_type(kind);
        let mut schema = ObjectBuilder::new()
            .description(Some(
                "Settings by key, as in the sensor's file; what is left out is as its file says",
            ))
            .additional_properties(Some(AdditionalProperties::FreeForm(false)))
            .examples([serde_json::json!({"epoch": "2s", "detect.port_scan.hosts": 40})]);
        for key in settings::KEYS {
            let property: Schema = match key.kind {
                Kind::Flag => object(Type::Boolean).into(),
                Kind::Number { least, most } => {
                    let mut number = object(Type::Integer);
                    (number.minimum, number.maximum) =
                        (Some((least as f64).into()), Some((most as f64).into()));
                    number.into()
                }
                Kind::Duration { .. } => {
                    let mut text = object(Type::String);
                    (text.pattern, text.max_length) = (Some("^[0-9]+(ms|s|m|h)$".to_owned()), Some(16));
                    text.into()
                }
                Kind::Networks | Kind::Domains => {
                    ArrayBuilder::new().items(object(Type::String)).max_items(Some(256)).into()
                }
                Kind::Ports => {
                    let mut port = object(Type::Integer);
                    (port.minimum, port.maximum) = (Some(0.0.into()), Some(65_535.0.into()));
                    ArrayBuilder::new().items(port).max_items(Some(256)).into()
                }
            };
            schema = schema.property(key.name, property);
        }
        schema.into()
    }
}

impl ToSchema for Settings {}

/// Settings to push.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"settings": {"epoch": "2s", "detect.port_scan.hosts": 40}, "comment": "more scans"}))]
pub struct ConfigurationRequest {
    /// All of them: what was pushed before and is left out here is not pushed any more
    pub settings: Settings,
    /// Why, for the history
    #[serde(default)]
    #[schema(max_length = 256, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    pub comment: String,
    /// The newest version that the caller knows of, 0 for none: another one is answered 409
    #[schema(minimum = 0, maximum = 2_147_483_647)]
    pub expected_version: Option<i32>,
}

/// Where to go back to.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"version": null, "comment": "too many detections"}))]
pub struct RollbackRequest {
    /// That version; left out, the one before the newest
    #[schema(minimum = 0, maximum = 2_147_483_647)]
    pub version: Option<i32>,
    #[serde(default)]
    #[schema(max_length = 256, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    pub comment: String,
}

/// A version of what is pushed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "version": 3, "settings": {"epoch": "2s", "detect.port_scan.hosts": 40}, "author": "otto", "comment": "more scans",
    "created_at": "2026-01-31T12:00:06.100000000Z", "restores": null
}))]
pub struct ConfigurationVersion {
    pub version: i32,
    pub settings: Settings,
    pub author: String,
    pub comment: String,
    pub created_at: String,
    /// It is that version again; 0: nothing, as before the first
    pub restores: Option<i32>,
}

/// A page of versions, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConfigurationPage {
    pub items: Vec<ConfigurationVersion>,
    pub has_more: bool,
    pub continuation: Option<String>,
}

/// What is pushed to a group.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"group": "edge", "newest": null}))]
pub struct GroupConfiguration {
    pub group: String,
    pub newest: Option<ConfigurationVersion>,
}

/// What is pushed to a sensor, and what came of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "sensor": null,
    "group": {"group": "edge", "newest": {"version": 1, "settings": {"epoch": "2s"}, "author": "otto", "comment": "",
              "created_at": "2026-01-31T12:00:06.100000000Z", "restores": null}},
    "wanted": {"id": "0c7a7f3a4b3f2c11", "settings": {"epoch": "2s"}, "sensor_version": 0, "group_version": 1},
    "reported": {"state": "applied", "in_force": "0c7a7f3a4b3f2c11", "refused": null, "reason": null,
                 "at": "2026-01-31T12:00:21.100000000Z"}
}))]
pub struct SensorConfiguration {
    /// Its own
    pub sensor: Option<ConfigurationVersion>,
    /// Its group's
    pub group: Option<GroupConfiguration>,
    pub wanted: WantedConfiguration,
    pub reported: ReportedConfiguration,
}

/// What the sensor should have in force: its own settings over those of its group, key by key.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": "0c7a7f3a4b3f2c11", "settings": {"epoch": "2s"}, "sensor_version": 0, "group_version": 1
}))]
pub struct WantedConfiguration {
    /// Of these settings; the same settings have the same
    pub id: String,
    pub settings: Settings,
    /// 0: none
    pub sensor_version: i32,
    pub group_version: i32,
}

/// What the sensor says.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "state": "refused", "in_force": null, "refused": "0c7a7f3a4b3f2c11",
    "reason": "detect.beaconing.max_interval: is less than min_interval", "at": "2026-01-31T12:00:21.100000000Z"
}))]
pub struct ReportedConfiguration {
    /// `none` (nothing was pushed), `pending` (not heard of yet), `trial` (in force until it is known whether the sensor
    /// is well with it), `applied` or `refused`
    pub state: &'static str,
    /// The settings that are in force
    pub in_force: Option<String>,
    pub refused: Option<String>,
    /// Why they were refused
    pub reason: Option<String>,
    /// When it said so
    pub at: Option<String>,
}

impl From<configuration::Version> for ConfigurationVersion {
    fn from(row: configuration::Version) -> Self {
        Self {
            version: row.version,
            settings: Settings(row.settings),
            author: row.author,
            comment: row.comment,
            created_at: render::system_time(row.created_at),
            restores: row.restores,
        }
    }
}

impl From<configuration::Standing> for SensorConfiguration {
    fn from(standing: configuration::Standing) -> Self {
        let configuration::Standing { sensor, group, wanted, report } = standing;
        let (report, at) = report.unzip();
        let report = report.unwrap_or_default();
        let is = |id: &Option<String>| id.as_ref() == Some(&wanted.id);
        let (refused, reason) = report.refused.unzip();
        let nothing = wanted.settings.is_empty() && report.in_force.is_none();
        let known = [
            (is(&report.in_force), "applied"),
            (is(&report.trial), "trial"),
            (is(&refused), "refused"),
            (nothing, "none"),
        ];
        let state = known.into_iter().find(|(holds, _)| *holds).map_or("pending", |(_, state)| state);
        Self {
            sensor: sensor.map(Into::into),
            group: group.map(|(group, version)| GroupConfiguration { group, newest: Some(version.into()) }),
            wanted: WantedConfiguration {
                id: wanted.id,
                settings: Settings(wanted.settings),
                sensor_version: wanted.sensor_version,
                group_version: wanted.group_version,
            },
            reported: ReportedConfiguration {
                state,
                in_force: report.in_force,
                refused,
                reason,
                at: at.map(render::system_time),
            },
        }
    }
}

impl From<PutError> for ApiError {
    fn from(error: PutError) -> Self {
        match error {
            PutError::Unknown => unknown(),
            PutError::NoVersion => Self::not_found(error.to_string()),
            PutError::Changed(_) => Self::new(
                StatusCode::CONFLICT,
                Category::Conflict,
                "configuration-changed",
                "The configuration was changed meanwhile",
                error.to_string(),
            ),
            PutError::Store(error) => error.into(),
        }
    }
}

/// Show a sensor's pushed settings
///
/// Its own, its group's, what it should have in force of both, and what it says of that.
#[utoipa::path(
    get,
    path = "/api/v1/sensors/{id}/configuration",
    tag = "sensors",
    params(("id" = String, Path, description = "Sensor's id or name", example = "edge-1")),
    responses(
        (status = 200, body = SensorConfiguration, description = "What is pushed, and what came of it"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such sensor"),
    )
)]
pub async fn of_sensor(
    State(state): State<AppState>,
    Path(id): Path<String>,
    _: Query<NoParams>,
) -> Result<Json<SensorConfiguration>, ApiError> {
    let standing = configuration::standing(&state.pool, &named(&id)?).await?;
    Ok(Json(standing.ok_or_else(unknown)?.into()))
}

/// Push settings to a sensor
///
/// They win over its group's, key by key. Only what cannot cut a sensor off may be pushed. The sensor has them with its
/// next heartbeat, and says whether it took them; what it is not well with it takes back by itself.
#[utoipa::path(
    put,
    path = "/api/v1/sensors/{id}/configuration",
    tag = "sensors",
    params(("id" = String, Path, description = "Sensor's id or name", example = "edge-1")),
    request_body = ConfigurationRequest,
    responses(
        (status = 200, body = ConfigurationVersion, description = "The new version"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such sensor"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Another version is the newest"),
    )
)]
pub async fn put_sensor(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    _: Query<NoParams>,
    Body(body): Body<ConfigurationRequest>,
) -> Result<Json<ConfigurationVersion>, ApiError> {
    put(&state, &caller, &Owner::Sensor(named(&id)?), body).await
}

/// List the versions of a sensor's pushed settings
#[utoipa::path(
    get,
    path = "/api/v1/sensors/{id}/configuration/versions",
    tag = "sensors",
    params(("id" = String, Path, description = "Sensor's id or name", example = "edge-1"), PageParams),
    responses(
        (status = 200, body = ConfigurationPage, description = "A page, the newest first"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such sensor"),
    )
)]
pub async fn sensor_versions(
    State(state): State<AppState>,
    Path(id): Path<String>,
    Query { value: page, given }: Query<PageParams>,
) -> Result<Json<ConfigurationPage>, ApiError> {
    versions(&state, &Owner::Sensor(named(&id)?), &id, &page, &given).await
}

/// Go back to earlier settings of a sensor
///
/// Makes a further version with those settings.
#[utoipa::path(
    post,
    path = "/api/v1/sensors/{id}/configuration/rollback",
    tag = "sensors",
    params(("id" = String, Path, description = "Sensor's id or name", example = "edge-1")),
    request_body = RollbackRequest,
    responses(
        (status = 200, body = ConfigurationVersion, description = "The new version, with the earlier settings"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such sensor or version"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Changed at the same moment"),
    )
)]
pub async fn roll_sensor_back(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    _: Query<NoParams>,
    Body(body): Body<RollbackRequest>,
) -> Result<Json<ConfigurationVersion>, ApiError> {
    roll_back(&state, &caller, &Owner::Sensor(named(&id)?), body).await
}

/// Show the settings that are pushed to a group
#[utoipa::path(
    get,
    path = "/api/v1/sensor-groups/{group}/configuration",
    tag = "sensors",
    params(("group" = String, Path, description = "Group's name", example = "edge")),
    responses((status = 200, body = GroupConfiguration, description = "What is pushed, if anything")),
)]
pub async fn of_group(
    State(state): State<AppState>,
    Path(group): Path<String>,
    _: Query<NoParams>,
) -> Result<Json<GroupConfiguration>, ApiError> {
    let newest = configuration::newest(&state.pool, &owner(&group)?).await?;
    Ok(Json(GroupConfiguration { group, newest: newest.map(Into::into) }))
}

/// Push settings to a group
///
/// To all sensors that are in it, or come to it later.
#[utoipa::path(
    put,
    path = "/api/v1/sensor-groups/{group}/configuration",
    tag = "sensors",
    params(("group" = String, Path, description = "Group's name", example = "edge")),
    request_body = ConfigurationRequest,
    responses(
        (status = 200, body = ConfigurationVersion, description = "The new version"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Another version is the newest"),
    )
)]
pub async fn put_group(
    State(state): State<AppState>,
    caller: Caller,
    Path(group): Path<String>,
    _: Query<NoParams>,
    Body(body): Body<ConfigurationRequest>,
) -> Result<Json<ConfigurationVersion>, ApiError> {
    put(&state, &caller, &owner(&group)?, body).await
}

/// List the versions of a group's pushed settings
#[utoipa::path(
    get,
    path = "/api/v1/sensor-groups/{group}/configuration/versions",
    tag = "sensors",
    params(("group" = String, Path, description = "Group's name", example = "edge"), PageParams),
    responses((status = 200, body = ConfigurationPage, description = "A page, the newest first, maybe empty")),
)]
pub async fn group_versions(
    State(state): State<AppState>,
    Path(group): Path<String>,
    Query { value: page, given }: Query<PageParams>,
) -> Result<Json<ConfigurationPage>, ApiError> {
    versions(&state, &owner(&group)?, &group, &page, &given).await
}

/// Go back to earlier settings of a group
///
/// Makes a further version with those settings.
#[utoipa::path(
    post,
    path = "/api/v1/sensor-groups/{group}/configuration/rollback",
    tag = "sensors",
    params(("group" = String, Path, description = "Group's name", example = "edge")),
    request_body = RollbackRequest,
    responses(
        (status = 200, body = ConfigurationVersion, description = "The new version, with the earlier settings"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such version"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Changed at the same moment"),
    )
)]
pub async fn roll_group_back(
    State(state): State<AppState>,
    caller: Caller,
    Path(group): Path<String>,
    _: Query<NoParams>,
    Body(body): Body<RollbackRequest>,
) -> Result<Json<ConfigurationVersion>, ApiError> {
    roll_back(&state, &caller, &owner(&group)?, body).await
}

fn owner(group: &str) -> Result<Owner, ApiError> {
    let name = belonging::name(group);
    name.map(Owner::Group).ok_or_else(|| ApiError::parameter("group", format!("is not {}", belonging::NAME)))
}

async fn put(
    state: &AppState,
    caller: &Caller,
    owner: &Owner,
    body: ConfigurationRequest,
) -> Result<Json<ConfigurationVersion>, ApiError> {
    let Settings(settings) = body.settings;
    let mut errors: Vec<FieldError> = settings::faults(&settings)
        .into_iter()
        .map(|fault| FieldError { field: format!("settings.{}", shown(&fault.key)), message: fault.message })
        .collect();
    errors.extend(comment_fault(&body.comment));
    if body.expected_version.is_some_and(|version| version < 0) {
        errors.push(FieldError { field: "expected_version".to_owned(), message: "is negative".to_owned() });
    }
    if !errors.is_empty() {
        return Err(ApiError::parameters(errors));
    }
    let (author, new) = (caller.author(), New::Settings(settings));
    let made =
        configuration::put(&state.pool, &author, owner, &new, &body.comment, body.expected_version).await?;
    Ok(Json(made.into()))
}

async fn roll_back(
    state: &AppState,
    caller: &Caller,
    owner: &Owner,
    body: RollbackRequest,
) -> Result<Json<ConfigurationVersion>, ApiError> {
    let mut errors: Vec<FieldError> = comment_fault(&body.comment).into_iter().collect();
    if body.version.is_some_and(|version| version < 0) {
        errors.push(FieldError { field: "version".to_owned(), message: "is negative".to_owned() });
    }
    if !errors.is_empty() {
        return Err(ApiError::parameters(errors));
    }
    let (author, new) = (caller.author(), New::Again(body.version));
    let made = configuration::put(&state.pool, &author, owner, &new, &body.comment, None).await?;
    Ok(Json(made.into()))
}

async fn versions(
    state: &AppState,
    owner: &Owner,
    name: &str,
    page: &PageParams,
    given: &[(String, String)],
) -> Result<Json<ConfigurationPage>, ApiError> {
    let kind = if matches!(owner, Owner::Group(_)) { "group" } else { "sensor" };
    let list = format!("configuration of {kind} {name}");
    let before = page.after::<4>(state, &list, given)?.map_or(i32::MAX, i32::from_be_bytes);
    let found = configuration::versions(&state.pool, owner, before, page.limit() as i64 + 1).await?;
    let mut found = found.ok_or_else(unknown)?;
    let continuation = page.next(state, &list, given, &mut found, |row| row.version.to_be_bytes());
    let items = found.into_iter().map(Into::into).collect();
    Ok(Json(ConfigurationPage { items, has_more: continuation.is_some(), continuation }))
}

fn comment_fault(comment: &str) -> Option<FieldError> {
    let long = comment.chars().count() > MAX_COMMENT;
    let message = format!("has more than {MAX_COMMENT} characters, or control characters");
    (long || comment.chars().any(char::is_control))
        .then(|| FieldError { field: "comment".to_owned(), message })
}

/// A key that somebody made up may be long, and anything.
fn shown(key: &str) -> String {
    key.chars().filter(|char| !char.is_control()).take(64).collect()
}

/// What a heartbeat says of the settings that are in force.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[schema(example = json!({"in_force": "0c7a7f3a4b3f2c11", "trial": null, "refused": null, "reason": null}))]
pub struct HeartbeatConfiguration {
    /// Of what was pushed; null: nothing
    #[schema(max_length = 64, pattern = "^[0-9a-f]*$")]
    pub in_force: Option<String>,
    #[schema(max_length = 64, pattern = "^[0-9a-f]*$")]
    pub trial: Option<String>,
    #[schema(max_length = 64, pattern = "^[0-9a-f]*$")]
    pub refused: Option<String>,
    /// Why; what is longer is cut
    pub reason: Option<String>,
}

impl HeartbeatConfiguration {
    pub fn check(&self) -> Result<(), ApiError> {
        let fields = [("in_force", &self.in_force), ("trial", &self.trial), ("refused", &self.refused)];
        let is_id =
            |id: &String| id.len() <= 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        match fields.into_iter().find(|(_, id)| id.as_ref().is_some_and(|id| !is_id(id))) {
            Some((field, _)) => Err(ApiError::parameter(
                format!("configuration.{field}"),
                "is not up to 64 hexadecimal digits",
            )),
            None => Ok(()),
        }
    }

    pub fn report(&self) -> configuration::Report {
        let clean = |text: &String| text.chars().filter(|char| !char.is_control()).take(1_000).collect();
        let reason = self.reason.as_ref().map_or_else(String::new, clean);
        configuration::Report {
            in_force: self.in_force.clone(),
            trial: self.trial.clone(),
            refused: self.refused.clone().map(|id| (id, reason)),
        }
    }
}

/// Settings for the sensor to put in force.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"id": "0c7a7f3a4b3f2c11", "settings": {"epoch": "2s"}}))]
pub struct Offer {
    pub id: String,
    pub settings: BTreeMap<String, Value>,
}

impl Offer {
    /// What the sensor should have and has not, and did not refuse.
    pub fn new(wanted: configuration::Wanted, said: &configuration::Report) -> Option<Self> {
        let current = said.trial.as_ref().or(said.in_force.as_ref());
        let settled = current == Some(&wanted.id)
            || said.refused.as_ref().is_some_and(|(id, _)| *id == wanted.id)
            // Nothing was pushed, and nothing is.
            || (wanted.settings.is_empty() && current.is_none());
        (!settled).then_some(Self { id: wanted.id, settings: wanted.settings })
    }
}
