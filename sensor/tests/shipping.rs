//! Delivery against a control plane that fails in every way (S7, I2 from the sender's side).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;
use weir_sensor::config::{ControlPlane, Period, Secret};
use weir_sensor::metrics::Metrics;
use weir_sensor::ship::{
    Backoff, Client, Courier, MemoryDeliveries, MemoryOutbox, Outbox as _, Packed, Status, memory,
};

/// What the server does with the next request; when the list is empty it takes the batch.
enum Script {
    Answer(Response),
    Hang,
    /// Closes the connection without an answer.
    Drop,
}

#[derive(Clone, Default)]
struct Server {
    script: Arc<Mutex<VecDeque<Script>>>,
    received: Arc<Mutex<Vec<(HeaderMap, Bytes, Instant)>>>,
}

async fn ingest(State(server): State<Server>, headers: HeaderMap, body: Bytes) -> Response {
    server.received.lock().expect("no panic").push((headers, body, Instant::now()));
    let script = server.script.lock().expect("no panic").pop_front();
    match script {
        Some(Script::Answer(response)) => response,
        Some(Script::Hang) => std::future::pending().await,
        Some(Script::Drop) => panic!("the connection is closed by a panic of its handler, as a crash would"),
        None => StatusCode::OK.into_response(),
    }
}

impl Server {
    async fn start(script: Vec<Script>) -> (Self, SocketAddr) {
        let server = Self { script: Arc::new(Mutex::new(script.into())), ..Self::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let router = Router::new().route("/api/v1/ingest", post(ingest)).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (server, address)
    }

    fn bodies(&self) -> Vec<Bytes> {
        self.received.lock().expect("no panic").iter().map(|(_, body, _)| body.clone()).collect()
    }

    fn gaps(&self) -> Vec<Duration> {
        let received = self.received.lock().expect("no panic");
        received.windows(2).map(|pair| pair[1].2 - pair[0].2).collect()
    }
}

fn status(code: u16) -> Script {
    Script::Answer(StatusCode::from_u16(code).expect("a status").into_response())
}

fn settings(address: SocketAddr) -> ControlPlane {
    ControlPlane {
        url: format!("http://{address}"),
        token: Some(Secret::new("the-token".to_owned())),
        token_file: None,
        timeout: Period(Duration::from_millis(500)),
        ca_file: None,
    }
}

struct Shipping {
    outbox: MemoryOutbox,
    task: JoinHandle<Courier<MemoryDeliveries>>,
    metrics: Arc<Metrics>,
    status: watch::Receiver<Status>,
    stop: watch::Sender<bool>,
}

fn ship(settings: &ControlPlane, backoff_max: Duration) -> Shipping {
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    let (outbox, deliveries) = memory(1 << 20, Arc::clone(&metrics));
    let (status_sender, status) = watch::channel(Status::default());
    let (stop, stopping) = watch::channel(false);
    let client = Client::new(settings).expect("the settings are valid");
    let backoff = Backoff::new(Duration::from_millis(10), backoff_max);
    let mut courier =
        Courier::new(deliveries, client, backoff, Arc::clone(&metrics), status_sender, stopping);
    let task = tokio::spawn(async move {
        courier.run().await;
        courier
    });
    Shipping { outbox, task, metrics, status, stop }
}

fn batch(epoch: u64) -> Packed {
    let body = format!("batch {epoch}").into_bytes().into();
    Packed { generation: Uuid::from_u128(1), epoch, part: 0, records: 10, packets: 100, body }
}

/// Ships three batches past a script and waits until all are settled.
async fn past(script: Vec<Script>) -> (Server, Courier<MemoryDeliveries>, Arc<Metrics>) {
    let (server, address) = Server::start(script).await;
    let Shipping { mut outbox, task, metrics, stop: _stop, .. } =
        ship(&settings(address), Duration::from_millis(50));
    outbox.put((0..3).map(batch).collect()).await.expect("there is room");
    drop(outbox);
    let courier =
        tokio::time::timeout(Duration::from_secs(10), task).await.expect("it ends").expect("no panic");
    (server, courier, metrics)
}

fn retries(metrics: &Metrics, reason: &str) -> u64 {
    metrics.retries.with_label_values(&[reason]).get()
}

#[tokio::test]
async fn batches_arrive_in_order_with_their_headers() {
    let (server, _, metrics) = past(Vec::new()).await;
    assert_eq!(server.bodies(), ["batch 0", "batch 1", "batch 2"]);
    let received = server.received.lock().expect("no panic");
    let (headers, ..) = &received[0];
    assert_eq!(headers[header::AUTHORIZATION], "Bearer the-token");
    assert_eq!(headers[header::CONTENT_TYPE], weir_wire::CONTENT_TYPE);
    assert_eq!(headers[header::CONTENT_ENCODING], weir_wire::CONTENT_ENCODING);
    let sent_at: u64 = headers[weir_wire::SENT_AT_HEADER].to_str().expect("text").parse().expect("a number");
    assert!(sent_at > 1_600_000_000_000, "milliseconds since the epoch: {sent_at}");
    assert_eq!((metrics.shipped_batches.get(), metrics.shipped_records.get()), (3, 30));
    assert_eq!((metrics.shipped_packets.get(), metrics.queue_batches.get()), (300, 0));
}

#[tokio::test]
async fn passing_failures_are_retried_with_the_same_bytes() {
    let script =
        vec![status(500), status(503), Script::Drop, status(408), status(429), status(502), status(425)];
    let (server, _, metrics) = past(script).await;
    let bodies = server.bodies();
    assert!(bodies[..8].iter().all(|body| body == "batch 0"), "{bodies:?}");
    assert_eq!(bodies[8..], ["batch 1", "batch 2"]);
    assert_eq!((retries(&metrics, "server"), retries(&metrics, "throttled")), (3, 3));
    assert_eq!((retries(&metrics, "connection"), metrics.refused_batches.get()), (1, 0));
}

#[tokio::test]
async fn a_hanging_control_plane_runs_into_the_timeout() {
    let (server, _, metrics) = past(vec![Script::Hang]).await;
    assert_eq!(server.bodies().len(), 4);
    assert_eq!(retries(&metrics, "timeout"), 1);
}

#[tokio::test]
async fn a_refused_batch_is_set_aside_and_the_rest_goes_on() {
    let problem = r#"{"title":"Bad batch","detail":"epoch\u0007 of\nanother world"}"#;
    let refusal = (StatusCode::UNPROCESSABLE_ENTITY, problem).into_response();
    let (server, courier, metrics) = past(vec![Script::Answer(refusal), status(400), status(413)]).await;
    assert_eq!(server.bodies().len(), 3, "no second attempt");
    assert_eq!((metrics.refused_batches.get(), metrics.refused_packets.get()), (3, 300));
    assert_eq!(metrics.shipped_batches.get(), 0);
    let epochs: Vec<_> = courier.quarantine().iter().map(|batch| batch.epoch).collect();
    assert_eq!(epochs, [0, 1, 2]);
}

#[tokio::test]
async fn quarantine_is_bounded() {
    let (_, address) = Server::start((0..40).map(|_| status(400)).collect()).await;
    let Shipping { mut outbox, task, metrics, stop: _stop, .. } =
        ship(&settings(address), Duration::from_millis(50));
    outbox.put((0..40).map(batch).collect()).await.expect("there is room");
    drop(outbox);
    let courier = task.await.expect("no panic");
    assert_eq!((metrics.refused_batches.get(), courier.quarantine().len()), (40, 16));
    assert_eq!(courier.quarantine().back().map(|batch| batch.epoch), Some(39));
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    let throttled = (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "1")]).into_response();
    let (server, ..) = past(vec![Script::Answer(throttled)]).await;
    assert!(server.gaps()[0] >= Duration::from_secs(1), "{:?}", server.gaps());
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "http://127.0.0.1:1/")]);
    let (server, _, metrics) = past(vec![Script::Answer(elsewhere.into_response()), status(404)]).await;
    assert_eq!(server.bodies().len(), 5);
    assert_eq!((retries(&metrics, "address"), metrics.refused_batches.get()), (2, 0));
}

#[tokio::test]
async fn a_refused_credential_is_loud_and_slow_and_ends_with_a_new_token() {
    let (server, address) = Server::start((0..1_000).map(|_| status(401)).collect()).await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "old-token\n").expect("it is written");
    let settings =
        ControlPlane { token: None, token_file: Some(file.path().to_owned()), ..settings(address) };
    let Shipping { mut outbox, task, metrics, status, stop: _stop } =
        ship(&settings, Duration::from_millis(200));
    outbox.put(vec![batch(0)]).await.expect("there is room");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(metrics.misconfigured.get(), 1);
    let attempts = server.bodies().len();
    assert!((2..=5).contains(&attempts), "slow: {attempts} attempts in half a second");
    assert!(status.borrow().failing_since.is_some());
    assert!(status.borrow().last_failure.as_ref().is_some_and(|failure| failure.contains("credential")));

    std::fs::write(file.path(), "new-token\n").expect("it is written");
    server.script.lock().expect("no panic").truncate(1);
    drop(outbox);
    tokio::time::timeout(Duration::from_secs(5), task).await.expect("it ends").expect("no panic");
    let received = server.received.lock().expect("no panic");
    let (headers, ..) = received.last().expect("a request");
    assert_eq!(headers[header::AUTHORIZATION], "Bearer new-token");
    assert_eq!(metrics.misconfigured.get(), 0);
    assert!(status.borrow().last_success.is_some() && status.borrow().failing_since.is_none());
}

#[tokio::test]
async fn an_answer_without_end_is_cut() {
    let endless = axum::body::Body::from(vec![b'x'; 64 << 20]);
    let (server, _, metrics) =
        past(vec![Script::Answer((StatusCode::BAD_REQUEST, endless).into_response())]).await;
    assert_eq!((server.bodies().len(), metrics.refused_batches.get()), (3, 1));
}

#[tokio::test]
async fn a_control_plane_that_comes_up_late_gets_everything() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    drop(listener);
    let Shipping { mut outbox, task, metrics, stop: _stop, .. } =
        ship(&settings(address), Duration::from_millis(50));
    outbox.put((0..3).map(batch).collect()).await.expect("there is room");
    drop(outbox);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(retries(&metrics, "connection") >= 2);
    let server = Server::default();
    let router = Router::new().route("/api/v1/ingest", post(ingest)).with_state(server.clone());
    let listener = TcpListener::bind(address).await.expect("the port is free again");
    tokio::spawn(async move { axum::serve(listener, router).await });
    tokio::time::timeout(Duration::from_secs(10), task).await.expect("it ends").expect("no panic");
    assert_eq!(server.bodies(), ["batch 0", "batch 1", "batch 2"]);
}

#[tokio::test]
async fn stopping_cuts_a_long_wait_short() {
    let (server, address) = Server::start(vec![status(401)]).await;
    let Shipping { mut outbox, task, stop, .. } = ship(&settings(address), Duration::from_mins(10));
    outbox.put(vec![batch(0)]).await.expect("there is room");
    drop(outbox);
    tokio::time::sleep(Duration::from_millis(200)).await;
    stop.send_replace(true);
    tokio::time::timeout(Duration::from_secs(5), task).await.expect("it ends").expect("no panic");
    assert_eq!(server.bodies().len(), 2);
}

#[tokio::test]
async fn an_answer_tells_the_clocks_apart() {
    let late = (StatusCode::OK, [(header::DATE, "Wed, 21 Oct 2015 07:28:00 GMT")]).into_response();
    let (_, _, metrics) = past(vec![status(500), Script::Answer(late)]).await;
    // The last answer has today's date.
    assert!(metrics.clock_skew.get().abs() < 5.0, "{}", metrics.clock_skew.get());
}

#[test]
fn wrong_destinations_are_named() {
    let settings = |url: &str| ControlPlane { url: url.to_owned(), ..settings(([127, 0, 0, 1], 1).into()) };
    let error = |settings: ControlPlane| Client::new(&settings).err().expect("it is wrong").to_string();
    assert!(error(settings("not a url")).contains("control_plane.url"));
    let missing = std::path::PathBuf::from("/does/not/exist");
    let token = ControlPlane { token: None, token_file: Some(missing.clone()), ..settings("http://x") };
    assert!(error(token).contains("control_plane.token_file /does/not/exist"));
    let ca = ControlPlane { ca_file: Some(missing), ..settings("https://x") };
    assert!(error(ca).contains("control_plane.ca_file"));
    let empty = tempfile::NamedTempFile::new().expect("a file");
    let token =
        ControlPlane { token: None, token_file: Some(empty.path().to_owned()), ..settings("http://x") };
    assert!(error(token).contains("no token"));
    let ca = ControlPlane { ca_file: Some(empty.path().to_owned()), ..settings("https://x") };
    assert!(error(ca).contains("no certificate"));
    assert!(Client::new(&settings("https://weir.example.org/base")).is_ok());
}
