//! Around every request: its id, its trace, its time limit, its line in the log, its metrics, and the body of
//! problems.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use uuid::Uuid;
use weir_trace::{Active, KeyValue, SpanContext, SpanKind};

use super::{ApiError, AppState, linger};

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub const TRACEPARENT: HeaderName = HeaderName::from_static(weir_trace::header::NAME);
const MAX_REQUEST_ID: usize = 128;
/// Longest path and query that is read.
const MAX_URI: usize = 8_192;
/// Headers that are read, and bytes of their names and values.
const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: usize = 16 << 10;

/// The request's id, for the handler.
#[derive(Clone, Debug)]
pub struct RequestId(pub String);

/// Put on a response by whoever found out who asked; for the log.
#[derive(Clone, Debug)]
pub struct Actor(pub String);

/// Runs the request and finishes its answer.
pub async fn observe(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(&request);
    let method = request.method().clone();
    // A template, never the path itself: a stranger must not choose a label.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "(none)".to_owned(), |path| path.as_str().to_owned());
    let label = method_label(method.as_str());
    let attributes = vec![
        KeyValue::new("http.request.method", label),
        KeyValue::new("http.route", route.clone()),
        KeyValue::new("weir.request_id", id.clone()),
    ];
    let name = format!("{label} {route}");
    let trace = state.tracer.begin(name, SpanKind::Server, caller(request.headers()), attributes);
    state.metrics.requests_in_flight.inc();
    let in_flight = InFlight(&state);
    let limit = Duration::from_millis(state.settings.request_timeout_ms);
    let uri_length = request.uri().path_and_query().map_or(0, |uri| uri.as_str().len());
    let response = if uri_length > MAX_URI {
        problem_response(StatusCode::URI_TOO_LONG)
    } else if too_many_headers(&request) {
        problem_response(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
    } else {
        // Who asks first whether to send a body learns it from the answer.
        let asks_first = request.headers().contains_key(header::EXPECT);
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(RequestId(id.clone()));
        let (body, rest) = linger::split(body);
        let work = next.run(Request::from_parts(parts, body));
        let work = async {
            match &trace {
                Some(trace) => trace.within(work).await,
                None => work.await,
            }
        };
        let response = tokio::time::timeout(limit, work)
            .await
            .unwrap_or_else(|_| problem_response(StatusCode::REQUEST_TIMEOUT));
        if !asks_first {
            rest.discard().await;
        }
        response
    };
    drop(in_flight);
    let trace_id = trace.as_ref().map(Active::trace_id);
    let told = Told { id: &id, trace_id, method: method.as_str(), route: &route, started };
    let response = finish(&state, response, told);
    if let Some(trace) = trace {
        let status = response.status();
        let failure = status.is_server_error().then(|| status.as_str().to_owned());
        let status = KeyValue::new("http.response.status_code", i64::from(status.as_u16()));
        trace.end([status], failure);
    }
    response
}

/// The piece of work whose request this is. Two headers are none: nobody knows which one is right.
fn caller(headers: &HeaderMap) -> Option<SpanContext> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    weir_trace::header::read(value.to_str().ok()?)
}

/// What the log says of a request.
struct Told<'a> {
    id: &'a str,
    trace_id: Option<String>,
    method: &'a str,
    route: &'a str,
    started: Instant,
}

fn too_many_headers(request: &Request) -> bool {
    let headers = request.headers();
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    headers.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES
}

struct InFlight<'a>(&'a AppState);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.metrics.requests_in_flight.dec();
    }
}

fn problem_response(status: StatusCode) -> Response {
    axum::response::IntoResponse::into_response(ApiError::from_status(status))
}

fn finish(state: &AppState, mut response: Response, told: Told<'_>) -> Response {
    let Told { id, trace_id, method, route, started } = told;
    let status = response.status();
    let mut error = response.extensions_mut().remove::<ApiError>();
    if error.is_none() && (status.is_client_error() || status.is_server_error()) && !is_ours(&response) {
        error = Some(ApiError::from_status(status));
    }
    if let Some(error) = &error {
        state.metrics.request_errors.with_label_values(&[error.category.name()]).inc();
        let body = serde_json::to_vec(&error.problem(id)).unwrap_or_default();
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        *response.body_mut() = Body::from(body);
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    if let Ok(value) = HeaderValue::from_str(id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);

    let elapsed = started.elapsed();
    let code = status.as_u16();
    state
        .metrics
        .request_seconds
        .with_label_values(&[method_label(method), route, status.as_str()])
        .observe(elapsed.as_secs_f64());
    let duration_ms = (elapsed.as_secs_f64() * 1e6).round() / 1e3;
    let actor = response.extensions().get::<Actor>().map_or("-", |actor| actor.0.as_str());
    let problem = error.as_ref().map(|error| error.slug);
    let cause = error.as_ref().map(|error| error.internal.as_deref().unwrap_or(&error.detail));
    if status.is_server_error() {
        tracing::error!(
            request_id = id,
            trace_id,
            method,
            route,
            status = code,
            duration_ms,
            actor,
            problem,
            cause,
            "request"
        );
    } else {
        tracing::info!(
            request_id = id,
            trace_id,
            method,
            route,
            status = code,
            duration_ms,
            actor,
            problem,
            cause,
            "request"
        );
    }
    response
}

/// Readiness answers 503 with a body of its own.
fn is_ours(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"))
}

/// Methods are chosen by strangers; labels are not.
fn method_label(method: &str) -> &'static str {
    match method {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// The caller's id if it is short and plain, else a new one.
fn request_id(request: &Request) -> String {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let plain = |id: &&str| {
        (1..=MAX_REQUEST_ID).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte))
    };
    given.filter(plain).map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}
