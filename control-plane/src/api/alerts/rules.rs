//! `/api/v1/alerts/rules`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::alerts::Condition;
use crate::api::access::Caller;
use crate::api::body::Body;
use crate::api::error::Problem;
use crate::api::faults::Faults;
use crate::api::paging::PageParams;
use crate::api::params::{self, NoParams, Query};
use crate::api::{ApiError, AppState, render};
use crate::store::alerts::rules::{self, Draft};

const MAX_LABELS: usize = 16;
const MAX_RECEIVERS: usize = 20;

/// How bad it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Info,
    #[default]
    Warning,
    Critical,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    fn stored(name: &str) -> Self {
        [Self::Info, Self::Critical].into_iter().find(|one| one.name() == name).unwrap_or_default()
    }
}

/// A rule.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": 1, "name": "much-from-one",
    "condition": {"kind": "threshold", "filter": "dst_port = 443", "measure": "octets", "by": "src", "window_s": 300,
                  "above": 1e9},
    "for_s": 60, "severity": "warning", "labels": {"team": "network"}, "summary": "One host sends much",
    "enabled": true, "receivers": [1], "created_at": "2026-01-31T12:00:00.000000000Z",
    "evaluated_at": "2026-01-31T12:05:00.000000000Z", "error": null
}))]
pub struct Rule {
    pub id: i32,
    pub name: String,
    pub condition: Condition,
    /// How long the condition holds before an alert fires
    pub for_s: i32,
    pub severity: Severity,
    /// Of the rule's alerts, beside `rule`, `severity` and their group
    pub labels: BTreeMap<String, String>,
    pub summary: String,
    pub enabled: bool,
    /// Ids of the receivers that are told
    pub receivers: Vec<i32>,
    pub created_at: String,
    pub evaluated_at: Option<String>,
    /// Why the last look at it found nothing, or not all
    pub error: Option<String>,
}

/// A page of rules, in order of id.
#[derive(Debug, Serialize, ToSchema)]
pub struct RulePage {
    pub items: Vec<Rule>,
    pub has_more: bool,
    pub continuation: Option<String>,
}

/// A rule to add.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "name": "much-from-one",
    "condition": {"kind": "threshold", "filter": "dst_port = 443", "measure": "octets", "by": "src", "window_s": 300,
                  "above": 1e9},
    "for_s": 60, "severity": "warning", "summary": "One host sends much"
}))]
pub struct NewRule {
    #[schema(
        min_length = 1,
        max_length = 63,
        pattern = "^([A-Za-z][A-Za-z0-9._-]*|[0-9]+[A-Za-z._-][A-Za-z0-9._-]*)$"
    )]
    pub name: String,
    pub condition: Condition,
    /// 0 if it is left out
    #[serde(default)]
    #[schema(maximum = 86_400)]
    pub for_s: u32,
    #[serde(default)]
    pub severity: Severity,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    #[schema(max_length = 500, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    pub summary: String,
    #[serde(default = "yes")]
    pub enabled: bool,
    #[serde(default)]
    #[schema(max_items = 20)]
    pub receivers: Vec<i32>,
}

fn yes() -> bool {
    true
}

/// What changes; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"enabled": false}))]
pub struct RuleChange {
    #[schema(
        min_length = 1,
        max_length = 63,
        pattern = "^([A-Za-z][A-Za-z0-9._-]*|[0-9]+[A-Za-z._-][A-Za-z0-9._-]*)$"
    )]
    pub name: Option<String>,
    /// Another condition ends the rule's open alerts
    pub condition: Option<Condition>,
    #[schema(maximum = 86_400)]
    pub for_s: Option<u32>,
    pub severity: Option<Severity>,
    pub labels: Option<BTreeMap<String, String>>,
    #[schema(max_length = 500, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    pub summary: Option<String>,
    /// `false` ends the rule's open alerts
    pub enabled: Option<bool>,
    #[schema(max_items = 20)]
    pub receivers: Option<Vec<i32>>,
}

impl From<rules::Rule> for Rule {
    fn from(rule: rules::Rule) -> Self {
        Self {
            id: rule.rule_id,
            name: rule.name,
            condition: rule.condition,
            for_s: rule.for_s,
            severity: Severity::stored(&rule.severity),
            labels: rule.labels,
            summary: rule.summary,
            enabled: rule.enabled,
            receivers: rule.receivers,
            created_at: render::system_time(rule.created_at),
            evaluated_at: rule.evaluated_at.map(render::system_time),
            error: rule.error,
        }
    }
}

/// List rules
#[utoipa::path(
    get,
    path = "/api/v1/alerts/rules",
    tag = "alerts",
    params(PageParams),
    responses((status = 200, body = RulePage, description = "A page, maybe empty"))
)]
pub async fn list(
    State(state): State<AppState>,
    Query { value: page, given }: Query<PageParams>,
) -> Result<Json<RulePage>, ApiError> {
    let after = page.after::<4>(&state, "alert-rules", &given)?.map_or(0, i32::from_be_bytes);
    let mut found = rules::list(&state.pool, after, page.limit() as i64 + 1).await?;
    let continuation =
        page.next(&state, "alert-rules", &given, &mut found, |rule| rule.rule_id.to_be_bytes());
    let items = found.into_iter().map(Rule::from).collect();
    Ok(Json(RulePage { items, has_more: continuation.is_some(), continuation }))
}

/// Add a rule
///
/// It is looked at within `alerts.interval_s`.
#[utoipa::path(
    post,
    path = "/api/v1/alerts/rules",
    tag = "alerts",
    request_body = NewRule,
    responses(
        (status = 200, body = Rule, description = "The rule"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The name is taken, or there are too many"),
    )
)]
pub async fn add(
    State(state): State<AppState>,
    caller: Caller,
    _: Query<NoParams>,
    Body(body): Body<NewRule>,
) -> Result<Json<Rule>, ApiError> {
    let NewRule { name, condition, for_s, severity, labels, summary, enabled, receivers } = body;
    let mut faults = Faults::default();
    faults.alert_name(&name);
    check(&mut faults, Some(&condition), Some(for_s), Some(&labels), Some(&summary), Some(&receivers));
    faults.finish()?;
    let draft = Draft {
        name,
        condition,
        for_s: for_s.cast_signed(),
        severity: severity.name(),
        labels,
        summary,
        enabled,
        receivers: distinct(receivers),
    };
    Ok(Json(rules::add(&state.pool, &caller.author(), &draft).await?.into()))
}

/// Show a rule
#[utoipa::path(
    get,
    path = "/api/v1/alerts/rules/{rule}",
    tag = "alerts",
    params(("rule" = i32, Path, description = "Rule's id", minimum = 1, example = 1)),
    responses(
        (status = 200, body = Rule, description = "The rule"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such rule"),
    )
)]
pub async fn get(
    State(state): State<AppState>,
    Path(rule): Path<String>,
    _: Query<NoParams>,
) -> Result<Json<Rule>, ApiError> {
    let found = rules::get(&state.pool, params::id("rule", &rule)?).await?;
    found.map(|rule| Json(rule.into())).ok_or_else(|| ApiError::not_found("no such rule"))
}

/// Change a rule
#[utoipa::path(
    patch,
    path = "/api/v1/alerts/rules/{rule}",
    tag = "alerts",
    params(("rule" = i32, Path, description = "Rule's id", minimum = 1, example = 1)),
    request_body = RuleChange,
    responses(
        (status = 200, body = Rule, description = "The rule as it is now"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such rule"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The name is taken"),
    )
)]
pub async fn change(
    State(state): State<AppState>,
    caller: Caller,
    Path(rule): Path<String>,
    _: Query<NoParams>,
    Body(body): Body<RuleChange>,
) -> Result<Json<Rule>, ApiError> {
    let rule = params::id("rule", &rule)?;
    let RuleChange { name, condition, for_s, severity, labels, summary, enabled, receivers } = body;
    let mut faults = Faults::default();
    if let Some(name) = &name {
        faults.alert_name(name);
    }
    check(&mut faults, condition.as_ref(), for_s, labels.as_ref(), summary.as_deref(), receivers.as_deref());
    faults.finish()?;
    let edit = |old: rules::Rule| Draft {
        name: name.unwrap_or(old.name),
        condition: condition.unwrap_or(old.condition),
        for_s: for_s.map_or(old.for_s, u32::cast_signed),
        severity: severity.unwrap_or(Severity::stored(&old.severity)).name(),
        labels: labels.unwrap_or(old.labels),
        summary: summary.unwrap_or(old.summary),
        enabled: enabled.unwrap_or(old.enabled),
        receivers: receivers.map_or(old.receivers, distinct),
    };
    // On the heap: the whole draft is in it several times over.
    let changed = Box::pin(rules::update(&state.pool, &caller.author(), rule, edit)).await?;
    Ok(Json(changed.into()))
}

/// Delete a rule
///
/// Its open alerts are resolved; what it found stays in the history.
#[utoipa::path(
    delete,
    path = "/api/v1/alerts/rules/{rule}",
    tag = "alerts",
    params(("rule" = i32, Path, description = "Rule's id", minimum = 1, example = 1)),
    responses(
        (status = 200, body = Rule, description = "The rule that is gone"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such rule"),
    )
)]
pub async fn remove(
    State(state): State<AppState>,
    caller: Caller,
    Path(rule): Path<String>,
    _: Query<NoParams>,
) -> Result<Json<Rule>, ApiError> {
    Ok(Json(rules::remove(&state.pool, &caller.author(), params::id("rule", &rule)?).await?.into()))
}

fn check(
    faults: &mut Faults,
    condition: Option<&Condition>,
    for_s: Option<u32>,
    labels: Option<&BTreeMap<String, String>>,
    summary: Option<&str>,
    receivers: Option<&[i32]>,
) {
    for (field, message) in condition.into_iter().flat_map(Condition::faults) {
        faults.add(field, message);
    }
    if for_s.is_some_and(|for_s| for_s > 86_400) {
        faults.add("for_s", "is not between 0 and 86400");
    }
    if let Some(labels) = labels {
        if labels.len() > MAX_LABELS {
            faults.add("labels", format!("has more than {MAX_LABELS} labels"));
        }
        for (name, value) in labels {
            let plain = (1..=63).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                && !name.as_bytes()[0].is_ascii_digit();
            if !plain {
                faults.add("labels", "has a name that is not 1 to 63 letters, digits and `_`");
            }
            faults.text("labels", value, 256);
        }
    }
    if let Some(summary) = summary {
        faults.text("summary", summary, 500);
    }
    if receivers.is_some_and(|receivers| receivers.len() > MAX_RECEIVERS) {
        faults.add("receivers", format!("names more than {MAX_RECEIVERS}"));
    }
}

fn distinct(mut receivers: Vec<i32>) -> Vec<i32> {
    receivers.sort_unstable();
    receivers.dedup();
    receivers
}
