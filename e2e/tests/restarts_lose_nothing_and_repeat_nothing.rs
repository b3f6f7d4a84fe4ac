//! I2, O6: Postgres crashes, the control plane is killed, and traffic goes on. What was counted meanwhile
//! arrives afterwards, once.
#![forbid(unsafe_code)]

use weir_e2e::{Counted, Site, committed, truth, wire};
use weir_testbed::capture::Capture;
use weir_testbed::netns::Veth;
use weir_testbed::traffic::Replay;
use weir_testbed::weir::Watch;

#[test]
fn everything_arrives_once_through_crashes_of_postgres_and_the_control_plane() {
    let site = Site::new().expect("a control plane starts");
    let sender = site.member("sender", 0).expect("a member is made");
    let receiver = site.member("receiver", 1).expect("a member is made");
    wire((&sender, "tx"), (&receiver, "rx"), Veth::default()).expect("the wire is made");
    // Retries come soon: the test waits for them.
    let more = "[shipping]\nbackoff = \"100ms\"\nbackoff_max = \"1s\"\n".to_owned();
    let watch = Watch { more, ..Watch::interface("rx", "native", "off") };
    let mut sensor = site.sensor("receiver", &watch, &receiver).expect("the sensor starts");
    let capture = Capture::named("pcpp-tls2").expect("the capture is there");
    let mut sent = Counted::default();
    let mut replays = 0;
    let mut send = || {
        let replay = Replay { pps: Some(20_000), ..Replay::default() };
        let replayed = replay.send(&sender, "tx", &capture.pcap).expect("every frame is sent");
        sent += Counted { packets: replayed.frames, octets: replayed.octets };
        replays += 1;
    };

    send();
    site.postgres.restart_immediate().expect("postgres recovers");
    send();
    site.postgres.stop().expect("postgres stops");
    send();
    site.postgres.start_again().expect("postgres starts again");
    send();
    site.control_plane.kill().expect("the control plane is killed");
    send();
    site.control_plane.start_again().expect("the control plane starts again");
    send();
    assert!(site.control_plane.stop().expect("the control plane ends").success());
    send();
    site.control_plane.start_again().expect("the control plane starts again");

    let ledger = site.ledger_when("receiver", "the last frame", |ledger| {
        ledger.total.frames >= sent.packets && ledger.balanced
    });
    assert_eq!((ledger.total.frames, ledger.total.octets_l2), (sent.packets, sent.octets));
    assert_eq!(ledger.generations, 1, "the sensor itself was never restarted");
    assert!(ledger.kernel_balanced, "{ledger:#?}");
    assert!(sensor.stop().expect("the sensor ends").success(), "{}", sensor.log());

    let mut expected = truth(&[capture]);
    for counted in expected.values_mut() {
        *counted = Counted { packets: counted.packets * replays, octets: counted.octets * replays };
    }
    let stored = committed(&site.control_plane.flows("receiver").expect("the flows are read"));
    assert_eq!(stored, expected);
}
