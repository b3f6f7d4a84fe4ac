//! U4, U8: where certificates are required, a host enrols, makes its own key, ships over mutual TLS, and gets another
//! certificate by itself when all that were signed are void. Every frame is stored once.
#![forbid(unsafe_code)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_e2e::{Counted, Site, committed, truth, wire};
use weir_testbed::capture::Capture;
use weir_testbed::netns::Veth;
use weir_testbed::process::Launch;
use weir_testbed::scratch::Scratch;
use weir_testbed::traffic::Replay;
use weir_testbed::weir::Watch;

const GIVE_UP: Duration = Duration::from_mins(2);

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("it is there")
}

/// How many certificates were signed, and how many of them for who showed the one before.
fn signed(site: &Site) -> String {
    site.sql(
        "SELECT count(*), count(*) FILTER (WHERE (after->>'by_certificate')::boolean) FROM audit
         WHERE action = 'sensor.certificate'",
    )
    .expect("the log is read")
    .trim()
    .to_owned()
}

#[test]
fn a_host_ships_over_mutual_tls_and_outlives_the_end_of_its_certificate() {
    let site = Site::new().expect("a control plane starts");
    let sender = site.member("sender", 0).expect("a member is made");
    let receiver = site.member("receiver", 1).expect("a member is made");
    wire((&sender, "tx"), (&receiver, "rx"), Veth::default()).expect("the wire is made");
    let secure = site.secure_with(8443, "client_auth = \"required\"").expect("an instance with TLS starts");
    let folder = Scratch::new("mutual-tls").expect("a folder");
    let (token_file, ca_file) = (folder.path().join("token"), folder.path().join("control-plane.pem"));
    let identity_file = folder.path().join("identity.pem");

    let headers = [("content-type", "application/json")];
    let body = json!({"name": "edge"}).to_string();
    let made =
        site.control_plane.api().post("/api/v1/enrollments", &headers, body.as_bytes()).expect("an answer");
    let made: Value = serde_json::from_str(&made.body).expect("JSON");
    Launch::new(site.sensor_program())
        .in_namespace(receiver.path())
        .args(["enroll", &secure.url, made["token"].as_str().expect("a token")])
        .args(["--fingerprint", &secure.fingerprint, "--token-file"])
        .arg(&token_file)
        .arg("--config")
        .arg(folder.path().join("sensor.toml"))
        .run()
        .expect("the host is enrolled");
    let first = read(&identity_file);
    assert!(first.contains("BEGIN CERTIFICATE") && first.contains("PRIVATE KEY"));
    let mode = std::fs::metadata(&identity_file).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(signed(&site), "1|0");

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

    // A key leaked: the sensor's certificate is void, and it gets the next one by its credential.
    secure.command(&["ca", "rotate", "--now"]).expect("the authority is replaced");
    let deadline = Instant::now() + GIVE_UP;
    while read(&identity_file) == first {
        assert!(Instant::now() < deadline, "{}", sensor.log());
        thread::sleep(Duration::from_millis(50));
    }
    send();
    assert_eq!(signed(&site), "2|0");

    // With its next credential it gets the next certificate: by the one that it shows.
    let second = read(&identity_file);
    site.sql("UPDATE sensor_credential SET created_at = now() - interval '9 days', expires_at = now() + interval '1 day'")
        .expect("it is old");
    let deadline = Instant::now() + GIVE_UP;
    while read(&identity_file) == second {
        assert!(Instant::now() < deadline, "{}", sensor.log());
        thread::sleep(Duration::from_millis(50));
    }
    let ledger = send();
    assert_eq!(signed(&site), "3|1");
    assert_eq!((ledger.total.frames, ledger.total.octets_l2), (sent.packets, sent.octets));
    assert!(!sensor.log().contains(read(&identity_file).lines().rev().nth(1).expect("a line of the key")));
    sensor.stop().expect("the sensor ends within its deadline");
    let mut expected = truth(&[capture]);
    for counted in expected.values_mut() {
        *counted = Counted { packets: counted.packets * passes, octets: counted.octets * passes };
    }
    assert_eq!(committed(&site.control_plane.flows("edge").expect("the flows are read")), expected);
}
