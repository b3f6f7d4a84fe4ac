//! Nothing that a request brings becomes a header of its answer, and no secret one of a delivery.

use std::net::SocketAddr;

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{ADMIN_TOKEN, Plane};

/// The head of the answer to a request that is written as it is.
async fn raw(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it connects");
    stream.write_all(request).await.expect("it is sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    answer.split("\r\n\r\n").next().unwrap_or_default().to_owned()
}

fn injected(head: &str) -> bool {
    head.lines().any(|line| line.to_ascii_lowercase().starts_with("x-evil"))
        || head.matches("HTTP/1.1").count() > 1
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_no_part_of_a_request_begins_a_header_of_its_answer() {
    let plane =
        Plane::start_with(|config| config.api.cors_origins = vec!["https://weir.example".to_owned()]).await;
    let address = plane.server().address;
    let token = format!("authorization: Bearer {ADMIN_TOKEN}\r\n");
    let breaks =
        ["%0d%0ax-evil:%201", "%0ax-evil:1", "%0d%0a%0d%0aHTTP/1.1 200 OK", "%E5%98%8A%E5%98%8Dx-evil:1"];
    for line_break in breaks {
        for path in [
            format!("/{}", line_break.replace(' ', "%20")),
            format!("/api/v1/sensors/{}", line_break.replace(' ', "%20")),
            format!("/api/v1/flows?src={}", line_break.replace(' ', "%20")),
            format!("/api/v1/flows/export?format={}", line_break.replace(' ', "%20")),
        ] {
            let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{token}\r\n");
            let head = raw(address, request.as_bytes()).await;
            assert!(head.starts_with("HTTP/1.1 4"), "{path}: {head}");
            assert!(!injected(&head), "{path}: {head}");
        }
    }
    for header in
        ["x-request-id", "origin", "last-event-id", "user-agent", "x-forwarded-for", "if-none-match"]
    {
        // A bare CR or LF, a line that is folded, and what some take for one.
        for value in [
            &b"a\rx-evil: 1"[..],
            b"a\nx-evil: 1",
            b"a\r\n x-evil: 1",
            b"a\x0bx-evil: 1",
            b"a\x00\r\nx-evil2: 1",
            b"\xe5\x98\x8a\xe5\x98\x8dx-evil: 1",
            b"a%0d%0ax-evil: 1",
            b"\x85x-evil: 1",
        ] {
            let mut request =
                format!("GET /api/v1/sensors HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{token}{header}: ")
                    .into_bytes();
            request.extend_from_slice(value);
            request.extend_from_slice(b"\r\n\r\n");
            let head = raw(address, &request).await;
            assert!(!injected(&head), "{header}: {value:?}: {head}");
        }
    }
}

/// A secret that is two lines is refused, not sent as two headers.
#[tokio::test(flavor = "multi_thread")]
async fn i6_a_secret_with_a_line_break_is_no_header() {
    let secrets = tempfile::tempdir().expect("a folder");
    std::fs::write(secrets.path().join("two-lines"), "token\r\nx-evil: 1").expect("written");
    let plane = Plane::start_with(|config| {
        config.alerts.secrets_dir = Some(secrets.path().to_owned());
        config.outbound.allow = vec!["127.0.0.0/8".to_owned()];
    })
    .await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let target = json!({"kind": "alertmanager", "url": url, "bearer_secret": "two-lines"});
    let body = json!({"name": "am", "target": target});
    let id = plane.ok(Method::POST, "/api/v1/alerts/receivers", &body).await["id"].clone();
    let condition = json!({"kind": "absence", "window_s": 60});
    plane
        .rule(
            json!({"name": "absent", "condition": condition, "summary": "Nothing comes", "receivers": [id]}),
        )
        .await;
    plane.look(0).await;
    let log = plane.json("/api/v1/alerts/deliveries").await;
    let error = log["items"][0]["last_error"].as_str().expect("an error");
    assert_eq!(error, "the secret `two-lines` is empty, or has characters that a header cannot have");
}
