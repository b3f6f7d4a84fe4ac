//! Real captures against independent truth, through the program as an operator runs it: flow by flow, packet
//! by packet, octet by octet (K2, K3, K4, S13). Needs root, for the kernel programs, and the captures beside
//! the workspace or where `WEIR_PCAPS` says.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use serde_json::Value;

/// Largest frame that can be run.
const MAX_FRAME: u64 = 65_549;

/// Addresses, protocol, ports, link stack.
type Key = (String, String, u64, u64, u64, Vec<String>);

#[derive(Debug, Default, PartialEq)]
struct Flow {
    packets: u64,
    octets: u64,
    tcp_flags: u64,
    fragment: bool,
    first: String,
    last: String,
    icmp: BTreeSet<String>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn key(flow: &Value) -> Key {
    (
        text(&flow["src"]),
        text(&flow["dst"]),
        number(&flow["proto"]),
        number(&flow["sport"]),
        number(&flow["dport"]),
        list(&flow["l2"]).iter().map(text).collect(),
    )
}

/// `seconds.nanoseconds` as RFC 3339.
fn rfc3339(stamp: &Value) -> String {
    let stamp = text(stamp);
    let (seconds, nanoseconds) = stamp.split_once('.').expect("seconds.nanoseconds");
    let time = jiff::Timestamp::new(
        seconds.parse().expect("seconds"),
        nanoseconds.parse().expect("nine digits of nanoseconds"),
    );
    format!("{:.9}", time.expect("a time of our age"))
}

/// What the sensor should find, and what it may not be asked (see the captures' README).
struct Expected {
    flows: BTreeMap<Key, Flow>,
    frames: u64,
    refused: u64,
    /// Flows of which the truth counts frames with a lying header, which we do not: their times and flags
    /// are not known then.
    unsure: BTreeSet<Key>,
}

fn expected(truth: &Value) -> Expected {
    let mut flows: BTreeMap<Key, Flow> = list(&truth["flows"])
        .iter()
        .map(|flow| {
            let fragments = &flow["frag"];
            let found = Flow {
                packets: number(&flow["packets"]),
                octets: number(&flow["l3_bytes"]),
                tcp_flags: number(&flow["tcp_flags"]),
                fragment: number(&fragments["first"]) + number(&fragments["later"]) > 0,
                first: rfc3339(&flow["first"]),
                last: rfc3339(&flow["last"]),
                icmp: flow["icmp"]
                    .as_object()
                    .map(|kinds| kinds.keys().cloned().collect())
                    .unwrap_or_default(),
            };
            (key(flow), found)
        })
        .collect();
    let mut unsure = BTreeSet::new();
    for frame in list(&truth["longer_than_frame"]) {
        let key = key(frame);
        let flow = flows.get_mut(&key).expect("a lying frame belongs to a flow");
        flow.packets -= 1;
        flow.octets -= number(&frame["l3_bytes"]);
        unsure.insert(key);
    }
    flows.retain(|_, flow| flow.packets != 0);
    Expected {
        flows,
        frames: number(&truth["totals"]["frames"]),
        refused: list(&truth["frames_over_64k"]).len() as u64,
        unsure,
    }
}

/// Runs the sensor; flows by key, and the totals line.
fn counted(capture: &Path) -> (BTreeMap<Key, Flow>, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_weir-sensor"))
        .args(["pcap", "--json", "--unidirectional"])
        .arg(capture)
        .output()
        .expect("the sensor starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors} (this test needs root)", capture.display());
    let mut flows: BTreeMap<Key, Flow> = BTreeMap::new();
    let mut totals = Value::Null;
    for line in String::from_utf8(output.stdout).expect("NDJSON is UTF-8").lines() {
        let line: Value = serde_json::from_str(line).expect("a line is a JSON object");
        if line["type"] == "totals" {
            totals = line;
            continue;
        }
        let kind = format!("{}/{}", number(&line["icmp_type"]), number(&line["icmp_code"]));
        let flow = Flow {
            packets: number(&line["packets"]),
            octets: number(&line["octets"]),
            tcp_flags: number(&line["tcp_flags"]),
            fragment: line["fragment"] == true,
            first: text(&line["first"]),
            last: text(&line["last"]),
            icmp: BTreeSet::from([kind]),
        };
        let again = flows.insert(key(&line), flow);
        assert!(again.is_none(), "{}: two lines for {:?}", capture.display(), key(&line));
    }
    (flows, totals)
}

/// Differences of one capture from its truth, a line each.
fn differences(truth: &Path) -> Vec<String> {
    let name = truth.to_string_lossy().replace(".truth.json", ".pcap");
    let json: Value = serde_json::from_slice(&std::fs::read(truth).expect("the truth is readable"))
        .expect("the truth is JSON");
    let Expected { flows, frames, refused, unsure } = expected(&json);
    let (found, totals) = counted(Path::new(&name));
    let mut differences = Vec::new();
    let mut differ = |what: String| differences.push(format!("{name}: {what}"));

    let sum = |fields: &[&str]| fields.iter().map(|field| number(&totals[field])).sum::<u64>();
    let accounted = sum(&["flow_packets", "overflow", "non_ip", "malformed", "filtered"]);
    if number(&totals["frames"]) != accounted {
        differ(format!("K3: the ledger does not add up: {totals}"));
    }
    if (number(&totals["frames"]), number(&totals["refused"])) != (frames - refused, refused) {
        differ(format!("{frames} frames, of which {refused} are over {MAX_FRAME} octets: {totals}"));
    }
    // Flows of refused frames cannot be told from the others in the truth.
    for key in flows.keys().filter(|key| refused == 0 && !found.contains_key(*key)) {
        differ(format!("{key:?} is missing"));
    }
    for (key, found) in &found {
        let Some(expected) = flows.get(key) else {
            differ(format!("{key:?} is not in the truth: {found:?}"));
            continue;
        };
        if refused != 0 {
            continue;
        }
        if (found.packets, found.octets) != (expected.packets, expected.octets) {
            differ(format!("{key:?}: {found:?}, and should be {expected:?}"));
        } else if !unsure.contains(key) {
            let kinds = expected.icmp.is_empty() || found.icmp.is_subset(&expected.icmp);
            let rest = |flow: &Flow| (flow.tcp_flags, flow.fragment, flow.first.clone(), flow.last.clone());
            if rest(found) != rest(expected) || !kinds {
                differ(format!("{key:?}: {found:?}, and should be {expected:?}"));
            }
        }
    }
    differences
}

#[test]
fn every_capture_gives_the_flows_packets_and_octets_of_its_truth() {
    let truths = weir_testbed::capture::truths().expect("the captures are there");
    let differences: Vec<String> = truths.iter().flat_map(|truth| differences(truth)).collect();
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
    println!("{} captures are counted exactly", truths.len());
}
