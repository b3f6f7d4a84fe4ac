//! A2, A5, A6: every error is a problem with a category and the request's id, and names what is wrong.

use reqwest::{Method, Response};
use serde_json::Value;

use crate::support::{ADMIN_TOKEN, Plane};

async fn problem(response: Response, status: u16, category: &str) -> Value {
    assert_eq!(response.status(), status);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let id = response.headers()["x-request-id"].to_str().expect("text").to_owned();
    let length = response.content_length();
    let text = response.text().await.expect("a body");
    assert_eq!(length, Some(text.len() as u64));
    let problem: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(problem["request_id"], id);
    assert_eq!(
        (problem["status"].as_u64(), problem["category"].as_str()),
        (Some(u64::from(status)), Some(category))
    );
    for field in ["type", "title", "detail"] {
        assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{field} in {problem}");
    }
    problem
}

#[tokio::test(flavor = "multi_thread")]
async fn a5_what_the_router_refuses_is_a_problem_too() {
    let plane = Plane::start().await;
    let get = |path: &str| plane.request(Method::GET, path, ADMIN_TOKEN).send();
    for path in
        ["/", "/api", "/api/v1/nothing", "/api/v1/flows/", "/api/v1/sensors/1/x", "/%00", "/api/v1/sensors/"]
    {
        problem(get(path).await.expect("an answer"), 404, "not_found").await;
    }
    let sensor = plane.sensor("edge-1").await;
    for (method, path, token) in [
        (Method::POST, "/api/v1/flows", ADMIN_TOKEN),
        (Method::GET, "/api/v1/ingest", &sensor),
        (Method::DELETE, "/healthz", ""),
    ] {
        let response = plane.request(method, path, token).send().await.expect("an answer");
        assert!(response.headers().contains_key("allow"), "{path}");
        problem(response, 405, "validation").await;
    }
    let long = format!("/api/v1/flows?src={}", "1".repeat(10_000));
    problem(get(&long).await.expect("an answer"), 414, "validation").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_every_bad_parameter_is_named() {
    let plane = Plane::start().await;
    let flows = [
        ("limit", "limit=0"),
        ("limit", "limit=1001"),
        ("limit", "limit=-1"),
        ("limit", "limit="),
        ("limit", "limit=ten"),
        ("from", "from=yesterday"),
        ("from", "from=2026-01-01"),
        ("from", "from=1969-12-31T23:59:59Z"),
        ("to", "to=9999-01-01T00:00:00Z"),
        ("from", "from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z"),
        ("from", "from=2026-01-01T00:00:00Z&to=2026-01-01T00:00:00Z"),
        ("from", "from=2020-01-01T00:00:00Z&to=2026-01-01T00:00:00Z"),
        ("from", "from=2020-01-01T00:00:00Z"),
        ("src", "src=10.0.0"),
        ("src", "src=10.0.0.0/33"),
        ("dst", "dst=example.org"),
        ("address", "address=%00"),
        ("port", "port=65536"),
        ("src_port", "src_port=x"),
        ("dst_port", "dst_port=80&dst_port=81"),
        ("protocol", "protocol=256"),
        ("protocol", "protocol=t'; DROP TABLE flow"),
        ("sensor", "sensor=no-such-sensor"),
        ("sensor", "sensor=%FF"),
        ("sensor", "sensor=a%00b"),
        ("min_octets", "min_octets=-1"),
        ("min_octets", "min_octets=9223372036854775808"),
        ("colour", "colour=blue"),
        ("Limit", "Limit=5"),
        ("", "=5"),
    ];
    let others = [
        ("/api/v1/flows/top", "by", "by=colour"),
        ("/api/v1/flows/top", "metric", "metric=bytes"),
        ("/api/v1/flows/top", "continuation", "continuation=x"),
        ("/api/v1/flows/timeseries", "step", "step=0"),
        ("/api/v1/flows/timeseries", "step", "step=1w"),
        ("/api/v1/flows/timeseries", "step", "step=1&from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z"),
        ("/api/v1/flows/timeseries", "limit", "limit=5"),
        ("/api/v1/sensors", "continuation", "continuation=-1"),
        ("/api/v1/sensors", "continuation", "continuation=2147483648"),
        ("/api/v1/sensors/1", "from", "from=2026-01-01T00:00:00Z"),
        ("/api/v1/sensors/-1", "id", ""),
        ("/api/v1/sensors/%F0%9F%90%9F", "id", ""),
        ("/api/v1/sensors/99999999999/ledger", "id", ""),
        ("/api/openapi.json", "x", "x=1"),
        ("/api/docs", "x", "x=1"),
    ];
    plane.sensor("edge-1").await;
    let flows = flows.iter().map(|(field, query)| ("/api/v1/flows", *field, *query));
    for (path, field, query) in flows.chain(others) {
        let response = plane.get(&format!("{path}?{query}")).await;
        let problem = problem(response, 400, "validation").await;
        let fields: Vec<_> =
            problem["errors"].as_array().expect("errors").iter().map(|e| &e["field"]).collect();
        assert!(fields.iter().any(|found| **found == field), "{path}?{query}: {problem}");
    }
    for path in ["/api/v1/sensors/77", "/api/v1/sensors/nobody", "/api/v1/sensors/77/ledger"] {
        problem(plane.get(path).await, 404, "not_found").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a5_nothing_of_the_inside_is_in_an_answer() {
    let plane = Plane::start().await;
    plane.sql("ALTER TABLE sensor RENAME COLUMN name TO label");
    let problem = problem(plane.get("/api/v1/sensors").await, 500, "database").await;
    let text = problem.to_string();
    for inside in ["column", "SELECT", "SQLSTATE", "sensor_status", "42703"] {
        assert!(!text.contains(inside), "{inside} in {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_a_request_id_is_taken_if_it_is_plain_and_made_if_not() {
    let plane = Plane::start().await;
    let ask = async |id: &[u8]| {
        let request = plane.http.get(plane.url("/healthz")).header("x-request-id", id);
        let response = request.send().await.expect("an answer");
        response.headers()["x-request-id"].as_bytes().to_vec()
    };
    assert_eq!(ask(b"trace-1.2_3:4/5").await, b"trace-1.2_3:4/5");
    let long = [b'a'; 129];
    for odd in [&b"with space"[..], b"<script>", b"\xff\xfe", b"", &long] {
        let given = ask(odd).await;
        assert_ne!(given, odd);
        assert_eq!(given.len(), 36, "a new one");
    }
    assert_ne!(ask(b"").await, ask(b"").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a5_browsers_of_allowed_origins_can_read_errors_too() {
    let plane =
        Plane::start_with(|config| config.api.cors_origins = vec!["https://weir.example".to_owned()]).await;
    let ask = async |origin: &str| {
        let request = plane.http.get(plane.url("/api/v1/flows")).header("origin", origin);
        request.send().await.expect("an answer")
    };
    let allowed = ask("https://weir.example").await;
    assert_eq!(allowed.status(), 401);
    assert_eq!(allowed.headers()["access-control-allow-origin"], "https://weir.example");
    assert!(!ask("https://elsewhere.example").await.headers().contains_key("access-control-allow-origin"));
}
