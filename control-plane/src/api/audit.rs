//! `/api/v1/audit`: who changed what, for admins; in pages, or all of it as NDJSON.

use std::time::SystemTime;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::paging::PageParams;
use super::params::{FromParams, Params, Query};
use super::{ApiError, AppState, render};
use crate::store::StoreError;
use crate::store::audit::{self, Entry, Filter};

/// Rows of an export that are in memory at once.
const CHUNK: i64 = 1_000;
const MAX_TEXT: usize = 128;

/// Which rows.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AuditParams {
    /// By the actor of this name
    #[param(example = "ann")]
    pub actor: Option<String>,
    /// Of this kind, such as `user.create`
    #[param(example = "user.create")]
    pub action: Option<String>,
    /// Of a subject of this kind: `user`, `session`, `token`, ...
    #[param(example = "user")]
    pub subject_kind: Option<String>,
    /// Of the subject with this id or name
    #[param(example = "bob")]
    pub subject: Option<String>,
    /// At or after this time (RFC 3339)
    #[param(value_type = Option<String>, format = "date-time", example = "2026-01-31T00:00:00Z")]
    pub from: Option<Timestamp>,
    /// Before this time (RFC 3339)
    #[param(value_type = Option<String>, format = "date-time", example = "2026-02-01T00:00:00Z")]
    pub to: Option<Timestamp>,
}

impl FromParams for AuditParams {
    fn read(params: &mut Params) -> Self {
        let mut text = |name: &str| {
            params.parsed(name, "a short text", |text| {
                let plain = text.chars().count() <= MAX_TEXT && !text.chars().any(char::is_control);
                (plain && !text.is_empty()).then(|| text.to_owned())
            })
        };
        let (actor, action) = (text("actor"), text("action"));
        let (subject_kind, subject) = (text("subject_kind"), text("subject"));
        let (from, to) = (params.time("from"), params.time("to"));
        Self { actor, action, subject_kind, subject, from, to }
    }
}

impl From<AuditParams> for Filter {
    fn from(params: AuditParams) -> Self {
        Self {
            actor: params.actor,
            action: params.action,
            subject_kind: params.subject_kind,
            subject: params.subject,
            from: params.from.map(SystemTime::from),
            to: params.to.map(SystemTime::from),
        }
    }
}

/// All parameters of the list.
pub struct ListParams {
    filter: AuditParams,
    page: PageParams,
}

impl FromParams for ListParams {
    fn read(params: &mut Params) -> Self {
        Self { filter: AuditParams::read(params), page: PageParams::read(params) }
    }
}

/// One change.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": 42, "at": "2026-01-31T12:00:06.100000000Z", "actor_kind": "user", "actor_id": "1", "actor": "ann",
    "action": "user.update", "subject_kind": "user", "subject_id": "2", "subject": "bob",
    "before": {"role": "viewer", "disabled": false}, "after": {"role": "operator", "disabled": false},
    "address": "192.0.2.7", "request_id": "0197a2c0-5d0e-7c3e-9d8b-6f2a1f6f0b1c"
}))]
pub struct AuditEntry {
    pub id: i64,
    pub at: String,
    /// `user`, `token`, `admin_token`, `command_line`, `sensor` or `nobody`
    pub actor_kind: String,
    pub actor_id: Option<String>,
    /// As it was then
    pub actor: String,
    pub action: String,
    pub subject_kind: String,
    pub subject_id: Option<String>,
    pub subject: Option<String>,
    /// Never a secret
    #[schema(value_type = Option<Object>)]
    pub before: Option<Value>,
    #[schema(value_type = Option<Object>)]
    pub after: Option<Value>,
    pub address: Option<String>,
    /// As in the server's log
    pub request_id: Option<String>,
}

/// A page of the log, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditPage {
    pub items: Vec<AuditEntry>,
    pub has_more: bool,
    pub continuation: Option<String>,
}

impl From<Entry> for AuditEntry {
    fn from(entry: Entry) -> Self {
        Self {
            id: entry.audit_id,
            at: render::system_time(entry.at),
            actor_kind: entry.actor_kind,
            actor_id: entry.actor_id,
            actor: entry.actor_name,
            action: entry.action,
            subject_kind: entry.subject_kind,
            subject_id: entry.subject_id,
            subject: entry.subject_name,
            before: entry.before,
            after: entry.after,
            address: entry.address,
            request_id: entry.request_id,
        }
    }
}

/// List changes
///
/// Newest first. The log is append-only: rows are written in the transaction of the change that they tell
/// of, and the database refuses to alter them.
#[utoipa::path(
    get,
    path = "/api/v1/audit",
    tag = "audit",
    params(AuditParams, PageParams),
    responses((status = 200, body = AuditPage, description = "A page, maybe empty"))
)]
pub async fn list(
    State(state): State<AppState>,
    Query { value: ListParams { filter, page }, given }: Query<ListParams>,
) -> Result<Json<AuditPage>, ApiError> {
    let before = page.after::<8>(&state, "audit", &given)?.map(i64::from_be_bytes);
    let mut found = audit::list(&state.pool, &filter.into(), before, page.limit() as i64 + 1).await?;
    let continuation = page.next(&state, "audit", &given, &mut found, |entry| entry.audit_id.to_be_bytes());
    let items = found.into_iter().map(AuditEntry::from).collect();
    Ok(Json(AuditPage { items, has_more: continuation.is_some(), continuation }))
}

/// Export changes
///
/// All of them as NDJSON, newest first, a row a line; memory stays bounded. A database that goes away on
/// the way breaks the connection off, so that a part is not taken for the whole.
#[utoipa::path(
    get,
    path = "/api/v1/audit/export",
    tag = "audit",
    params(AuditParams),
    responses((status = 200, body = AuditEntry, content_type = "application/x-ndjson", description = "A row a line, each as in the list"))
)]
pub async fn export(
    State(state): State<AppState>,
    Query { value: params, .. }: Query<AuditParams>,
) -> Result<Response, ApiError> {
    let filter = Filter::from(params);
    // The first part is asked for before the answer begins, so that an error is an error.
    let first = audit::list(&state.pool, &filter, None, CHUNK).await?;
    let chunks = stream::unfold(Some(Part::Read(first)), move |part| {
        let (pool, filter) = (state.pool.clone(), filter.clone());
        async move {
            let entries = match part? {
                Part::Read(entries) => Ok(entries),
                Part::After(id) => audit::list(&pool, &filter, Some(id), CHUNK).await,
            };
            match entries {
                Ok(entries) if entries.is_empty() => None,
                Ok(entries) => {
                    let last = entries.last().map(|entry| Part::After(entry.audit_id));
                    Some((Ok(lines(entries)), last))
                }
                Err(error) => Some((Err::<Bytes, StoreError>(error), None)),
            }
        }
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(chunks)).into_response())
}

/// What comes next of an export.
enum Part {
    Read(Vec<Entry>),
    After(i64),
}

fn lines(entries: Vec<Entry>) -> Bytes {
    let mut text = Vec::new();
    for entry in entries {
        // Strings, numbers and JSON: nothing that could not be written.
        if serde_json::to_writer(&mut text, &AuditEntry::from(entry)).is_ok() {
            text.push(b'\n');
        }
    }
    text.into()
}
