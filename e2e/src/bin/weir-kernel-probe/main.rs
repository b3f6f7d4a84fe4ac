//! What the datapath does on the kernel that runs this: `cargo xtask kernels` boots it on several.
//!
//! One line of JSON a feature on standard output: whether it works, and which way of doing it the sensor
//! took. Everything happens in namespaces of the probe's own, so that it can be run on any host as root:
//! `weir-kernel-probe [FEATURE...]`. The captures are found as the tests find them (`WEIR_PCAPS`).
#![forbid(unsafe_code)]

mod events;
mod ground;
mod lists;
mod load;
mod pins;
mod processes;
mod replayed;
mod wires;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use ground::Ground;
use serde_json::json;

/// A feature and how it is shown; the text says which way was taken.
struct Check {
    feature: &'static str,
    run: fn(&Ground) -> Result<String>,
}

/// All of them, in the order of the table.
const CHECKS: [Check; 25] = [
    Check { feature: "programs load", run: replayed::programs_load },
    Check { feature: "kernel log off and full", run: replayed::every_log_level },
    Check { feature: "captures, XDP", run: replayed::captures_by_xdp },
    Check { feature: "captures, TC egress", run: replayed::captures_by_tc_egress },
    Check { feature: "captures, TC ingress", run: replayed::captures_by_tc_ingress },
    Check { feature: "captures of raw IP", run: replayed::raw_ip },
    Check { feature: "mutated frames", run: replayed::mutated },
    Check { feature: "filter", run: replayed::filter },
    Check { feature: "sampling", run: replayed::sampling },
    Check { feature: "threat lists, marks", run: lists::marks },
    Check { feature: "threat lists, drops", run: lists::drops },
    Check { feature: "events, by test runs", run: events::by_test_runs },
    Check { feature: "events, veth", run: events::on_a_wire },
    Check { feature: "flips under load", run: load::flips },
    Check { feature: "full tables", run: load::full_tables },
    Check { feature: "veth, automatic", run: wires::automatic },
    Check { feature: "veth, generic XDP", run: wires::generic },
    Check { feature: "veth, TC", run: wires::tc },
    Check { feature: "veth, clsact", run: wires::clsact },
    Check { feature: "tunnel, layer 3", run: wires::tunnel },
    Check { feature: "tun, layer 3", run: wires::tun },
    Check { feature: "clock", run: wires::clock },
    Check { feature: "pins, taken over", run: pins::taken_over },
    Check { feature: "pins, removed", run: pins::detached },
    Check { feature: "processes of sockets", run: processes::of_sockets },
];

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let ground = match Ground::new() {
        Ok(ground) => ground,
        Err(error) => {
            say(&json!({ "error": format!("{error:#}") }));
            return ExitCode::FAILURE;
        }
    };
    say(&json!({ "kernel": ground.kernel }));
    let mut good = true;
    for Check { feature, run } in &CHECKS {
        if !wanted.is_empty() && !wanted.iter().any(|name| feature.contains(name.as_str())) {
            continue;
        }
        let began = Instant::now();
        let result = run(&ground);
        good &= result.is_ok();
        let ms = began.elapsed().as_millis() as u64;
        say(&match result {
            Ok(seen) => json!({ "feature": feature, "ok": true, "seen": seen, "ms": ms }),
            Err(error) => json!({ "feature": feature, "ok": false, "seen": format!("{error:#}"), "ms": ms }),
        });
    }
    say(&json!({ "done": true }));
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn say(line: &serde_json::Value) {
    // Nobody reads on: then nobody misses it.
    let _ = writeln!(std::io::stdout(), "{line}");
}
