//! Flows as PostgreSQL's binary COPY format, straight into the bytes that are sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, BytesMut};
use weir_wire::Flow;

use super::dictionary::Numbers;
use crate::ingest::{Batch, Context};

/// The columns of `flow`, in the order that [`put_flow`] writes them.
pub const COLUMNS: &str = "window_start, flow_id, start_ns, first_ns, last_ns, packets, octets, \
    reverse_packets, reverse_octets, sensor_id, point_id, src_port, dst_port, handshake_rtt_us, \
    sampling_interval, retransmits, protocol, tcp_flags, reverse_tcp_flags, tcp_state, end_reason, \
    icmp_type, icmp_code, fragment, src, dst, link, path, domain_id, name_source, src_country, \
    dst_country, src_asn, dst_asn, src_process_id, dst_process_id";
const COLUMN_COUNT: i16 = 36;

/// Bits of `flow_id` below the batch's id; a batch has fewer records than that.
const ORDINAL_BITS: u32 = 16;
const _: () = assert!(weir_wire::limits::MAX_RECORDS <= 1 << ORDINAL_BITS);

/// 2000-01-01, where Postgres begins to count, in microseconds since the Unix epoch.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;
/// Object identifier of the type `integer`, for the elements of an array.
const INT4: i32 = 23;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 3;

/// What all rows of one batch share.
#[derive(Clone, Copy)]
pub struct Common<'a> {
    pub sensor_id: i32,
    pub batch_id: i64,
    /// By the index that flows hold.
    pub point_ids: &'a [i32],
    /// Of names and processes.
    pub numbers: &'a Numbers,
}

/// Signature, no flags, no header extension.
pub fn put_header(out: &mut BytesMut) {
    out.put_slice(b"PGCOPY\n\xff\r\n\0");
    out.put_i32(0);
    out.put_i32(0);
}

/// The end of the stream.
pub fn put_trailer(out: &mut BytesMut) {
    out.put_i16(-1);
}

/// One row. `ordinal` is the flow's position in its batch.
pub fn put_flow(out: &mut BytesMut, common: &Common<'_>, batch: &Batch, ordinal: usize, flow: &Flow) {
    let base = batch.base_ns();
    let first_ns = base.saturating_add(flow.first_ns);
    out.put_i16(COLUMN_COUNT);
    put_i64(out, batch.window_start_us() - POSTGRES_EPOCH_US);
    put_i64(out, (common.batch_id << ORDINAL_BITS) | ordinal as i64);
    put_i64(out, base.saturating_add(flow.start_ns).min(first_ns));
    put_i64(out, first_ns);
    // The coarse clock of `last` may lag the precise one of `first`.
    put_i64(out, base.saturating_add(flow.last_ns).max(first_ns));
    put_i64(out, flow.packets as i64);
    put_i64(out, flow.octets as i64);
    put_i64(out, flow.reverse_packets as i64);
    put_i64(out, flow.reverse_octets as i64);
    put_i32(out, common.sensor_id);
    put_i32(out, common.point_ids.get(flow.point as usize).copied().unwrap_or_default());
    put_i32(out, flow.src_port as i32);
    put_i32(out, flow.dst_port as i32);
    put_option(out, flow.handshake_rtt_us.map(|rtt| rtt as i32), put_i32);
    put_i32(out, batch.sampling_interval);
    put_i32(out, flow.retransmits as i32);
    put_i16(out, flow.protocol as i16);
    put_i16(out, flow.tcp_flags as i16);
    put_i16(out, flow.reverse_tcp_flags as i16);
    put_i16(out, flow.tcp_state as i16);
    put_i16(out, flow.end_reason as i16);
    put_i16(out, flow.icmp_type as i16);
    put_i16(out, flow.icmp_code as i16);
    out.put_i32(1);
    out.put_u8(u8::from(flow.fragment));
    put_address(out, flow.ip_version, flow.src_high, flow.src_low);
    put_address(out, flow.ip_version, flow.dst_high, flow.dst_low);
    let link = flow.link.checked_sub(1).and_then(|index| batch.links.get(index as usize));
    put_array(out, link.map(Vec::as_slice).unwrap_or_default().iter().copied());
    let points = flow.path.iter();
    put_array(out, points.map(|index| common.point_ids.get(*index as usize).copied().unwrap_or_default()));
    put_context(out, common, &batch.context, flow);
}

fn put_context(out: &mut BytesMut, common: &Common<'_>, context: &Context, flow: &Flow) {
    let name = context.name(flow);
    put_option(out, name.and_then(|(index, _)| common.numbers.domains.get(index).copied()), put_i32);
    put_option(out, name.map(|(_, source)| source as i16), put_i16);
    let places = [flow.src_place, flow.dst_place].map(|number| context.place(number));
    for place in places {
        put_option(out, place.map(|place| &*place.country).filter(|country| !country.is_empty()), put_text);
    }
    for place in places {
        put_option(out, place.map(|place| i64::from(place.asn)).filter(|asn| *asn != 0), put_i64);
    }
    for index in [flow.src_process, flow.dst_process] {
        let number = index.checked_sub(1).and_then(|index| common.numbers.processes.get(index as usize));
        put_option(out, number.copied().filter(|number| *number != 0), put_i32);
    }
}

/// The address that the wire holds as two numbers.
#[must_use]
pub fn address(ip_version: u32, high: u64, low: u64) -> IpAddr {
    if ip_version == 4 {
        IpAddr::V4(Ipv4Addr::from_bits(low as u32))
    } else {
        IpAddr::V6(Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)))
    }
}

fn put_i64(out: &mut BytesMut, value: i64) {
    out.put_i32(8);
    out.put_i64(value);
}

fn put_i32(out: &mut BytesMut, value: i32) {
    out.put_i32(4);
    out.put_i32(value);
}

fn put_i16(out: &mut BytesMut, value: i16) {
    out.put_i32(2);
    out.put_i16(value);
}

fn put_text(out: &mut BytesMut, text: &str) {
    out.put_i32(text.len() as i32);
    out.put_slice(text.as_bytes());
}

fn put_option<T>(out: &mut BytesMut, value: Option<T>, put: impl Fn(&mut BytesMut, T)) {
    match value {
        Some(value) => put(out, value),
        None => put_null(out),
    }
}

fn put_null(out: &mut BytesMut) {
    out.put_i32(-1);
}

fn put_address(out: &mut BytesMut, ip_version: u32, high: u64, low: u64) {
    if ip_version == 4 {
        out.put_i32(8);
        out.put_slice(&[AF_INET, 32, 0, 4]);
        out.put_u32(low as u32);
    } else {
        out.put_i32(20);
        out.put_slice(&[AF_INET6, 128, 0, 16]);
        out.put_u64(high);
        out.put_u64(low);
    }
}

/// A one-dimensional `integer[]`; null instead of an empty one.
fn put_array(out: &mut BytesMut, elements: impl ExactSizeIterator<Item = i32>) {
    if elements.len() == 0 {
        put_null(out);
        return;
    }
    out.put_i32(20 + 8 * elements.len() as i32);
    out.put_i32(1);
    out.put_i32(0);
    out.put_i32(INT4);
    out.put_i32(elements.len() as i32);
    out.put_i32(1);
    for element in elements {
        put_i32(out, element);
    }
}
