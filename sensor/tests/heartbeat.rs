//! U6, U4: heartbeats, and the credential that is renewed in time, against a control plane that fails.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use weir_sensor::config::{ControlPlane, Period};
use weir_sensor::control::{Credential, Heart, Renewal};
use weir_sensor::metrics::Metrics;
use weir_sensor::ship::Backoff;
use weir_sensor::spool::Standing;

/// A control plane that knows of heartbeats and renewals.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    /// The credential and what was told, of each heartbeat.
    beats: Vec<(String, Value)>,
    /// Renewals that are still to fail.
    failures: u32,
    renewals: u32,
    /// The first credential is over.
    refuse: bool,
}

fn token(headers: &HeaderMap) -> String {
    headers[header::AUTHORIZATION].to_str().expect("text").trim_start_matches("Bearer ").to_owned()
}

async fn beat(State(server): State<Server>, headers: HeaderMap, Json(told): Json<Value>) -> Response {
    let mut seen = server.0.lock().expect("no panic");
    let token = token(&headers);
    seen.beats.push((token.clone(), told));
    if token == "first" && seen.refuse {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let credential = match token.as_str() {
        "first" => json!({"id": 1, "age_s": 80.0, "ends_in_s": 20.0}),
        "by-hand" => json!({"id": 9, "age_s": 0.0, "ends_in_s": 100.0}),
        _ => json!({"id": 2, "age_s": 0.0, "ends_in_s": 100.0}),
    };
    Json(json!({"credential": credential, "from_the_future": {"a": 1}})).into_response()
}

async fn renew(State(server): State<Server>, headers: HeaderMap) -> Response {
    let mut seen = server.0.lock().expect("no panic");
    assert_eq!(token(&headers), "first", "a credential is renewed with itself");
    seen.renewals += 1;
    if seen.failures > 0 {
        seen.failures -= 1;
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    Json(json!({"token": "second", "id": 2})).into_response()
}

struct Beating {
    server: Server,
    credential: Credential,
    metrics: Arc<Metrics>,
    file: std::path::PathBuf,
    _stop: watch::Sender<bool>,
    _standing: watch::Sender<Standing>,
    _folder: TempDir,
}

async fn beating(server: Server) -> Beating {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let router = Router::new()
        .route("/api/v1/sensor/heartbeat", post(beat))
        .route("/api/v1/sensor/credentials", post(renew))
        .with_state(server.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "first\n").expect("it is written");
    let settings = ControlPlane {
        url: format!("http://{address}"),
        token: None,
        token_file: Some(file.clone()),
        timeout: Period(Duration::from_secs(10)),
        identity_file: None,
        ca_file: None,
    };
    let credential = Credential::open(&settings).expect("there is a token");
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    let renewal = Renewal::new(66, Backoff::new(Duration::from_millis(1), Duration::from_millis(5)));
    let standing = Standing { batches: 7, capacity_bytes: 100, ..Standing::default() };
    let (standing, spool) = watch::channel(standing);
    let interval = Duration::from_millis(20);
    let shared = Arc::clone(&metrics);
    let heart = Heart::new(&settings, credential.clone(), interval, renewal, spool, shared).expect("a heart");
    let (stop, stopping) = watch::channel(false);
    tokio::spawn(heart.run(stopping));
    Beating { server, credential, metrics, file, _stop: stop, _standing: standing, _folder: folder }
}

impl Beating {
    async fn until(&self, what: &str, holds: impl Fn(&Seen) -> bool) {
        let deadline = Instant::now() + Duration::from_mins(1);
        while !holds(&self.server.0.lock().expect("no panic")) {
            assert!(Instant::now() < deadline, "{what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn renewals(&self, result: &str) -> u64 {
        self.metrics.credential_renewals.with_label_values(&[result]).get()
    }
}

#[tokio::test]
async fn u6_a_heartbeat_says_how_the_sensor_stands() {
    let beating = beating(Server::default()).await;
    beating.until("a heartbeat", |seen| !seen.beats.is_empty()).await;
    let told = beating.server.0.lock().expect("no panic").beats[0].1.clone();
    assert_eq!(
        (&told["version"], &told["spool"]["batches"], &told["ledger"]["gaps"]),
        (&json!(env!("CARGO_PKG_VERSION")), &json!(7), &json!(0)),
        "{told}"
    );
}

/// U4: it is renewed before its end, by whoever has it, once.
#[tokio::test]
async fn u4_a_credential_is_renewed_in_time_and_shown_by_all_from_then_on() {
    let beating = beating(Server::default()).await;
    beating
        .until("the next one is used", |seen| seen.beats.iter().filter(|(it, _)| it == "second").count() > 3)
        .await;
    assert_eq!(std::fs::read_to_string(&beating.file).expect("it is there"), "second\n");
    assert_eq!(beating.credential.header(), "Bearer second", "delivery shows it as well");
    assert_eq!((beating.server.0.lock().expect("no panic").renewals, beating.renewals("done")), (1, 1));
    assert!(beating.metrics.credential_expiry.get() > 1.6e9);
}

/// U4: a renewal that fails costs nothing but its attempts.
#[tokio::test]
async fn u4_a_renewal_that_fails_is_repeated_while_the_old_credential_works_on() {
    let server = Server::default();
    server.0.lock().expect("no panic").failures = 2;
    let beating = beating(server).await;
    beating
        .until("the next one is used", |seen| seen.beats.last().is_some_and(|(it, _)| it == "second"))
        .await;
    assert_eq!((beating.renewals("failed"), beating.renewals("done")), (2, 1));
    assert_eq!(std::fs::read_to_string(&beating.file).expect("it is there"), "second\n");
}

/// Somebody has run `weir-sensor rotate`: theirs is taken, and none is asked for.
#[tokio::test]
async fn u4_a_token_that_was_put_there_by_hand_is_taken() {
    let server = Server::default();
    server.0.lock().expect("no panic").refuse = true;
    let beating = beating(server).await;
    std::fs::write(&beating.file, "by-hand\n").expect("it is written");
    beating.until("it is used", |seen| seen.beats.last().is_some_and(|(it, _)| it == "by-hand")).await;
}
