//! Connections: accepted, secured where there is a certificate, held to deadlines, and ended in order.
//!
//! Called by `server`, which gives it the router. What must stay true: a peer that says nothing, or says it
//! slowly, holds a connection for a bounded time and nobody else up; when the server stops, requests in flight
//! are answered and idle connections close.

mod self_signed;
mod tls;
mod validity;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderValue, header};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower_http::set_header::SetResponseHeaderLayer;

use crate::authority::Shown;
use crate::config;
use crate::telemetry::Metrics;

pub use tls::{Tls, TlsError, fingerprint};

/// After an error that is not the peer's: no descriptor is free, most likely, and trying at once finds none.
const BREATH: Duration = Duration::from_millis(500);

/// How long a peer may have no room for what we send.
const UNREAD: Duration = Duration::from_mins(1);
/// Bytes that wait in the kernel behind those that are on their way.
const UNSENT: u32 = 128 << 10;

/// Takes connections.
pub struct Listener {
    pub socket: TcpListener,
    /// `None`: plain HTTP.
    pub tls: Option<Tls>,
    pub header_timeout: Duration,
    /// Connections at once; who comes beyond them is let go at once.
    pub max_connections: usize,
    pub metrics: Metrics,
}

/// Tells browsers to insist on HTTPS, where there is a certificate that they can check.
pub fn with_transport_security(router: Router, settings: &config::Tls) -> Router {
    if !settings.is_on() || settings.self_signed || settings.hsts_max_age_s == 0 {
        return router;
    }
    let value = HeaderValue::try_from(format!("max-age={}", settings.hsts_max_age_s));
    match value {
        Ok(value) => {
            router.layer(SetResponseHeaderLayer::overriding(header::STRICT_TRANSPORT_SECURITY, value))
        }
        Err(_) => router,
    }
}

impl Listener {
    /// Serves until `stop` changes or its sender is gone, and then until the last request is answered.
    pub async fn serve(self, router: Router, mut stop: watch::Receiver<bool>) {
        let mut connections = JoinSet::new();
        let ending = stop.clone();
        let places = Arc::new(Semaphore::new(self.max_connections));
        loop {
            tokio::select! {
                accepted = self.accept() => {
                    let (stream, peer) = accepted;
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                        self.metrics.connections.refused.inc();
                        continue;
                    };
                    let open = Open::new(&self.metrics);
                    let (router, stop) = (router.clone(), ending.clone());
                    let (timeout, metrics) = (self.header_timeout, Arc::clone(&self.metrics));
                    let tls = self.tls.clone();
                    connections.spawn(async move {
                        let _held = (place, open);
                        let Some(tls) = tls else {
                            return connection(stream, (peer, None), router, timeout, stop).await;
                        };
                        if let Some((stream, shown)) = tls.secure(stream, &metrics).await {
                            connection(stream, (peer, shown), router, timeout, stop).await;
                        }
                    });
                }
                Some(_) = connections.join_next() => {}
                _ = stop.changed() => break,
            }
        }
        drop(self.socket);
        while connections.join_next().await.is_some() {}
    }

    /// The next connection.
    async fn accept(&self) -> (TcpStream, SocketAddr) {
        loop {
            match self.socket.accept().await {
                Ok((stream, peer)) => {
                    // Answers are small and whole.
                    let _ = stream.set_nodelay(true);
                    bound(&stream);
                    return (stream, peer);
                }
                Err(error) if is_the_peers(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "accept a connection");
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
    }
}

/// Counts a connection while it is there.
struct Open(Metrics);

impl Open {
    fn new(metrics: &Metrics) -> Self {
        metrics.connections.open.inc();
        Self(Arc::clone(metrics))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.open.dec();
    }
}

/// A peer that does not read holds little memory in the kernel, and not for long: an answer without an end
/// would else wait for it as long as its kernel answers for it.
fn bound(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    let bounds = [socket.set_tcp_user_timeout(Some(UNREAD)), socket.set_tcp_notsent_lowat(UNSENT)];
    if let Some(error) = bounds.into_iter().find_map(Result::err) {
        tracing::debug!(%error, "bound what the kernel keeps of a connection");
    }
}

/// The peer gave up before we came to it.
fn is_the_peers(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionRefused | ConnectionAborted | ConnectionReset)
}

/// Answers one connection's requests; each is told what certificate the peer showed.
async fn connection<S>(
    stream: S,
    (peer, shown): (SocketAddr, Option<Arc<Shown>>),
    router: Router,
    header_timeout: Duration,
    mut stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        if let Some(shown) = &shown {
            request.extensions_mut().insert(Arc::clone(shown));
        }
        TowerToHyperService::new(router.clone()).call(request.map(Body::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let mut stopping = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%peer, %error, "a connection ended early");
                }
                return;
            }
            _ = stop.changed(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
