//! S10: the sensor works on with three capabilities and nothing else, in every thread. A program of its own,
//! because the test harness runs threads, and privileges are dropped before there are any. Needs root.
#![deny(unsafe_code)]

#[path = "pins/room.rs"]
#[expect(dead_code, reason = "the tests of pins need more of it")]
mod room;

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Write as _, stdin, stdout},
    process::{Command, Stdio},
    thread,
};

use room::{ip, pinning, room, send, wire};
use weir_sensor::kernel::{Datapath, EgressMode, IngressMode, Settings, drop_privileges};

const CHILD: &str = "WEIR_TEST_CHILD";

/// `CAP_NET_ADMIN`, `CAP_PERFMON`, `CAP_BPF`.
const KEPT: u64 = 1 << 12 | 1 << 38 | 1 << 39;

fn main() {
    if env::var_os(CHILD).is_some() {
        sensor();
        return;
    }
    room(every_thread_keeps_three_capabilities_and_works_on);
    println!("test s10_every_thread_keeps_three_capabilities_and_works_on ... ok");
}

fn settings() -> Settings {
    let mut settings = Settings { max_points: 16, ..Settings::default() };
    settings.tables.ipv4_slots = 256;
    settings.tables.ipv6_slots = 16;
    settings
}

fn every_thread_keeps_three_capabilities_and_works_on() {
    // What it takes over was made by a sensor with all privileges.
    let mut datapath = Datapath::open(&settings(), Some(&pinning())).expect("needs root").datapath;
    datapath.attach("rx", IngressMode::Native, EgressMode::Off).expect("it is attached");
    datapath.attach("tx", IngressMode::Off, EgressMode::Clsact).expect("it is attached");
    datapath.leave();
    send(10);
    wire("new", "newer");

    let mut child = Command::new(env::current_exe().expect("this test has a file"))
        .env(CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut line = || lines.next().expect("the child goes on").expect("the child writes UTF-8");
    assert_eq!(line(), "drained 20");
    let tasks = fs::read_dir(format!("/proc/{}/task", child.id())).expect("the child is there");
    let mut threads = 0;
    for task in tasks {
        let path = task.expect("it is listed").path().join("status");
        let status = fs::read_to_string(path).expect("the thread is there");
        let number = |key: &str, radix| {
            let value = status.lines().find_map(|line| line.strip_prefix(key)).expect("the kernel says so");
            u64::from_str_radix(value.trim(), radix).expect("a number")
        };
        for (key, expected) in
            [("CapInh:", 0), ("CapPrm:", KEPT), ("CapEff:", KEPT), ("CapBnd:", KEPT), ("CapAmb:", 0)]
        {
            assert_eq!(number(key, 16), expected, "{key} {status}");
        }
        assert_eq!(number("NoNewPrivs:", 10), 1);
        threads += 1;
    }
    assert!(threads >= 2, "{threads} threads");
    child.stdin.take().expect("it is piped").write_all(b"go on\n").expect("the child reads");
    assert_eq!(line(), "done");
    assert!(child.wait().expect("it is our child").success());
    assert!(!pinning().path().exists(), "it could remove its pins");
    assert!(!ip(&["-details", "link", "show"]).contains("prog/xdp"), "and its programs");
}

/// The child: takes over, drains, attaches, detaches, with what it kept.
fn sensor() {
    drop_privileges(false).expect("privileges are dropped");
    let work = thread::spawn(|| {
        let again = drop_privileges(false).expect_err("this is a second thread").to_string();
        assert!(again.contains("other threads"), "{again}");
        let mut datapath =
            Datapath::open(&settings(), Some(&pinning())).expect("it opens without privileges").datapath;
        datapath.attach("rx", IngressMode::Native, EgressMode::Off).expect("it is taken over");
        datapath.attach("tx", IngressMode::Off, EgressMode::Clsact).expect("it is taken over");
        assert!(datapath.resume(None).expect("nothing is held").is_none());
        let drained = datapath.flip().expect("it drains");
        datapath.release(drained.epoch).expect("it is zeroed");
        tell(&format!("drained {}", drained.points.iter().map(|point| point.totals.frames).sum::<u64>()));
        stdin().lines().next();
        datapath.attach("new", IngressMode::Auto, EgressMode::Auto).expect("a new interface is attached");
        datapath.detach("new").expect("and detached");
        datapath.discard().expect("and the pins removed");
        tell("done");
    });
    work.join().expect("the work is done");
}

fn tell(line: &str) {
    println!("{line}");
    stdout().flush().expect("somebody reads");
}
