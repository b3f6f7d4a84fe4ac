//! Sensors that are killed at any instant, while traffic goes on.

use std::{
    env,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use weir_sensor::kernel::{EgressMode, IngressMode, Pinning};

use super::{
    ledger::{Ledger, Modes, settings},
    room::{Traffic, pinning, room},
};

const LEDGER: &str = "WEIR_TEST_LEDGER";
const ROUND: &str = "WEIR_TEST_ROUND";
const EGRESS: &str = "WEIR_TEST_EGRESS";
const ROUNDS: u32 = 12;

/// Every third sensor is another build, every fourth has tables of another size.
fn sensor(round: u32) -> (weir_sensor::kernel::Settings, Pinning) {
    let mut settings = settings();
    if round % 4 == 3 {
        settings.tables.ipv4_slots = 512;
    }
    let build = (round % 3 == 2).then_some(4711);
    (settings, Pinning { build, ..pinning() })
}

/// Links on both hooks, where the kernel has them; or a filter, which is replaced in another way.
fn modes(egress: &str) -> Modes {
    if egress == "clsact" {
        return Modes { ingress: IngressMode::Generic, egress: EgressMode::Clsact };
    }
    Modes { ingress: IngressMode::Native, egress: EgressMode::Auto }
}

/// What is killed: drains without a pause.
#[test]
#[ignore = "the process that s8_sensors_killed_at_any_instant starts and kills"]
fn target() {
    let ledger = env::var_os(LEDGER).expect("the test says where the ledger is");
    let round = env::var(ROUND).expect("the test says which round it is").parse().expect("a number");
    let modes = modes(&env::var(EGRESS).expect("the test says which hook it is"));
    let (settings, pinning) = sensor(round);
    let mut ledger = Ledger::in_file(Path::new(&ledger));
    let mut datapath = ledger.take_over(&settings, &pinning, modes);
    loop {
        ledger.drain(&mut datapath);
    }
}

#[test]
fn s8_sensors_killed_at_any_instant_lose_and_double_nothing() {
    killed("auto");
}

#[test]
fn s8_sensors_killed_at_any_instant_lose_and_double_nothing_by_clsact_filters() {
    killed("clsact");
}

fn killed(egress: &'static str) {
    room(move || {
        let modes = modes(egress);
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("ledger");
        let seed: u64 = rand::random();
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        // Attached before the first packet: what is sent is what must be counted.
        drop(Ledger::in_file(&file).take_over(&settings(), &pinning(), modes));
        let traffic = Traffic::start();
        for round in 0..ROUNDS {
            let mut target = Command::new(env::current_exe().expect("this test has a file"))
                .args(["--exact", "kill::target", "--ignored"])
                .env(LEDGER, &file)
                .env(ROUND, round.to_string())
                .env(EGRESS, egress)
                .stdout(Stdio::null())
                .spawn()
                .expect("the target starts");
            if round % 2 == 0 {
                // While it drains: it has committed something.
                let length = || file.metadata().map_or(0, |metadata| metadata.len());
                let (before, deadline) = (length(), Instant::now() + Duration::from_mins(1));
                while length() == before {
                    assert!(Instant::now() < deadline, "the target of round {round} commits nothing");
                    assert_eq!(
                        target.try_wait().expect("it is our child"),
                        None,
                        "it ended in round {round}"
                    );
                    thread::sleep(Duration::from_millis(1));
                }
                thread::sleep(Duration::from_micros(random.random_range(0..40_000)));
            } else {
                // While it opens, most likely.
                thread::sleep(Duration::from_micros(random.random_range(0..800_000)));
            }
            target.kill().expect("it is killed");
            target.wait().expect("it is our child");
        }
        traffic.stop();
        let mut ledger = Ledger::in_file(&file);
        let mut datapath = ledger.take_over(&settings(), &pinning(), modes);
        ledger.drain(&mut datapath);
        ledger.settle();
        datapath.discard().expect("the pins are removed");
    });
}
