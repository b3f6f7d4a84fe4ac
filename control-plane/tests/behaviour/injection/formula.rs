//! What a spreadsheet would calculate is text in a file for spreadsheets, and as it was everywhere else.

use weir_wire::{Flow, NameSource, Place};

use crate::support::{Plane, batch, mixed_flows, recent_minute_ns};

/// One that is short enough for an interface, and a long one; strangers choose names of hosts and organisations.
const FORMULA: &str = "=cmd|'C'!A0";
const NAMES: [&str; 4] = ["=hyperlink(\"http://evil.example\",\"x\")", "+1+cmd", "-2+3", "@sum(a1)"];

#[tokio::test(flavor = "multi_thread")]
async fn a2_a_formula_stays_text_in_the_file() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let mut batch = batch(1, 0, recent_minute_ns(), mixed_flows());
    for point in &mut batch.points {
        FORMULA.clone_into(&mut point.interface);
    }
    batch.names = NAMES.map(str::to_owned).to_vec();
    let place =
        |(asn, name): (u32, &str)| Place { country: "NL".to_owned(), asn, organisation: name.to_owned() };
    batch.places = (64_496..).zip(NAMES).map(place).collect();
    for (index, flow) in batch.flows.iter_mut().enumerate() {
        let one_of = (index % NAMES.len()) as u32 + 1;
        *flow = Flow { name: one_of, name_source: NameSource::Tls as i32, dst_place: one_of, ..flow.clone() };
    }
    plane.store(&token, &batch).await;
    let csv = plane.get("/api/v1/flows/export?format=csv").await.text().await.expect("text");
    let quoted: Vec<String> = NAMES.iter().map(|name| format!("'{}", name.replace('"', "\"\""))).collect();
    assert_eq!(csv.lines().count(), 1 + batch.flows.len());
    for line in csv.lines().skip(1) {
        assert!(line.contains(&format!(",'{FORMULA},")), "{line}");
        // Once as a name, once as an organisation.
        assert!(quoted.iter().any(|name| line.matches(name.as_str()).count() == 2), "{line}");
        for begin in [",=", ",+", ",@", ",\"=", ",\"+", ",\"@"] {
            assert!(!line.contains(begin), "{line}");
        }
    }
    // Where nothing is calculated, it is as it was.
    let page = plane.json("/api/v1/flows?limit=1").await;
    assert_eq!(page["items"][0]["interface"], FORMULA);
    assert!(NAMES.contains(&page["items"][0]["name"].as_str().expect("a name")));
    let lines = plane.get("/api/v1/flows/export?format=ndjson").await.text().await.expect("text");
    assert!(lines.lines().all(|line| line.contains(&format!("\"interface\":\"{FORMULA}\""))));
}
