//! Alerts reach their receivers: once each, in order, signed, through failures; and go nowhere that was not allowed.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::Method;
use serde_json::{Value, json};
use weir_control_plane::config::Config;
use weir_testbed::weir::{ControlPlane, Place};

use crate::alerts::seconds_from_now;
use crate::support::{ADMIN_TOKEN, Plane, eventually};

const SECRET: &str = "a secret that signs what is sent";
const NULL: &Value = &Value::Null;

/// A request as the receiver saw it.
#[derive(Clone, Debug)]
struct Seen {
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

/// A receiver of the test's own, on loopback.
#[derive(Clone, Default)]
struct Hook {
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Answers of the next requests; 200 after them.
    answers: Arc<Mutex<VecDeque<u16>>>,
}

impl Hook {
    async fn start() -> (Self, String) {
        let hook = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let app = axum::Router::new().fallback(receive).with_state(hook.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (hook, url)
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("not poisoned").clone()
    }

    fn bodies(&self) -> Vec<Value> {
        self.seen().iter().map(|seen| serde_json::from_slice(&seen.body).expect("JSON")).collect()
    }

    fn answer(&self, statuses: &[u16]) {
        self.answers.lock().expect("not poisoned").extend(statuses);
    }
}

async fn receive(State(hook): State<Hook>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let status = hook.answers.lock().expect("not poisoned").pop_front().unwrap_or(200);
    hook.seen.lock().expect("not poisoned").push(Seen { path: uri.path().to_owned(), headers, body });
    let answer = match status {
        0 => {
            std::future::pending::<()>().await;
            String::new()
        }
        1 => "x".repeat(1 << 20),
        _ => String::new(),
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    if status.is_redirection() {
        return (status, [("location", "/elsewhere")], answer).into_response();
    }
    (status, answer).into_response()
}

/// With a folder of secrets; loopback is allowed.
async fn plane(change: impl FnOnce(&mut Config)) -> (Plane<'static>, tempfile::TempDir) {
    let secrets = tempfile::tempdir().expect("a folder");
    std::fs::write(secrets.path().join("hook"), format!("{SECRET}\n")).expect("written");
    let plane = Plane::start_with(|config| {
        config.alerts.secrets_dir = Some(secrets.path().to_owned());
        config.outbound.allow = vec!["127.0.0.0/8".to_owned()];
        change(config);
    })
    .await;
    (plane, secrets)
}

async fn receiver(plane: &Plane<'_>, name: &str, target: Value) -> Value {
    let body = json!({"name": name, "target": target});
    plane.ok(Method::POST, "/api/v1/alerts/receivers", &body).await["id"].clone()
}

/// A rule that holds at once, and until somebody ends it.
async fn rule(plane: &Plane<'_>, receivers: &[Value]) -> i64 {
    let condition = json!({"kind": "absence", "window_s": 60});
    plane.rule(json!({"name": "absent", "condition": condition, "summary": "Nothing comes", "receivers": receivers})).await
}

/// What failed is due again, breakers are closed, and all of it is tried.
async fn again(plane: &Plane<'_>) {
    plane.sql("UPDATE alert_delivery SET next_at = now(); UPDATE alert_receiver SET open_until = NULL");
    plane.look(0).await;
}

async fn log(plane: &Plane<'_>) -> Vec<(String, String, i64)> {
    let page = plane.json("/api/v1/alerts/deliveries").await;
    let entry = |item: &Value| {
        let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
        (
            format!("{} {}", text("status"), text("state")),
            text("last_error"),
            item["attempts"].as_i64().expect("a number"),
        )
    };
    page["items"].as_array().expect("items").iter().rev().map(entry).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_told_once_that_an_alert_fires_and_once_that_it_is_over_signed() {
    let (plane, _secrets) = plane(|_| {}).await;
    let (hook, url) = Hook::start().await;
    let target = json!({"kind": "webhook", "url": format!("{url}/weir"), "signing_secret": "hook"});
    let id = receiver(&plane, "on-call", target).await;
    let rule = rule(&plane, &[id]).await;
    plane.look(0).await;
    plane.look(0).await;
    assert_eq!(hook.seen().len(), 1, "it goes on, which is no news");
    let seen = &hook.seen()[0];
    let header = |name: &str| seen.headers[name].to_str().expect("text").to_owned();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).expect("a key");
    mac.update(format!("{}.", header("x-weir-timestamp")).as_bytes());
    mac.update(&seen.body);
    let signature = header("x-weir-signature");
    let hex = signature.strip_prefix("v1=").expect("the version");
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
    mac.verify_slice(&bytes).expect("it is signed");
    assert_eq!((seen.path.as_str(), header("content-type").as_str()), ("/weir", "application/json"));
    let body = &hook.bodies()[0];
    assert_eq!(body["delivery"], json!(header("idempotency-key")));
    assert_eq!(
        (&body["status"], &body["rule"], &body["receiver"]),
        (&json!("firing"), &json!("absent"), &json!("on-call"))
    );
    assert_eq!(body["alerts"][0]["summary"], json!("Nothing comes"));

    plane.ok(Method::PATCH, &format!("/api/v1/alerts/rules/{rule}"), &json!({"enabled": false})).await;
    plane.look(0).await;
    plane.look(0).await;
    let bodies = hook.bodies();
    assert_eq!(bodies.len(), 2);
    assert_eq!(
        (&bodies[1]["status"], &bodies[1]["alerts"][0]["id"]),
        (&json!("resolved"), &body["alerts"][0]["id"])
    );
    let one = |status: &str| (format!("{status} delivered"), String::new(), 1);
    assert_eq!(log(&plane).await, [one("firing"), one("resolved")]);
    assert!(
        plane
            .metrics()
            .await
            .contains("weir_alert_deliveries_total{kind=\"webhook\",outcome=\"delivered\"} 2")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alertmanager_gets_alerts_of_its_api_and_is_told_again() {
    let (plane, _secrets) = plane(|_| {}).await;
    let (hook, url) = Hook::start().await;
    let id = receiver(
        &plane,
        "am",
        json!({"kind": "alertmanager", "url": format!("{url}/"), "bearer_secret": "hook"}),
    )
    .await;
    let rule = rule(&plane, &[id]).await;
    plane.look(0).await;
    plane.sql("UPDATE alert_notice SET told_at = now() - interval '60 s'");
    plane.look(0).await;
    plane.ok(Method::DELETE, &format!("/api/v1/alerts/rules/{rule}"), NULL).await;
    plane.look(0).await;
    let (seen, bodies) = (hook.seen(), hook.bodies());
    assert_eq!(seen.len(), 3, "again after a minute, and its end though the rule is gone");
    assert!(seen.iter().all(|seen| seen.path == "/api/v2/alerts"));
    assert_eq!(seen[0].headers["authorization"], format!("Bearer {SECRET}"));
    let labels = json!({"alertname": "absent", "rule": "absent", "severity": "warning"});
    assert_eq!(bodies[0][0]["labels"], labels);
    assert_eq!(bodies[0][0]["startsAt"], bodies[2][0]["startsAt"]);
    let ends = |body: &Value| {
        body[0]["endsAt"].as_str().expect("a time").parse::<jiff::Timestamp>().expect("a time")
    };
    assert!(ends(&bodies[0]) > seconds_from_now(60), "it lasts until the next word is due, and longer");
    assert!(ends(&bodies[2]) <= seconds_from_now(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_sent_again_the_same_and_in_order_and_delays_no_other_receiver() {
    let (plane, _secrets) = plane(|config| config.outbound.timeout_ms = 500).await;
    let ((bad, bad_url), (good, good_url)) = (Hook::start().await, Hook::start().await);
    let first = receiver(&plane, "bad", json!({"kind": "webhook", "url": bad_url})).await;
    let second = receiver(&plane, "good", json!({"kind": "webhook", "url": good_url})).await;
    // An error, a redirect, an answer without an end, one that is too long, and none at all.
    bad.answer(&[500, 302, 1, 0, 503]);
    let rule = rule(&plane, &[first.clone(), second]).await;
    plane.look(0).await;
    plane.ok(Method::PATCH, &format!("/api/v1/alerts/rules/{rule}"), &json!({"enabled": false})).await;
    plane.look(0).await;
    assert_eq!(
        good.bodies().iter().map(|body| body["status"].clone()).collect::<Vec<_>>(),
        ["firing", "resolved"]
    );
    assert_eq!(bad.seen().len(), 1, "its time has not come again");
    for expected in [
        "the receiver answered 500",
        "answered 302",
        "longer than 4096 bytes",
        "no answer within 500 ms",
        "answered 503",
    ] {
        let error = plane.sql("SELECT last_error FROM alert_delivery WHERE last_error IS NOT NULL");
        assert!(error.contains(expected), "{expected}: {error}");
        if expected != "answered 503" {
            again(&plane).await;
        }
    }
    let shown = plane.json("/api/v1/alerts/receivers").await["items"][0].clone();
    assert_eq!((&shown["failures"], &shown["waiting"]), (&json!(5), &json!(2)));
    assert!(shown["open_until"].is_string(), "after five failures its breaker is open: {shown}");
    plane.sql("UPDATE alert_delivery SET next_at = now()");
    plane.look(0).await;
    assert_eq!(bad.seen().len(), 5, "nothing is sent through an open breaker");
    again(&plane).await;
    let (seen, bodies) = (bad.seen(), bad.bodies());
    assert_eq!(seen.len(), 7);
    assert!(seen[..6].iter().all(|one| one.body == seen[0].body
        && one.headers["idempotency-key"] == seen[0].headers["idempotency-key"]));
    assert!(seen.iter().all(|one| one.path == "/"), "no redirect is followed");
    assert_eq!((&bodies[5]["status"], &bodies[6]["status"]), (&json!("firing"), &json!("resolved")));
    let receiver = plane.json("/api/v1/alerts/receivers").await["items"][0].clone();
    assert_eq!(
        (&receiver["failures"], &receiver["open_until"], &receiver["waiting"]),
        (&json!(0), NULL, &json!(0))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_is_given_up() {
    let (plane, _secrets) = plane(|_| {}).await;
    let (hook, url) = Hook::start().await;
    hook.answer(&[500, 500]);
    let id = receiver(&plane, "hook", json!({"kind": "webhook", "url": url})).await;
    rule(&plane, &[id]).await;
    plane.look(0).await;
    plane.sql("UPDATE alert_delivery SET created_at = now() - interval '2 days'");
    again(&plane).await;
    assert_eq!(
        log(&plane).await,
        [("firing given_up".to_owned(), "the receiver answered 500".to_owned(), 2)]
    );
    again(&plane).await;
    assert_eq!(hook.seen().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn i6_targets_inside_are_refused_unless_they_are_allowed() {
    let (plane, _secrets) = plane(|config| config.outbound.allow = Vec::new()).await;
    let (hook, url) = Hook::start().await;
    let port = url.rsplit(':').next().expect("a port").to_owned();
    let hosts = ["127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]", "0.0.0.0"];
    let mut ids = Vec::new();
    for (number, host) in hosts.iter().enumerate() {
        let target = json!({"kind": "webhook", "url": format!("http://{host}:{port}/")});
        ids.push(receiver(&plane, &format!("inside-{number}"), target).await);
    }
    rule(&plane, &ids).await;
    plane.look(0).await;
    let log = log(&plane).await;
    assert_eq!(log.len(), hosts.len());
    for (state, error, _) in log {
        assert_eq!(state, "firing waiting");
        assert!(error.contains("`outbound.allow`"), "{error}");
    }
    assert_eq!(hook.seen().len(), 0);
    for url in ["file:///etc/passwd", "ftp://a.example/", "http://user:secret@a.example/", "http://"] {
        let body = json!({"name": "wrong", "target": {"kind": "webhook", "url": url}});
        let (status, problem) =
            plane.call(Method::POST, "/api/v1/alerts/receivers", ADMIN_TOKEN, &body).await;
        assert_eq!((status, problem["errors"][0]["field"].as_str()), (400, Some("target.url")), "{url}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i6_secrets_are_read_from_their_folder_and_are_nowhere_else() {
    let (plane, secrets) = plane(|_| {}).await;
    let (hook, url) = Hook::start().await;
    std::fs::write(secrets.path().join("address"), format!("{url}/token-of-the-address")).expect("written");
    let known = receiver(
        &plane,
        "known",
        json!({"kind": "webhook", "url_secret": "address", "signing_secret": "hook"}),
    )
    .await;
    let missing = receiver(&plane, "missing", json!({"kind": "webhook", "url_secret": "nothing"})).await;
    for name in ["../hook", "a/b", "..", "/etc/passwd", ""] {
        let body = json!({"name": "wrong", "target": {"kind": "webhook", "url_secret": name}});
        assert_eq!(
            plane.call(Method::POST, "/api/v1/alerts/receivers", ADMIN_TOKEN, &body).await.0,
            400,
            "{name}"
        );
    }
    rule(&plane, &[known.clone(), missing]).await;
    hook.answer(&[500]);
    plane.look(0).await;
    assert_eq!(
        hook.seen().iter().map(|seen| seen.path.as_str()).collect::<Vec<_>>(),
        ["/token-of-the-address"]
    );
    let errors: Vec<String> = log(&plane).await.into_iter().map(|(_, error, _)| error).collect();
    assert!(
        errors.iter().any(|error| error.starts_with("the secret `nothing` cannot be read")),
        "{errors:?}"
    );
    plane.ok(Method::DELETE, &format!("/api/v1/alerts/receivers/{known}"), NULL).await;
    let tables = ["alert_receiver", "alert_delivery", "audit", "event", "event_pending"];
    let mut everything: String = tables
        .iter()
        .map(|table| plane.sql(&format!("SELECT string_agg(t::text, ' ') FROM {table} AS t")))
        .collect();
    for path in ["receivers", "deliveries"] {
        everything += &plane.json(&format!("/api/v1/alerts/{path}")).await.to_string();
    }
    for secret in [SECRET, "token-of-the-address"] {
        assert!(!everything.contains(secret), "{secret}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_silenced_is_told_when_the_silence_ends() {
    let (plane, _secrets) = plane(|_| {}).await;
    let (hook, url) = Hook::start().await;
    let id = receiver(&plane, "hook", json!({"kind": "webhook", "url": url})).await;
    rule(&plane, &[id]).await;
    let silence = json!({"kind": "maintenance", "matchers": [{"label": "rule", "value": "abs*"}, {"label": "severity", "value": "warning"}],
                         "ends_at": seconds_from_now(3_600).to_string(), "comment": "planned"});
    let silence = plane.ok(Method::POST, "/api/v1/alerts/silences", &silence).await["id"].clone();
    plane.look(0).await;
    assert_eq!(hook.seen().len(), 0);
    let alert = plane.json("/api/v1/alerts").await["items"][0].clone();
    assert_eq!((&alert["state"], &alert["silenced"]), (&json!("firing"), &json!(true)));
    plane.ok(Method::DELETE, &format!("/api/v1/alerts/silences/{silence}"), NULL).await;
    plane.look(0).await;
    assert_eq!(hook.bodies()[0]["status"], "firing");
}

/// An instance is killed when the receiver has the alert and the log has not: the other one tells it again, under the
/// key by which a receiver drops what it had.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_instance_was_killed_over_another_sends_again_under_the_same_key() {
    let (plane, _secrets) = plane(|_| {}).await;
    let (hook, url) = Hook::start().await;
    let id = receiver(&plane, "on-call", json!({"kind": "webhook", "url": url})).await;
    rule(&plane, &[id]).await;
    let program = PathBuf::from(env!("CARGO_BIN_EXE_weir-control-plane"));
    let database = plane.postgres.database_url(&plane.database);
    let doomed = tokio::task::spawn_blocking(move || {
        let doomed = ControlPlane::start(program, &database, Place::here()).expect("it starts");
        doomed.kill().expect("it is killed");
        let config = doomed.folder().join("config.toml");
        let text = std::fs::read_to_string(&config).expect("it is there");
        std::fs::write(&config, text + "[outbound]\nallow = [\"127.0.0.0/8\"]\n").expect("it is written");
        doomed.start_again().expect("it starts again");
        doomed
    });
    let doomed = doomed.await.expect("it is waited for");
    // It hears, and does not answer.
    hook.answer(&[0]);
    for job in ["alert-rules", "alert-deliveries"] {
        let url = format!("{}/api/v1/jobs/{job}/runs", doomed.url());
        let asked = plane.http.post(url).bearer_auth(doomed.admin_token()).send().await.expect("an answer");
        assert!(asked.status().is_success(), "{}", asked.status());
        let queued = format!("SELECT count(*) FROM job WHERE name = '{job}' AND requested_at IS NOT NULL");
        if job == "alert-rules" {
            eventually("the rules are looked at", || async { plane.sql(&queued) == "0" }).await;
        }
    }
    eventually("the receiver has it", || async { hook.seen().len() == 1 }).await;
    tokio::task::spawn_blocking(move || doomed.kill()).await.expect("no panic").expect("it is killed");
    assert_eq!(log(&plane).await, [("firing waiting".to_owned(), String::new(), 1)]);
    // As if its lease were over.
    plane.sql("UPDATE job SET held_until = now() WHERE holder IS NOT NULL");
    again(&plane).await;
    let seen = hook.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].headers["idempotency-key"], seen[1].headers["idempotency-key"]);
    assert_eq!(seen[0].body, seen[1].body);
    assert_eq!(log(&plane).await, [("firing delivered".to_owned(), String::new(), 2)]);
    again(&plane).await;
    assert_eq!(hook.seen().len(), 2, "once is enough");
}

/// Another address of a receiver is tried at once, and has what waited.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_corrected_gets_what_waited() {
    let (plane, _secrets) = plane(|_| {}).await;
    let (wrong, wrong_url) = Hook::start().await;
    let (right, right_url) = Hook::start().await;
    wrong.answer(&[500; 5]);
    let id = receiver(&plane, "on-call", json!({"kind": "webhook", "url": wrong_url})).await;
    rule(&plane, std::slice::from_ref(&id)).await;
    for _ in 0..5 {
        again(&plane).await;
    }
    let path = format!("/api/v1/alerts/receivers/{id}");
    let shown = plane.json("/api/v1/alerts/receivers").await["items"][0].clone();
    assert_eq!((shown["failures"].as_i64(), shown["open_until"].is_string()), (Some(5), true), "{shown}");
    let body = json!({"target": {"kind": "webhook", "url": right_url}, "repeat_s": 60});
    let changed = plane.ok(Method::PATCH, &path, &body).await;
    assert_eq!(
        (&changed["name"], &changed["repeat_s"], &changed["failures"], &changed["open_until"]),
        (&json!("on-call"), &json!(60), &json!(0), NULL)
    );
    plane.look(0).await;
    assert_eq!((wrong.seen().len(), right.seen().len()), (5, 1));
    let body = json!({"repeat_s": 1, "name": "a b"});
    let (status, problem) = plane.call(Method::PATCH, &path, ADMIN_TOKEN, &body).await;
    assert_eq!((status, problem["errors"].as_array().map(Vec::len)), (400, Some(2)), "{problem}");
    let nobody = "/api/v1/alerts/receivers/99";
    assert_eq!(plane.call(Method::PATCH, nobody, ADMIN_TOKEN, &json!({})).await.0, 404);
}
