//! S12: settings that the control plane pushes. Ten changes under traffic lose no count; what the sensor may not take
//! it does not take, whoever says so; what it does not come up well with is taken back; and what was good is in force
//! after a start without a control plane.
#![forbid(unsafe_code)]

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_e2e::steady::Steady;
use weir_e2e::{Counted, Site, wire};
use weir_testbed::netns::{Namespace, Veth};
use weir_testbed::process::Launch;
use weir_testbed::weir::{Sensor, Watch};

const GIVE_UP: Duration = Duration::from_mins(1);
const PATH: &str = "/api/v1/sensors/edge/configuration";

/// Pushes settings; gives their identity.
fn push(site: &Site, settings: &Value) -> String {
    let answer = site.control_plane.api().put(PATH, &json!({"settings": settings})).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let shown = site.control_plane.api().json(PATH).expect("it is shown");
    shown["wanted"]["id"].as_str().expect("an id").to_owned()
}

/// What the sensor says, as soon as it is this of these settings.
fn reported(site: &Site, sensor: &Sensor, state: &str) -> Value {
    let deadline = Instant::now() + GIVE_UP;
    loop {
        let shown = site.control_plane.api().json(PATH).expect("it is shown")["reported"].clone();
        if shown["state"] == state {
            return shown;
        }
        assert!(Instant::now() < deadline, "not {state}: {shown}\n{}", sensor.log());
        thread::sleep(Duration::from_millis(20));
    }
}

/// Sensors that go silent are noticed as they are in earnest, only sooner.
fn soon(site: &Site) {
    site.control_plane.stop().expect("it ends");
    let config = site.control_plane.folder().join("config.toml");
    let text = std::fs::read_to_string(&config).expect("it is there");
    let more = "[sensors]\noffline_after_s = 10\nwatch_interval_s = 1\n";
    std::fs::write(&config, text + more).expect("it is written");
    site.control_plane.start_again().expect("it starts again");
}

fn shown(site: &Site, member: &Namespace, sensor: &Sensor) -> String {
    let config = sensor.folder().join("config.toml");
    let show =
        Launch::new(site.sensor_program()).in_namespace(member.path()).args(["config", "show", "--config"]);
    show.arg(config).run().expect("the settings are shown")
}

#[test]
fn ten_changes_lose_no_count_and_what_a_sensor_is_not_well_with_is_taken_back() {
    let site = Site::new().expect("a control plane starts");
    soon(&site);
    let sender = site.member("sender", 0).expect("a member is made");
    let receiver = site.member("receiver", 1).expect("a member is made");
    wire((&sender, "tx"), (&receiver, "rx"), Veth::default()).expect("the wire is made");
    let watch = Watch {
        more: "[heartbeat]\ninterval = \"100ms\"\n[shipping]\nbackoff = \"50ms\"\nbackoff_max = \"500ms\"\n\
               shutdown_deadline = \"1s\"\n"
            .to_owned(),
        ..Watch::interface("rx", "native", "off")
    };
    let mut sensor = site.sensor("edge", &watch, &receiver).expect("the sensor starts");
    let steady = Steady::new(200, 7).expect("frames are made");
    let (good, passes) = steady
        .while_at(&sender, "tx", 2_000, || {
            let mut last = String::new();
            for change in 0_u64..10 {
                let epoch = format!("{}ms", 50 + 10 * change);
                last = push(
                    &site,
                    &json!({"epoch": epoch, "connections.max": 1_024 + change, "detect.enabled": change % 2 == 0,
                            "detect.port_scan.hosts": 20 + change, "detect.internal": ["10.0.0.0/8"]}),
                );
                assert_eq!(reported(&site, &sensor, "applied")["in_force"], json!(last));
            }
            last
        })
        .expect("frames are sent");
    let sent = Counted { packets: steady.sent.packets * passes, octets: steady.sent.octets * passes };
    let ledger = site.ledger_when("edge", "what was sent", |ledger| {
        ledger.total.frames >= sent.packets && ledger.balanced
    });
    assert_eq!((ledger.total.frames, ledger.total.octets_l2), (sent.packets, sent.octets));
    assert_eq!((ledger.generations, ledger.dropped_packets), (1, 0), "no stage was started anew");
    assert!(ledger.kernel_balanced && ledger.gaps.is_empty(), "{ledger:#?}");

    // Whoever has the control plane does not have the sensor's credential.
    site.sql(
        "INSERT INTO sensor_configuration (sensor_id, version, settings, author)
         SELECT sensor_id, 11, '{\"control_plane.url\": \"http://198.51.100.1\", \"epoch\": \"1s\"}', 'nobody' FROM sensor",
    )
    .expect("it is written");
    let refused = reported(&site, &sensor, "refused");
    assert_eq!(refused["in_force"], json!(good));
    assert!(
        refused["reason"].as_str().is_some_and(|reason| reason.contains("control_plane.url")),
        "{refused}"
    );

    // An epoch so long that the sensor is killed before it is known to be well; twice.
    let bad = push(&site, &json!({"epoch": "30s"}));
    for _ in 0..2 {
        reported(&site, &sensor, "trial");
        sensor.kill().expect("it is killed");
        site.sql("UPDATE sensor_configuration_report SET trial = NULL").expect("it is forgotten");
        sensor.start_again(site.sensor_program(), &watch).expect("it starts again");
    }
    let refused = reported(&site, &sensor, "refused");
    assert_eq!((&refused["refused"], &refused["in_force"]), (&json!(bad), &json!(good)));
    assert!(shown(&site, &receiver, &sensor).contains("epoch = \"140ms\" # pushed\n"));

    // Without a control plane, what was good is in force.
    sensor.stop().expect("it ends");
    site.control_plane.kill().expect("it is killed");
    sensor.start_again(site.sensor_program(), &watch).expect("it starts again");
    assert!(sensor.log().contains("settings that the control plane pushed are in force"), "{}", sensor.log());
    let settings = shown(&site, &receiver, &sensor);
    for line in [
        "epoch = \"140ms\" # pushed",
        "connections.max = 1033 # pushed",
        "sampling.interval = 1 # default",
        "shipping.backoff = \"50ms\" # file",
    ] {
        assert!(settings.lines().any(|shown| shown == line), "{line} in\n{settings}");
    }
    says_when_it_is_gone(&site, &mut sensor);
}

/// U6: a control plane that comes back calls nobody offline; a sensor that is killed is told once.
fn says_when_it_is_gone(site: &Site, sensor: &mut Sensor) {
    let sql = |sql: &str| site.sql(sql).expect("it is read").trim().to_owned();
    let told =
        || sql("SELECT count(*) FROM event WHERE kind = 'sensor.offline'").parse::<u64>().expect("a number");
    let until = |what: &str, holds: &dyn Fn() -> bool| {
        let deadline = Instant::now() + GIVE_UP;
        while !holds() {
            assert!(Instant::now() < deadline, "not {what}: {}", sql("SELECT * FROM sensor_presence"));
            thread::sleep(Duration::from_millis(50));
        }
    };
    let before = told();
    site.control_plane.start_again().expect("it starts again");
    let looks =
        || sql("SELECT fence FROM job WHERE name = 'sensor-presence'").parse::<u64>().expect("a number");
    let first = looks();
    until("looked at", &|| looks() >= first + 3);
    until("heard of", &|| {
        sql("SELECT online AND alive_at > now() - interval '5 s' FROM sensor_presence") == "t"
    });
    assert_eq!(told(), before, "it was never silent, whoever was away");
    sensor.kill().expect("it is killed");
    until("offline", &|| sql("SELECT online FROM sensor_presence") == "f");
    until("told", &|| told() == before + 1);
    let shown = site.control_plane.api().json("/api/v1/sensors/edge").expect("it is shown");
    assert_eq!(shown["liveness"]["state"], "offline", "{shown}");
}
