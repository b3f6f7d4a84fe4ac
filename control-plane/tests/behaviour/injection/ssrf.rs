//! Whoever may name a target gets no hand into the network that the server stands in.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{ADMIN_TOKEN, Plane};

/// Something inside that must not be reached; it answers every connection with a redirect deeper inside.
async fn inside() -> (u16, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let reached = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&reached);
    let app =
        axum::Router::new().fallback(move || {
            count.fetch_add(1, Ordering::SeqCst);
            async move {
                (axum::http::StatusCode::FOUND, [("location", format!("http://127.0.0.1:{port}/deeper"))])
            }
        });
    tokio::spawn(async move { axum::serve(listener, app).await });
    (port, reached)
}

async fn told(plane: &Plane<'_>, targets: &[Value]) -> Vec<String> {
    let mut ids = Vec::new();
    for (number, target) in targets.iter().enumerate() {
        let body = json!({"name": format!("target-{number}"), "target": target});
        ids.push(plane.ok(Method::POST, "/api/v1/alerts/receivers", &body).await["id"].clone());
    }
    let condition = json!({"kind": "absence", "window_s": 60});
    // A rule tells 20 at most.
    for (number, ids) in ids.chunks(20).enumerate() {
        let rule = json!({
            "name": format!("absent-{number}"), "condition": condition, "summary": "Nothing comes", "receivers": ids,
        });
        plane.rule(rule).await;
    }
    plane.look(0).await;
    let log = plane.json("/api/v1/alerts/deliveries").await;
    let error = |item: &Value| item["last_error"].as_str().unwrap_or_default().to_owned();
    log["items"].as_array().expect("items").iter().map(error).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn i6_no_kind_of_receiver_reaches_what_is_inside() {
    let (port, reached) = inside().await;
    let secrets = tempfile::tempdir().expect("a folder");
    std::fs::write(secrets.path().join("address"), format!("http://127.0.0.1:{port}/")).expect("written");
    let plane = Plane::start_with(|config| config.alerts.secrets_dir = Some(secrets.path().to_owned())).await;
    let mut targets = vec![json!({"kind": "webhook", "url_secret": "address"})];
    for host in ["127.0.0.1", "localhost", "0x7f.1", "[::ffff:7f00:1]", "[::]", "0"] {
        targets.push(json!({"kind": "webhook", "url": format!("http://{host}:{port}/")}));
        targets.push(json!({"kind": "alertmanager", "url": format!("http://{host}:{port}")}));
    }
    for host in ["127.0.0.1", "localhost", "0x7f.1", "[::1]", "169.254.169.254", "10.0.0.25"] {
        targets.push(json!({
            "kind": "email", "host": host, "port": port, "from": "weir@example.org", "to": ["ann@example.org"],
        }));
    }
    for url in ["http://169.254.169.254/latest/meta-data/", "http://[fe80::1]/", "http://10.255.255.1:1/"] {
        targets.push(json!({"kind": "webhook", "url": url}));
    }
    let errors = told(&plane, &targets).await;
    assert_eq!(errors.len(), targets.len());
    for error in errors {
        assert!(error.contains("`outbound.allow`"), "{error}");
    }
    assert_eq!(reached.load(Ordering::SeqCst), 0);
}

/// What is allowed once is not a door to the rest: no answer leads anywhere.
#[tokio::test(flavor = "multi_thread")]
async fn i6_a_redirect_is_an_answer_and_is_not_followed() {
    let (port, reached) = inside().await;
    let plane = Plane::start_with(|config| config.outbound.allow = vec!["127.0.0.1".to_owned()]).await;
    let target = json!({"kind": "webhook", "url": format!("http://127.0.0.1:{port}/")});
    assert_eq!(told(&plane, &[target]).await, ["the receiver answered 302"]);
    assert_eq!(reached.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn i6_other_schemes_and_credentials_in_urls_are_refused_at_once() {
    let plane = Plane::start().await;
    for url in [
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_FLUSHALL",
        "ftp://a.example/",
        "unix:/run/docker.sock",
        "http://a.example@127.0.0.1/",
        "http://user:secret@a.example/",
        "dict://a.example/",
        "//a.example/",
        "http://",
    ] {
        for target in [json!({"kind": "webhook", "url": url}), json!({"kind": "alertmanager", "url": url})] {
            let body = json!({"name": "wrong", "target": target});
            let (status, problem) =
                plane.call(Method::POST, "/api/v1/alerts/receivers", ADMIN_TOKEN, &body).await;
            assert_eq!((status, problem["errors"][0]["field"].as_str()), (400, Some("target.url")), "{url}");
        }
    }
}
