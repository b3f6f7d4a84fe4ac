//! `/api/v1/alerts/silences`: silences and maintenance windows.

use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::{Path, State};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::access::Caller;
use crate::api::body::Body;
use crate::api::error::Problem;
use crate::api::faults::Faults;
use crate::api::paging::PageParams;
use crate::api::params::{self, FromParams, NoParams, Params, Query};
use crate::api::{ApiError, AppState, render};
use crate::store::alerts::silences::{self, Draft, Matcher};

const MAX_MATCHERS: usize = 16;
/// A silence that nobody remembers hides what it should not.
const LONGEST: Duration = Duration::from_hours(24 * 366);

/// Whether those that ended are listed.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SilenceParams {
    /// `true`: those that ended, too
    #[param(value_type = Option<bool>, example = true)]
    pub ended: Option<bool>,
}

pub struct ListParams {
    filter: SilenceParams,
    page: PageParams,
}

impl FromParams for ListParams {
    fn read(params: &mut Params) -> Self {
        let ended = params.choice("ended", &[("true", true), ("false", false)]);
        Self { filter: SilenceParams { ended }, page: PageParams::read(params) }
    }
}

/// Why alerts are silenced.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SilenceKind {
    /// Somebody knows of it
    #[default]
    Silence,
    /// Work is planned
    Maintenance,
}

/// A silence or maintenance window.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": 3, "kind": "maintenance", "matchers": [{"label": "sensor", "value": "edge-*"}],
    "starts_at": "2026-01-31T22:00:00.000000000Z", "ends_at": "2026-02-01T02:00:00.000000000Z", "author": "ann",
    "comment": "new switches", "created_at": "2026-01-31T12:00:00.000000000Z", "active": false
}))]
pub struct Silence {
    pub id: i32,
    pub kind: String,
    /// All must hold
    pub matchers: Vec<Matcher>,
    pub starts_at: String,
    pub ends_at: String,
    pub author: String,
    pub comment: String,
    pub created_at: String,
    pub active: bool,
}

/// A page of silences, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct SilencePage {
    pub items: Vec<Silence>,
    pub has_more: bool,
    pub continuation: Option<String>,
}

/// A silence to add.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "kind": "maintenance", "matchers": [{"label": "sensor", "value": "edge-*"}],
    "starts_at": "2026-01-31T22:00:00Z", "ends_at": "2026-02-01T02:00:00Z", "comment": "new switches"
}))]
pub struct NewSilence {
    #[serde(default)]
    pub kind: SilenceKind,
    /// All must hold
    #[schema(min_items = 1, max_items = 16)]
    pub matchers: Vec<Matcher>,
    /// Now, if it is left out
    #[schema(value_type = Option<String>, format = DateTime)]
    pub starts_at: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    pub ends_at: String,
    #[schema(max_length = 500, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    pub comment: String,
}

/// What changes of a silence; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"ends_at": "2026-02-01T04:00:00Z", "comment": "it takes longer"}))]
pub struct SilenceChange {
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ends_at: Option<String>,
    #[schema(max_length = 500, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    pub comment: Option<String>,
}

/// A silence that ended.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"id": 3, "state": "ended"}))]
pub struct EndedSilence {
    pub id: i32,
    /// `ended`
    pub state: &'static str,
}

impl From<silences::Silence> for Silence {
    fn from(silence: silences::Silence) -> Self {
        Self {
            id: silence.silence_id,
            kind: silence.kind,
            matchers: silence.matchers,
            starts_at: render::system_time(silence.starts_at),
            ends_at: render::system_time(silence.ends_at),
            author: silence.author,
            comment: silence.comment,
            created_at: render::system_time(silence.created_at),
            active: silence.active,
        }
    }
}

/// List silences
#[utoipa::path(
    get,
    path = "/api/v1/alerts/silences",
    tag = "alerts",
    params(SilenceParams, PageParams),
    responses((status = 200, body = SilencePage, description = "A page, maybe empty"))
)]
pub async fn list(
    State(state): State<AppState>,
    Query { value: params, given }: Query<ListParams>,
) -> Result<Json<SilencePage>, ApiError> {
    let page = params.page;
    let before = page.after::<4>(&state, "alert-silences", &given)?.map(i32::from_be_bytes);
    let ended = params.filter.ended == Some(true);
    let mut found = silences::list(&state.pool, ended, before, page.limit() as i64 + 1).await?;
    let next = |silence: &silences::Silence| silence.silence_id.to_be_bytes();
    let continuation = page.next(&state, "alert-silences", &given, &mut found, next);
    let items = found.into_iter().map(Silence::from).collect();
    Ok(Json(SilencePage { items, has_more: continuation.is_some(), continuation }))
}

/// Silence alerts
///
/// Alerts go on having their states; nobody is told of them while a silence holds.
#[utoipa::path(
    post,
    path = "/api/v1/alerts/silences",
    tag = "alerts",
    request_body = NewSilence,
    responses(
        (status = 200, body = Silence, description = "The silence"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "There are too many"),
    )
)]
pub async fn add(
    State(state): State<AppState>,
    caller: Caller,
    _: Query<NoParams>,
    Body(body): Body<NewSilence>,
) -> Result<Json<Silence>, ApiError> {
    let mut faults = Faults::default();
    if body.matchers.is_empty() || body.matchers.len() > MAX_MATCHERS {
        faults.add("matchers", format!("are not 1 to {MAX_MATCHERS}"));
    }
    for matcher in &body.matchers {
        faults.text("matchers", &matcher.label, 63);
        faults.text("matchers", &matcher.value, 256);
    }
    faults.text("comment", &body.comment, 500);
    let mut time = |field: &str, text: &str| {
        let at = text.parse::<Timestamp>().ok().map(SystemTime::from);
        if at.is_none() {
            faults.add(field, "is not a time of RFC 3339");
        }
        at
    };
    let starts_at = body.starts_at.as_deref().map(|text| time("starts_at", text));
    let ends_at = time("ends_at", &body.ends_at);
    let now = SystemTime::now();
    let from = starts_at.flatten().unwrap_or(now).max(now - LONGEST);
    if let Some(end) = ends_at {
        let lasts = end.duration_since(from).ok().filter(|lasts| !lasts.is_zero() && *lasts <= LONGEST);
        if lasts.is_none() || end <= now || from > now + LONGEST {
            faults.add("ends_at", "is not after `starts_at` and now, within 366 days");
        }
    }
    faults.finish()?;
    let draft = Draft {
        kind: match body.kind {
            SilenceKind::Silence => "silence",
            SilenceKind::Maintenance => "maintenance",
        },
        matchers: body.matchers,
        starts_at: starts_at.flatten().map(|_| from),
        ends_at: ends_at.unwrap_or(now),
        comment: body.comment,
    };
    Ok(Json(silences::add(&state.pool, &caller.author(), &draft).await?.into()))
}

/// Prolong or shorten a silence
///
/// Whom it silences does not change: that is another silence.
#[utoipa::path(
    patch,
    path = "/api/v1/alerts/silences/{silence}",
    tag = "alerts",
    params(("silence" = i32, Path, description = "Silence's id", minimum = 1, example = 3)),
    request_body = SilenceChange,
    responses(
        (status = 200, body = Silence, description = "The silence as it is now"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such silence, or it was over"),
    )
)]
pub async fn change(
    State(state): State<AppState>,
    caller: Caller,
    Path(silence): Path<String>,
    _: Query<NoParams>,
    Body(body): Body<SilenceChange>,
) -> Result<Json<Silence>, ApiError> {
    let id = params::id("silence", &silence)?;
    let mut faults = Faults::default();
    if let Some(comment) = &body.comment {
        faults.text("comment", comment, 500);
    }
    let now = SystemTime::now();
    let ends_at = match &body.ends_at {
        None => None,
        Some(text) => {
            let end = text.parse::<Timestamp>().ok().map(SystemTime::from);
            let lasts = end.and_then(|end| end.duration_since(now).ok());
            if !lasts.is_some_and(|lasts| !lasts.is_zero() && lasts <= LONGEST) {
                faults.add("ends_at", "is not a time of RFC 3339 after now, within 366 days");
            }
            end
        }
    };
    faults.finish()?;
    let (author, comment) = (caller.author(), body.comment.as_deref());
    Ok(Json(silences::change(&state.pool, &author, id, ends_at, comment).await?.into()))
}

/// End a silence
///
/// Alerts that fire are told of at the next look. A silence that did not begin yet goes altogether.
#[utoipa::path(
    delete,
    path = "/api/v1/alerts/silences/{silence}",
    tag = "alerts",
    params(("silence" = i32, Path, description = "Silence's id", minimum = 1, example = 3)),
    responses(
        (status = 200, body = EndedSilence, description = "It is over"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such silence, or it was over"),
    )
)]
pub async fn end(
    State(state): State<AppState>,
    caller: Caller,
    Path(silence): Path<String>,
    _: Query<NoParams>,
) -> Result<Json<EndedSilence>, ApiError> {
    let id = params::id("silence", &silence)?;
    silences::end(&state.pool, &caller.author(), id).await?;
    Ok(Json(EndedSilence { id, state: "ended" }))
}
