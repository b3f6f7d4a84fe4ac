//! A5: whatever is refused, and wherever on its way, a page in a browser can read why: the origin that is allowed stands on
//! every refusal, also on those that no handler makes.
//!
//! The walk ends with a look at the document: of its categories only `upstream` is missing here, since no request waits
//! for anybody but Postgres and Redis, and Redis has a stand-in.

use std::collections::BTreeSet;

use reqwest::{Method, Response};
use serde_json::{Value, json};
use weir_control_plane::auth::Role;
use weir_control_plane::config::Rate;
use weir_control_plane::store::{Class, Isolation, Lease};

use crate::people::PASSWORD;
use crate::support::{ADMIN_TOKEN, Plane, batch, eventually, mixed_flows, recent_minute_ns};

const ORIGIN: &str = "https://weir.example";

/// Holds a refusal against what it must be; gives the problem.
async fn check(response: Response, (status, category, slug): (u16, &str, &str)) -> Value {
    let headers = response.headers().clone();
    assert_eq!(
        (response.status().as_u16(), &headers["content-type"]),
        (status, &"application/problem+json".parse().expect("a value")),
        "{slug}"
    );
    assert_eq!(headers["access-control-allow-origin"], ORIGIN, "{status} {slug}");
    let exposed = headers["access-control-expose-headers"].to_str().expect("text");
    for header in ["x-request-id", "retry-after"] {
        assert!(exposed.contains(header), "{status} {slug}: {exposed}");
    }
    let problem: Value = response.json().await.expect("a problem");
    assert_eq!(
        (problem["status"].as_u64(), problem["category"].as_str(), problem["type"].as_str()),
        (Some(status.into()), Some(category), Some(format!("urn:weir:problem:{slug}").as_str())),
        "{problem}"
    );
    assert_eq!(headers["x-request-id"].to_str().ok(), problem["request_id"].as_str());
    problem
}

async fn ask(plane: &Plane<'_>, method: Method, path: &str, token: &str, body: &str) -> Response {
    let request = plane.request(method, path, token).header("origin", ORIGIN);
    let request = request.header("content-type", "application/json").body(body.to_owned());
    request.send().await.expect("an answer")
}

async fn get(plane: &Plane<'_>, path: &str) -> Response {
    ask(plane, Method::GET, path, ADMIN_TOKEN, "").await
}

/// Keeps the ledger of sensors from being read, until it is finished.
async fn locked<'a>(plane: &'a Plane<'_>) -> Lease<'a> {
    let lock =
        plane.pool().begin(Class::Admin, Isolation::ReadCommitted, "test").await.expect("a connection");
    lock.client().batch_execute("LOCK TABLE point_total").await.expect("it is locked");
    lock
}

const LEDGER: &str = "/api/v1/sensors/edge-1/ledger";
const WAITING: &str =
    "SELECT count(*) FROM pg_locks WHERE relation = 'point_total'::regclass AND NOT granted";

#[tokio::test(flavor = "multi_thread")]
async fn a5_a_refusal_of_every_category_reaches_a_browser_with_its_problem() {
    let mut seen = BTreeSet::new();
    by_what_was_asked(&mut seen).await;
    by_load_and_deadlines(&mut seen).await;
    by_faults(&mut seen).await;
    seen.insert("upstream".to_owned());
    let document = serde_json::to_value(weir_control_plane::api::document()).expect("JSON");
    let known = document["components"]["schemas"]["Category"]["enum"].as_array().expect("a list");
    let known: BTreeSet<String> =
        known.iter().map(|name| name.as_str().expect("a name").to_owned()).collect();
    assert_eq!(seen, known);
}

/// What the caller can do something about.
async fn by_what_was_asked(seen: &mut BTreeSet<String>) {
    let plane = Plane::start_with(|config| {
        config.api.cors_origins = vec![ORIGIN.to_owned()];
        config.limits.query = Rate { per_minute: 1, burst: 20 };
    })
    .await;
    plane.user("vera", Role::Viewer).await;
    let viewer = plane.log_in("vera").await.access;
    let sensor = plane.sensor("edge-1").await;
    let user = json!({"name": "vera", "role": "viewer", "password": PASSWORD}).to_string();
    let (long, big) = (format!("/api/v1/flows?src={}", "1".repeat(10_000)), "x".repeat(20_000));
    let (get, post) = (Method::GET, Method::POST);
    let cases = [
        ((400, "validation", "invalid-parameters"), &get, "/api/v1/flows?limit=0", ADMIN_TOKEN, ""),
        ((401, "authentication", "invalid-token"), &get, "/api/v1/flows", "nobody", ""),
        (
            (401, "authentication", "wrong-credentials"),
            &post,
            "/api/v1/auth/login",
            "",
            r#"{"name": "x", "password": "y"}"#,
        ),
        ((403, "authorization", "forbidden"), &get, "/api/v1/users", &viewer, ""),
        ((404, "not_found", "not-found"), &get, "/api/v1/sensors/nobody", ADMIN_TOKEN, ""),
        ((404, "not_found", "not-found"), &get, "/nowhere", ADMIN_TOKEN, ""),
        ((405, "validation", "method-not-allowed"), &Method::PUT, "/api/v1/flows", ADMIN_TOKEN, ""),
        ((409, "conflict", "name-taken"), &post, "/api/v1/users", ADMIN_TOKEN, &user),
        ((413, "validation", "body-too-large"), &post, "/api/v1/users", ADMIN_TOKEN, &big),
        ((414, "validation", "bad-request"), &get, &long, ADMIN_TOKEN, ""),
        ((415, "validation", "unsupported-media-type"), &post, "/api/v1/ingest", &sensor, ""),
    ];
    for (expected, method, path, token, body) in cases {
        check(ask(&plane, method.clone(), path, token, body).await, expected).await;
        seen.insert(expected.1.to_owned());
    }
    let odd = plane.request(get, "/api/v1/sensors", ADMIN_TOKEN).header("origin", ORIGIN);
    let odd = odd.header("x-odd", "a".repeat(20_000)).send().await.expect("an answer");
    check(odd, (431, "validation", "bad-request")).await;
    let mut wrong = batch(1, 0, recent_minute_ns(), mixed_flows());
    wrong.parts = 0;
    let sent = plane
        .request(post, "/api/v1/ingest", &sensor)
        .header("origin", ORIGIN)
        .header("content-type", weir_wire::CONTENT_TYPE)
        .header("content-encoding", weir_wire::CONTENT_ENCODING)
        .body(weir_wire::encode(&wrong).expect("it encodes"));
    check(sent.send().await.expect("an answer"), (422, "validation", "invalid-batch")).await;
    let limited = loop {
        let response = self::get(&plane, "/api/v1/flows").await;
        if response.status() != 200 {
            break response;
        }
    };
    check(limited, (429, "rate_limit", "rate-limited")).await;
    seen.insert("rate_limit".to_owned());
}

/// What is answered in front of a handler, or instead of one that does not come back.
async fn by_load_and_deadlines(seen: &mut BTreeSet<String>) {
    let plane = Plane::start_with(|config| {
        config.api.cors_origins = vec![ORIGIN.to_owned()];
        config.api.max_concurrent = 1;
        config.api.queue_timeout_ms = 50;
        config.database.statement_timeouts_ms.query = 3_000;
    })
    .await;
    plane.sensor("edge-1").await;
    // One waits for Postgres until its deadline, and another one for the place that it holds.
    let lock = locked(&plane).await;
    let held = get(&plane, LEDGER);
    let shed = async {
        eventually("the question waits", || async { plane.sql(WAITING) == "1" }).await;
        get(&plane, "/api/v1/sensors").await
    };
    let (held, shed) = tokio::join!(held, shed);
    assert!(shed.headers().contains_key("retry-after"));
    check(shed, (503, "rate_limit", "busy")).await;
    check(held, (504, "database", "database-timeout")).await;
    lock.finish(Ok(())).await.expect("it is unlocked");
    seen.insert("database".to_owned());

    let plane = Plane::start_with(|config| {
        config.api.cors_origins = vec![ORIGIN.to_owned()];
        config.api.request_timeout_ms = 3_000;
        config.database.pool_size = 2;
        config.database.acquire_timeout_ms = 200;
    })
    .await;
    plane.sensor("edge-1").await;
    let lock = locked(&plane).await;
    check(get(&plane, LEDGER).await, (408, "validation", "bad-request")).await;
    eventually("its statement is over", || async { plane.sql(WAITING) == "0" }).await;
    // The one that is left.
    let other = plane.pool().begin(Class::Admin, Isolation::Snapshot, "test").await.expect("a connection");
    check(get(&plane, "/api/v1/sensors").await, (503, "database", "database-unavailable")).await;
    other.finish(Ok(())).await.expect("it commits");
    lock.finish(Ok(())).await.expect("it is unlocked");
}

/// What is broken on our side: the answer says that it is, and nothing of what.
async fn by_faults(seen: &mut BTreeSet<String>) {
    let plane = Plane::start_with(|config| config.api.cors_origins = vec![ORIGIN.to_owned()]).await;
    plane.user("vera", Role::Viewer).await;
    plane.sensor("edge-1").await;
    let quiet = |problem: &Value, words: &[&str]| {
        let text = problem.to_string().to_lowercase();
        assert!(words.iter().all(|word| !text.contains(word)), "{text}");
    };
    // A hash that is none, as after a restore that went wrong.
    plane.sql("UPDATE account SET password_hash = 'damaged'");
    let login = json!({"name": "vera", "password": PASSWORD}).to_string();
    let failed = ask(&plane, Method::POST, "/api/v1/auth/login", "", &login).await;
    quiet(&check(failed, (500, "internal", "internal")).await, &["hash", "argon", "phc", "damaged"]);
    // A row that our own code never writes, and does not expect: its handler panics.
    plane
        .sql("ALTER TABLE sensor ALTER COLUMN created_at DROP NOT NULL; UPDATE sensor SET created_at = NULL");
    let failed = get(&plane, "/api/v1/sensors").await;
    quiet(&check(failed, (500, "internal", "internal")).await, &["panic", "null", "created_at", "column"]);
    // A column that is gone.
    plane.sql("ALTER TABLE sensor RENAME COLUMN name TO label");
    let failed = get(&plane, "/api/v1/sensors").await;
    quiet(&check(failed, (500, "database", "database-error")).await, &["column", "label", "42703"]);
    seen.insert("internal".to_owned());
    let counted = plane.metrics().await;
    assert!(counted.contains("weir_http_errors_total{category=\"internal\"} 2"), "{counted}");
}
