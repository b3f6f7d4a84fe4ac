//! For eyes: the totals of a file and its largest flows, aligned.

use std::io::{self, Write};

use weir_wire::Totals;

use super::ndjson::{labels, rfc3339, state};
use super::observed::DnsFigures;
use super::unidirectional::Flow;
use crate::detect::Detection;
use crate::device::Device;
use crate::flow::Record;
use crate::flow::words::{endpoint, protocol};
use crate::observe::{Mac, Observation};

/// Rows of cells under a heading; numbers stand right.
struct Table<const N: usize> {
    heading: [&'static str; N],
    right: [bool; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut widths = self.heading.map(str::len);
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let heading = self.heading.map(str::to_owned);
        for row in std::iter::once(&heading).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, width), right) in row.iter().zip(widths).zip(self.right) {
                let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
                let (before, after) = if right { (pad, String::new()) } else { (String::new(), pad) };
                line.push_str(&before);
                line.push_str(cell);
                line.push_str(&after);
                line.push_str("  ");
            }
            writeln!(out, "  {}", line.trim_end())?;
        }
        Ok(())
    }
}

/// The largest flows by octets.
pub(super) fn flows(out: &mut impl Write, mut flows: Vec<Flow>, limit: usize) -> io::Result<()> {
    let all = flows.len();
    flows.sort_by_key(|flow| std::cmp::Reverse(flow.octets));
    flows.truncate(limit);
    writeln!(out, "  {} of {all} flows, largest first", flows.len())?;
    let rows = flows.iter().map(|flow| {
        [
            endpoint(flow.key.src, flow.key.src_port),
            endpoint(flow.key.dst, flow.key.dst_port),
            protocol(flow.key.protocol.into()),
            labels(&flow.link).join(" "),
            flow.packets.to_string(),
            flow.octets.to_string(),
            rfc3339(flow.first_ns).to_string(),
            seconds(flow.last_ns.saturating_sub(flow.first_ns)),
        ]
    });
    Table {
        heading: ["source", "destination", "protocol", "link", "packets", "octets", "first", "seconds"],
        right: [false, false, false, false, true, true, false, true],
        rows: rows.collect(),
    }
    .write(out)
}

/// The largest connections by octets of both sides.
pub(super) fn connections(out: &mut impl Write, mut records: Vec<Record>, limit: usize) -> io::Result<()> {
    let all = records.len();
    records.sort_by_key(|record| std::cmp::Reverse(record.octets + record.reverse_octets));
    records.truncate(limit);
    writeln!(out, "  {} of {all} connections, largest first", records.len())?;
    let rows = records.iter().map(|record| {
        [
            endpoint(record.key.src, record.key.src_port),
            endpoint(record.key.dst, record.key.dst_port),
            protocol(record.key.protocol.into()),
            labels(record.link.as_deref().map(Vec::as_slice).unwrap_or_default()).join(" "),
            record.packets.to_string(),
            record.octets.to_string(),
            record.reverse_packets.to_string(),
            record.reverse_octets.to_string(),
            if record.key.protocol == 6 { state(record.tcp_state).to_owned() } else { String::new() },
            record
                .handshake_rtt_us
                .map_or_else(String::new, |rtt| format!("{}.{:03}", rtt / 1000, rtt % 1000)),
            seconds(record.last_ns.saturating_sub(record.first_ns)),
            record
                .context
                .as_ref()
                .and_then(|context| context.name.as_ref())
                .map_or_else(String::new, |name| short(&name.text)),
        ]
    });
    Table {
        heading: [
            "initiator",
            "responder",
            "protocol",
            "link",
            "packets",
            "octets",
            "packets back",
            "octets back",
            "state",
            "rtt ms",
            "seconds",
            "name",
        ],
        right: [false, false, false, false, true, true, true, true, false, true, true, false],
        rows: rows.collect(),
    }
    .write(out)
}

/// What is a problem, the worst first.
pub(super) fn detections(out: &mut impl Write, detections: &[Detection]) -> io::Result<()> {
    if detections.is_empty() {
        return Ok(());
    }
    writeln!(out, "  {} detections", detections.len())?;
    let rows = detections.iter().map(|detection| {
        [
            detection.severity.word().to_owned(),
            detection.kind.word().to_owned(),
            detection.subject.to_string(),
            detection.count.to_string(),
            rfc3339(detection.first_ns).to_string(),
            seconds(detection.last_ns.saturating_sub(detection.first_ns)),
            detection.kind.technique().to_owned(),
            detection.evidence.to_string(),
        ]
    });
    Table {
        heading: ["severity", "kind", "subject", "count", "first", "seconds", "technique", "evidence"],
        right: [false, false, false, true, false, true, false, false],
        rows: rows.collect(),
    }
    .write(out)
}

/// The first observations, and how DNS did.
pub(super) fn observations(
    out: &mut impl Write,
    kept: &[Observation],
    all: u64,
    dns: DnsFigures,
) -> io::Result<()> {
    writeln!(out, "  {} of {all} observations, first to last", kept.len())?;
    let rows = kept.iter().map(|observation| {
        let Observation { time_ns, origin, seen } = observation;
        let (from, to) = match (origin.flow, origin.src_mac, origin.dst_mac) {
            (Some(flow), ..) => (endpoint(flow.src, flow.src_port), endpoint(flow.dst, flow.dst_port)),
            (None, src, dst) => {
                let shown = |mac: Option<Mac>| mac.map_or_else(String::new, |mac| mac.to_string());
                (shown(src), shown(dst))
            }
        };
        // The same fields as in JSON, without those that say nothing.
        let mut fields = serde_json::to_value(seen).unwrap_or_default();
        let mut kind = String::new();
        if let Some(fields) = fields.as_object_mut() {
            kind =
                fields.remove("type").and_then(|kind| kind.as_str().map(str::to_owned)).unwrap_or_default();
            fields.retain(|_, value| match value {
                serde_json::Value::Null => false,
                serde_json::Value::Array(values) => !values.is_empty(),
                _ => true,
            });
        }
        [rfc3339(*time_ns).to_string(), kind, from, to, short(&fields.to_string())]
    });
    Table { heading: ["time", "kind", "from", "to", "says"], right: [false; 5], rows: rows.collect() }
        .write(out)?;
    let mean_us = dns.latency_ns.checked_div(dns.timed).unwrap_or(0) / 1000;
    writeln!(
        out,
        "  DNS: {} answers, {} of them failures; {} unanswered; {}.{:03} ms in the mean",
        dns.answered,
        dns.failed,
        dns.timed_out,
        mean_us / 1000,
        mean_us % 1000,
    )
}

/// Whoever was seen, the first first.
pub(super) fn devices(out: &mut impl Write, devices: &[&Device], limit: usize) -> io::Result<()> {
    let shown = &devices[..limit.min(devices.len())];
    writeln!(out, "  {} of {} devices, by their first sighting", shown.len(), devices.len())?;
    let rows = shown.iter().map(|device| {
        let list = |texts: Vec<String>| short(&texts.join(" "));
        let reasons = device.reasons.iter().map(|it| format!("{}:{}", it.rule().word, it.rule().weight));
        [
            list(device.identifiers.iter().map(|it| it.value.to_string()).collect()),
            device.vendor.clone().unwrap_or_default(),
            device.reasons.verdict().map_or("", |(of, _)| of.word()).to_owned(),
            device.name().unwrap_or_default().to_owned(),
            list(device.addresses.iter().map(|it| it.value.to_string()).collect()),
            list(reasons.collect()),
        ]
    });
    Table {
        heading: ["known by", "vendor", "type", "name", "addresses", "because"],
        right: [false; 6],
        rows: rows.collect(),
    }
    .write(out)
}

/// As much of a text as a line has room for.
fn short(text: &str) -> String {
    const WIDTH: usize = 120;
    match text.char_indices().nth(WIDTH) {
        Some((end, _)) => format!("{}\u{2026}", &text[..end]),
        None => text.to_owned(),
    }
}

/// The ledger in one line.
pub(super) fn totals(out: &mut impl Write, totals: &Totals, refused: u64) -> io::Result<()> {
    writeln!(
        out,
        "  {} frames, {} octets: {} in flows, {} overflow, {} not IP, {} malformed, {} filtered; {refused} refused\n",
        totals.frames,
        totals.octets_l2,
        totals.flow_packets,
        totals.overflow,
        totals.non_ip,
        totals.malformed,
        totals.filtered,
    )
}

fn seconds(nanoseconds: i64) -> String {
    format!("{}.{:03}", nanoseconds / 1_000_000_000, nanoseconds / 1_000_000 % 1_000)
}
