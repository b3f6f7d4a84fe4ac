//! S3, S4, S5, S6, I7: an office where every part is real ends in the API with the right devices, names and processes,
//! with a detection for each way to misbehave, and with none for those who do not.
//!
//! Each culprit does one thing, so that it is clear whose detection is whose.
#![forbid(unsafe_code)]

mod scripted_site {
    pub mod cast;
    pub mod findings;
    pub mod script;
}

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use scripted_site::cast::{DEVICES, LEASES, NAMES, ROSTER};
use scripted_site::findings::{self, Detected, Findings};
use scripted_site::script::{self, Stage};
use weir_e2e::office::{LAN, Office, WAN};
use weir_e2e::{Site, until};
use weir_sensor::detect::Kind;
use weir_testbed::mount::Mount;
use weir_testbed::scratch::Scratch;
use weir_testbed::weir::Watch;

/// What belongs to the office is there within so long a time of its first sign of life. Long enough, too, for five
/// windows of volumes, and no longer than the beacon takes.
const LEARN: Duration = Duration::from_secs(30);

/// All parameters are the defaults but times that a test cannot wait for: how long is learned (hours by default, the
/// same clocks with another number), the shortest interval of a beacon, and the window in which volumes are compared,
/// with a bound for its volume in proportion.
fn settings(folder: &Path) -> String {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sensor/tests/data");
    let places = ["GeoIP2-Country-Test.mmdb", "GeoLite2-ASN-Test.mmdb"].map(|name| data.join(name));
    let learn = LEARN.as_secs();
    format!(
        "[processes]\nexecutables = true\nlook_interval = \"1s\"\n\
         [places]\ndatabases = {places:?}\n\
         [threats]\nfolder = \"{}\"\n\
         [[threats.lists]]\nname = \"known-bad\"\nfile = \"{}\"\n\
         [detect.new_device]\nlearn = \"{learn}s\"\n\
         [detect.rogue_dhcp]\nlearn = \"{learn}s\"\n\
         [detect.rogue_ra]\nlearn = \"{learn}s\"\n\
         [detect.new_country]\nlearn = \"5s\"\n\
         [detect.new_asn]\nenabled = true\nlearn = \"5s\"\n\
         [detect.beaconing]\nmin_interval = \"1s\"\n\
         [detect.exfiltration]\nwindow = \"5s\"\nlearn_windows = 5\nmin_octets = \"16MiB\"\n",
        folder.join("lists").display(),
        folder.join("known-bad.txt").display(),
    )
}

/// Waits a while for this to hold, so that the assertion that follows can say what is amiss.
fn soon(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn s6_a_scripted_site_ends_in_the_api_as_it_was() {
    let site = Site::new().expect("a control plane starts");
    let office = Office::open(&site, &[ROSTER, LEASES].concat(), NAMES).expect("the office opens");
    let folder = Scratch::new("site").expect("a folder is made");
    // The domain, and all below it.
    let listed = format!("{}\n.{}\n", script::LISTED_ADDRESS, script::LISTED_DOMAIN);
    fs::write(folder.path().join("known-bad.txt"), listed).expect("the list is written");
    // A namespace hides what the host mounts below /sys.
    let _groups = Mount::cgroup2("groups").expect("the control groups are mounted");
    // Nobody says a word yet.
    let stage = Stage::set(&office);
    let watch = Watch {
        epoch: Duration::from_millis(500),
        more: settings(folder.path()),
        ..Watch::interface(LAN, "native", "auto").and(WAN, "native", "auto")
    };
    let mut sensor = site.sensor("gateway", &watch, &office.gateway).expect("the sensor starts");
    let metric = |name: &str| sensor.metric(name).expect("metrics are served");
    until("the list is in force", || metric("weir_sensor_list_entries") == Some(2.0));
    until("places are known", || metric("weir_sensor_place_database_reads_total") == Some(2.0));

    let began = Instant::now();
    stage.arrival();
    assert!(began.elapsed() < LEARN, "an arrival of {:?}: this machine is too busy to tell", began.elapsed());
    stage.morning();
    let findings = Findings::new(&site);
    let is_found = |kind: Kind| findings.detections().iter().any(|it| it.kind == kind.word());
    let _rogue = stage.while_clocks_tick(|| {
        thread::sleep(LEARN);
        let rogue = stage.afternoon(&office);
        stage.visits();
        until("the beacon is found", || is_found(Kind::Beaconing));
        rogue
    });
    stage.floods(is_found);

    let expected = findings::expected();
    let kinds: BTreeSet<&str> = expected.iter().map(|(kind, _)| *kind).collect();
    let all: BTreeSet<&str> = Kind::ALL.into_iter().map(Kind::word).collect();
    assert_eq!(kinds, all, "each kind has its culprit");
    let named = |found: &[Detected]| {
        found.iter().map(|it| (it.kind.clone(), it.subject.clone())).collect::<BTreeSet<_>>()
    };
    let wanted: BTreeSet<(String, String)> =
        expected.iter().map(|(kind, subject)| ((*kind).to_owned(), subject.clone())).collect();
    soon(|| named(&findings.detections()).is_superset(&wanted));
    let ledger = site.ledger_when("gateway", "a ledger that balances", |ledger| ledger.balanced);
    assert_eq!((ledger.dropped_packets, ledger.total.overflow), (0, 0));
    // What was found too much would have come by now, or comes with these.
    until("four more epochs are told", || {
        site.control_plane.ledger("gateway").is_ok_and(|now| now.epochs >= ledger.epochs + 4)
    });
    let found = findings.detections();
    assert_eq!(named(&found), wanted, "{found:#?}");
    assert_eq!(found.len(), wanted.len(), "one is open for each kind and subject");
    findings::evidence(&found);
    findings::counts(&found);

    let devices: BTreeSet<_> = DEVICES.iter().map(findings::Device::from).collect();
    soon(|| findings.devices() == devices);
    assert_eq!(findings.devices(), devices);
    let names = findings::names();
    // On a machine that is busy beyond measure a flow may be named too late: then the next one is.
    for _ in 0..5 {
        if findings.names() != names {
            stage.visits();
            soon(|| findings.names() == names);
        }
    }
    assert_eq!(findings.names(), names);
    soon(|| findings.processes() == findings::processes());
    assert_eq!(findings.processes(), findings::processes());
    findings.search();
    assert_eq!(metric("weir_sensor_observe_panics_total"), Some(0.0));
    assert!(sensor.stop().expect("the sensor ends").success(), "{}", sensor.log());
}
