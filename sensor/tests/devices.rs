//! Devices of real captures, against truth that is independent of Weir (S4, S13): every binding of ARP and
//! neighbour discovery and every DHCP host name of the truth is a device's, one link address is one device, and no
//! device is invented. Needs root, and the captures beside the workspace or where `WEIR_PCAPS` says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Addresses that a record keeps; whoever had more is known by the last ones.
const KEPT: usize = 32;
/// Names that a record keeps.
const NAMES: usize = 16;

fn folder() -> PathBuf {
    std::env::var_os("WEIR_PCAPS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/pcaps/open"), PathBuf::from)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The devices that the program finds in each capture.
fn found(captures: &[PathBuf]) -> BTreeMap<String, Vec<Value>> {
    let output = Command::new(env!("CARGO_BIN_EXE_weir-sensor"))
        .args(["pcap", "--json", "--devices"])
        .args(captures)
        .output()
        .expect("the sensor starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors} (this test needs root)");
    let mut devices: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let line: Value = serde_json::from_slice(line).expect("NDJSON");
        if line["type"] == "device" {
            devices.entry(line["file"].as_str().expect("a file").to_owned()).or_default().push(line);
        }
    }
    devices
}

/// Link addresses and what is said of each: addresses and host names.
#[derive(Default)]
struct Truth {
    bindings: BTreeSet<(String, String)>,
    names: BTreeSet<(String, String)>,
}

fn truth(path: &Path) -> Truth {
    let text = std::fs::read_to_string(path.with_extension("truth.json")).expect("a truth");
    let json: Value = serde_json::from_str(&text).expect("JSON");
    let app = &json["app"];
    let mut truth = Truth::default();
    let is_one = |mac: &str| {
        mac != "00:00:00:00:00:00" && u8::from_str_radix(&mac[..2], 16).is_ok_and(|first| first & 1 == 0)
    };
    let plain = |entry: &&Value| entry.get("where").is_none();
    for entry in list(&app["arp"]).iter().filter(plain) {
        let (Some(mac), Some(address)) = (entry["sha"].as_str(), entry["spa"].as_str()) else { continue };
        let operation = entry["op"].as_u64().unwrap_or(0);
        if is_one(mac) && address != "0.0.0.0" && matches!(operation, 1 | 2) {
            truth.bindings.insert((mac.to_owned(), address.to_owned()));
        }
    }
    for entry in list(&app["ndp"]).iter().filter(plain) {
        let address = match entry["type"].as_u64() {
            Some(136) => &entry["target"],
            Some(133..=135) => &entry["src"],
            _ => continue,
        };
        let (Some(mac), Some(address)) = (entry["lladdr"].as_str(), address.as_str()) else { continue };
        if is_one(mac) && address != "::" {
            truth.bindings.insert((mac.to_owned(), address.to_owned()));
        }
    }
    for entry in list(&app["dhcp4"]).iter().filter(plain) {
        let (Some(mac), Some(name)) = (entry["chaddr"].as_str(), entry["hostname"].as_str()) else {
            continue;
        };
        if is_one(mac) && entry["op"] == 1 && !name.is_empty() {
            truth.names.insert((mac.to_owned(), name.to_owned()));
        }
    }
    truth
}

#[test]
fn s4_bindings_and_host_names_of_the_truth_are_one_devices_each() {
    let mut captures: Vec<_> = std::fs::read_dir(folder())
        .unwrap_or_else(|error| panic!("no captures in {}: {error}", folder().display()))
        .map(|entry| entry.expect("the folder reads").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "pcap"))
        .collect();
    captures.sort();
    let devices = found(&captures);
    let (mut bindings, mut names, mut wrong) = (0, 0, Vec::new());
    for path in &captures {
        let truth = truth(path);
        let file = path.to_string_lossy().into_owned();
        let devices = devices.get(&file).map_or(&[][..], Vec::as_slice);
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let of = |mac: &str| -> Vec<&Value> {
            let has =
                |key: &Value| key[1] == mac && key[0].as_str().is_some_and(|kind| kind.ends_with("mac"));
            devices.iter().filter(|device| list(&device["keys"]).iter().any(has)).collect()
        };
        for (mac, address) in &truth.bindings {
            bindings += 1;
            let [device] = of(mac)[..] else {
                wrong.push(format!("{name}: {} devices have {mac}", of(mac).len()));
                continue;
            };
            let addresses = list(&device["addresses"]);
            if addresses.len() < KEPT && !addresses.iter().any(|it| it == address) {
                wrong.push(format!("{name}: {mac} has not {address}: {device}"));
            }
        }
        for (mac, host) in &truth.names {
            names += 1;
            let [device] = of(mac)[..] else {
                wrong.push(format!("{name}: {} devices have {mac}", of(mac).len()));
                continue;
            };
            let told = list(&device["names"]);
            if told.len() < NAMES && !told.iter().any(|it| it[0] == "dhcp" && it[1] == host.as_str()) {
                wrong.push(format!("{name}: {mac} is not {host}: {device}"));
            }
        }
        // One link address is one device, whatever it is called.
        let mut macs = BTreeSet::new();
        for key in devices.iter().flat_map(|device| list(&device["keys"])) {
            let (kind, value) = (key[0].as_str().unwrap_or_default(), key[1].as_str().unwrap_or_default());
            if kind.ends_with("mac") && !macs.insert(value) {
                wrong.push(format!("{name}: two devices have {value}"));
            }
            if !frames_of(path).contains(value) && kind.ends_with("mac") {
                wrong.push(format!("{name}: {value} is in no frame"));
            }
        }
        // A card's own address stands alone.
        for device in devices {
            if list(&device["keys"]).iter().filter(|key| key[0] == "mac").count() > 1 {
                wrong.push(format!("{name}: two cards in one: {device}"));
            }
        }
    }
    eprintln!("{bindings} bindings, {names} host names");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(bindings > 40 && names > 10, "{bindings} bindings, {names} host names");
}

/// All runs of six octets in a capture, as link addresses are written: a device is somebody who was there.
fn frames_of(path: &Path) -> Octets {
    Octets(std::fs::read(path).expect("the capture reads"))
}

struct Octets(Vec<u8>);

impl Octets {
    fn contains(&self, mac: &str) -> bool {
        let octets: Vec<u8> = mac.split(':').filter_map(|octet| u8::from_str_radix(octet, 16).ok()).collect();
        octets.len() == 6 && self.0.windows(6).any(|window| window == octets)
    }
}

/// What is known to be in a capture: its makers named it so, or the device says it itself.
#[test]
fn s4_known_devices_have_their_type_with_reasons() {
    let of = |file: &str| {
        let path = folder().join(format!("{file}.pcap"));
        found(std::slice::from_ref(&path)).into_values().next().unwrap_or_default()
    };
    for (file, mac, kind, vendor) in [
        ("iot-huebridge-a1", "00:17:88:24:76:ff", "hub", "Philips Lighting BV"),
        ("iot-wemoinsight-a1", "94:10:3e:41:c2:05", "iot", "Belkin International Inc."),
    ] {
        let devices = of(file);
        let has = |device: &&Value| list(&device["keys"]).iter().any(|key| key[1] == mac);
        let device = devices.iter().find(has).unwrap_or_else(|| panic!("{file}: no {mac} in {devices:#?}"));
        assert_eq!((&device["device_type"], &device["vendor"]), (&kind.into(), &vendor.into()), "{device:#}");
        let because = list(&device["reasons"]).iter().filter(|reason| reason["type"] == kind);
        assert!(
            because.clone().count() > 0 && because.clone().all(|reason| reason["source"] != ""),
            "{device:#}"
        );
    }
}
