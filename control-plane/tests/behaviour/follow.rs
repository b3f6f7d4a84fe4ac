//! Clients of live streams: what a WebSocket and an event stream say, as values.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::{Method, Response, header};
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::support::Plane;

/// Nothing takes so long that works.
const PATIENCE: Duration = Duration::from_mins(1);

/// What came on a stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    Hello(i64),
    Event(Value),
    Heartbeat(i64),
    /// Code and reason.
    Closed(u16, String),
}

/// The cursor that a close reason names.
pub fn resume_after(reason: &str) -> i64 {
    let (_, cursor) = reason.rsplit_once("after=").unwrap_or_else(|| panic!("a cursor in `{reason}`"));
    cursor.parse().expect("a number")
}

/// A WebSocket client.
pub struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    /// Opens a stream of an instance; `query` is what follows the `?`. The status, if it is refused.
    pub async fn open(address: SocketAddr, query: &str, token: Option<&str>) -> Result<Self, u16> {
        Self::open_on(TcpStream::connect(address).await.expect("it connects"), query, token).await
    }

    /// The same of an instance that may be gone.
    pub async fn try_open(address: SocketAddr, query: &str, token: &str) -> Option<Self> {
        let stream = TcpStream::connect(address).await.ok()?;
        let request = request(address, query, Some(token));
        client_async(request, stream).await.ok().map(|(socket, _)| Self(socket))
    }

    /// One whose kernel keeps next to nothing of what it does not read.
    pub async fn open_narrow(address: SocketAddr, query: &str, token: Option<&str>) -> Result<Self, u16> {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4 << 10).expect("a small buffer");
        Self::open_on(socket.connect(address).await.expect("it connects"), query, token).await
    }

    async fn open_on(stream: TcpStream, query: &str, token: Option<&str>) -> Result<Self, u16> {
        let address = stream.peer_addr().expect("an address");
        match client_async(request(address, query, token), stream).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("the handshake fails: {error}"),
        }
    }

    /// The next thing that is said; pings are answered on the way.
    pub async fn next(&mut self) -> Said {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = tokio::time::timeout(left, self.0.next()).await.expect("something within a minute");
            let text = match message {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(Message::Close(Some(CloseFrame { code, reason })))) => {
                    return Said::Closed(code.into(), reason.to_string());
                }
                other => return Said::Closed(0, format!("{other:?}")),
            };
            let mut said: Value = serde_json::from_str(&text).expect("JSON");
            let cursor = |said: &Value, what: &str| said[what]["cursor"].as_i64();
            if said["event"].is_object() {
                return Said::Event(said["event"].take());
            }
            if let Some(cursor) = cursor(&said, "hello") {
                return Said::Hello(cursor);
            }
            return Said::Heartbeat(
                cursor(&said, "heartbeat").unwrap_or_else(|| panic!("known words: {said}")),
            );
        }
    }

    pub async fn say(&mut self, words: &str) {
        self.0.send(Message::text(words)).await.expect("it is said");
    }

    /// The cursor of the hello that every stream begins with.
    pub async fn hello(&mut self) -> i64 {
        match self.next().await {
            Said::Hello(cursor) => cursor,
            other => panic!("a hello, not {other:?}"),
        }
    }

    /// The next event, heartbeats aside; or how the stream was closed.
    pub async fn event(&mut self) -> Result<Value, (u16, String)> {
        let event = async {
            loop {
                match self.next().await {
                    Said::Event(event) => return Ok(event),
                    Said::Closed(code, reason) => return Err((code, reason)),
                    Said::Hello(_) | Said::Heartbeat(_) => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, event).await.expect("an event within a minute")
    }

    /// So many events.
    pub async fn events(&mut self, count: usize) -> Vec<Value> {
        let mut events = Vec::with_capacity(count);
        while events.len() < count {
            let closed = |closed| panic!("closed after {} of {count} events: {closed:?}", events.len());
            let event = self.event().await.unwrap_or_else(closed);
            events.push(event);
        }
        events
    }

    /// What comes until it is closed: cursors of events, and code and reason.
    pub async fn until_closed(&mut self) -> (Vec<i64>, u16, String) {
        let mut cursors = Vec::new();
        loop {
            match self.event().await {
                Ok(event) => cursors.push(event["cursor"].as_i64().expect("a cursor")),
                Err((code, reason)) => return (cursors, code, reason),
            }
        }
    }
}

fn request(address: SocketAddr, query: &str, token: Option<&str>) -> Request {
    let url = format!("ws://{address}/api/v1/stream?{query}");
    let mut request = url.into_client_request().expect("a request");
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().expect("a value");
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    request
}

/// A client of Server-Sent Events.
pub struct EventStream {
    response: Response,
    text: String,
}

impl EventStream {
    pub async fn open(plane: &Plane<'_>, path: &str, token: &str, last: Option<i64>) -> Self {
        let mut request = plane.request(Method::GET, path, token);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// The next block: its event, id and data. None at the end of the body.
    pub async fn next(&mut self) -> Option<(String, i64, Value)> {
        loop {
            while let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| {
                    block
                        .lines()
                        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned))
                };
                let found = (field("event"), field("id"), field("data"));
                if let (Some(event), Some(id), Some(data)) = found {
                    let data = serde_json::from_str(&data).expect("JSON");
                    return Some((event, id.parse().expect("a cursor"), data));
                }
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("within a minute");
            let chunk = chunk.expect("the body is whole")?;
            self.text.push_str(std::str::from_utf8(&chunk).expect("text"));
        }
    }
}
