//! Whatever is in a field of the log: one event is one line, and no line moves a cursor.

use std::net::SocketAddr;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use weir_wire::text::is_hostile;

use crate::command_line::Setup;
use crate::support::{ADMIN_TOKEN, batch, encoded, mixed_flows, recent_minute_ns};

/// Would be a line of its own, in both formats, and would clear a terminal.
const FORGED: &str = "a\r\n{\"timestamp\":\"2026-01-01T00:00:00Z\",\"level\":\"ERROR\",\"forged\":true}\n2026-01-01T00:00:00Z ERROR forged\u{1b}[2J\u{9b}31m\u{202e}";

async fn raw(address: SocketAddr, request: &[u8]) {
    let mut stream = TcpStream::connect(address).await.expect("it connects");
    stream.write_all(request).await.expect("it is sent");
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    // A request that is none may be answered by the end of the connection.
    let _ = stream.read_to_end(&mut answer).await;
}

/// Puts it wherever a stranger can put a text.
async fn write_everywhere(address: SocketAddr, sensor: &str) {
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let url = |path: &str| format!("http://{address}{path}");
    let forged = encoded(FORGED);
    for path in [
        format!("/{forged}"),
        format!("/api/v1/sensors/{forged}"),
        format!("/api/v1/users/{forged}"),
        format!("/api/v1/flows?src={forged}"),
        format!("/api/v1/flows?{forged}=1"),
        format!("/api/v1/flows?filter={forged}"),
        format!("/api/v1/flows?filter={}", encoded(&format!("name = \"{FORGED}\""))),
        format!("/api/v1/flows?continuation={forged}"),
        format!("/api/v1/events?sensor={forged}"),
        format!("/api/v1/jobs/{forged}/runs"),
    ] {
        let answer = http.get(url(&path)).bearer_auth(ADMIN_TOKEN).send().await.expect("an answer");
        assert!(answer.status().is_client_error(), "{path}");
    }
    for (path, body) in [
        ("/api/v1/auth/login", json!({"name": FORGED, "password": FORGED})),
        ("/api/v1/auth/refresh", json!({"refresh_token": FORGED})),
        ("/api/v1/users", json!({"name": FORGED, "role": FORGED, "password": FORGED})),
        ("/api/v1/alerts/receivers", json!({"name": FORGED, "target": {"kind": FORGED}})),
        ("/api/v1/alerts/rules", json!({FORGED: FORGED})),
        ("/api/v1/enroll", json!({"token": FORGED, "name": FORGED})),
    ] {
        http.post(url(path)).bearer_auth(ADMIN_TOKEN).json(&body).send().await.expect("an answer");
    }
    for header in ["x-request-id", "user-agent", "x-forwarded-for", "authorization", "traceparent", "origin"]
    {
        for value in ["a\x1b[2J", "a\u{9b}31m\u{202e}", "a\r forged", "a\n 2026-01-01T00:00:00Z ERROR forged"]
        {
            let request = format!(
                "GET /api/v1/flows?limit=0 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{header}: {value}\r\n\r\n"
            );
            raw(address, request.as_bytes()).await;
        }
    }
    raw(address, b"G\x1b[2JET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    raw(address, b"FORGED /\x1b[2J HTTP/1.1\r\nhost: a\r\n\r\n").await;
    raw(
        address,
        format!("FORGED /{forged} HTTP/1.1\r\nhost: \x1b[2J\r\nconnection: close\r\n\r\n").as_bytes(),
    )
    .await;
    // A sensor that has turned.
    let mut batch = batch(1, 0, recent_minute_ns(), mixed_flows());
    FORGED.clone_into(&mut batch.points[0].interface);
    let mut second = batch.clone();
    "a\n\x1b[2J".clone_into(&mut second.points[0].interface);
    for batch in [batch, second] {
        let body = weir_wire::encode(&batch).expect("it encodes");
        let request = http.request(Method::POST, url("/api/v1/ingest")).bearer_auth(sensor);
        let request = request
            .header("content-type", weir_wire::CONTENT_TYPE)
            .header("content-encoding", weir_wire::CONTENT_ENCODING);
        assert_eq!(request.body(body).send().await.expect("an answer").status(), 422);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_no_field_of_the_log_ends_a_line_or_begins_one() {
    for format in ["json", "text"] {
        let setup = Setup::with(&format!("[log]\nlevel = \"debug\"\nformat = \"{format}\"\n"));
        let sensor =
            setup.json(&["sensor", "add", "edge-1", "--json"])["token"].as_str().expect("one").to_owned();
        let (child, address) = setup.serve().await;
        write_everywhere(address.parse().expect("an address"), &sensor).await;
        let (_, log) = setup.end(child, nix::sys::signal::Signal::SIGTERM);
        assert!(log.contains("forged"), "nothing of it reached the log, so nothing is shown");
        for line in log.lines() {
            assert!(!line.contains(is_hostile), "{line:?}");
            if format == "json" {
                let line: Value = serde_json::from_str(line).expect(line);
                assert!(line["timestamp"].is_string() && line["forged"].is_null(), "{line}");
            } else {
                assert!(line.starts_with("20") && !line.starts_with("2026-01-01T00:00:00Z"), "{line}");
            }
        }
    }
}
