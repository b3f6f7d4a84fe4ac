//! A2, A5: what a stranger writes is a value and never anything else, and every refusal says so in one shape.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{ADMIN_TOKEN, Plane};

const HOSTILE: [&str; 12] = [
    "' OR '1'='1",
    "'; DROP TABLE flow; --",
    "1; SELECT pg_sleep(60)",
    "\\' UNION SELECT token_sha256 FROM sensor --",
    "$1",
    "%27%20OR%201=1",
    "../../../etc/passwd",
    "..%2f..%2fapi",
    "x\r\nset-cookie: a=b",
    "x\n{\"level\":\"ERROR\"}",
    "{{7*7}}${7*7}",
    "\u{202e}\u{0}\u{7f}",
];

#[tokio::test(flavor = "multi_thread")]
async fn a2_names_that_are_none_make_nothing() {
    let plane = Plane::start().await;
    for name in HOSTILE {
        for (path, body) in [
            ("/api/v1/users", json!({"name": name, "role": "viewer", "password": "correct horse battery"})),
            ("/api/v1/tokens", json!({"name": name, "role": "viewer", "scopes": ["flows"]})),
        ] {
            let (status, problem) = plane.call(Method::POST, path, ADMIN_TOKEN, &body).await;
            assert_eq!((status, problem["errors"][0]["field"].as_str()), (400, Some("name")), "{name:?}");
        }
        let body = json!({"name": name, "password": name});
        let login = plane.http.post(plane.url("/api/v1/auth/login")).json(&body).send().await;
        let status = login.expect("an answer").status().as_u16();
        assert!(matches!(status, 400 | 401 | 429), "{name:?}: {status}");
    }
    assert_eq!((plane.count("account"), plane.count("api_token")), (0, 0));
}

/// A5: a page in a browser can read every kind of refusal: its origin is allowed on all of them.
#[tokio::test(flavor = "multi_thread")]
async fn a5_every_refusal_reaches_a_browser_with_its_problem() {
    const ORIGIN: &str = "https://weir.example";
    let plane = Plane::start_with(|config| config.api.cors_origins = vec![ORIGIN.to_owned()]).await;
    plane.user("vera", weir_control_plane::auth::Role::Viewer).await;
    let viewer = plane.log_in("vera").await.access;
    let user = json!({"name": "vera", "role": "viewer", "password": "correct horse battery"}).to_string();
    let long = format!("/api/v1/flows?src={}", "1".repeat(10_000));
    let (get, post) = (Method::GET, Method::POST);
    let big = "x".repeat(20_000);
    let cases: [(u16, &str, Method, &str, &str, &str); 9] = [
        (400, "validation", get.clone(), "/api/v1/flows?limit=0", ADMIN_TOKEN, ""),
        (401, "authentication", get.clone(), "/api/v1/flows", "nobody", ""),
        (403, "authorization", get.clone(), "/api/v1/users", &viewer, ""),
        (404, "not_found", get.clone(), "/api/v1/sensors/nobody", ADMIN_TOKEN, ""),
        (404, "not_found", get.clone(), "/nowhere", ADMIN_TOKEN, ""),
        (405, "validation", Method::PUT, "/api/v1/flows", ADMIN_TOKEN, ""),
        (409, "conflict", post.clone(), "/api/v1/users", ADMIN_TOKEN, &user),
        (413, "validation", post, "/api/v1/users", ADMIN_TOKEN, &big),
        (414, "validation", get, &long, ADMIN_TOKEN, ""),
    ];
    let check = async |status: u16, category: &str, response: reqwest::Response| {
        let headers = response.headers().clone();
        assert_eq!(response.status().as_u16(), status, "{category}");
        assert_eq!(headers["access-control-allow-origin"], ORIGIN, "{status}");
        assert!(
            headers["access-control-expose-headers"].to_str().is_ok_and(|all| all.contains("x-request-id"))
        );
        assert_eq!(headers["content-type"], "application/problem+json", "{status}");
        let problem: Value = response.json().await.expect("a problem");
        assert_eq!(
            (problem["category"].as_str(), problem["status"].as_u64()),
            (Some(category), Some(status.into()))
        );
        assert_eq!(headers["x-request-id"].to_str().ok(), problem["request_id"].as_str());
    };
    for (status, category, method, path, token, body) in cases {
        let request = plane.request(method, path, token).header("origin", ORIGIN);
        let request = request.header("content-type", "application/json").body(body.to_owned());
        check(status, category, request.send().await.expect("an answer")).await;
    }
    plane.sql("ALTER TABLE sensor RENAME COLUMN name TO label");
    let broken = plane.request(Method::GET, "/api/v1/sensors", ADMIN_TOKEN).header("origin", ORIGIN);
    check(500, "database", broken.send().await.expect("an answer")).await;
}
