//! Everything that is a list.

use serde_json::{Value, json};

use super::{Caller, Headings, window};
use crate::cli::{AlertArgs, DetectionArgs, DomainArgs, FlowArgs, Judge, PageArgs};
use crate::client::shapes::{Alert, Detection, Domain, Flow, Sensor};
use crate::client::{ClientError, Query, route};
use crate::show::{self, octets, time};

const NEVER: &str = "never";

pub async fn sensors(caller: &Caller, page: &PageArgs) -> Result<(), ClientError> {
    let headings: Headings = (&["ID", "NAME", "STATE", "LAST SEEN", "CLOCK", "RECORDS"], "no sensors");
    let row = |sensor: Sensor| {
        [
            sensor.id.to_string(),
            sensor.name,
            sensor.state,
            sensor.last_seen_at.map_or_else(|| NEVER.to_owned(), |at| time(&at)),
            sensor.clock_skew_ms.map(|skew| format!("{skew} ms")).unwrap_or_default(),
            sensor.records.to_string(),
        ]
    };
    caller.list(route::SENSORS, Vec::new(), page, headings, row).await
}

pub async fn flows(caller: &Caller, args: &FlowArgs) -> Result<(), ClientError> {
    let headings: Headings =
        (&["WINDOW (UTC)", "SENSOR", "PROTO", "FROM", "TO", "PACKETS", "OCTETS", "NAME", "CC"], "no flows");
    let row = |flow: Flow| {
        let protocol = match flow.protocol {
            1 => "icmp".to_owned(),
            6 => "tcp".to_owned(),
            17 => "udp".to_owned(),
            58 => "icmpv6".to_owned(),
            other => other.to_string(),
        };
        [
            time(&flow.window_start),
            flow.sensor,
            protocol,
            end(&flow.src, flow.src_port),
            end(&flow.dst, flow.dst_port),
            flow.packets.saturating_add(flow.reverse_packets).to_string(),
            octets(flow.octets.saturating_add(flow.reverse_octets)),
            flow.name.unwrap_or_default(),
            flow.dst_country.unwrap_or_default(),
        ]
    };
    caller.list(route::FLOWS, window(&args.window), &args.page, headings, row).await
}

fn end(address: &str, port: i64) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

pub async fn detections(caller: &Caller, args: DetectionArgs) -> Result<(), ClientError> {
    if let Some(judge) = args.judge {
        return judged(caller, judge).await;
    }
    let mut query: Query = Vec::new();
    query.extend(args.state.map(|state| ("state", state)));
    query.extend(args.severity.map(|severity| ("severity", severity)));
    query.extend(args.kind.map(|kind| ("kind", kind)));
    let headings: Headings = (
        &["ID", "SEVERITY", "KIND", "SUBJECT", "SENSOR", "COUNT", "LAST SEEN (UTC)", "JUDGED"],
        "no detections",
    );
    caller.list(route::DETECTIONS, query, &args.page, headings, row).await
}

fn row(detection: Detection) -> [String; 8] {
    [
        detection.id.to_string(),
        detection.severity,
        detection.kind,
        detection.subject,
        detection.sensor,
        detection.count.to_string(),
        time(&detection.last_seen),
        detection.state,
    ]
}

async fn judged(caller: &Caller, judge: Judge) -> Result<(), ClientError> {
    let (route, id, body) = match judge {
        Judge::Ack { id } => (route::ACKNOWLEDGE, id, None),
        Judge::Dismiss { id, reason } => (route::DISMISS, id, Some(json!({"reason": reason}))),
        Judge::Reopen { id } => (route::REOPEN, id, None),
    };
    let now: Value = caller.client.ask(route, &id.to_string(), &Vec::new(), body.as_ref()).await?;
    if caller.json {
        return show::json(&now);
    }
    let state = now["state"].as_str().unwrap_or_default();
    show::line(&show::safe(&format!("detection {id} is {state}")))
}

pub async fn domains(caller: &Caller, args: DomainArgs) -> Result<(), ClientError> {
    let query = args.part.map(|part| ("q", part)).into_iter().collect();
    let headings: Headings = (&["ID", "NAME", "FIRST SEEN (UTC)", "LAST SEEN"], "no domains");
    let row = |domain: Domain| {
        [domain.id.to_string(), domain.name, time(&domain.first_seen_at), domain.last_seen_on]
    };
    caller.list(route::DOMAINS, query, &args.page, headings, row).await
}

pub async fn alerts(caller: &Caller, args: AlertArgs) -> Result<(), ClientError> {
    let mut query: Query = Vec::new();
    query.extend(args.state.map(|state| ("state", state)));
    query.extend(args.severity.map(|severity| ("severity", severity)));
    let headings: Headings =
        (&["ID", "STATE", "SEVERITY", "RULE", "GROUP", "VALUE", "SINCE (UTC)", "SUMMARY"], "no alerts");
    let row = |alert: Alert| {
        let state = if alert.silenced { format!("{}, silenced", alert.state) } else { alert.state };
        [
            alert.id.to_string(),
            state,
            alert.severity,
            alert.rule,
            alert.group,
            alert.value.to_string(),
            time(alert.firing_at.as_ref().unwrap_or(&alert.pending_at)),
            alert.summary,
        ]
    };
    caller.list(route::ALERTS, query, &args.page, headings, row).await
}
