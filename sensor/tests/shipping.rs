//! S7: delivery against a control plane that fails in every way (I2 from the sender's side).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;
use weir_sensor::config::{ControlPlane, Period, Secret};
use weir_sensor::metrics::Metrics;
use weir_sensor::ship::{
    Backoff, BreakerState, Client, Courier, Outbox as _, OutboxClosed, Pacing, Packed, Status,
};
use weir_sensor::spool::{Bounds, Intake, Settings, Spool};
use weir_testbed::collector::{Collector, Span};
use weir_trace::{Outcome, Tracer, Traces, header as traceparent};
use weir_wire::Batch;

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
        // Longer than an answer takes on a machine that is busy with other tests.
        timeout: Period(Duration::from_secs(3)),
        identity_file: None,
        ca_file: None,
    }
}

struct Shipping {
    spool: Spool,
    intake: Intake,
    task: JoinHandle<Result<(), OutboxClosed>>,
    metrics: Arc<Metrics>,
    status: watch::Receiver<Status>,
    stop: watch::Sender<bool>,
    _folder: TempDir,
}

fn bounds() -> Bounds {
    Bounds {
        bytes: 1 << 30,
        age: Duration::from_hours(1),
        quarantine_bytes: 1 << 20,
        quarantine_batches: 1_000,
        epochs: 1_000,
        tombstones: 1_000,
    }
}

fn pacing(backoff_max: Duration) -> Pacing {
    Pacing {
        backoff: Backoff::new(Duration::from_millis(10), backoff_max),
        breaker_failures: 1_000,
        backlog_per_second: 10_000.0,
    }
}

fn ship(settings: &ControlPlane, backoff_max: Duration) -> Shipping {
    ship_from(TempDir::new().expect("a folder"), settings, pacing(backoff_max))
}

fn ship_from(folder: TempDir, settings: &ControlPlane, pacing: Pacing) -> Shipping {
    ship_traced(folder, settings, pacing, Tracer::off())
}

fn ship_traced(folder: TempDir, settings: &ControlPlane, pacing: Pacing, tracer: Tracer) -> Shipping {
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    let place = Settings { folder: folder.path().to_owned(), bounds: bounds() };
    let (spool, _) = Spool::open(place, Arc::clone(&metrics)).expect("it opens");
    let (status_sender, status) = watch::channel(Status::default());
    let (stop, stopping) = watch::channel(false);
    let client = Client::new(settings, tracer).expect("the settings are valid");
    let mut courier =
        Courier::new(spool.clone(), client, pacing, Arc::clone(&metrics), status_sender, stopping);
    let task = tokio::spawn(async move { courier.run().await });
    Shipping { intake: spool.intake(), spool, task, metrics, status, stop, _folder: folder }
}

fn batch(epoch: u64) -> Packed {
    Packed {
        records: 10,
        packets: 100,
        ..Packed::new(Batch {
            version: weir_wire::VERSION,
            generation: Uuid::from_u128(1).as_bytes().to_vec(),
            epoch,
            parts: 1,
            sampling_interval: 1,
            ..Batch::default()
        })
        .expect("it encodes")
    }
}

/// Epochs of requests.
fn epochs(server: &Server) -> Vec<u64> {
    server.bodies().iter().map(|body| weir_wire::decode(body).expect("a batch").epoch).collect()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_mins(1), future).await.expect("it takes milliseconds")
}

async fn until(condition: impl Fn() -> bool) {
    within(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// Ships three epochs past a script and waits until all are settled.
async fn past(script: Vec<Script>) -> (Server, Spool, Arc<Metrics>, TempDir) {
    let (server, address) = Server::start(script).await;
    let Shipping { spool, mut intake, task, metrics, stop: _stop, _folder: folder, .. } =
        ship(&settings(address), Duration::from_millis(50));
    for number in 0..3 {
        intake.put(vec![batch(number)]).await.expect("safe");
    }
    drop(intake);
    within(task).await.expect("no panic").expect("the spool runs");
    (server, spool, metrics, folder)
}

fn retries(metrics: &Metrics, reason: &str) -> u64 {
    metrics.retries.with_label_values(&[reason]).get()
}

#[tokio::test]
async fn batches_arrive_in_order_with_their_headers() {
    let (server, _, metrics, _) = past(Vec::new()).await;
    assert_eq!(epochs(&server), [0, 1, 2]);
    let received = server.received.lock().expect("no panic");
    let (headers, ..) = &received[0];
    assert_eq!(headers[header::AUTHORIZATION], "Bearer the-token");
    assert_eq!(headers[header::CONTENT_TYPE], weir_wire::CONTENT_TYPE);
    assert_eq!(headers[header::CONTENT_ENCODING], weir_wire::CONTENT_ENCODING);
    let sent_at: u64 = headers[weir_wire::SENT_AT_HEADER].to_str().expect("text").parse().expect("a number");
    assert!(sent_at > 1_600_000_000_000, "milliseconds since the epoch: {sent_at}");
    assert_eq!((metrics.shipped_batches.get(), metrics.shipped_records.get()), (3, 30));
    assert_eq!((metrics.shipped_packets.get(), metrics.spool_batches.get()), (300, 0));
}

/// O4: each attempt is a trace of its own, which the control plane can go on with, and says how it ended.
#[tokio::test]
async fn o4_each_attempt_begins_a_trace_and_tells_the_control_plane() {
    let collector = Collector::start().expect("a collector");
    let settled = Traces { endpoint: Some(collector.endpoint()), ..Traces::default() };
    let tracer = Tracer::start(&settled, "weir-sensor", |_, _| {}).expect("it begins");
    let (server, address) = Server::start(vec![status(503), status(200), status(400)]).await;
    let folder = TempDir::new().expect("a folder");
    let patience = pacing(Duration::from_millis(50));
    let Shipping { mut intake, task, stop: _stop, .. } =
        ship_traced(folder, &settings(address), patience, tracer.clone());
    for number in 0..2 {
        intake.put(vec![batch(number)]).await.expect("safe");
    }
    drop(intake);
    within(task).await.expect("no panic").expect("the spool runs");
    tracer.finish(Duration::from_mins(1)).await;

    let spans = collector.spans();
    let gist = |span: &Span| (span.attributes["weir.epoch"].clone(), span.failure.clone());
    let expected = [("0", Some("server")), ("0", None), ("1", Some("refused"))];
    let expected = expected.map(|(epoch, failure)| (epoch.to_owned(), failure.map(str::to_owned)));
    assert_eq!(spans.iter().map(gist).collect::<Vec<_>>(), expected);
    let received = server.received.lock().expect("no panic");
    for (span, (headers, ..)) in spans.iter().zip(&*received) {
        assert_eq!((&*span.service, &*span.name, &*span.parent), ("weir-sensor", "ship", ""));
        let sent = headers[traceparent::NAME].to_str().expect("text");
        assert_eq!(sent, format!("00-{}-{}-01", span.trace, span.id));
    }
    assert_eq!(received.len(), 3);
}

/// O4, S7: a collector that takes connections and says nothing delays no batch.
#[tokio::test]
async fn o4_a_collector_that_hangs_delays_no_batch() {
    let hanging = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = Some(format!("http://{}/v1/traces", hanging.local_addr().expect("an address")));
    let settled = Traces { endpoint, queue: 1, timeout_ms: 60_000, ..Traces::default() };
    let lost = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&lost);
    let tracer = Tracer::start(&settled, "weir-sensor", move |outcome, spans| {
        assert_eq!(outcome, Outcome::Dropped);
        count.fetch_add(spans, Ordering::Relaxed);
    });
    let (server, address) = Server::start(Vec::new()).await;
    let folder = TempDir::new().expect("a folder");
    let patience = pacing(Duration::from_millis(50));
    let Shipping { mut intake, task, metrics, stop: _stop, .. } =
        ship_traced(folder, &settings(address), patience, tracer.expect("it begins"));
    within(async {
        let mut number = 0;
        while lost.load(Ordering::Relaxed) == 0 {
            intake.put(vec![batch(number)]).await.expect("safe");
            number += 1;
        }
    })
    .await;
    drop(intake);
    within(task).await.expect("no panic").expect("the spool runs");
    assert_eq!(metrics.shipped_batches.get(), epochs(&server).len() as u64);
    assert_eq!(metrics.spool_batches.get(), 0);
}

#[tokio::test]
async fn passing_failures_are_retried_with_the_same_bytes() {
    let script =
        vec![status(500), status(503), Script::Drop, status(408), status(429), status(502), status(425)];
    let (server, _, metrics, _) = past(script).await;
    let bodies = server.bodies();
    assert!(bodies[..8].iter().all(|body| *body == bodies[0]), "byte for byte the same");
    assert_eq!(epochs(&server), [0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
    assert_eq!((retries(&metrics, "server"), retries(&metrics, "throttled")), (3, 3));
    assert_eq!((retries(&metrics, "connection"), metrics.refused_batches.get()), (1, 0));
}

#[tokio::test]
async fn a_hanging_control_plane_runs_into_the_timeout() {
    let (server, _, metrics, _) = past(vec![Script::Hang]).await;
    assert_eq!(server.bodies().len(), 4);
    assert_eq!(retries(&metrics, "timeout"), 1);
}

#[tokio::test]
async fn a_refused_batch_is_set_aside_and_the_rest_goes_on() {
    let problem = r#"{"title":"Bad batch","detail":"epoch\u0007 of\nanother world"}"#;
    let refusal = (StatusCode::UNPROCESSABLE_ENTITY, problem).into_response();
    let (server, spool, metrics, _folder) =
        past(vec![Script::Answer(refusal), status(400), status(413)]).await;
    assert_eq!(server.bodies().len(), 3, "no second attempt");
    assert_eq!((metrics.refused_batches.get(), metrics.refused_packets.get()), (3, 300));
    assert_eq!(metrics.shipped_batches.get(), 0);
    let listed = spool.list(0, 10).await.expect("it reads");
    let kept: Vec<_> = listed
        .iter()
        .map(|batch| (batch.epoch, batch.refused.as_ref().map(|refused| refused.status)))
        .collect();
    assert_eq!(kept, [(0, Some(422)), (1, Some(400)), (2, Some(413))]);
    assert_eq!(
        listed[0].refused.as_ref().map(|refused| refused.detail.as_str()),
        Some("epoch  of another world")
    );
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
    let (server, _, metrics, _) = past(vec![Script::Answer(elsewhere.into_response()), status(404)]).await;
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
    let Shipping { mut intake, task, metrics, status, stop: _stop, _folder, .. } =
        ship(&settings, Duration::from_millis(200));
    intake.put(vec![batch(0)]).await.expect("safe");
    until(|| server.bodies().len() >= 3).await;
    assert_eq!(metrics.misconfigured.get(), 1);
    let gaps = server.gaps();
    assert!(gaps.iter().all(|gap| *gap >= Duration::from_millis(100)), "slow from the first on: {gaps:?}");
    assert!(status.borrow().failing_since.is_some());
    assert!(status.borrow().last_failure.as_ref().is_some_and(|failure| failure.contains("credential")));

    std::fs::write(file.path(), "new-token\n").expect("it is written");
    server.script.lock().expect("no panic").truncate(1);
    drop(intake);
    within(task).await.expect("no panic").expect("the spool runs");
    let received = server.received.lock().expect("no panic");
    let (headers, ..) = received.last().expect("a request");
    assert_eq!(headers[header::AUTHORIZATION], "Bearer new-token");
    assert_eq!(metrics.misconfigured.get(), 0);
    assert!(status.borrow().last_success.is_some() && status.borrow().failing_since.is_none());
}

#[tokio::test]
async fn an_answer_without_end_is_cut() {
    let endless = axum::body::Body::from(vec![b'x'; 64 << 20]);
    let (server, _, metrics, _) =
        past(vec![Script::Answer((StatusCode::BAD_REQUEST, endless).into_response())]).await;
    assert_eq!((server.bodies().len(), metrics.refused_batches.get()), (3, 1));
}

#[tokio::test]
async fn a_control_plane_that_comes_up_late_gets_everything() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    drop(listener);
    let Shipping { mut intake, task, metrics, stop: _stop, _folder, .. } =
        ship(&settings(address), Duration::from_millis(50));
    for number in 0..3 {
        intake.put(vec![batch(number)]).await.expect("safe");
    }
    drop(intake);
    until(|| retries(&metrics, "connection") >= 2).await;
    let server = Server::default();
    let router = Router::new().route("/api/v1/ingest", post(ingest)).with_state(server.clone());
    let listener = TcpListener::bind(address).await.expect("the port is free again");
    tokio::spawn(async move { axum::serve(listener, router).await });
    within(task).await.expect("no panic").expect("the spool runs");
    assert_eq!(epochs(&server), [0, 1, 2]);
}

#[tokio::test]
async fn stopping_cuts_a_long_wait_short() {
    let (server, address) = Server::start(vec![status(401)]).await;
    let Shipping { mut intake, task, metrics, stop, _folder, .. } =
        ship(&settings(address), Duration::from_mins(10));
    intake.put(vec![batch(0)]).await.expect("safe");
    drop(intake);
    until(|| metrics.misconfigured.get() == 1).await;
    stop.send_replace(true);
    within(task).await.expect("no panic").expect("the spool runs");
    assert_eq!(server.bodies().len(), 2);
}

#[tokio::test]
async fn an_answer_tells_the_clocks_apart() {
    let late = (StatusCode::OK, [(header::DATE, "Wed, 21 Oct 2015 07:28:00 GMT")]).into_response();
    let (_, _, metrics, _) = past(vec![status(500), Script::Answer(late)]).await;
    // The last answer has today's date.
    assert!(metrics.clock_skew.get().abs() < 5.0, "{}", metrics.clock_skew.get());
}

/// S7: the breaker opens, probes, and closes by itself. What has piled up meanwhile goes after what is live:
/// the probe is the newest epoch.
#[tokio::test]
async fn after_an_outage_live_batches_go_first_and_the_backlog_follows_in_order() {
    let (server, address) = Server::start((0..10_000).map(|_| status(503)).collect()).await;
    let pacing = Pacing { breaker_failures: 3, ..pacing(Duration::from_millis(400)) };
    let Shipping { spool, mut intake, task, metrics, status, stop: _stop, _folder } =
        ship_from(TempDir::new().expect("a folder"), &settings(address), pacing);
    intake.put(vec![batch(0)]).await.expect("safe");
    until(|| metrics.breaker_openings.get() == 1).await;
    assert_ne!(status.borrow().breaker, BreakerState::Closed);
    for number in 1..10 {
        intake.put(vec![batch(number)]).await.expect("safe");
    }
    until(|| spool.standing().newest == 9).await;
    // One may be on its way.
    let before = server.bodies().len() + 1;
    until(|| server.bodies().len() >= before + 2).await;
    assert!(epochs(&server)[before..].iter().all(|epoch| *epoch == 9), "the probe is the newest");
    server.script.lock().expect("no panic").clear();
    drop(intake);
    within(task).await.expect("no panic").expect("the spool runs");
    let taken = epochs(&server);
    assert_eq!(taken[taken.len() - 10..], [9, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!((metrics.breaker_state.get(), metrics.shipped_batches.get()), (0, 10));
    assert_eq!(status.borrow().breaker, BreakerState::Closed);
}

/// The rate of the backlog is a bound: what is live passes it by.
#[tokio::test]
async fn live_batches_do_not_wait_for_the_backlog() {
    let folder = TempDir::new().expect("a folder");
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    let place = Settings { folder: folder.path().to_owned(), bounds: bounds() };
    let (spool, _) = Spool::open(place, metrics).expect("it opens");
    let mut intake = spool.intake();
    for number in 0..50 {
        intake.put(vec![batch(number)]).await.expect("safe");
    }
    spool.close().await;

    let (server, address) = Server::start(Vec::new()).await;
    // One of the backlog at once, the next in an hour.
    let pacing = Pacing { backlog_per_second: 1.0 / 3_600.0, ..pacing(Duration::from_millis(50)) };
    let Shipping { mut intake, metrics, stop: _stop, .. } = ship_from(folder, &settings(address), pacing);
    until(|| metrics.shipped_batches.get() == 1).await;
    for number in 50..60 {
        intake.put(vec![batch(number)]).await.expect("safe");
        until(|| metrics.shipped_batches.get() == number - 48).await;
    }
    assert_eq!(epochs(&server), [0, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59]);
}

/// I5 from the sender's side: a clear, final answer. The batches stay, and the probe is slow.
#[tokio::test]
async fn a_revoked_sensor_stops_trying_and_says_what_to_do() {
    let problem = r#"{"type":"urn:weir:problem:sensor-revoked","detail":"this sensor was revoked"}"#;
    for answer in [(StatusCode::UNAUTHORIZED, problem), (StatusCode::GONE, "{}")] {
        let (server, address) = Server::start(vec![Script::Answer(answer.into_response())]).await;
        let Shipping { spool, mut intake, metrics, status, stop: _stop, _folder, .. } =
            ship(&settings(address), Duration::from_mins(1));
        intake.put(vec![batch(0)]).await.expect("safe");
        until(|| metrics.revoked.get() == 1).await;
        intake.put(vec![batch(1)]).await.expect("safe");
        assert_eq!((server.bodies().len(), spool.standing().batches), (1, 2), "no second attempt");
        assert!(status.borrow().remedy.is_some_and(|remedy| remedy.contains("enrol it anew")));
        assert_eq!(metrics.refused_batches.get(), 0);
    }
}

/// S9: what cannot be delivered is on disk: the end does not wait for a control plane that is away.
#[tokio::test]
async fn the_end_does_not_wait_for_a_control_plane_that_is_away() {
    let Shipping { spool, mut intake, task, stop, _folder, .. } =
        ship(&settings(([127, 0, 0, 1], 1).into()), Duration::from_mins(10));
    for number in 0..3 {
        intake.put(vec![batch(number)]).await.expect("safe");
    }
    stop.send_replace(true);
    drop(intake);
    within(task).await.expect("no panic").expect("the spool runs");
    assert_eq!(spool.standing().batches, 3);
}

#[tokio::test]
async fn a_repetition_is_told_from_a_delivery() {
    let answer = |status: &'static str| Script::Answer((StatusCode::OK, status).into_response());
    let (_, spool, metrics, _folder) =
        past(vec![answer(r#"{"status":"stored"}"#), answer(r#"{"status":"duplicate"}"#)]).await;
    assert_eq!((metrics.shipped_batches.get(), metrics.duplicate_batches.get()), (3, 1));
    let ledger = spool.ledger(weir_sensor::spool::Range::default()).await.expect("it reads");
    assert_eq!((ledger.shipped, ledger.duplicate), (200, 100));
}

#[test]
fn wrong_destinations_are_named() {
    let settings = |url: &str| ControlPlane { url: url.to_owned(), ..settings(([127, 0, 0, 1], 1).into()) };
    let error = |settings: ControlPlane| {
        Client::new(&settings, Tracer::off()).err().expect("it is wrong").to_string()
    };
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
    assert!(Client::new(&settings("https://weir.example.org/base"), Tracer::off()).is_ok());
}
