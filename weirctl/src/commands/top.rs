//! `top`: a ranking, its rest and its whole.

use serde_json::Value;

use super::{Caller, window};
use crate::cli::{TopArgs, word};
use crate::client::shapes::{Ranked, Sums, Top};
use crate::client::{ClientError, route};
use crate::show::{self, Table, octets};

pub async fn top(caller: &Caller, args: &TopArgs) -> Result<(), ClientError> {
    let mut query = window(&args.window);
    query.push(("by", word(&args.by)));
    query.push(("metric", word(&args.metric)));
    query.push(("limit", args.limit.to_string()));
    let answer: Value = caller.client.ask(route::TOP, "", &query, None).await?;
    if caller.json {
        return show::json(&answer);
    }
    let top: Top = caller.read(answer)?;
    let mut table = Table::new(&["WHAT", "FLOWS", "PACKETS", "OCTETS"]);
    for item in top.items {
        let ranked: Ranked = caller.read(item.clone())?;
        let sums: Sums = caller.read(item)?;
        table.row(cells(called(ranked), &sums));
    }
    table.row(cells("(others)".to_owned(), &top.other));
    table.row(cells("(all)".to_owned(), &top.total));
    table.print("no flows")?;
    if !top.exact {
        show::note("from rollups: entries may lack what was small in some window; (all) is exact");
    }
    Ok(())
}

fn called(ranked: Ranked) -> String {
    let parts = [
        ranked.src,
        ranked.dst.map(|dst| format!("-> {dst}")),
        ranked.name,
        ranked.country,
        ranked.process,
        ranked.executable,
        ranked.container,
        ranked.unit,
        ranked.device.or(ranked.device_id.map(|id| format!("device {id}"))),
        ranked.network,
        ranked.asn.map(|asn| format!("AS{asn}")),
        ranked.port.map(|port| format!("port {port}")),
        ranked.protocol.map(|protocol| format!("protocol {protocol}")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "(unknown)".to_owned() } else { parts.join(" ") }
}

fn cells(what: String, sums: &Sums) -> [String; 4] {
    [
        what,
        sums.flows.to_string(),
        sums.packets.saturating_add(sums.reverse_packets).to_string(),
        octets(sums.octets.saturating_add(sums.reverse_octets)),
    ]
}
