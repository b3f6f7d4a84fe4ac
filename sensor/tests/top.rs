//! `weir-sensor top` beside a running sensor, by itself, and on a terminal (S13). Needs
//! root; the namespaces are the test's own.

use std::io::{Read as _, Write as _};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use weir_testbed::netns::{End, Namespace, Veth};
use weir_testbed::process::Launch;

const SENSOR: &str = env!("CARGO_BIN_EXE_weir-sensor");

/// A steady trickle of datagrams, until it is dropped.
struct Trickle {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Trickle {
    fn start(from: &Namespace) -> Self {
        let socket = from.enter(|| UdpSocket::bind("10.77.0.2:5555").expect("a socket")).expect("it enters");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // Nobody listens there: a refusal is part of it.
                let _ = socket.send_to(&[7; 1_000], "10.77.0.1:7777");
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Trickle {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn site() -> (Namespace, Namespace) {
    let (watched, other) =
        (Namespace::new("top-a").expect("a namespace"), Namespace::new("top-b").expect("a namespace"));
    let ends = [&watched, &other].map(|namespace| End { namespace: Some(namespace), interface: "eth0" });
    Veth { arp: true, ..Veth::default() }.join(ends[0], ends[1]).expect("they are joined");
    watched.ip(&["addr", "add", "10.77.0.1/24", "dev", "eth0"]).expect("an address");
    other.ip(&["addr", "add", "10.77.0.2/24", "dev", "eth0"]).expect("an address");
    (watched, other)
}

fn configuration(folder: &Path) -> std::path::PathBuf {
    let file = folder.join("sensor.toml");
    let text = format!(
        "epoch = \"200ms\"\n[[interfaces]]\nname = \"eth0\"\n[pins]\nenabled = false\n[metrics]\nlisten = \
         \"127.0.0.1:0\"\n[spool]\nfolder = \"{}\"\n[processes]\nenabled = false\n",
        folder.join("spool").display()
    );
    std::fs::write(&file, text).expect("it is written");
    file
}

/// Whether a report has the trickle, as flow and as talkers.
fn assert_shown(report: &str) {
    let report: Value = serde_json::from_str(report).expect("JSON");
    let rows = |name: &str| report[name].as_array().expect("a table").clone();
    let flow = rows("flows").into_iter().find(|flow| flow["to"] == "10.77.0.1:7777").expect("the flow");
    assert_eq!((&flow["from"], &flow["proto"]), (&"10.77.0.2:5555".into(), &"udp".into()), "{report}");
    assert!(flow["traffic"].as_f64() > Some(8_000.0), "{flow}");
    let talkers = rows("talkers");
    let sender = talkers.iter().find(|talker| talker["address"] == "10.77.0.2").expect("the sender");
    assert!(sender["sent"].as_f64() >= Some(flow["traffic"].as_f64().expect("a number") / 2.0), "{report}");
    assert!(
        report["packets"].as_u64() > Some(10) && report["detections"] == Value::Array(vec![]),
        "{report}"
    );
}

#[test]
fn s13_top_shows_what_a_running_sensor_counts_and_leaves_the_terminal_as_it_was() {
    let (watched, other) = site();
    let folder = TempDir::new().expect("a folder");
    let file = configuration(folder.path());
    let run = watched.launch(SENSOR).args(["run", "--config"]).arg(&file);
    let mut sensor = run.spawn("sensor", folder.path().join("log")).expect("it starts");
    let socket = folder.path().join("spool/live.sock");
    sensor
        .wait_until("the sensor shows what it counts", Duration::from_mins(1), || socket.exists())
        .expect("it runs");
    let trickle = Trickle::start(&other);
    let report = Launch::new(SENSOR)
        .args(["top", "--once", "--seconds", "2", "--json", "--config"])
        .arg(&file)
        .run()
        .expect("a report");
    assert_shown(&report);

    let inside = format!("stty rows 30 cols 140; exec {SENSOR} top --config {}", file.display());
    let mut terminal = Command::new("script")
        .args(["-qec", &inside, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script, which makes a terminal, is part of Debian's base");
    let (mut keys, mut screen) =
        (terminal.stdin.take().expect("piped"), terminal.stdout.take().expect("piped"));
    let mut seen = Vec::new();
    let shows = |seen: &[u8], what: &str| String::from_utf8_lossy(seen).contains(what);
    let mut buffer = [0; 4_096];
    let began = Instant::now();
    while !shows(&seen, "10.77.0.1:7777") {
        let read = screen.read(&mut buffer).expect("the terminal");
        assert!(read > 0 && began.elapsed() < Duration::from_mins(1), "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..read]);
    }
    keys.write_all(b"q").expect("the key");
    screen.read_to_end(&mut seen).expect("the rest");
    assert!(terminal.wait().expect("it ends").success());
    // The screen that was there before.
    assert!(shows(&seen, "\u{1b}[?1049h") && shows(&seen, "\u{1b}[?1049l"));

    drop(trickle);
    assert!(sensor.terminate(Duration::from_mins(1)).expect("it ends").success(), "{}", sensor.log_tail());
    let gone = Launch::new(SENSOR).args(["top", "--once", "--config"]).arg(&file).run();
    let error = gone.expect_err("no sensor runs").to_string();
    assert!(error.contains("no sensor answers in spool.folder") && error.contains("--interface"), "{error}");
}

#[test]
fn s13_top_counts_by_itself_and_leaves_nothing_behind() {
    let (watched, other) = site();
    let folder = TempDir::new().expect("a folder");
    let _trickle = Trickle::start(&other);
    let report = watched
        .launch(SENSOR)
        .args(["top", "--interface", "eth0", "--once", "--seconds", "3", "--json"])
        .args(["--set", "processes.enabled=false"])
        .env("TMPDIR", folder.path())
        .run()
        .expect("a report");
    assert_shown(&report);
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0);
    let left = watched.ip(&["-details", "link", "show", "dev", "eth0"]).expect("the interface");
    assert!(!left.contains("prog/xdp"), "{left}");
}

#[test]
fn top_wants_a_terminal_or_a_report() {
    let output = Command::new(SENSOR).arg("top").stdin(Stdio::null()).output().expect("it starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert_eq!(error, "weir-sensor: top needs a terminal; --once prints a report\n");
}
