//! A1, A2, A5: a fuzzer made from the served OpenAPI document finds nothing: no 500, no status and no body
//! that the document does not have, no valid request refused, no invalid one taken, no way past a credential.
//!
//! schemathesis (got by `cargo xtask setup`) asks as each kind of caller, against a control plane with a
//! Postgres of its own and some flows. Bounded and always the same; `cargo xtask apifuzz --minutes N` sets
//! `WEIR_API_FUZZ_MINUTES` for a longer run from another seed.

#[path = "../behaviour/people.rs"]
#[allow(dead_code)]
mod people;
#[path = "../behaviour/support.rs"]
#[allow(dead_code)]
mod support;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use weir_control_plane::auth::Role;
use weir_control_plane::config::Rate;

use weir_wire::Severity;

use crate::support::{ADMIN_TOKEN, Plane, SECOND, batch, detection, flow, mixed_flows, recent_minute_ns};

/// Random cases of each operation and caller in a bounded run; those that schemathesis makes from examples and
/// from the bounds of each parameter come on top.
const CASES: u32 = 12;
/// Fewer than this would mean that something kept the fuzzer from asking.
const AT_LEAST: u64 = 5_000;

/// Callers who ask at the same time.
const AT_ONCE: usize = 2;

struct Caller {
    /// Everything: examples, the bounds of each parameter and those just beyond, random cases, chains of
    /// requests. The others, who differ in what they may, get examples and random cases.
    whole: bool,
    label: &'static str,
    kind: &'static str,
    role: &'static str,
    scopes: &'static [&'static str],
}

const EVERY_SCOPE: &[&str] =
    &["flows", "sensors", "detections", "users", "audit", "alerts", "operations", "documentation"];

/// Those who may change much come last: the others find all as it was.
const CALLERS: [Caller; 7] = [
    Caller { whole: true, label: "viewer", kind: "user", role: "viewer", scopes: &[] },
    Caller { whole: false, label: "machine-flows", kind: "machine", role: "viewer", scopes: &["flows"] },
    Caller { whole: false, label: "sensor", kind: "sensor", role: "viewer", scopes: &[] },
    Caller { whole: false, label: "operator", kind: "user", role: "operator", scopes: &[] },
    Caller { whole: false, label: "machine-all", kind: "machine", role: "admin", scopes: EVERY_SCOPE },
    Caller { whole: false, label: "admin-token", kind: "admin_token", role: "admin", scopes: &[] },
    Caller { whole: true, label: "admin", kind: "user", role: "admin", scopes: &[] },
];

#[tokio::test(flavor = "multi_thread")]
async fn a1_a_fuzzer_made_from_the_document_finds_nothing() {
    let plane = Plane::start_with(|config| {
        // Limits are tested elsewhere; here they would end the test early.
        let rate = Rate { per_minute: 6_000_000, burst: 1_000_000 };
        config.limits.query = rate;
        config.limits.read = rate;
        config.limits.write = rate;
        config.limits.ingest = rate;
        config.auth.access_token_s = 3_600;
        // Each request has an address of its own to be limited by.
        config.api.trusted_proxies = vec![std::net::Ipv4Addr::LOCALHOST.into()];
        config.api.max_exports = 16;
        config.api.max_concurrent = 16;
        config.api.queue_timeout_ms = 60_000;
    })
    .await;
    let sensor = furnish(&plane).await;
    let minutes = std::env::var("WEIR_API_FUZZ_MINUTES").ok().map(|text| {
        text.parse::<u64>()
            .unwrap_or_else(|_| panic!("WEIR_API_FUZZ_MINUTES is `{text}`, which is no number"))
    });
    let document = plane.get("/api/openapi.json").await.bytes().await.expect("the document");
    let only = std::env::var("WEIR_API_FUZZ_CALLER").ok();

    let chosen: Vec<&Caller> =
        CALLERS.iter().filter(|caller| only.as_deref().is_none_or(|only| only == caller.label)).collect();
    let seconds = minutes.map(|minutes| minutes * 60 / chosen.len().div_ceil(AT_ONCE).max(1) as u64);
    let (mut cases, mut wrong) = (0, Vec::new());
    // The fuzzer has one core's worth of work to do, and leaves another one to the control plane and Postgres.
    for two in chosen.chunks(2) {
        let runs =
            two.iter().map(|caller| {
                let folder = folder(caller.label);
                std::fs::write(folder.join("openapi.json"), &document).expect("the document is written");
                let token = if caller.kind == "sensor" { &sensor } else { ADMIN_TOKEN };
                let mut command = schemathesis(&plane, caller, token, &folder, seconds);
                let run = tokio::task::spawn_blocking(move || command.output());
                async move {
                    (*caller, folder, run.await.expect("it is waited for").expect("schemathesis starts"))
                }
            });
        for (caller, folder, output) in futures_util::future::join_all(runs).await {
            let made = made(&folder, &output);
            println!("{}: {made} cases, {}", caller.label, output.status);
            cases += made;
            if !output.status.success() {
                wrong.push(format!("as {}:\n{}", caller.label, said(&output)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(!chosen.is_empty(), "no caller is called {only:?}");
    assert!(only.is_some() || cases >= AT_LEAST, "{cases} cases only");
    let errors = plane.metrics().await;
    let failed = errors.lines().filter(|line| line.contains(r#"status="500""#)).collect::<Vec<_>>();
    assert!(failed.is_empty(), "{failed:?}");
}

/// A1: every operation, parameter and schema has an example, and each example is one of its schema. That those of
/// requests are accepted, the fuzzer's first phase shows.
#[test]
fn a1_every_example_fits_its_schema() {
    let document = weir_control_plane::api::document().to_json().expect("JSON");
    let python = program().with_file_name("python");
    let mut check = Command::new(python);
    check.arg(here().join("examples.py")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut check = check.spawn().expect("Python starts");
    check.stdin.take().expect("it has an input").write_all(document.as_bytes()).expect("it reads");
    let output = check.wait_with_output().expect("it ends");
    assert!(output.status.success() && output.stdout.is_empty(), "{}", said(&output));
}

/// What the document's examples name, and some more; gives the token of a sensor.
async fn furnish(plane: &Plane<'_>) -> String {
    for (name, role) in [("ann", Role::Admin), ("bob", Role::Viewer)] {
        plane.user(name, role).await;
    }
    for name in ["edge-1", "edge-2"] {
        let token = plane.sensor(name).await;
        for epoch in 0..3 {
            let start = recent_minute_ns() + epoch * 5 * SECOND;
            let mut batch = batch(1, epoch as u64, start, mixed_flows());
            let subjects = (0..6).map(|host| format!("10.0.{epoch}.{host}"));
            batch.detections =
                subjects.map(|subject| detection("port_scan", &subject, Severity::High, 20)).collect();
            plane.store(&token, &batch).await;
        }
    }
    let token = plane.sensor("core-1").await;
    let one = vec![flow([10, 0, 0, 1], [192, 0, 2, 80], 443, 7)];
    plane.store(&token, &batch(2, 0, recent_minute_ns(), one)).await;
    token
}

fn schemathesis(
    plane: &Plane<'_>,
    caller: &Caller,
    token: &str,
    folder: &Path,
    seconds: Option<u64>,
) -> Command {
    let here = here();
    let mut command = Command::new(program());
    command.current_dir(folder).env_remove("PYTHONPATH");
    command.arg("--config-file").arg(here.join("schemathesis.toml"));
    command.env("SCHEMATHESIS_HOOKS", here.join("hooks.py")).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("WEIR_URL", plane.url("")).env("WEIR_ADMIN_TOKEN", ADMIN_TOKEN).env("WEIR_CALLER", {
        json!({
            "kind": caller.kind, "name": format!("fuzz-{}", caller.label), "role": caller.role,
            "scopes": caller.scopes, "token": token,
        })
        .to_string()
    });
    command.args(["run", "--no-color", "--workers", "1", "--report", "json", "--report-json-path"]);
    command.arg(folder.join("report.json")).arg("--url").arg(plane.url(""));
    // Answers without an end, and a handshake that no HTTP client makes.
    command.args(["--exclude-path", "/api/v1/stream", "--exclude-path", "/api/v1/events/stream"]);
    if !caller.whole && seconds.is_none() {
        command.args(["--phases", "examples,fuzzing"]);
    }
    match seconds {
        None => command.args(["--generation-deterministic", "--max-examples", &CASES.to_string()]),
        Some(seconds) => command.args(["--max-time", &seconds.max(1).to_string()]),
    };
    command.arg(folder.join("openapi.json"));
    command
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api_fuzz")
}

/// Where `cargo xtask setup` put it.
fn program() -> PathBuf {
    let test = std::env::current_exe().expect("this test has a file");
    let found = test
        .ancestors()
        .map(|folder| folder.join("tools/schemathesis/bin/schemathesis"))
        .find(|program| program.is_file());
    found.expect("schemathesis is there after `cargo xtask setup`")
}

/// Reports of a caller's run; kept until the next one.
fn folder(label: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("api-fuzz").join(label);
    // Not there at the first run.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder for reports");
    folder
}

/// How many requests it made.
fn made(folder: &Path, output: &Output) -> u64 {
    let report = std::fs::read(folder.join("report.json"))
        .unwrap_or_else(|error| panic!("no report: {error}\n{}", said(output)));
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    report["test_cases"]["generated"].as_u64().expect("a number of cases")
}

fn said(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
