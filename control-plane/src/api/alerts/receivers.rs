//! `/api/v1/alerts/receivers`.

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::alerts::Target;
use crate::api::access::Caller;
use crate::api::body::Body;
use crate::api::error::Problem;
use crate::api::faults::Faults;
use crate::api::paging::PageParams;
use crate::api::params::{self, NoParams, Query};
use crate::api::{ApiError, AppState, render};
use crate::store::alerts::receivers;

/// A receiver of alerts. Secrets are named and never shown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": 1, "name": "on-call", "target": {"kind": "webhook", "url_secret": "hook-url", "signing_secret": "hook"},
    "repeat_s": 14400, "created_at": "2026-01-31T12:00:00.000000000Z", "failures": 0, "open_until": null, "waiting": 0
}))]
pub struct Receiver {
    pub id: i32,
    pub name: String,
    pub target: Target,
    /// How often it is told of an alert that goes on
    pub repeat_s: i32,
    pub created_at: String,
    /// Deliveries in a row that failed
    pub failures: i32,
    /// The breaker is open: nothing is sent before
    pub open_until: Option<String>,
    /// Deliveries that wait
    pub waiting: i64,
}

/// A page of receivers, in order of id.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReceiverPage {
    pub items: Vec<Receiver>,
    pub has_more: bool,
    pub continuation: Option<String>,
}

/// A receiver to add.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "name": "on-call", "target": {"kind": "webhook", "url_secret": "hook-url", "signing_secret": "hook"}
}))]
pub struct NewReceiver {
    #[schema(
        min_length = 1,
        max_length = 63,
        pattern = "^([A-Za-z][A-Za-z0-9._-]*|[0-9]+[A-Za-z._-][A-Za-z0-9._-]*)$"
    )]
    pub name: String,
    pub target: Target,
    /// 10 to 604800; four hours if it is left out, a minute for an Alertmanager
    #[schema(minimum = 10, maximum = 604_800)]
    pub repeat_s: Option<u32>,
}

/// What changes of a receiver; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"repeat_s": 3600}))]
pub struct ReceiverChange {
    #[schema(
        min_length = 1,
        max_length = 63,
        pattern = "^([A-Za-z][A-Za-z0-9._-]*|[0-9]+[A-Za-z._-][A-Za-z0-9._-]*)$"
    )]
    pub name: Option<String>,
    /// Another one is tried at once, whatever the one before has failed
    pub target: Option<Target>,
    #[schema(minimum = 10, maximum = 604_800)]
    pub repeat_s: Option<u32>,
}

impl From<receivers::Receiver> for Receiver {
    fn from(receiver: receivers::Receiver) -> Self {
        Self {
            id: receiver.receiver_id,
            name: receiver.name,
            target: receiver.target,
            repeat_s: receiver.repeat_s,
            created_at: render::system_time(receiver.created_at),
            failures: receiver.failures,
            open_until: receiver.open_until.map(render::system_time),
            waiting: receiver.waiting,
        }
    }
}

/// List receivers
#[utoipa::path(
    get,
    path = "/api/v1/alerts/receivers",
    tag = "alerts",
    params(PageParams),
    responses((status = 200, body = ReceiverPage, description = "A page, maybe empty"))
)]
pub async fn list(
    State(state): State<AppState>,
    Query { value: page, given }: Query<PageParams>,
) -> Result<Json<ReceiverPage>, ApiError> {
    let after = page.after::<4>(&state, "alert-receivers", &given)?.map_or(0, i32::from_be_bytes);
    let mut found = receivers::list(&state.pool, after, page.limit() as i64 + 1).await?;
    let next = |receiver: &receivers::Receiver| receiver.receiver_id.to_be_bytes();
    let continuation = page.next(&state, "alert-receivers", &given, &mut found, next);
    let items = found.into_iter().map(Receiver::from).collect();
    Ok(Json(ReceiverPage { items, has_more: continuation.is_some(), continuation }))
}

/// Add a receiver
///
/// Where its address leads is looked at with each delivery: this host, private and link-local networks are
/// refused unless `outbound.allow` names them.
#[utoipa::path(
    post,
    path = "/api/v1/alerts/receivers",
    tag = "alerts",
    request_body = NewReceiver,
    responses(
        (status = 200, body = Receiver, description = "The receiver"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The name is taken, or there are too many"),
    )
)]
pub async fn add(
    State(state): State<AppState>,
    caller: Caller,
    _: Query<NoParams>,
    Body(body): Body<NewReceiver>,
) -> Result<Json<Receiver>, ApiError> {
    let mut faults = Faults::default();
    faults.alert_name(&body.name);
    for (field, message) in body.target.faults(state.outbound.allows_plain_mail()) {
        faults.add(field, message);
    }
    let repeat_s = body.repeat_s.unwrap_or_else(|| body.target.usual_repeat_s());
    if !(10..=604_800).contains(&repeat_s) {
        faults.add("repeat_s", "is not between 10 and 604800");
    }
    faults.finish()?;
    let repeat_s = repeat_s.cast_signed();
    Ok(Json(receivers::add(&state.pool, &caller.author(), &body.name, &body.target, repeat_s).await?.into()))
}

/// Change a receiver
///
/// What waits goes to where it leads now.
#[utoipa::path(
    patch,
    path = "/api/v1/alerts/receivers/{receiver}",
    tag = "alerts",
    params(("receiver" = i32, Path, description = "Receiver's id", minimum = 1, example = 1)),
    request_body = ReceiverChange,
    responses(
        (status = 200, body = Receiver, description = "The receiver as it is now"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such receiver"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The name is taken"),
    )
)]
pub async fn change(
    State(state): State<AppState>,
    caller: Caller,
    Path(receiver): Path<String>,
    _: Query<NoParams>,
    Body(body): Body<ReceiverChange>,
) -> Result<Json<Receiver>, ApiError> {
    let id = params::id("receiver", &receiver)?;
    let mut faults = Faults::default();
    if let Some(name) = &body.name {
        faults.alert_name(name);
    }
    let plain_mail = state.outbound.allows_plain_mail();
    for (field, message) in body.target.iter().flat_map(|target| target.faults(plain_mail)) {
        faults.add(field, message);
    }
    if body.repeat_s.is_some_and(|repeat_s| !(10..=604_800).contains(&repeat_s)) {
        faults.add("repeat_s", "is not between 10 and 604800");
    }
    faults.finish()?;
    let new = receivers::Change {
        name: body.name,
        target: body.target,
        repeat_s: body.repeat_s.map(u32::cast_signed),
    };
    Ok(Json(receivers::update(&state.pool, &caller.author(), id, &new).await?.into()))
}

/// Delete a receiver
///
/// Rules do without it; what it was not told yet, and its log, go with it.
#[utoipa::path(
    delete,
    path = "/api/v1/alerts/receivers/{receiver}",
    tag = "alerts",
    params(("receiver" = i32, Path, description = "Receiver's id", minimum = 1, example = 1)),
    responses(
        (status = 200, body = Receiver, description = "The receiver that is gone"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such receiver"),
    )
)]
pub async fn remove(
    State(state): State<AppState>,
    caller: Caller,
    Path(receiver): Path<String>,
    _: Query<NoParams>,
) -> Result<Json<Receiver>, ApiError> {
    Ok(Json(
        receivers::remove(&state.pool, &caller.author(), params::id("receiver", &receiver)?).await?.into(),
    ))
}
