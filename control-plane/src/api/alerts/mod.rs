//! `/api/v1/alerts`: what fires, the rules that say when, silences, receivers, and what they were told.

pub mod deliveries;
pub mod receivers;
pub mod rules;
pub mod silences;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::error::Category;
use super::faults::Faults;
use super::paging::PageParams;
use super::params::{FromParams, Params, Query};
use super::{ApiError, AppState, render};
use crate::store::alerts::AlertError;
use crate::store::alerts::states::{self, Selection};

const STATES: [(&str, &str); 3] = [("pending", "pending"), ("firing", "firing"), ("resolved", "resolved")];
pub const SEVERITIES: [(&str, &str); 3] =
    [("info", "info"), ("warning", "warning"), ("critical", "critical")];

/// Which alerts.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AlertParams {
    /// `pending`, `firing` or `resolved`; pending and firing without it
    #[param(value_type = Option<String>, example = "firing", pattern = "^(pending|firing|resolved)$")]
    pub state: Option<&'static str>,
    /// Of the rule with this id
    #[param(minimum = 1, maximum = 2_147_483_647, example = 1)]
    pub rule: Option<i32>,
    /// `info`, `warning` or `critical`
    #[param(value_type = Option<String>, example = "critical", pattern = "^(info|warning|critical)$")]
    pub severity: Option<&'static str>,
}

pub struct ListParams {
    filter: AlertParams,
    page: PageParams,
}

impl FromParams for ListParams {
    fn read(params: &mut Params) -> Self {
        let filter = AlertParams {
            state: params.choice("state", &STATES),
            rule: params.number("rule", 1..=i32::MAX as u64).map(|id| id as i32),
            severity: params.choice("severity", &SEVERITIES),
        };
        Self { filter, page: PageParams::read(params) }
    }
}

/// One rule that held, or holds, for one group.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": 17, "rule_id": 1, "rule": "much-from-one", "severity": "warning", "summary": "One host sends much",
    "labels": {"rule": "much-from-one", "severity": "warning", "src": "192.0.2.7"}, "group": "192.0.2.7",
    "state": "firing", "value": 2.5e9, "pending_at": "2026-01-31T12:00:00.000000000Z",
    "firing_at": "2026-01-31T12:01:00.000000000Z", "resolved_at": null,
    "last_at": "2026-01-31T12:05:00.000000000Z", "silenced": false
}))]
pub struct Alert {
    pub id: i64,
    /// Null when the rule is gone
    pub rule_id: Option<i32>,
    pub rule: String,
    pub severity: String,
    pub summary: String,
    #[schema(value_type = Object)]
    pub labels: Value,
    /// What the rule tells apart; empty where it tells nothing apart
    pub group: String,
    /// `pending` (it holds, not for long enough yet), `firing`, `resolved`
    pub state: String,
    /// The figure when it was looked at last
    pub value: f64,
    pub pending_at: String,
    pub firing_at: Option<String>,
    pub resolved_at: Option<String>,
    pub last_at: String,
    /// A silence or a maintenance window holds for it now
    pub silenced: bool,
}

/// A page of alerts, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct AlertPage {
    pub items: Vec<Alert>,
    pub has_more: bool,
    pub continuation: Option<String>,
}

impl From<states::Alert> for Alert {
    fn from(alert: states::Alert) -> Self {
        Self {
            id: alert.alert_id,
            rule_id: alert.rule_id,
            rule: alert.rule,
            severity: alert.severity,
            summary: alert.summary,
            labels: alert.labels,
            group: alert.group,
            state: alert.state,
            value: alert.value,
            pending_at: render::system_time(alert.pending_at),
            firing_at: alert.firing_at.map(render::system_time),
            resolved_at: alert.resolved_at.map(render::system_time),
            last_at: render::system_time(alert.last_at),
            silenced: alert.silenced,
        }
    }
}

/// List alerts
#[utoipa::path(
    get,
    path = "/api/v1/alerts",
    tag = "alerts",
    params(AlertParams, PageParams),
    responses((status = 200, body = AlertPage, description = "A page, maybe empty"))
)]
pub async fn list(
    State(state): State<AppState>,
    Query { value: params, given }: Query<ListParams>,
) -> Result<Json<AlertPage>, ApiError> {
    let page = params.page;
    let before = page.after::<8>(&state, "alerts", &given)?.map(i64::from_be_bytes);
    let AlertParams { state: of, rule, severity } = params.filter;
    let selection = Selection { state: of, rule_id: rule, severity };
    let mut found = states::list(&state.pool, &selection, before, page.limit() as i64 + 1).await?;
    let continuation = page.next(&state, "alerts", &given, &mut found, |alert| alert.alert_id.to_be_bytes());
    let items = found.into_iter().map(Alert::from).collect();
    Ok(Json(AlertPage { items, has_more: continuation.is_some(), continuation }))
}

impl From<AlertError> for ApiError {
    fn from(error: AlertError) -> Self {
        let conflict =
            |slug, title, detail| Self::new(StatusCode::CONFLICT, Category::Conflict, slug, title, detail);
        match error {
            AlertError::Unknown => Self::not_found("no such thing, or it is over"),
            AlertError::Taken => {
                conflict("name-taken", "The name is taken", "choose another name".to_owned())
            }
            AlertError::TooMany(_) => conflict("too-many", "There are too many", error.to_string()),
            AlertError::NoReceiver(_) => Self::parameter("receivers", error.to_string()),
            AlertError::Store(error) => error.into(),
        }
    }
}

impl Faults {
    /// The name of a rule or a receiver.
    fn alert_name(&mut self, name: &str) {
        if !crate::store::sensors::is_name(name) {
            self.add("name", "is not 1 to 63 letters, digits, `.`, `_`, `-`, not only digits");
        }
    }
}
