//! A1: the document lists every route with its statuses, and its examples work.

use reqwest::Method;
use serde_json::Value;

use crate::support::{Plane, batch, detection, mixed_flows, recent_minute_ns};

fn document() -> Value {
    serde_json::to_value(weir_control_plane::api::document()).expect("JSON")
}

fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut all = Vec::new();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            all.push((method.clone(), path.clone(), operation.clone()));
        }
    }
    all
}

/// The router is built from the same list: a route that is not here does not exist.
const ROUTES: &[&str] = &[
    "delete /api/v1/alerts/receivers/{receiver}",
    "delete /api/v1/alerts/rules/{rule}",
    "delete /api/v1/alerts/silences/{silence}",
    "delete /api/v1/devices/{device}",
    "delete /api/v1/enrollments/{enrollment}",
    "delete /api/v1/networks/{network}",
    "delete /api/v1/sensors/{id}",
    "delete /api/v1/sensors/{id}/credentials/{credential}",
    "delete /api/v1/sessions",
    "delete /api/v1/sessions/{session}",
    "delete /api/v1/tokens/{token}",
    "delete /api/v1/users/{user}",
    "delete /api/v1/users/{user}/sessions",
    "get /.well-known/jwks.json",
    "get /api/docs",
    "get /api/openapi.json",
    "get /api/v1/alerts",
    "get /api/v1/alerts/deliveries",
    "get /api/v1/alerts/receivers",
    "get /api/v1/alerts/rules",
    "get /api/v1/alerts/rules/{rule}",
    "get /api/v1/alerts/silences",
    "get /api/v1/audit",
    "get /api/v1/audit/export",
    "get /api/v1/auth/me",
    "get /api/v1/detections",
    "get /api/v1/detections/{detection}",
    "get /api/v1/devices",
    "get /api/v1/devices/{device}",
    "get /api/v1/domains",
    "get /api/v1/enrollments",
    "get /api/v1/erasures",
    "get /api/v1/erasures/{erasure}",
    "get /api/v1/events",
    "get /api/v1/events/stream",
    "get /api/v1/flows",
    "get /api/v1/flows/export",
    "get /api/v1/flows/filter",
    "get /api/v1/flows/timeseries",
    "get /api/v1/flows/top",
    "get /api/v1/jobs",
    "get /api/v1/jobs/{job}/runs",
    "get /api/v1/networks",
    "get /api/v1/networks/{network}",
    "get /api/v1/search",
    "get /api/v1/sensor-groups/{group}/configuration",
    "get /api/v1/sensor-groups/{group}/configuration/versions",
    "get /api/v1/sensors",
    "get /api/v1/sensors/{id}",
    "get /api/v1/sensors/{id}/configuration",
    "get /api/v1/sensors/{id}/configuration/versions",
    "get /api/v1/sensors/{id}/credentials",
    "get /api/v1/sensors/{id}/ledger",
    "get /api/v1/sessions",
    "get /api/v1/stream",
    "get /api/v1/tokens",
    "get /api/v1/users",
    "get /api/v1/users/{user}",
    "get /healthz",
    "get /metrics",
    "get /readyz",
    "patch /api/v1/alerts/receivers/{receiver}",
    "patch /api/v1/alerts/rules/{rule}",
    "patch /api/v1/alerts/silences/{silence}",
    "patch /api/v1/devices/{device}",
    "patch /api/v1/networks/{network}",
    "patch /api/v1/sensors/{id}",
    "patch /api/v1/users/{user}",
    "post /api/v1/alerts/receivers",
    "post /api/v1/alerts/rules",
    "post /api/v1/alerts/silences",
    "post /api/v1/auth/login",
    "post /api/v1/auth/logout",
    "post /api/v1/auth/password",
    "post /api/v1/auth/refresh",
    "post /api/v1/auth/setup",
    "post /api/v1/detections/{detection}/acknowledge",
    "post /api/v1/detections/{detection}/dismiss",
    "post /api/v1/detections/{detection}/reopen",
    "post /api/v1/devices/{device}/merge",
    "post /api/v1/devices/{device}/split",
    "post /api/v1/enroll",
    "post /api/v1/enrollments",
    "post /api/v1/ingest",
    "post /api/v1/jobs/{job}/runs",
    "post /api/v1/networks",
    "post /api/v1/sensor-groups/{group}/configuration/rollback",
    "post /api/v1/sensor/certificate",
    "post /api/v1/sensor/credentials",
    "post /api/v1/sensor/heartbeat",
    "post /api/v1/sensors/{id}/configuration/rollback",
    "post /api/v1/sensors/{id}/credentials",
    "post /api/v1/sensors/{id}/revoke",
    "post /api/v1/stream/tickets",
    "post /api/v1/tokens",
    "post /api/v1/users",
    "put /api/v1/sensor-groups/{group}/configuration",
    "put /api/v1/sensors/{id}/configuration",
];

#[test]
fn a1_every_route_is_in_the_document() {
    let document = document();
    assert!(
        document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")),
        "{}",
        document["openapi"]
    );
    let mut found: Vec<String> =
        operations(&document).into_iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    found.sort();
    assert_eq!(found, ROUTES);
}

#[test]
fn a1_every_operation_has_words_answers_and_a_credential() {
    let document = document();
    for (method, path, operation) in operations(&document) {
        let what = format!("{method} {path}");
        assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{what}");
        let answers = operation["responses"].as_object().expect("answers");
        assert!(["200", "202", "101"].iter().any(|good| answers.contains_key(*good)), "{what}");
        let open = [
            "/healthz",
            "/readyz",
            "/metrics",
            "/.well-known/jwks.json",
            "/api/v1/auth/login",
            "/api/v1/auth/refresh",
            "/api/v1/auth/setup",
            "/api/v1/enroll",
        ];
        let guarded = !open.contains(&path.as_str());
        assert_eq!(guarded, operation["security"].is_array(), "{what}");
        assert!(!guarded || answers.contains_key("401"), "{what}");
        if let Some(body) = operation["requestBody"]["content"]["application/json"].as_object() {
            let name = body["schema"]["$ref"].as_str().and_then(|path| path.rsplit('/').next()).expect(&what);
            assert!(document["components"]["schemas"][name]["example"].is_object(), "{what}: an example");
        }
        for (status, answer) in answers {
            if status.as_str() >= "400" && path != "/readyz" {
                assert!(answer["content"]["application/problem+json"].is_object(), "{what} {status}");
            }
        }
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            assert!(parameter["description"].is_string(), "{what}: {}", parameter["name"]);
        }
    }
    // Every reference leads somewhere.
    let text = document.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().expect("a name");
        assert!(document["components"]["schemas"][name].is_object(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_the_examples_of_the_document_are_accepted_one_by_one() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let mut batch = batch(1, 0, recent_minute_ns(), mixed_flows());
    batch.detections = vec![detection("port_scan", "10.0.0.66", weir_wire::Severity::High, 20)];
    let key = weir_wire::DeviceFact {
        source: "mac".to_owned(),
        value: "b0:c5:54:01:02:03".to_owned(),
        ..Default::default()
    };
    batch.devices = vec![weir_wire::Device { keys: vec![key], ..Default::default() }];
    plane.store(&token, &batch).await;
    plane.user("ann", weir_control_plane::auth::Role::Admin).await;
    let rule = serde_json::json!({"name": "absent", "condition": {"kind": "absence", "window_s": 60}});
    let rule = plane.rule(rule).await.to_string();
    let network = serde_json::json!({"name": "office", "prefixes": ["10.1.0.0/16"]});
    plane.ok(Method::POST, "/api/v1/networks", &network).await;
    plane.user("eve", weir_control_plane::auth::Role::Viewer).await;
    let erasure =
        plane.begin_erasure(weir_control_plane::store::erasure::Kind::User, "eve").await.to_string();
    for (method, path, operation) in operations(&document()) {
        // A WebSocket needs a handshake: its tests are in `stream`.
        if method != "get" || operation["responses"]["101"].is_object() {
            continue;
        }
        let path = path
            .replace("{id}", "edge-1")
            .replace("{group}", "edge")
            .replace("{user}", "ann")
            .replace("{detection}", "1")
            .replace("{device}", "1")
            .replace("{job}", "partitions")
            .replace("{erasure}", &erasure)
            .replace("{network}", "office")
            .replace("{rule}", &rule);
        assert_eq!(plane.get(&path).await.status(), 200, "{path}");
        for parameter in
            operation["parameters"].as_array().into_iter().flatten().filter(|p| p["in"] == "query")
        {
            let Some(example) = parameter.get("example") else { continue };
            let value = example.as_str().map_or_else(|| example.to_string(), str::to_owned);
            let name = parameter["name"].as_str().expect("a name");
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.append_pair(name, &value);
            if name == "from" {
                // An old `from` alone would reach until now.
                query.append_pair("to", "2026-01-31T13:00:00Z");
            }
            let path = format!("{path}?{}", query.finish());
            let response = plane
                .request(Method::GET, &path, crate::support::ADMIN_TOKEN)
                .send()
                .await
                .expect("an answer");
            assert_eq!(response.status(), 200, "{path}: {}", response.text().await.expect("text"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_every_route_and_needs_nothing_from_elsewhere() {
    let plane = Plane::start().await;
    let response = plane.get("/api/docs").await;
    assert!(
        response.headers()["content-security-policy"].to_str().expect("text").contains("default-src 'none'")
    );
    let page = response.text().await.expect("HTML");
    for (_, path, _) in operations(&document()) {
        assert!(page.contains(&path), "{path}");
    }
    for outside in ["http://", "https://", "<script"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("handshake_rtt_us"), "examples are shown");
}

/// A1: what `docs/api.md` shows can be asked: its paths and parameters are in the document.
#[test]
fn a1_the_worked_examples_name_what_there_is() {
    let text = include_str!("../../../docs/api.md");
    let operations = operations(&document());
    let mut seen = 0;
    for url in text.split("$WEIR/").skip(1) {
        let url = url.split(['"', ' ', '\n', '`']).next().expect("a URL");
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let path = format!("/{path}")
            .replace("/sensors/edge-1", "/sensors/{id}")
            .replace("/devices/7", "/devices/{device}")
            .replace("/networks/guests", "/networks/{network}")
            .replace("/users/bob", "/users/{user}")
            .replace("/erasures/3", "/erasures/{erasure}");
        let mut here = operations.iter().filter(|(_, known, _)| *known == path).peekable();
        assert!(here.peek().is_some(), "{path}");
        let known: Vec<&str> = here
            .flat_map(|(_, _, operation)| operation["parameters"].as_array().into_iter().flatten())
            .filter_map(|parameter| parameter["name"].as_str())
            .collect();
        for pair in query.split(['&', '$']).filter(|pair| pair.contains('=')) {
            let name = pair.split('=').next().expect("a name");
            assert!(known.contains(&name), "{path}: {name} is none of {known:?}");
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen} parameters only");
}
