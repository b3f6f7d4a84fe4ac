//! I5: a sensor whose right to send is taken away while its batches are on their way. Not one row comes
//! after that, and the sensor says why.
#![forbid(unsafe_code)]

use std::thread;
use std::time::{Duration, Instant};

use weir_e2e::steady::Steady;
use weir_e2e::{Site, wire};
use weir_testbed::netns::Veth;
use weir_testbed::weir::{Sensor, Watch};

const SAYS_SO_WITHIN: Duration = Duration::from_mins(1);

#[test]
fn a_revoked_sensor_stores_nothing_more_and_says_so() {
    let site = Site::new().expect("a control plane starts");
    let sender = site.member("sender", 0).expect("a member is made");
    let receiver = site.member("receiver", 1).expect("a member is made");
    wire((&sender, "tx"), (&receiver, "rx"), Veth::default()).expect("the wire is made");
    let watch = Watch {
        more: "[shipping]\nbackoff = \"50ms\"\nbackoff_max = \"500ms\"\nshutdown_deadline = \"1s\"\n"
            .to_owned(),
        ..Watch::interface("rx", "native", "off")
    };
    let mut sensor = site.sensor("edge", &watch, &receiver).expect("the sensor starts");
    let steady = Steady::new(200, 1).expect("frames are made");
    let stored =
        || site.sql("SELECT count(*), sum(packets), max(epoch) FROM batch").expect("batches are counted");
    let (at_revocation, _) = steady
        .while_at(&sender, "tx", 2_000, || {
            site.ledger_when("edge", "traffic", |ledger| ledger.total.frames > 0);
            site.control_plane.revoke_sensor("edge").expect("the sensor is revoked");
            // The revocation waited for what was in flight: whatever comes now comes too late.
            let stored = stored();
            says_so(&sensor);
            stored
        })
        .expect("frames are sent");
    assert_eq!(stored(), at_revocation);
    // It still ends in order, whatever it could not deliver.
    sensor.stop().expect("the sensor ends within its deadline");
    assert_eq!(stored(), at_revocation);
}

/// Waits until its readiness tells that it was revoked.
fn says_so(sensor: &Sensor) {
    let deadline = Instant::now() + SAYS_SO_WITHIN;
    loop {
        let health = sensor.open().get("/readyz").expect("the sensor answers");
        if health.body.contains("revoked") {
            return;
        }
        assert!(Instant::now() < deadline, "{health:?}\n{}", sensor.log());
        thread::sleep(Duration::from_millis(50));
    }
}
