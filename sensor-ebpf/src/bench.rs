//! What `cargo xtask bench kernel` measures with: a generator that varies the flow and tail-calls the
//! program under test, an empty program to subtract, and the tables that a peer would use.
//!
//! The generator stands before every program, the empty one included, so its cost cancels out.
#![no_std]
#![no_main]
#![allow(clippy::inline_always, reason = "the kernel programs must inline what they call per packet")]

use aya_ebpf::{
    EbpfContext,
    bindings::xdp_action,
    helpers::{bpf_get_prandom_u32, bpf_ktime_get_ns},
    macros::{classifier, map, xdp},
    maps::{Array, LruPerCpuHashMap, PerCpuHashMap, ProgramArray},
    programs::{TcContext, XdpContext},
};
use weir_sensor_ebpf::{Chain, Headers, Link, Window, ipv4, ipv6_start, link};

/// One element: flows less one; flows are a power of two.
#[map]
static WEIR_BENCH_MASK: Array<u32> = Array::with_max_entries(1, 0);

/// The program under test.
#[map]
static WEIR_BENCH_NEXT: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// The same for XDP programs that take frames in several buffers: an array holds one kind.
#[map]
static WEIR_BENCH_NEXT_FRAGS: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Room for the most flows at half load, as the table under test has it.
const ENTRIES: u32 = 2 << 20;

#[map]
static WEIR_BENCH_LRU: LruPerCpuHashMap<Key, Value> = LruPerCpuHashMap::with_max_entries(ENTRIES, 0);

#[map]
static WEIR_BENCH_HASH: PerCpuHashMap<Key, Value> = PerCpuHashMap::with_max_entries(ENTRIES, 0);

/// The key of a flow as a peer keeps it: addresses of either family, ports, protocol, interface.
#[repr(C)]
#[derive(Clone, Copy)]
struct Key {
    src: [u64; 2],
    dst: [u64; 2],
    src_port: u16,
    dst_port: u16,
    protocol: u8,
    direction: u8,
    ifindex: u16,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Value {
    packets: u64,
    octets: u64,
    first_ns: u64,
    last_ns: u64,
    flags: u64,
}

/// Writes a random flow's number over the last word of the source address.
#[inline(always)]
fn vary(start: usize, end: usize) {
    if start + 38 > end {
        return;
    }
    // SAFETY: the bytes up to `end` are the packet's.
    let ethertype = unsafe { *((start + 12) as *const u16) };
    let word = if u16::from_be(ethertype) == 0x0800 { start + 26 } else { start + 34 };
    let Some(mask) = WEIR_BENCH_MASK.get(0) else { return };
    // SAFETY: a helper without arguments; both words lie below `start + 38`.
    unsafe { *(word as *mut u32) = bpf_get_prandom_u32() & mask };
}

#[inline(always)]
fn next<C: EbpfContext>(context: &C, programs: &ProgramArray) {
    // SAFETY: the program array holds programs of this type; where it is empty the call falls through.
    let _ = unsafe { programs.tail_call(context, 0) };
}

#[xdp(frags)]
fn generate_xdp_frags(context: XdpContext) -> u32 {
    vary(context.data(), context.data_end());
    next(&context, &WEIR_BENCH_NEXT_FRAGS);
    xdp_action::XDP_ABORTED
}

#[xdp]
fn generate_xdp(context: XdpContext) -> u32 {
    vary(context.data(), context.data_end());
    next(&context, &WEIR_BENCH_NEXT);
    xdp_action::XDP_ABORTED
}

#[classifier]
fn generate_tc(context: TcContext) -> i32 {
    vary(context.data(), context.data_end());
    next(&context, &WEIR_BENCH_NEXT);
    -1
}

#[xdp(frags)]
fn empty_xdp_frags(_: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

#[xdp]
fn empty_xdp(_: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

#[classifier]
fn empty_tc(_: TcContext) -> i32 {
    -1
}

#[xdp]
fn lru_xdp(context: XdpContext) -> u32 {
    count_lru(context.data(), context.data_end());
    xdp_action::XDP_PASS
}

#[classifier]
fn lru_tc(context: TcContext) -> i32 {
    count_lru(context.data(), context.data_end());
    -1
}

#[xdp]
fn hash_xdp(context: XdpContext) -> u32 {
    count_hash(context.data(), context.data_end());
    xdp_action::XDP_PASS
}

#[classifier]
fn hash_tc(context: TcContext) -> i32 {
    count_hash(context.data(), context.data_end());
    -1
}

#[inline(always)]
fn count_lru(start: usize, end: usize) {
    let Some((key, headers)) = parse(start, end) else { return };
    match WEIR_BENCH_LRU.get_ptr_mut(&key) {
        // SAFETY: this CPU's own value.
        Some(value) => add(unsafe { &mut *value }, &headers),
        None => drop(WEIR_BENCH_LRU.insert(key, first(&headers), 0)),
    }
}

#[inline(always)]
fn count_hash(start: usize, end: usize) {
    let Some((key, headers)) = parse(start, end) else { return };
    match WEIR_BENCH_HASH.get_ptr_mut(&key) {
        // SAFETY: this CPU's own value.
        Some(value) => add(unsafe { &mut *value }, &headers),
        None => drop(WEIR_BENCH_HASH.insert(key, first(&headers), 0)),
    }
}

#[inline(always)]
fn add(value: &mut Value, headers: &Headers) {
    value.packets += 1;
    value.octets += headers.octets as u64;
    // SAFETY: a helper without arguments.
    value.last_ns = unsafe { bpf_ktime_get_ns() };
    value.flags |= headers.flags;
}

#[inline(always)]
fn first(headers: &Headers) -> Value {
    // SAFETY: a helper without arguments.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    Value {
        packets: 1,
        octets: headers.octets as u64,
        first_ns: now_ns,
        last_ns: now_ns,
        flags: headers.flags,
    }
}

#[inline(always)]
fn parse(start: usize, end: usize) -> Option<(Key, Headers)> {
    // SAFETY: the packet's own bounds.
    let mut window = unsafe { Window::from_raw(start, end) };
    let found = link(&mut window, None).ok()?;
    let left = (end - start) as u32 - window.taken();
    let (src, dst, headers) = match found {
        Link::V4(_) => {
            let packet = ipv4(&mut window, left).ok()?;
            ([0, packet.src as u64], [0, packet.dst as u64], packet.headers)
        }
        Link::V6(_) => {
            let start = ipv6_start(&mut window, left).ok()?;
            let packet = start.finish(&mut window, Chain::none(start.next_header)).ok()?;
            (packet.src, packet.dst, packet.headers)
        }
        // A peer has no link stacks, and no extension headers either.
        Link::Stacked => return None,
    };
    let Headers { ports, protocol, .. } = headers;
    let (src_port, dst_port) = (ports as u16, (ports >> 16) as u16);
    Some((Key { src, dst, src_port, dst_port, protocol, direction: 0, ifindex: 1 }, headers))
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // The verifier refuses a program that could come here, and nothing that is linked can.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
