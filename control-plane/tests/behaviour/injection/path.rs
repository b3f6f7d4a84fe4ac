//! No path and no name leads to a file.

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{ADMIN_TOKEN, Plane};

/// As it is written: clients tidy paths before they send them.
async fn raw(plane: &Plane<'_>, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(plane.server().address).await.expect("it connects");
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauthorization: Bearer {ADMIN_TOKEN}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("it is sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_paths_lead_to_routes_and_to_no_file() {
    let plane = Plane::start().await;
    let climbs = [
        "../../../../../../etc/passwd",
        "..%2f..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "..%5c..%5cetc%5cpasswd",
        "....//....//etc/passwd",
        "%252e%252e%252fetc%252fpasswd",
        "%c0%ae%c0%ae/etc/passwd",
        "/etc/passwd",
        "passwd%00.html",
    ];
    let roots = [
        "",
        "api",
        "api/docs",
        "api/v1",
        "api/v1/sensors",
        "api/v1/jobs",
        "api/v1/alerts/rules",
        ".well-known",
    ];
    for root in roots {
        for climb in climbs {
            let path = format!("/{root}/{climb}");
            let (status, answer) = raw(&plane, &path).await;
            assert!(matches!(status, 400 | 404), "{path}: {answer}");
            assert!(!answer.contains("root:"), "{path}: {answer}");
        }
    }
    // A path is what it says: one that climbs to a route is not that route.
    for path in
        ["/x/../healthz", "/api/v1/../../metrics", "//healthz", "/./healthz", "/api/v1/%73ensors/%2e%2e"]
    {
        let (status, answer) = raw(&plane, path).await;
        assert!(matches!(status, 400 | 404), "{path}: {answer}");
    }
}

/// Whatever a receiver calls its secret, the file is one of the folder.
#[tokio::test(flavor = "multi_thread")]
async fn i6_names_of_secrets_do_not_leave_their_folder() {
    let plane = Plane::start().await;
    for name in
        ["../admin", "..", ".", "a/b", "/etc/passwd", "a\0b", "~root", "-rf", "a\\b", " hook", "hook\n"]
    {
        for target in [
            json!({"kind": "webhook", "url_secret": name}),
            json!({"kind": "webhook", "url": "https://a.example/", "signing_secret": name}),
            json!({"kind": "alertmanager", "url": "https://a.example/", "bearer_secret": name}),
            json!({
                "kind": "email", "host": "a.example", "user": "a", "password_secret": name,
                "from": "a@a.example", "to": ["a@a.example"],
            }),
        ] {
            let body = json!({"name": "climber", "target": target});
            let (status, problem) =
                plane.call(Method::POST, "/api/v1/alerts/receivers", ADMIN_TOKEN, &body).await;
            assert_eq!(
                (status, problem["category"].as_str()),
                (400, Some("validation")),
                "{name:?}: {problem}"
            );
        }
    }
    assert_eq!(plane.count("alert_receiver"), 0);
}
