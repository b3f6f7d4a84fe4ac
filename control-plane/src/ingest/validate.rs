//! From a stranger's bytes to a [`Batch`]: every rule of the wire format, before a connection is taken.
//!
//! Rules refuse what cannot be true or cannot be stored. What can be true but is odd (a sensor's clock
//! that is years off, a flow whose coarse `last` is a few milliseconds before its `first`) is stored.

use std::collections::HashMap;

use uuid::Uuid;
use weir_wire::{Direction, EndReason, Flow, TcpState, Totals, limits, link};

use super::batch::{Batch, Point, Spool};
use super::context::{self, Context};
use super::detection;
use super::device;
use super::erased::Clipped;
use super::loss;
use super::placement::Placement;

const SECOND_NS: i64 = 1_000_000_000;
pub(super) const HOUR_NS: i64 = 3_600 * SECOND_NS;
pub(super) const DAY_NS: i64 = 24 * HOUR_NS;
/// No clock shows a time before 1970; one that was set within an epoch may begin it a little earlier.
const OLDEST_CLOCK_NS: i64 = -366 * DAY_NS;
/// A connection's age.
pub(super) const MAX_CONNECTION_NS: i64 = 50 * 366 * DAY_NS;
/// Packets may lie this far outside their epoch: clocks are stepped, and a coarse one lags.
pub(super) const PACKET_TIME_TOLERANCE_NS: i64 = HOUR_NS;
/// `last` comes from the coarse clock and may be behind a precise `first`.
pub(super) const COARSE_CLOCK_NS: i64 = SECOND_NS;
/// Parts of one epoch: five billion records.
const MAX_PARTS: u32 = 100_000;

/// A field that cannot be as it is. `field` is a path such as `flows[3].src_port`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Invalid {
    pub field: String,
    pub message: String,
}

pub(super) fn invalid<T>(field: impl Into<String>, message: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid { field: field.into(), message: message.into() })
}

/// Checks the whole batch; the first field that breaks a rule is the error.
pub fn check(batch: weir_wire::Batch) -> Result<Batch, Invalid> {
    if batch.version != weir_wire::VERSION {
        let known = weir_wire::VERSION;
        return invalid("version", format!("{} is not a version this server reads ({known})", batch.version));
    }
    let Ok(generation) = Uuid::from_slice(&batch.generation) else {
        return invalid("generation", format!("{} bytes instead of 16", batch.generation.len()));
    };
    let epoch = count("epoch", batch.epoch)?;
    if batch.parts == 0 || batch.parts > MAX_PARTS {
        return invalid("parts", format!("{} is not between 1 and {MAX_PARTS}", batch.parts));
    }
    if batch.part >= batch.parts {
        return invalid("part", format!("{} is not below parts ({})", batch.part, batch.parts));
    }
    check_window(&batch)?;
    let sampling_interval = match i32::try_from(batch.sampling_interval) {
        Ok(interval) if interval >= 1 => interval,
        _ => return invalid("sampling_interval", format!("{} is not 1 to 2^31-1", batch.sampling_interval)),
    };
    let (points, index_of) = check_points(batch.points, batch.part)?;
    let links = check_links(&batch.links)?;
    let context = Context::check(&batch.names, batch.places, &batch.processes)?;
    let mut flows = batch.flows;
    if flows.len() > limits::MAX_RECORDS {
        return invalid("flows", format!("{} records, more than {}", flows.len(), limits::MAX_RECORDS));
    }
    let dropped = batch.dropped.as_ref().map(loss::check).transpose()?;
    if dropped.is_some() && !flows.is_empty() {
        return invalid("dropped", format!("is there beside {} flows; it stands for them", flows.len()));
    }
    let length_ns = batch.window_end_ns - batch.window_start_ns;
    let (mut packets, mut octets) = (0_u64, 0_u64);
    for (index, flow) in flows.iter_mut().enumerate() {
        check_flow(flow, length_ns, links.len(), &index_of)
            .and_then(|()| context::check_flow(flow, &context))
            .map_err(|(field, message)| Invalid { field: format!("flows[{index}].{field}"), message })?;
        packets = packets.saturating_add(flow.packets).saturating_add(flow.reverse_packets);
        octets = octets.saturating_add(flow.octets).saturating_add(flow.reverse_octets);
    }
    let detections = detection::check(batch.detections, batch.part, length_ns)?;
    let devices = device::check(batch.devices, batch.part, length_ns)?;
    let crossing_packets = count("crossing_packets", batch.crossing_packets)?;
    let crossing_octets = count("crossing_octets", batch.crossing_octets)?;
    if let Some(dropped) = dropped {
        for (what, dropped, crossing) in
            [("packets", dropped.packets, crossing_packets), ("octets", dropped.octets, crossing_octets)]
        {
            if dropped.checked_add(crossing).is_none() {
                let message = format!("{dropped} and crossing_{what} ({crossing}) are more than 2^63-1");
                return invalid(format!("dropped.{what}"), message);
            }
        }
    }
    Ok(Batch {
        generation,
        epoch,
        part: batch.part as i32,
        parts: batch.parts as i32,
        window_start_ns: batch.window_start_ns,
        window_end_ns: batch.window_end_ns,
        sampling_interval,
        points,
        links,
        flows,
        context,
        crossing_packets,
        crossing_octets,
        packets: count("the sum of flows[].packets", packets)?,
        octets: count("the sum of flows[].octets", octets)?,
        dropped,
        spool: batch.spool.as_ref().map(check_spool).transpose()?,
        detections,
        devices,
        clock_step_ns: if batch.part == 0 { batch.clock_step_ns } else { 0 },
        placement: Placement { start_ns: batch.window_start_ns, shift_ns: 0 },
        clipped: Clipped::default(),
    })
}

fn check_spool(spool: &weir_wire::Spool) -> Result<Spool, Invalid> {
    Ok(Spool {
        batches: count("spool.batches", spool.batches)?,
        bytes: count("spool.bytes", spool.bytes)?,
        capacity_bytes: count("spool.capacity_bytes", spool.capacity_bytes)?,
        oldest_age_ms: count("spool.oldest_age_ms", spool.oldest_age_ms)?,
        quarantined_batches: count("spool.quarantined_batches", spool.quarantined_batches)?,
        quarantined_packets: count("spool.quarantined_packets", spool.quarantined_packets)?,
        degraded: spool.degraded,
    })
}

/// Where the window lies is no reason to refuse it (see [`super::placement`]), only what no clock can say.
fn check_window(batch: &weir_wire::Batch) -> Result<(), Invalid> {
    let (start, end) = (batch.window_start_ns, batch.window_end_ns);
    if start < OLDEST_CLOCK_NS {
        return invalid("window_start_ns", format!("{start} is long before 1970"));
    }
    // The kernel counts on while a sensor is down, so an epoch may be long.
    if end < start || end.checked_sub(start).is_none() {
        return invalid("window_end_ns", format!("{end} does not follow window_start_ns ({start})"));
    }
    Ok(())
}

type Points = (Vec<Point>, HashMap<u32, u32>);

fn check_points(points: Vec<weir_wire::Point>, part: u32) -> Result<Points, Invalid> {
    if points.len() > limits::MAX_POINTS {
        return invalid("points", format!("{} points, more than {}", points.len(), limits::MAX_POINTS));
    }
    let mut checked: Vec<Point> = Vec::with_capacity(points.len());
    let mut index_of = HashMap::with_capacity(points.len());
    for (index, point) in points.into_iter().enumerate() {
        let field = |name: &str| format!("points[{index}].{name}");
        let name = &point.interface;
        if name.is_empty() || name.len() > limits::MAX_INTERFACE_NAME {
            let (length, most) = (name.len(), limits::MAX_INTERFACE_NAME);
            return invalid(field("interface"), format!("{length} bytes instead of 1 to {most}"));
        }
        if name.chars().any(|char| char.is_control() || char.is_whitespace() || char == '/') {
            return invalid(field("interface"), "holds a character that an interface name cannot");
        }
        let Ok(direction) = Direction::try_from(point.direction) else {
            return invalid(field("direction"), format!("{} is not a flowDirection", point.direction));
        };
        let direction = direction as i16;
        if checked.iter().any(|other| other.interface == *name && other.direction == direction) {
            return invalid(field("interface"), "the same interface and direction as an earlier point");
        }
        if let Some(totals) = &point.totals {
            if part != 0 {
                return invalid(field("totals"), "belong to part 0");
            }
            check_totals(totals).map_err(|(name, value)| Invalid {
                field: field(&format!("totals.{name}")),
                message: format!("{value} is more than 2^63-1"),
            })?;
        }
        if index_of.insert(point.id, index as u32).is_some() {
            return invalid(field("id"), format!("{} is already taken by another point", point.id));
        }
        checked.push(Point { interface: point.interface, direction, totals: point.totals });
    }
    Ok((checked, index_of))
}

fn check_totals(totals: &Totals) -> Result<(), (&'static str, u64)> {
    let all = [
        ("frames", totals.frames),
        ("octets_l2", totals.octets_l2),
        ("flow_packets", totals.flow_packets),
        ("flow_octets", totals.flow_octets),
        ("overflow", totals.overflow),
        ("overflow_octets", totals.overflow_octets),
        ("non_ip", totals.non_ip),
        ("malformed", totals.malformed),
        ("filtered", totals.filtered),
        ("unsampled", totals.unsampled),
    ];
    all.into_iter().find(|(_, value)| i64::try_from(*value).is_err()).map_or(Ok(()), Err)
}

fn check_links(links: &[weir_wire::LinkStack]) -> Result<Vec<Vec<i32>>, Invalid> {
    if links.len() > limits::MAX_LINK_STACKS {
        return invalid("links", format!("{} stacks, more than {}", links.len(), limits::MAX_LINK_STACKS));
    }
    let mut checked = Vec::with_capacity(links.len());
    for (index, stack) in links.iter().enumerate() {
        if stack.headers.is_empty() || stack.headers.len() > limits::MAX_LINK_DEPTH {
            let (depth, most) = (stack.headers.len(), limits::MAX_LINK_DEPTH);
            return invalid(
                format!("links[{index}].headers"),
                format!("{depth} headers instead of 1 to {most}"),
            );
        }
        if let Some(header) = stack.headers.iter().find(|header| link::label(**header).is_none()) {
            return invalid(format!("links[{index}].headers"), format!("{header:#x} is not a link header"));
        }
        checked.push(stack.headers.iter().map(|header| *header as i32).collect());
    }
    Ok(checked)
}

type FlowError = (&'static str, String);

/// Checks one flow, and turns its points into indexes.
fn check_flow(
    flow: &mut Flow,
    length_ns: i64,
    links: usize,
    index_of: &HashMap<u32, u32>,
) -> Result<(), FlowError> {
    let at_most = |field: &'static str, value: u64, most: u64| {
        if value > most { Err((field, format!("{value} is more than {most}"))) } else { Ok(()) }
    };
    match flow.ip_version {
        4 => {
            let v4_max = u64::from(u32::MAX);
            at_most("src_high", flow.src_high, 0)?;
            at_most("dst_high", flow.dst_high, 0)?;
            at_most("src_low", flow.src_low, v4_max)?;
            at_most("dst_low", flow.dst_low, v4_max)?;
        }
        6 => {}
        other => return Err(("ip_version", format!("{other} is neither 4 nor 6"))),
    }
    at_most("protocol", u64::from(flow.protocol), 255)?;
    at_most("src_port", u64::from(flow.src_port), 65_535)?;
    at_most("dst_port", u64::from(flow.dst_port), 65_535)?;
    at_most("tcp_flags", u64::from(flow.tcp_flags), 255)?;
    at_most("reverse_tcp_flags", u64::from(flow.reverse_tcp_flags), 255)?;
    at_most("icmp_type", u64::from(flow.icmp_type), 255)?;
    at_most("icmp_code", u64::from(flow.icmp_code), 255)?;
    for (field, value) in [
        ("packets", flow.packets),
        ("octets", flow.octets),
        ("reverse_packets", flow.reverse_packets),
        ("reverse_octets", flow.reverse_octets),
    ] {
        at_most(field, value, i64::MAX as u64)?;
    }
    at_most("handshake_rtt_us", u64::from(flow.handshake_rtt_us.unwrap_or(0)), i32::MAX as u64)?;
    at_most("retransmits", u64::from(flow.retransmits), i32::MAX as u64)?;
    if TcpState::try_from(flow.tcp_state).is_err() {
        return Err(("tcp_state", format!("{} is not a state", flow.tcp_state)));
    }
    if EndReason::try_from(flow.end_reason).is_err() {
        return Err(("end_reason", format!("{} is not a flowEndReason", flow.end_reason)));
    }
    check_flow_times(flow, length_ns)?;
    at_most("link", u64::from(flow.link), links as u64)?;
    let resolve = |field: &'static str, id: u32| {
        index_of.get(&id).copied().ok_or_else(|| (field, format!("no point has the id {id}")))
    };
    flow.point = resolve("point", flow.point)?;
    if flow.path.len() > limits::MAX_PATH {
        return Err(("path", format!("{} points, more than {}", flow.path.len(), limits::MAX_PATH)));
    }
    for point in &mut flow.path {
        *point = resolve("path", *point)?;
    }
    Ok(())
}

fn check_flow_times(flow: &Flow, length_ns: i64) -> Result<(), FlowError> {
    for (field, time) in [("first_ns", flow.first_ns), ("last_ns", flow.last_ns)] {
        if time < -PACKET_TIME_TOLERANCE_NS || time > length_ns.saturating_add(PACKET_TIME_TOLERANCE_NS) {
            return Err((field, format!("{time} ns is over an hour outside the window")));
        }
    }
    if flow.last_ns < flow.first_ns - COARSE_CLOCK_NS {
        return Err(("last_ns", format!("{} is before first_ns ({})", flow.last_ns, flow.first_ns)));
    }
    // A connection may have begun long ago, not after its last packet here.
    if flow.start_ns < -MAX_CONNECTION_NS
        || flow.start_ns > flow.last_ns.max(flow.first_ns).saturating_add(COARSE_CLOCK_NS)
    {
        return Err(("start_ns", format!("{} is not between 50 years ago and last_ns", flow.start_ns)));
    }
    Ok(())
}

pub(super) fn count(field: &str, value: u64) -> Result<i64, Invalid> {
    i64::try_from(value)
        .map_err(|_| Invalid { field: field.to_owned(), message: format!("{value} is more than 2^63-1") })
}
