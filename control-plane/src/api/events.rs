//! `GET /api/v1/events`: what happened, in pages; and the parameters that choose events, which live streams
//! have as well.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::access::Caller;
use super::error::{Category, FieldError, Problem};
use super::paging::PageParams;
use super::params::{FromParams, Params, Query};
use super::{ApiError, AppState};
use crate::auth::Principal;
use crate::store::Reference;
use crate::store::events::{self, Extent, Selection, Topic};
use crate::store::sensors;
use crate::stream::{Shown, access};

/// Sensors that one question may name.
const MAX_SENSORS: usize = 100;

/// Which events.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EventParams {
    /// From the event after this cursor on
    #[param(minimum = 0, example = 0)]
    pub after: Option<i64>,
    /// Of these topics, separated by commas: `flows`, `ledger`, `sensors`, `alerts`, `detections`, `devices`,
    /// `jobs`, `audit`; else of all that you may read
    #[param(
        value_type = Option<String>,
        pattern = "^(flows|ledger|sensors|alerts|detections|devices|jobs|audit)(,(flows|ledger|sensors|alerts|detections|devices|jobs|audit)){0,7}$",
        example = "flows,ledger"
    )]
    pub topic: Option<Vec<Topic>>,
    /// Of these sensors, by id or name, separated by commas; 100 at most
    #[param(
        value_type = Option<String>,
        pattern = "^([1-9][0-9]{0,8}|[A-Za-z][A-Za-z0-9._-]{0,62})(,([1-9][0-9]{0,8}|[A-Za-z][A-Za-z0-9._-]{0,62})){0,99}$",
        example = "edge-1"
    )]
    pub sensor: Option<Vec<Reference>>,
}

impl FromParams for EventParams {
    fn read(params: &mut Params) -> Self {
        Self {
            after: params.number("after", 0..=i64::MAX as u64).map(|after| after as i64),
            topic: params.parsed("topic", "a list of topics", |text| {
                comma_separated(text, Topic::ALL.len(), Topic::parse)
            }),
            sensor: params.parsed("sensor", "a list of ids or names of sensors", |text| {
                comma_separated(text, MAX_SENSORS, sensors::named)
            }),
        }
    }
}

fn comma_separated<T>(text: &str, most: usize, read: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    let items: Option<Vec<T>> = text.split(',').map(read).collect();
    items.filter(|items| items.len() <= most)
}

impl EventParams {
    /// The topics that the caller may read and wants. A machine's token may be for none of them.
    pub fn topics(&self, principal: &Principal) -> Result<Vec<Topic>, ApiError> {
        let allowed = access::topics(principal);
        let Some(wanted) = &self.topic else {
            return if allowed.is_empty() { Err(forbidden("any topic")) } else { Ok(allowed) };
        };
        if let Some(topic) = wanted.iter().find(|topic| !allowed.contains(topic)) {
            return Err(forbidden(&format!("the topic `{}`", topic.name())));
        }
        let mut wanted = wanted.clone();
        wanted.sort_unstable();
        wanted.dedup();
        Ok(wanted)
    }

    pub async fn sensors(&self, state: &AppState) -> Result<Vec<i32>, ApiError> {
        let mut ids = Vec::new();
        let mut unknown = Vec::new();
        for sensor in self.sensor.iter().flatten() {
            match sensors::find(&state.pool, sensor).await? {
                Some(id) => ids.push(id),
                None => unknown.push(FieldError {
                    field: "sensor".to_owned(),
                    message: format!("there is no sensor {}", name(sensor)),
                }),
            }
        }
        if unknown.is_empty() { Ok(ids) } else { Err(ApiError::parameters(unknown)) }
    }
}

fn name(sensor: &Reference) -> String {
    match sensor {
        Reference::Id(id) => id.to_string(),
        Reference::Name(name) => format!("`{name}`"),
    }
}

fn forbidden(what: &str) -> ApiError {
    let title = "The credential does not allow this";
    let detail = format!("your role, or your token's scopes, do not allow to read {what}");
    ApiError::new(StatusCode::FORBIDDEN, Category::Authorization, "forbidden", title, detail)
}

/// Whether what comes after a cursor can be told.
pub fn resumable(after: i64, extent: Extent) -> Result<(), ApiError> {
    if after > extent.last {
        return Err(ApiError::parameter("after", format!("is ahead of the last event, {}", extent.last)));
    }
    if after < extent.pruned_to {
        return Err(ApiError::new(
            StatusCode::GONE,
            Category::NotFound,
            "cursor-expired",
            "The events after this cursor are past their retention",
            format!(
                "events up to {} are deleted; read what you follow anew, then go on with after={}",
                extent.pruned_to, extent.last
            ),
        ));
    }
    Ok(())
}

/// All parameters of the list.
pub struct ListParams {
    which: EventParams,
    page: PageParams,
}

impl FromParams for ListParams {
    fn read(params: &mut Params) -> Self {
        Self { which: EventParams::read(params), page: PageParams::read(params) }
    }
}

/// A page of events, in order of their cursors.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventPage {
    pub items: Vec<Shown>,
    /// Whether there are later ones now
    #[schema(example = false)]
    pub has_more: bool,
    /// Token of the next page; null on the last one
    #[schema(example = json!(null))]
    pub continuation: Option<String>,
    /// Go on with `after` this: everything up to here is in this page or those before
    #[schema(example = 4711)]
    pub cursor: i64,
}

/// Replay events
///
/// In the order in which they were given their cursors, which for one sensor is the order in which its changes
/// were committed; from the oldest that is kept, if `after` is not given. An answer 410 says that events after
/// the cursor are past their retention.
#[utoipa::path(
    get,
    path = "/api/v1/events",
    tag = "events",
    params(EventParams, PageParams),
    responses(
        (status = 200, body = EventPage, description = "A page, maybe empty"),
        (status = 410, body = Problem, content_type = "application/problem+json", description = "The events after this cursor are past their retention"),
    )
)]
pub async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Query { value: ListParams { which, page }, given }: Query<ListParams>,
) -> Result<Json<EventPage>, ApiError> {
    let selection =
        Selection { topics: which.topics(&caller.principal)?, sensors: which.sensors(&state).await? };
    let after = page.after::<8>(&state, "events", &given)?.map(i64::from_be_bytes).or(which.after);
    let limit = page.limit() as i64 + 1;
    let found = events::read(&state.pool, &selection, after.unwrap_or(0), i64::MAX, limit).await?;
    if let Some(after) = after {
        resumable(after, found.extent)?;
    }
    let mut found_events = found.events;
    let continuation =
        page.next(&state, "events", &given, &mut found_events, |event| event.cursor.to_be_bytes());
    let last = found_events.last().map(|event| event.cursor);
    let cursor = if continuation.is_some() { last.unwrap_or(found.extent.last) } else { found.extent.last };
    let items = found_events.into_iter().map(Shown::from).collect();
    Ok(Json(EventPage { items, has_more: continuation.is_some(), continuation, cursor }))
}
