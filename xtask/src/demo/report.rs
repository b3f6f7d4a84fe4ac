//! What the demo shows at its end: who talked, whether the numbers are equal, and where to look further.

use anyhow::{Context as _, Result};
use serde_json::Value;
use weir_testbed::weir::Ledger;

use super::Wire;
use super::scene::{SENSOR, Weir};
use crate::screen::{self, grouped};

const TALKERS: usize = 10;

pub fn talkers(weir: &Weir) -> Result<()> {
    let path = format!("/api/v1/flows/top?by=pair&metric=octets&limit={TALKERS}");
    let top = weir.control_plane().api().json(&path)?;
    let items = top["items"].as_array().context("the API's top talkers have no `items`")?;
    let rows: Vec<Vec<String>> = items.iter().map(talker).collect();
    screen::heading("Top talkers (GET /api/v1/flows/top?by=pair)");
    screen::table(&["pair", "packets", "octets", "back packets", "back octets", "flows"], &rows);
    Ok(())
}

fn talker(item: &Value) -> Vec<String> {
    let text = |key: &str| item[key].as_str().unwrap_or("?").to_owned();
    let number = |key: &str| item[key].as_u64().map_or_else(|| "?".to_owned(), grouped);
    let mut row = vec![format!("{} - {}", text("src"), text("dst"))];
    row.extend(["packets", "octets", "reverse_packets", "reverse_octets", "flows"].map(number));
    row
}

/// Prints the ledger and its verdict; whether every frame is accounted for.
pub fn ledger(ledger: &Ledger, interface: &str, wire: Option<&Wire>) -> bool {
    let total = ledger.total;
    let mut rows = Vec::new();
    let mut row = |what: &str, packets: u64, octets: Option<u64>, note: &str| {
        let octets = octets.map(grouped).unwrap_or_default();
        rows.push(vec![what.to_owned(), grouped(packets), octets, note.to_owned()]);
    };
    if let Some(Wire { sent, received }) = wire {
        row("sent by tcpreplay", sent.frames, Some(sent.octets), "layer 2");
        // Its octets are layer 2 or 3, depending on how the sensor attached (see `Counters`).
        row("received by the interface", received.rx_packets, None, "");
    }
    row("seen by the kernel programs", total.frames, Some(total.octets_l2), "layer 2");
    row("  in flows", total.flow_packets, Some(total.flow_octets), "layer 3");
    row("  overflow", total.overflow, Some(total.overflow_octets), "layer 3");
    row("  non-IP", total.non_ip, None, "");
    row("  malformed", total.malformed, None, "");
    row("  filtered", total.filtered, None, "");
    row("committed to Postgres", ledger.committed_packets, Some(ledger.committed_octets), "layer 3");
    if ledger.crossing_packets > 0 {
        row("  seen twice, counted once", ledger.crossing_packets, Some(ledger.crossing_octets), "layer 3");
    }
    screen::heading(&format!("Ledger (GET /api/v1/sensors/{SENSOR}/ledger)"));
    screen::table(&["", "packets", "octets", ""], &rows);

    let point = ledger.point(interface, "ingress");
    let arrived = wire.is_none_or(|Wire { sent, received }| {
        (point.frames, point.octets_l2) == (sent.frames, sent.octets) && point.frames == received.rx_packets
    });
    let good = arrived && ledger.kernel_balanced && ledger.balanced;
    println!();
    let verdict = match (good, ledger.kernel_balanced, ledger.balanced) {
        (true, ..) => format!(
            "equal: all {} frames are accounted for, and all {} packets of flows are in Postgres ({} records, {} epochs)",
            grouped(total.frames),
            grouped(total.flow_packets),
            grouped(ledger.committed_records),
            grouped(ledger.epochs)
        ),
        (_, false, _) => "NOT EQUAL: the kernel's verdicts do not add up to the frames seen".to_owned(),
        (.., false) => "NOT EQUAL: what is committed is not what the kernel counted into flows".to_owned(),
        (false, true, true) => "NOT EQUAL: what was sent is not what the kernel programs saw".to_owned(),
    };
    screen::verdict(good, &verdict);
    good
}

/// Where to look further.
pub fn addresses(weir: &Weir, keep: bool) {
    let (api, sensor) = (weir.control_plane().url(), weir.sensor().url());
    screen::heading(if keep { "Addresses" } else { "Addresses (they stay up with --keep)" });
    println!("API                    {api}/api/v1/flows/top?by=pair");
    println!("its documentation      {api}/api/docs");
    println!("control plane metrics  {api}/metrics");
    println!("sensor metrics         {sensor}/metrics");
    if keep {
        println!(
            "\n  curl -H 'Authorization: Bearer {}' '{api}/api/v1/flows?limit=5'",
            weir.control_plane().admin_token()
        );
    }
}
