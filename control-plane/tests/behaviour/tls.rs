//! U8: the API over TLS: certificates that change while it runs, peers that say nothing, HSTS.

use std::path::Path;

use rcgen::{CertificateParams, KeyPair};
use reqwest::{Certificate, Client, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use weir_control_plane::config::Config;

use crate::support::{ADMIN_TOKEN, Plane, batch, eventually, mixed_flows, recent_minute_ns};

/// A certificate for the loopback and its key, in PEM.
fn pair() -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address");
    (params.self_signed(&key).expect("it signs").pem(), key.serialize_pem())
}

fn write(folder: &Path, (certificate, key): &(String, String)) {
    std::fs::write(folder.join("key.pem"), key).expect("it can be written");
    std::fs::write(folder.join("certificate.pem"), certificate).expect("it can be written");
}

fn with_files(folder: &Path) -> impl FnOnce(&mut Config) {
    let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    |config| {
        config.tls.certificate = Some(certificate);
        config.tls.key = Some(key);
    }
}

/// One that trusts this certificate alone.
fn client(certificate: &str) -> Client {
    let certificate = Certificate::from_pem(certificate.as_bytes()).expect("a certificate");
    Client::builder()
        .no_proxy()
        .tls_built_in_root_certs(false)
        .add_root_certificate(certificate)
        .build()
        .expect("a client")
}

async fn ask(plane: &Plane<'_>, client: &Client) -> reqwest::Result<Response> {
    client.get(plane.url("/api/v1/sensors")).bearer_auth(ADMIN_TOKEN).send().await
}

#[tokio::test(flavor = "multi_thread")]
async fn u8_batches_and_questions_go_over_tls_and_browsers_are_told_to_stay_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let pair = pair();
    write(folder.path(), &pair);
    let plane = Plane::start_with(with_files(folder.path())).await;
    let token = plane.sensor("edge-1").await;
    let client = client(&pair.0);

    let body = weir_wire::encode(&batch(1, 0, recent_minute_ns(), mixed_flows())).expect("it encodes");
    let stored = client
        .post(plane.url("/api/v1/ingest"))
        .bearer_auth(token)
        .header("content-type", weir_wire::CONTENT_TYPE)
        .header("content-encoding", weir_wire::CONTENT_ENCODING)
        .body(body)
        .send()
        .await
        .expect("an answer");
    assert_eq!(stored.status(), 200);
    assert_eq!(plane.count("flow"), 41);
    // O1: whoever watches knows when the certificate ends: rcgen's on the first day of 4096.
    assert_eq!(plane.state().metrics.tls.expiry.get(), 67_090_118_400);

    for path in ["/api/v1/sensors", "/api/v1/nowhere"] {
        let answer = client.get(plane.url(path)).bearer_auth(ADMIN_TOKEN).send().await.expect("an answer");
        assert_eq!(answer.headers()["strict-transport-security"], "max-age=31536000", "{path}");
    }
    // A stranger's certificate is refused by the client, and plain HTTP finds nobody who speaks it.
    assert!(ask(&plane, &plane.http).await.is_err());
    let plain = plane.http.get(plane.url("/healthz").replace("https:", "http:")).send().await;
    assert!(plain.is_err(), "{plain:?}");
    let failed = plane.state().metrics.tls.handshakes.with_label_values(&["failed"]);
    eventually("both are counted", || async { failed.get() >= 2 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn u8_a_certificate_that_changes_is_used_by_the_next_connection() {
    let folder = tempfile::tempdir().expect("a folder");
    let (old, new, newest) = (pair(), pair(), pair());
    write(folder.path(), &old);
    let plane = Plane::start_with(with_files(folder.path())).await;
    let tls = plane.server().tls.clone().expect("it speaks TLS");
    let with_old = client(&old.0);
    assert_eq!(ask(&plane, &with_old).await.expect("an answer").status(), 200);

    // What SIGHUP does.
    write(folder.path(), &new);
    assert!(tls.reload());
    assert_eq!(ask(&plane, &client(&new.0)).await.expect("an answer").status(), 200);
    assert!(ask(&plane, &client(&old.0)).await.is_err(), "the old certificate is shown no more");
    assert_eq!(ask(&plane, &with_old).await.expect("an open connection goes on").status(), 200);

    // A pair that does not fit changes nothing.
    write(folder.path(), &(newest.0.clone(), old.1.clone()));
    assert!(!tls.reload());
    assert_eq!(ask(&plane, &client(&new.0)).await.expect("an answer").status(), 200);
    assert!(plane.state().metrics.tls.reloads.with_label_values(&["failed"]).get() >= 1);

    // By itself, once both files are there.
    write(folder.path(), &newest);
    let with_newest = client(&newest.0);
    eventually("the newest certificate is shown", || async { ask(&plane, &with_newest).await.is_ok() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn u8_a_self_signed_certificate_is_kept_in_its_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    let (kept, names) = (Some(state.clone()), vec!["weir.example".to_owned()]);
    let mut plane = Plane::start_with(|config| {
        config.tls.self_signed = true;
        config.tls.names = names;
        config.tls.state_folder = kept;
    })
    .await;
    let fingerprint = plane.server().tls.as_ref().expect("TLS").fingerprint();
    let pem = std::fs::read_to_string(state.join("self-signed.pem")).expect("the certificate is kept");
    let answer = ask(&plane, &client(&pem)).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    assert!(answer.headers().get("strict-transport-security").is_none(), "nobody could get past it later");
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(state.join("self-signed.key")).expect("the key is kept").permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);

    plane.restart().await;
    assert_eq!(plane.server().tls.as_ref().expect("TLS").fingerprint(), fingerprint);
}

#[tokio::test(flavor = "multi_thread")]
async fn u8_who_says_nothing_is_let_go_and_holds_nobody_up() {
    let plane = Plane::start_with(|config| {
        config.tls.self_signed = true;
        // A busy machine needs its time for the handshake that is one.
        config.tls.handshake_timeout_ms = 5_000;
        config.tls.max_handshakes = 1;
    })
    .await;
    let address = plane.server().address;
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(TcpStream::connect(address).await.expect("it connects"));
    }
    let client = Client::builder().no_proxy().danger_accept_invalid_certs(true).build().expect("a client");
    assert_eq!(ask(&plane, &client).await.expect("an answer").status(), 200);
    for stream in &mut silent {
        assert_eq!(stream.read(&mut [0; 64]).await.expect("it is closed in order"), 0);
    }
    let timeouts = plane.state().metrics.tls.handshakes.with_label_values(&["timeout"]);
    eventually("each is counted", || async { timeouts.get() == 8 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a7_a_head_that_never_ends_is_let_go() {
    let plane = Plane::start_with(|config| config.api.header_timeout_ms = 3_000).await;
    let mut slow = TcpStream::connect(plane.server().address).await.expect("it connects");
    slow.write_all(b"GET /healthz HTTP/1.1\r\nhost: weir\r\nx-slow: ").await.expect("it is sent");
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.expect("it is closed in order");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(plane.get("/api/v1/sensors").await.status(), 200);
}
