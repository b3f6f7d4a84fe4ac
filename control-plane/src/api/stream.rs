//! The doors of live streams: `GET /api/v1/stream` (WebSocket), `GET /api/v1/events/stream` (Server-Sent
//! Events), and tickets for clients that cannot send a header.

use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::access::Caller;
use super::error::{Category, Problem};
use super::events::{EventParams, resumable};
use super::params::{FromParams, NoParams, Params, Query};
use super::{ApiError, AppState, event_stream, render, socket};
use crate::auth::{AuthError, Ticket, Who};
use crate::store::events;
use crate::store::tickets::{self, Maker};
use crate::stream::{Follower, Refused, Transport, Wanted};

pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// How long a ticket waits for its use.
const TICKET_LASTS: Duration = Duration::from_secs(30);
/// Longest ticket that is looked at; the door has used it up by now.
const MAX_TICKET: usize = 64;
/// Seconds after which a place may be free.
const RETRY_AFTER: u32 = 10;
/// Bytes that wait in the program for the socket of one client, apart from its queue.
const WRITE_BUFFER: usize = 16 << 10;
/// Clients have nothing to say.
const MAX_MESSAGE: usize = 4 << 10;

/// How the stream is opened.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the guard reads it; it is here for the document")]
pub struct TicketParam {
    /// Instead of the header `Authorization`: see `POST /api/v1/stream/tickets`
    #[param(example = "weir_t_N2fVYbPxq0b8m1bq3k4o2aWv7d6g9h0jK1l2M3n4O5p")]
    pub ticket: Option<String>,
}

/// All parameters of a stream.
pub struct StreamParams {
    which: EventParams,
}

impl FromParams for StreamParams {
    fn read(params: &mut Params) -> Self {
        let which = EventParams::read(params);
        params.parsed("ticket", "a ticket", |text| (text.len() <= MAX_TICKET).then_some(()));
        Self { which }
    }
}

/// The cursor that an `EventSource` sends when it connects again by itself.
pub struct LastEventId(Option<i64>);

impl FromRequestParts<AppState> for LastEventId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        let Some(value) = parts.headers.get(LAST_EVENT_ID) else { return Ok(Self(None)) };
        let cursor =
            value.to_str().ok().and_then(|text| text.parse::<i64>().ok()).filter(|cursor| *cursor >= 0);
        let wrong = || ApiError::parameter("Last-Event-ID", "is not the id of an event of this stream");
        cursor.map(|cursor| Self(Some(cursor))).ok_or_else(wrong)
    }
}

/// The upgrade of a connection, or an error in our own words.
pub struct Upgrade(WebSocketUpgrade);

impl FromRequestParts<AppState> for Upgrade {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        WebSocketUpgrade::from_request_parts(parts, state).await.map(Self).map_err(|rejection| {
            let status = match rejection {
                WebSocketUpgradeRejection::MethodNotGet(_) => StatusCode::METHOD_NOT_ALLOWED,
                _ => StatusCode::BAD_REQUEST,
            };
            let detail =
                "this route speaks WebSocket (RFC 6455); for Server-Sent Events ask /api/v1/events/stream";
            let title = "The request is no WebSocket handshake";
            ApiError::new(status, Category::Validation, "no-websocket", title, detail)
        })
    }
}

/// A way into one stream.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "ticket": "weir_t_N2fVYbPxq0b8m1bq3k4o2aWv7d6g9h0jK1l2M3n4O5p", "expires_at": "2026-01-31T12:00:36.100000000Z"
}))]
pub struct MadeTicket {
    /// For the parameter `ticket`, once
    pub ticket: String,
    pub expires_at: String,
}

/// Make a ticket for a stream
///
/// Browsers can send no header with a WebSocket or an `EventSource`: a page asks for a ticket and opens the
/// stream with `?ticket=…`, once, within 30 seconds, on any instance. The stream ends when the credential ends
/// that the ticket was made with.
#[utoipa::path(
    post,
    path = "/api/v1/stream/tickets",
    tag = "events",
    responses((status = 200, body = MadeTicket, description = "The ticket"))
)]
pub async fn ticket(
    State(state): State<AppState>,
    caller: Caller,
    _: Query<NoParams>,
) -> Result<Response, ApiError> {
    let maker = match caller.principal.who {
        Who::AdminToken => Maker::AdminToken,
        Who::User { session_id, .. } => Maker::Session(session_id),
        Who::Machine { api_token_id, .. } => Maker::Token(api_token_id),
    };
    let ticket = Ticket::generate().map_err(AuthError::from)?;
    let until = caller.principal.until;
    let expires_at = render::system_time(SystemTime::now() + TICKET_LASTS);
    if !tickets::add(&state.pool, &ticket.sha256(), maker, until, TICKET_LASTS.as_secs_f64()).await? {
        return Err(ApiError::unauthenticated("token-revoked", "your credential is gone"));
    }
    let made = MadeTicket { ticket: ticket.expose().to_owned(), expires_at };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(made)).into_response())
}

/// Follow events (WebSocket)
///
/// Each message is a JSON object with one member: `hello` (with the `cursor` from which the stream begins),
/// `event` (as in the replay), `heartbeat` (with the `cursor` up to which nothing is missing). A client that
/// takes events more slowly than they come is closed with 1008, one whose server stops with 1001, one whose
/// credential ends with 4401; the reason ends with `after=CURSOR`, from which to resume on any instance.
#[utoipa::path(
    get,
    path = "/api/v1/stream",
    tag = "events",
    params(EventParams, TicketParam),
    responses(
        (status = 101, description = "The connection is a WebSocket from here on"),
        (status = 410, body = Problem, content_type = "application/problem+json", description = "The events after this cursor are past their retention"),
    )
)]
pub async fn socket(
    State(state): State<AppState>,
    caller: Caller,
    Query { value: params, .. }: Query<StreamParams>,
    Upgrade(upgrade): Upgrade,
) -> Result<Response, ApiError> {
    let follower = follower(&state, caller, params, None, Transport::WebSocket).await?;
    let settings = state.stream.settings().clone();
    Ok(upgrade
        .write_buffer_size(WRITE_BUFFER)
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        .on_upgrade(move |socket| socket::serve(socket, follower, settings)))
}

/// Follow events (Server-Sent Events)
///
/// Events have their topic as `event`, their cursor as `id`, and as `data` what the replay shows. `hello` and
/// `heartbeat` have an `id`, too: whoever connects again with `Last-Event-ID` misses nothing. The last event
/// before the server closes is `end`, with `code` and `reason` as on a WebSocket.
#[utoipa::path(
    get,
    path = "/api/v1/events/stream",
    tag = "events",
    params(EventParams, TicketParam, ("Last-Event-ID" = Option<i64>, Header, example = 4711, description = "Instead of `after`: the id of the last event that came")),
    responses(
        (status = 200, body = String, content_type = "text/event-stream", description = "Events, until one of both ends it"),
        (status = 410, body = Problem, content_type = "application/problem+json", description = "The events after this cursor are past their retention"),
    )
)]
pub async fn event_stream(
    State(state): State<AppState>,
    caller: Caller,
    last: LastEventId,
    Query { value: params, .. }: Query<StreamParams>,
) -> Result<Response, ApiError> {
    let follower = follower(&state, caller, params, last.0, Transport::EventStream).await?;
    Ok(event_stream::response(follower, state.stream.settings()))
}

async fn follower(
    state: &AppState,
    caller: Caller,
    params: StreamParams,
    last: Option<i64>,
    transport: Transport,
) -> Result<Follower, ApiError> {
    let topics = params.which.topics(&caller.principal)?;
    let sensors = params.which.sensors(state).await?;
    let after = last.or(params.which.after);
    if let Some(after) = after {
        resumable(after, events::extent(&state.pool).await?)?;
    }
    let wanted = Wanted { topics, sensors, after };
    state.stream.follow(caller.principal, transport, wanted).map_err(refused)
}

fn refused(refused: Refused) -> ApiError {
    match refused {
        Refused::Total => ApiError::busy("as many streams as are allowed are open"),
        Refused::Stopping => ApiError::busy("this server stops"),
        Refused::Caller => {
            let mut error = ApiError::new(
                StatusCode::TOO_MANY_REQUESTS,
                Category::RateLimit,
                "too-many-streams",
                "Too many streams at once",
                "you have as many streams open as one caller may; close one",
            );
            error.retry_after = Some(RETRY_AFTER);
            error
        }
    }
}
