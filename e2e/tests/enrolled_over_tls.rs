//! U4, U8: a host becomes a sensor with a one-time token over TLS that it knows by a fingerprint, counts, gets
//! another credential while it counts, and is revoked. Every frame until then is stored once.
#![forbid(unsafe_code)]

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_e2e::{Counted, Site, committed, truth, wire};
use weir_testbed::capture::Capture;
use weir_testbed::netns::{Namespace, Veth};
use weir_testbed::process::Launch;
use weir_testbed::scratch::Scratch;
use weir_testbed::traffic::Replay;
use weir_testbed::weir::Watch;

const GIVE_UP: Duration = Duration::from_mins(1);

/// A POST as an operator that must be answered with 200.
fn operator(site: &Site, path: &str, body: &Value) -> Value {
    let headers = [("content-type", "application/json")];
    let answer =
        site.control_plane.api().post(path, &headers, body.to_string().as_bytes()).expect("an answer");
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    serde_json::from_str(&answer.body).expect("JSON")
}

fn credentials(site: &Site) -> Vec<String> {
    let listed = site.control_plane.api().json("/api/v1/sensors/edge/credentials").expect("they are listed");
    let items = listed["items"].as_array().expect("items").iter();
    items.map(|item| item["state"].as_str().expect("a state").to_owned()).collect()
}

#[test]
fn a_host_enrols_over_tls_counts_rotates_and_is_revoked() {
    let site = Site::new().expect("a control plane starts");
    let sender = site.member("sender", 0).expect("a member is made");
    let receiver = site.member("receiver", 1).expect("a member is made");
    wire((&sender, "tx"), (&receiver, "rx"), Veth::default()).expect("the wire is made");
    // Beside the one that operators ask: two instances of one database are one service.
    let secure = site.secure(8443).expect("an instance with TLS starts");
    let folder = Scratch::new("enrolled").expect("a folder");
    let (token_file, ca_file) = (folder.path().join("token"), folder.path().join("control-plane.pem"));
    let sensor_program = |member: &Namespace| {
        Launch::new(site.sensor_program())
            .in_namespace(member.path())
            .env("WEIR_SENSOR__CONTROL_PLANE__URL", &secure.url)
            .env("WEIR_SENSOR__CONTROL_PLANE__TOKEN_FILE", &token_file)
            .env("WEIR_SENSOR__CONTROL_PLANE__CA_FILE", &ca_file)
    };
    let made = operator(&site, "/api/v1/enrollments", &json!({"name": "edge", "group": "edges"}));
    let token = made["token"].as_str().expect("a token").to_owned();
    let enroll = |fingerprint: &str, more: &[&str]| {
        sensor_program(&receiver)
            .args(["enroll", &secure.url, &token, "--fingerprint", fingerprint])
            .args(more)
            .arg("--token-file")
            .arg(&token_file)
            .arg("--config")
            .arg(folder.path().join("sensor.toml"))
            .run()
    };
    let other = "0".repeat(64);
    assert!(enroll(&other, &[]).is_err(), "another server's certificate is not this one's");
    enroll(&secure.fingerprint, &[]).expect("the host is enrolled");
    assert!(enroll(&secure.fingerprint, &[]).is_err(), "it is enrolled already");
    assert!(enroll(&secure.fingerprint, &["--replace"]).is_err(), "the token was used");
    let config = std::fs::read_to_string(folder.path().join("sensor.toml")).expect("it is written");
    assert!(config.contains("[control_plane]") && config.contains(&secure.url), "{config}");

    let watch = Watch {
        more: "[heartbeat]\ninterval = \"200ms\"\n[shipping]\nbackoff = \"50ms\"\nbackoff_max = \"500ms\"\nshutdown_deadline = \"1s\"\n"
            .to_owned(),
        env: vec![
            ("WEIR_SENSOR__CONTROL_PLANE__TOKEN_FILE".into(), token_file.clone().into()),
            ("WEIR_SENSOR__CONTROL_PLANE__CA_FILE".into(), ca_file.clone().into()),
        ],
        ..Watch::interface("rx", "native", "off")
    };
    let mut sensor = site.enrolled(&watch, &secure.url, &receiver).expect("the sensor starts");
    let capture = Capture::named("pcpp-tls2").expect("the capture is there");
    let mut sent = Counted::default();
    let mut passes = 0;
    let mut send = || {
        let replay = Replay { pps: Some(20_000), ..Replay::default() };
        let replayed = replay.send(&sender, "tx", &capture.pcap).expect("every frame is sent");
        sent += Counted { packets: replayed.frames, octets: replayed.octets };
        passes += 1;
        site.ledger_when("edge", "what was sent", |ledger| {
            ledger.total.frames >= sent.packets && ledger.balanced
        })
    };
    send();
    assert_eq!(credentials(&site), ["active"]);

    // The next credential, while the sensor runs with the one before; then that one goes.
    sensor_program(&receiver).arg("rotate").run().expect("the credential is rotated");
    assert_eq!(credentials(&site), ["active", "new"]);
    send();
    site.sql("UPDATE sensor_credential SET expires_at = now() WHERE first_used_at IS NOT NULL")
        .expect("the overlap is over");
    send();
    assert_eq!(credentials(&site), ["revoked", "active"]);

    // Its end is near: the sensor asks for the next one by itself, and counts on.
    site.sql(
        "UPDATE sensor_credential SET created_at = now() - interval '9 days', expires_at = now() + interval '1 day'
         WHERE revoked_at IS NULL",
    )
    .expect("it is old");
    let deadline = Instant::now() + GIVE_UP;
    while credentials(&site) != ["revoked", "revoked", "active"] {
        assert!(Instant::now() < deadline, "{:?}: {}", credentials(&site), sensor.log());
        thread::sleep(Duration::from_millis(50));
    }
    let ledger = send();
    assert_eq!((ledger.total.frames, ledger.total.octets_l2), (sent.packets, sent.octets));

    operator(&site, "/api/v1/sensors/edge/revoke", &json!({}));
    let deadline = Instant::now() + GIVE_UP;
    while !sensor.open().get("/readyz").expect("the sensor answers").body.contains("revoked") {
        assert!(Instant::now() < deadline, "{}", sensor.log());
        thread::sleep(Duration::from_millis(50));
    }
    sensor.stop().expect("the sensor ends within its deadline");
    let mut expected = truth(&[capture]);
    for counted in expected.values_mut() {
        *counted = Counted { packets: counted.packets * passes, octets: counted.octets * passes };
    }
    assert_eq!(committed(&site.control_plane.flows("edge").expect("the flows are read")), expected);
}
