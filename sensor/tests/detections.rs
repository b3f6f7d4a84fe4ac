//! Detections on real captures, through the program as an operator runs it (S6, S13): what is an attack is
//! found, and in ordinary traffic nothing is. Needs root, and the captures beside the workspace or where
//! `WEIR_PCAPS` says.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use weir_testbed::capture;

/// What is rightly found, by capture; each with its reason. Every other capture is ordinary.
const EXPECTED: &[(&str, &str, &str)] = &[
    // 2,000 ports of one host are tried within seconds: the capture's own name for it.
    ("ndpi-synscan", "port_scan", "172.16.0.8"),
    // An FTP session, login and all, of which other frames were fuzzed.
    ("ndpi-fuzz-2006-06", "cleartext", "192.168.1.2 > 147.234.1.253:21"),
    // Two networks in one file: three days after the first DHCPv6 server another one answers.
    ("tcpdump-dhcpv4v6", "rogue_dhcp", "fe80::40d3:61ff:fe62:3810"),
    // 6,000 ICMPv6 packets a second to one address, behind chains of extension headers.
    ("suri-denial6-5", "icmp_flood", "2001:db8:1::1"),
    // A camera and a plug of 2016, whose servers choose TLS 1.0.
    ("iot-dlinkcam-a1", "deprecated_tls", "10.10.10.37 > 52.8.178.58:443"),
    ("iot-dlinkcam-a1", "deprecated_tls", "10.10.10.37 > 54.194.162.61:443"),
    ("iot-dlinkcam-a1", "deprecated_tls", "10.10.10.37 > 54.229.64.81:443"),
    ("iot-wemoinsight-a1", "deprecated_tls", "10.10.10.158 > 23.23.111.129:8443"),
    ("iot-wemoinsight-a1", "deprecated_tls", "10.10.10.158 > 50.17.221.66:8443"),
    ("iot-wemoinsight-a1", "deprecated_tls", "10.10.10.158 > 54.193.117.148:443"),
];

fn captures() -> Vec<PathBuf> {
    let folder = capture::folder().expect("the captures are there");
    let names = capture::names().expect("the captures are there");
    names.iter().map(|name| folder.join(format!("{name}.pcap"))).collect()
}

#[test]
fn attacks_in_captures_are_found_and_ordinary_traffic_raises_nothing() {
    let captures = captures();
    assert!(captures.len() > 40, "{} captures", captures.len());
    let output = Command::new(env!("CARGO_BIN_EXE_weir-sensor"))
        .args(["pcap", "--json"])
        .args(&captures)
        .output()
        .expect("the sensor starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors} (this test needs root)");
    let mut found = BTreeSet::new();
    for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let line: Value = serde_json::from_slice(line).expect("NDJSON");
        if line["type"] == "detection" {
            let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
            let name =
                Path::new(&text("file")).file_stem().unwrap_or_default().to_string_lossy().into_owned();
            eprintln!("{name}: {line}");
            found.insert((name, text("kind"), text("subject")));
        }
    }
    let expected: BTreeSet<_> = EXPECTED
        .iter()
        .map(|(file, kind, subject)| ((*file).to_owned(), (*kind).to_owned(), (*subject).to_owned()))
        .collect();
    assert_eq!(found, expected);
}
