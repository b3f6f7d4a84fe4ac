//! `/api/v1/devices`: who is on the networks, as sensors tell it and operators say it.

use std::time::SystemTime;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};
use weir_wire::DeviceType;

use super::access::Caller;
use super::belonging;
use super::body::Body;
use super::erasures::{self, EraseParams, Erasure, ErasurePlan};
use super::error::{Category, FieldError, Problem};
use super::paging::PageParams;
use super::params::{self, FromParams, NoParams, Params, Query};
use super::{ApiError, AppState, render};
use crate::store::devices::{self, Change, ChangeError, Filter};
use crate::store::erasure::Subject;
use crate::store::{Reference, sensors};

/// Characters of a name, an owner and of notes.
const MAX_NAME: usize = 64;
const MAX_OWNER: usize = 128;
const MAX_NOTES: usize = 4_000;
/// Characters of a part that is looked for.
const MAX_PART: usize = 128;

/// Which devices.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DevicesParams {
    /// Of this site
    #[param(example = "ams")]
    pub site: Option<String>,
    /// Seen by the sensor with this id or name
    #[param(value_type = Option<String>, example = "edge-1")]
    pub sensor: Option<Reference>,
    /// Of this type: what an operator said, else what the evidence says
    #[param(
        example = "printer",
        pattern = "^(router|switch|access_point|server|computer|phone|tablet|wearable|printer|camera|nas|tv|media_player|speaker|game_console|voip|hub|iot|virtual_machine|other)$"
    )]
    pub r#type: Option<String>,
    /// Part of the vendor's name, case does not matter; `*` stands for anything
    #[param(example = "philips", min_length = 1, max_length = 128, pattern = "^[^\\x00]+$")]
    pub vendor: Option<String>,
    /// Part of the device's name, likewise
    #[param(example = "office", min_length = 1, max_length = 128, pattern = "^[^\\x00]+$")]
    pub name: Option<String>,
    /// That had this address, or one of this network, at any time
    #[param(example = "10.0.0.0/24", max_length = 64)]
    pub address: Option<String>,
    /// Seen at or after this time (RFC 3339)
    #[param(value_type = Option<String>, format = "date-time", example = "2026-01-31T00:00:00Z")]
    pub from: Option<Timestamp>,
    /// First seen before this time (RFC 3339)
    #[param(value_type = Option<String>, format = "date-time", example = "2026-02-01T00:00:00Z")]
    pub to: Option<Timestamp>,
}

impl FromParams for DevicesParams {
    fn read(params: &mut Params) -> Self {
        let part = |params: &mut Params, name: &str| {
            params.parsed(name, "1 to 128 characters", |text| {
                ((1..=MAX_PART).contains(&text.chars().count()) && !text.contains('\0'))
                    .then(|| text.to_owned())
            })
        };
        Self {
            site: params.parsed("site", belonging::NAME, belonging::name),
            sensor: params.parsed("sensor", "a sensor's id or name", sensors::named),
            r#type: params.parsed("type", "a type of devices", |text| {
                DeviceType::parse(text).map(|of| of.word().to_owned())
            }),
            vendor: part(params, "vendor"),
            name: part(params, "name"),
            address: params.parsed("address", "an address or a network", super::detections::network),
            from: params.time("from"),
            to: params.time("to"),
        }
    }
}

impl From<DevicesParams> for Filter {
    fn from(params: DevicesParams) -> Self {
        Self {
            site: params.site,
            sensor: params.sensor,
            r#type: params.r#type,
            vendor: params.vendor,
            name: params.name,
            network: params.address,
            from: params.from.map(SystemTime::from),
            to: params.to.map(SystemTime::from),
        }
    }
}

/// All parameters of the list.
pub struct ListParams {
    filter: DevicesParams,
    page: PageParams,
}

impl FromParams for ListParams {
    fn read(params: &mut Params) -> Self {
        Self { filter: DevicesParams::read(params), page: PageParams::read(params) }
    }
}

/// A device: one record a site, whatever addresses it has.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": 7, "site": "ams", "name": "office printer", "type": "printer", "type_by": "operator",
    "vendor": "Seiko Epson Corporation", "owner": "facilities", "notes": null,
    "told_name": "EPSON12AB34", "told_type": "printer", "told_score": 140,
    "first_seen": "2026-01-31T12:00:01.200000000Z", "last_seen": "2026-02-01T09:03:40.000000000Z",
    "keys": [{"kind": "mac", "value": "b0:c5:54:25:5b:0e"}], "addresses": ["10.0.0.17", "fe80::b2c5:54ff:fe25:5b0e"]
}))]
pub struct Device {
    pub id: i64,
    /// None where the sensor that sees it has none
    pub site: Option<String>,
    /// What an operator called it, else what it calls itself
    pub name: Option<String>,
    /// What an operator said it is, else what the evidence says
    pub r#type: Option<String>,
    /// `operator` or `evidence`
    pub type_by: Option<&'static str>,
    /// Who made its network card, by the IEEE registry
    pub vendor: Option<String>,
    pub owner: Option<String>,
    pub notes: Option<String>,
    pub told_name: Option<String>,
    pub told_type: Option<String>,
    /// Sum of the weights that say so
    pub told_score: Option<i32>,
    pub first_seen: String,
    pub last_seen: String,
    /// What it is known by
    pub keys: Vec<Key>,
    /// Those that it had last, at most 8
    pub addresses: Vec<String>,
}

/// What a device is known by.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"kind": "mac", "value": "b0:c5:54:25:5b:0e"}))]
pub struct Key {
    /// `mac`, `random_mac`, `shared_mac`, `duid`, `client_id`, `uuid`, `service`
    pub kind: String,
    pub value: String,
}

/// Something that sensors told of a device.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "kind": "reason", "source": "mdns_ipp", "value": "printer", "weight": 60, "detail": "_ipp._tcp",
    "first_seen": "2026-01-31T12:00:01.200000000Z", "last_seen": "2026-02-01T09:03:40.000000000Z"
}))]
pub struct Fact {
    /// `seen`, `key`, `address`, `name`, `reason` (for its type), `vendor`
    pub kind: String,
    /// The sensor that saw it, the kind of a key, who told a name, the rule of a reason
    pub source: String,
    pub value: String,
    /// Of a reason
    pub weight: Option<i32>,
    /// What the rule saw
    pub detail: Option<String>,
    pub first_seen: String,
    pub last_seen: String,
}

/// A device with all that sensors told of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": 7, "site": "ams", "name": "office printer", "type": "printer", "type_by": "operator",
    "vendor": "Seiko Epson Corporation", "owner": "facilities", "notes": null,
    "told_name": "EPSON12AB34", "told_type": "printer", "told_score": 140,
    "first_seen": "2026-01-31T12:00:01.200000000Z", "last_seen": "2026-02-01T09:03:40.000000000Z",
    "keys": [{"kind": "mac", "value": "b0:c5:54:25:5b:0e"}], "addresses": ["10.0.0.17"],
    "facts": [{
        "kind": "reason", "source": "mdns_ipp", "value": "printer", "weight": 60, "detail": "_ipp._tcp",
        "first_seen": "2026-01-31T12:00:01.200000000Z", "last_seen": "2026-02-01T09:03:40.000000000Z"
    }],
    "merges": [{"id": 3, "other": 8, "at": "2026-02-01T09:00:00.000000000Z"}]
}))]
pub struct DeviceDetail {
    #[serde(flatten)]
    pub device: Device,
    /// The last ones first, at most 2,000
    pub facts: Vec<Fact>,
    /// What was said to be this one and can be undone, the last one first, at most 32
    pub merges: Vec<DeviceMerge>,
}

/// A merge that can be undone.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"id": 3, "other": 8, "at": "2026-02-01T09:00:00.000000000Z"}))]
pub struct DeviceMerge {
    pub id: i64,
    /// The device that is this one since
    pub other: i64,
    pub at: String,
}

impl From<devices::Device> for Device {
    fn from(device: devices::Device) -> Self {
        let said = device.said;
        let type_by = match (&said.r#type, &device.told_type) {
            (Some(_), _) => Some("operator"),
            (None, Some(_)) => Some("evidence"),
            (None, None) => None,
        };
        Self {
            id: device.device_id,
            site: device.site,
            name: said.name.or_else(|| device.told_name.clone()),
            r#type: said.r#type.or_else(|| device.told_type.clone()),
            type_by,
            vendor: device.vendor,
            owner: said.owner,
            notes: said.notes,
            told_name: device.told_name,
            told_type: device.told_type,
            told_score: device.told_score,
            first_seen: render::system_time(device.first_seen),
            last_seen: render::system_time(device.last_seen),
            keys: device.keys.into_iter().map(|(kind, value)| Key { kind, value }).collect(),
            addresses: device.addresses.iter().map(ToString::to_string).collect(),
        }
    }
}

impl From<devices::Fact> for Fact {
    fn from(fact: devices::Fact) -> Self {
        Self {
            kind: fact.kind,
            source: fact.source,
            value: fact.value,
            weight: fact.weight,
            detail: fact.detail,
            first_seen: render::system_time(fact.first_seen),
            last_seen: render::system_time(fact.last_seen),
        }
    }
}

/// A page of devices, the last that came to be known first.
#[derive(Debug, Serialize, ToSchema)]
pub struct DevicePage {
    pub items: Vec<Device>,
    #[schema(example = false)]
    pub has_more: bool,
    #[schema(example = json!(null))]
    pub continuation: Option<String>,
}

/// What is said of a device; what is left out stays, null clears.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "office printer", "type": "printer", "owner": "facilities", "notes": null}))]
#[expect(clippy::option_option, reason = "left out, null, or said")]
pub struct DeviceChange {
    /// No other device of the site has it
    #[serde(default, deserialize_with = "belonging::said")]
    #[schema(value_type = Option<String>, max_length = 64, pattern = "^[^\\s\\x00-\\x20\\x7f-\\xa0][^\\x00-\\x1f\\x7f-\\x9f]*$")]
    pub name: Option<Option<String>>,
    /// Final, whatever the evidence says
    #[serde(default, deserialize_with = "belonging::said")]
    #[schema(value_type = Option<String>, pattern = "^(router|switch|access_point|server|computer|phone|tablet|wearable|printer|camera|nas|tv|media_player|speaker|game_console|voip|hub|iot|virtual_machine|other)$")]
    pub r#type: Option<Option<String>>,
    #[serde(default, deserialize_with = "belonging::said")]
    #[schema(value_type = Option<String>, max_length = 4000, pattern = "^[^\\s\\x00-\\x20\\x7f-\\xa0][^\\x00-\\x09\\x0b-\\x1f\\x7f-\\x9f]*$")]
    pub notes: Option<Option<String>>,
    #[serde(default, deserialize_with = "belonging::said")]
    #[schema(value_type = Option<String>, max_length = 128, pattern = "^[^\\s\\x00-\\x20\\x7f-\\xa0][^\\x00-\\x1f\\x7f-\\x9f]*$")]
    pub owner: Option<Option<String>>,
}

/// The device that is this one, too.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"other": 8}))]
pub struct Merge {
    /// Its id; it is no more afterwards
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    pub other: i64,
}

/// List devices
#[utoipa::path(
    get,
    path = "/api/v1/devices",
    tag = "devices",
    params(DevicesParams, PageParams),
    responses((status = 200, body = DevicePage, description = "A page, maybe empty"))
)]
pub async fn list(
    State(state): State<AppState>,
    Query { value: ListParams { filter, page }, given }: Query<ListParams>,
) -> Result<Json<DevicePage>, ApiError> {
    let before = page.after::<8>(&state, "devices", &given)?.map(i64::from_be_bytes);
    let mut found = devices::list(&state.pool, &filter.into(), before, page.limit() as i64 + 1).await?;
    let continuation =
        page.next(&state, "devices", &given, &mut found, |found| found.device_id.to_be_bytes());
    let items = found.into_iter().map(Device::from).collect();
    Ok(Json(DevicePage { items, has_more: continuation.is_some(), continuation }))
}

/// Show a device, with all that sensors told of it
#[utoipa::path(
    get,
    path = "/api/v1/devices/{device}",
    tag = "devices",
    params(("device" = i64, Path, description = "Device's id", minimum = 1, maximum = 9_007_199_254_740_991_i64, example = 7)),
    responses(
        (status = 200, body = DeviceDetail, description = "The device"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such device"),
    )
)]
pub async fn get(
    State(state): State<AppState>,
    Path(device): Path<String>,
    _: Query<NoParams>,
) -> Result<Json<DeviceDetail>, ApiError> {
    let found = devices::get(&state.pool, params::id("device", &device)?).await?;
    let (device, facts, merges) = found.ok_or(ChangeError::Unknown)?;
    let merge = |merge: devices::Merge| DeviceMerge {
        id: merge.merge_id,
        other: merge.other_id,
        at: render::system_time(merge.merged_at),
    };
    Ok(Json(DeviceDetail {
        device: device.into(),
        facts: facts.into_iter().map(Fact::from).collect(),
        merges: merges.into_iter().map(merge).collect(),
    }))
}

/// Say what a device is
#[utoipa::path(
    patch,
    path = "/api/v1/devices/{device}",
    tag = "devices",
    params(("device" = i64, Path, description = "Device's id", minimum = 1, maximum = 9_007_199_254_740_991_i64, example = 7)),
    request_body = DeviceChange,
    responses(
        (status = 200, body = Device, description = "The device as it is now"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such device"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The name is taken"),
    )
)]
pub async fn change(
    State(state): State<AppState>,
    caller: Caller,
    Path(device): Path<String>,
    _: Query<NoParams>,
    Body(body): Body<DeviceChange>,
) -> Result<Json<Device>, ApiError> {
    let id = params::id("device", &device)?;
    let mut errors = Vec::new();
    for (field, text, most) in
        [("name", &body.name, MAX_NAME), ("notes", &body.notes, MAX_NOTES), ("owner", &body.owner, MAX_OWNER)]
    {
        if let Some(Some(text)) = text
            && !is_plain(text, most, field == "notes")
        {
            let message = format!("is not 1 to {most} characters that begin with one that can be seen");
            errors.push(FieldError { field: field.to_owned(), message });
        }
    }
    if let Some(Some(of)) = &body.r#type
        && DeviceType::parse(of).is_none()
    {
        let words = DeviceType::ALL.map(DeviceType::word).join(", ");
        errors.push(FieldError { field: "type".to_owned(), message: format!("is not one of {words}") });
    }
    if !errors.is_empty() {
        return Err(ApiError::parameters(errors));
    }
    let DeviceChange { name, r#type, notes, owner } = body;
    let change = Change { name, r#type, notes, owner };
    Ok(Json(devices::change(&state.pool, &caller.author(), id, &change).await?.into()))
}

/// Say that two devices are one
///
/// All that was the other's is this one's: keys, addresses, names, and what sensors will tell of them. What operators
/// said of this one stays, what they said of the other fills gaps. Both are of one site.
#[utoipa::path(
    post,
    path = "/api/v1/devices/{device}/merge",
    tag = "devices",
    params(("device" = i64, Path, description = "Device's id", minimum = 1, maximum = 9_007_199_254_740_991_i64, example = 7)),
    request_body = Merge,
    responses(
        (status = 200, body = Device, description = "The device as it is now"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such device"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "They are of different sites"),
    )
)]
pub async fn merge(
    State(state): State<AppState>,
    caller: Caller,
    Path(device): Path<String>,
    _: Query<NoParams>,
    Body(Merge { other }): Body<Merge>,
) -> Result<Json<Device>, ApiError> {
    let id: i64 = params::id("device", &device)?;
    if other < 1 || other == id {
        return Err(ApiError::parameter("other", "is not another device's id"));
    }
    Ok(Json(devices::merge(&state.pool, &caller.author(), id, other).await?.into()))
}

/// Which merge is undone.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"merge": 3}))]
pub struct Split {
    /// The id of the device's last one
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    pub merge: i64,
}

/// Two devices that were one.
#[derive(Debug, Serialize, ToSchema)]
pub struct SplitDevices {
    /// The one that stayed
    pub device: Device,
    /// The one that is back, with the id that it had
    pub other: Device,
}

/// Undo a merge of devices
///
/// The last one of the device; those before it can be undone after that. The other device is back with its id, its keys,
/// what operators had said of it, and what sensors had told of it; what came since is its where its keys say so, or where
/// only it had the address or name before. Kept as long as devices are (`retention.devices_days`).
#[utoipa::path(
    post,
    path = "/api/v1/devices/{device}/split",
    tag = "devices",
    params(("device" = i64, Path, description = "Device's id", minimum = 1, maximum = 9_007_199_254_740_991_i64, example = 7)),
    request_body = Split,
    responses(
        (status = 200, body = SplitDevices, description = "Both as they are now"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such device, or no such merge of it"),
        (status = 409, body = Problem, content_type = "application/problem+json",
         description = "A later merge is undone first, or another device has the other's name now"),
    )
)]
pub async fn split(
    State(state): State<AppState>,
    caller: Caller,
    Path(device): Path<String>,
    _: Query<NoParams>,
    Body(Split { merge }): Body<Split>,
) -> Result<Json<SplitDevices>, ApiError> {
    let id: i64 = params::id("device", &device)?;
    if merge < 1 {
        return Err(ApiError::parameter("merge", "is not a merge's id"));
    }
    let (device, other) = devices::split(&state.pool, &caller.author(), id, merge).await?;
    Ok(Json(SplitDevices { device: device.into(), other: other.into() }))
}

/// `true`: said, and not left out.
struct OnlyTrue;

impl PartialSchema for OnlyTrue {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::Boolean).enum_values(Some([true])).into()
    }
}

impl ToSchema for OnlyTrue {}

/// Both parameters of an erasure.
pub struct RemovalParams(EraseParams);

impl FromParams for RemovalParams {
    fn read(params: &mut Params) -> Self {
        if params.text("erase").as_deref() != Some("true") {
            params.fault(
                "erase",
                "is not `true`: whoever removes a device erases what is stored of it".to_owned(),
            );
        }
        Self(EraseParams::read(params))
    }
}

/// Erase a device and what tells of it, in two steps
///
/// Without `confirmation` nothing changes: the answer says what would go, and has a confirmation for that, good
/// once, for ten minutes, for the caller. With it the record goes at once, with keys, addresses, names and evidence; in
/// the background (`GET /api/v1/erasures/{erasure}`) detections about it, events and the log's words, and its address in
/// flows and sums of the time in which it had it: the counts stay, with the address `0.0.0.0` or `::`. What is under
/// way does not bring it back; seen again later, it is a new device.
#[utoipa::path(
    delete,
    path = "/api/v1/devices/{device}",
    tag = "devices",
    params(
        ("device" = i64, Path, description = "Device's id", minimum = 1, maximum = 9_007_199_254_740_991_i64, example = 7),
        ("erase" = inline(OnlyTrue), Query, description = "`true`: whoever removes a device erases what is stored of it", example = true),
        EraseParams,
    ),
    responses(
        (status = 200, body = ErasurePlan, description = "What would go; nothing changed"),
        (status = 202, body = Erasure, description = "The device is gone; the rest goes in the background"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such device"),
        (status = 409, body = Problem, content_type = "application/problem+json",
         description = "The confirmation is not good"),
    )
)]
pub async fn remove(
    State(state): State<AppState>,
    caller: Caller,
    Path(device): Path<String>,
    Query { value: RemovalParams(params), .. }: Query<RemovalParams>,
) -> Result<Response, ApiError> {
    let subject = Subject::Device(params::id("device", &device)?);
    erasures::erase(&state, &caller, &subject, params).await
}

impl From<ChangeError> for ApiError {
    fn from(error: ChangeError) -> Self {
        let conflict =
            |slug, title| Self::new(StatusCode::CONFLICT, Category::Conflict, slug, title, error.to_string());
        match error {
            ChangeError::Taken => conflict("name-taken", "The name is taken"),
            ChangeError::OtherSite => conflict("other-site", "The devices are of different sites"),
            ChangeError::Later(_) => conflict("later-merge", "A later merge is undone first"),
            ChangeError::Unknown | ChangeError::NoMerge => Self::not_found(error.to_string()),
            ChangeError::Store(error) => error.into(),
        }
    }
}

/// Begins with what can be seen, and does nothing to whoever shows it. Notes have lines.
fn is_plain(text: &str, most: usize, lines: bool) -> bool {
    let visible = text.chars().next().is_some_and(|first| !first.is_whitespace());
    visible
        && text.chars().count() <= most
        && !text.chars().any(|char| char.is_control() && !(lines && char == '\n'))
}
