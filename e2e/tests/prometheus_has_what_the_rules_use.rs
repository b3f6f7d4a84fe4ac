//! O1, O2: the alert rules are tested, and a real Prometheus that scrapes both programs finds every metric
//! that they use.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use weir_e2e::{Site, wire};
use weir_testbed::capture::Capture;
use weir_testbed::netns::Veth;
use weir_testbed::process::Launch;
use weir_testbed::prometheus::{Prometheus, tool};
use weir_testbed::scratch::Scratch;
use weir_testbed::traffic::Replay;
use weir_testbed::weir::Watch;

const GIVE_UP: Duration = Duration::from_mins(2);

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").canonicalize().expect("the folder is there")
}

fn rules() -> String {
    std::fs::read_to_string(deploy().join("prometheus/weir.rules.yml")).expect("the rules are there")
}

/// Names of metrics in the rules' expressions; the prose around them has none of the prefix.
fn metrics(rules: &str) -> BTreeSet<String> {
    rules
        .split(|char: char| !(char.is_ascii_alphanumeric() || char == '_'))
        .filter(|word| word.starts_with("weir_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn each_alert_fires_where_it_should_and_only_there() {
    let run = |name: &str, args: &[&str], folder: &str| {
        let launch = Launch::new(tool(name).expect("setup installs it")).args(args);
        launch.current_dir(deploy().join(folder)).run().unwrap_or_else(|error| panic!("{name}: {error}"));
    };
    run("promtool", &["check", "config", "prometheus.yml"], "prometheus");
    run("promtool", &["test", "rules", "weir.rules.test.yml"], "prometheus");
    run("amtool", &["check-config", "alertmanager.yml"], "alertmanager");
    // No alert without a test, none without a runbook.
    let tests = std::fs::read_to_string(deploy().join("prometheus/weir.rules.test.yml")).expect("tests");
    let runbooks = std::fs::read_to_string(deploy().join("../docs/alerts.md")).expect("runbooks");
    let rules = rules();
    let alerts = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    for alert in alerts {
        assert!(tests.contains(&format!("alertname: {alert}\n")), "{alert} has no test");
        assert!(runbooks.contains(&format!("\n## {alert}\n")), "{alert} has no runbook");
        assert!(rules.contains(&format!("docs/alerts.md#{}", alert.to_lowercase())), "{alert} names none");
    }
}

#[test]
fn every_metric_of_the_rules_exists() {
    let site = Site::new().expect("a control plane starts");
    let sender = site.member("sender", 0).expect("a member is made");
    let receiver = site.member("receiver", 1).expect("a member is made");
    wire((&sender, "tx"), (&receiver, "rx"), Veth::default()).expect("the wire is made");
    let lists = Scratch::new("lists").expect("a folder is made");
    let list = lists.path().join("list.txt");
    std::fs::write(&list, "198.51.100.0/24\n").expect("a threat list is written");
    let threats = format!(
        "[threats]\nfolder = \"{}\"\n[[threats.lists]]\nname = \"own\"\nfile = \"{}\"\n",
        lists.path().display(),
        list.display()
    );
    let watch = Watch { more: threats, ..Watch::interface("rx", "native", "auto") };
    let sensor = site.sensor("receiver", &watch, &receiver).expect("it starts");
    let address = |url: String| url.trim_start_matches("http://").to_owned();
    let prometheus = Prometheus::start(
        &receiver,
        &deploy().join("prometheus/weir.rules.yml"),
        &[
            ("weir-control-plane", &address(site.control_plane.url())),
            ("weir-sensor", &address(sensor.url())),
        ],
    )
    .expect("Prometheus starts");
    let capture = Capture::named("pcpp-example2").expect("the capture is there");
    Replay::default().send(&sender, "tx", &capture.pcap).expect("every frame is sent");

    let mut missing = metrics(&rules());
    assert!(missing.len() > 10, "the rules use metrics: {missing:?}");
    let deadline = Instant::now() + GIVE_UP;
    loop {
        missing.retain(|metric| !prometheus.has(metric).expect("Prometheus answers"));
        if missing.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "no program has {missing:?}\n{}", prometheus.log());
        thread::sleep(Duration::from_millis(200));
    }
    let evaluated = || {
        let rules = prometheus.rules().expect("Prometheus answers");
        !rules.is_empty() && rules.iter().all(|rule| rule["health"] == "ok")
    };
    while !evaluated() {
        assert!(Instant::now() < deadline, "{:#?}", prometheus.rules());
        thread::sleep(Duration::from_millis(200));
    }
    // Nothing is wrong here, so no alert that fires at once may fire.
    let firing: Vec<_> = prometheus
        .rules()
        .expect("Prometheus answers")
        .into_iter()
        .filter(|rule| rule["state"] == "firing")
        .map(|rule| rule["name"].clone())
        .collect();
    assert!(firing.is_empty(), "{firing:?}");
}
