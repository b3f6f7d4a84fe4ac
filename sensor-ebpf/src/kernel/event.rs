//! Events: packets whose first bytes userspace wants go to it through a ring, after they were counted. Nothing
//! here changes a count.
//!
//! What is not wanted must cost next to nothing, so the choice is made in two steps. [`offer`] goes by what is in
//! registers: the protocol, the ports, whether there is a payload, and how many packets the flow has had in this
//! half. What remains is looked at by a function that the verifier follows on its own, which reads the first
//! octets of the payload, and asks for the budget and for room in the ring before it copies.

use aya_ebpf::helpers::{bpf_jiffies64, generated::bpf_ringbuf_output};
use weir_sensor_common::{
    Control, EventHeader, EventState,
    event::{self, class, flag},
};
use weir_sensor_ebpf::{
    Headers, Hello, Prefix, TransportStart, beside_ip, bounded, hello, is_dns, of_datagram, of_ports,
    of_segment, prefix, transport_start,
};

use super::{
    clock,
    frame::Frame,
    maps::{WEIR_CONTROL, WEIR_EVENT_HELLOS, WEIR_EVENT_RING, WEIR_EVENT_SCRATCH, WEIR_EVENT_STATES},
    outline::Context,
    packed::hidden,
    settings::{
        WEIR_EVENT_BURST_NS, WEIR_EVENT_CLASSES, WEIR_EVENT_COST_NS, WEIR_EVENT_PACKETS, WEIR_EVENT_SNAP,
    },
};

/// A record as it is put together.
#[repr(C)]
pub struct Record {
    pub header: EventHeader,
    /// With room for a word behind, which the verifier believes could be written.
    pub octets: [u8; event::MAX_SNAP as usize + size_of::<u64>()],
}

/// What a packet may be wanted for, in one number: one of these bits, the transport's protocol in the second octet;
/// then the point, and [`flag`] bits. 0 for what nobody wants.
const ALWAYS: u64 = 1;
/// While the flow is young.
const YOUNG: u64 = 2;
const BESIDE_IP: u64 = 4;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// Whether there are events at all; else the verifier removes all of this.
#[inline(always)]
pub fn on() -> bool {
    WEIR_EVENT_CLASSES.load() != 0
}

#[inline(always)]
fn wanted(class: u32) -> bool {
    WEIR_EVENT_CLASSES.load() >> (class & 31) & 1 != 0
}

/// What a packet may be wanted for, before its flow is known; `left` octets of the frame are there from the IP header
/// on. Which class it would be is for the second step.
#[inline(always)]
pub fn interest(headers: &Headers, left: u32, any: u64) -> u64 {
    let payload = headers.payload_octets(left);
    let interest = match headers.protocol {
        TCP if payload != 0 && headers.ports != 0 => YOUNG,
        UDP if has_class(headers.ports) => ALWAYS,
        UDP if payload >= Prefix::OCTETS => YOUNG,
        ICMPV6 if matches!((headers.flags >> 24) as u8, 133..=137) => ALWAYS,
        _ => 0,
    };
    // Else all that finds the flow would be followed for each.
    hidden(interest | (headers.protocol as u64) << 8, any)
}

/// A counted packet, on offer.
pub struct Offer<'a> {
    pub interest: u64,
    pub headers: &'a Headers,
    /// Octets of the frame before the IP header, and from it on.
    pub link_octets: u32,
    pub left: u32,
    /// Packets that the flow had in this half before this one.
    pub before: u64,
    /// Hash of the flow.
    pub hash: u32,
    pub point: u8,
    pub flags: u8,
}

/// Hands a packet on if its bytes may be wanted. Connections and streams are looked at while they are young; so bulk
/// costs a comparison or two.
#[inline(always)]
pub fn offer<C: Context>(context: &C, offer: &Offer<'_>) {
    let young = offer.interest & YOUNG != 0 && offer.before < WEIR_EVENT_PACKETS.load();
    if offer.interest & ALWAYS == 0 && !young {
        return;
    }
    let &Offer { interest, headers, link_octets, left, .. } = offer;
    let at = (link_octets + headers.header_octets) << 16 | (link_octets + headers.network_octets);
    let what = interest as u32 | seen(offer.point, offer.flags);
    context.event(what, at, headers.payload_octets(left), offer.hash);
}

/// Hands on a frame that is not IP.
#[inline(always)]
pub fn offer_beside_ip<C: Context>(context: &C, point: u8, flags: u8) {
    context.event(BESIDE_IP as u32 | seen(point, flags), 0, 0, 0);
}

#[inline(always)]
const fn seen(point: u8, flags: u8) -> u32 {
    (point as u32) << 16 | (flags as u32) << 24
}

/// Whether a UDP port says what a datagram is.
#[inline(always)]
const fn has_class(ports: u32) -> bool {
    is_known(ports >> 16) || is_known(ports & 0xffff)
}

/// The ports of [`of_ports`].
#[inline(always)]
const fn is_known(port: u32) -> bool {
    // Most ports are above the first comparison and below the second.
    matches!(port, 53 | 67 | 68 | 137 | 546 | 547 | 1900 | 5353 | 5355)
}

/// The second step: `what` as above, `at` the places of the payload and of the transport header in the frame.
#[inline(always)]
pub fn take<C: Context>(context: &C, what: u32, at: u32, payload: u32, hash: u32) {
    let flags = (what >> 24) as u8;
    let frame = context.frame(flags & flag::LAYER3 != 0 && flags & flag::EGRESS == 0);
    let class = class_of(context, &frame, what, at, payload, hash) as u64;
    let class = hidden(class, frame.octets as u64) as u32;
    if !wanted(class) {
        return;
    }
    let Some(control) = WEIR_CONTROL.get_ptr(0) else { return };
    let Some(state) = WEIR_EVENT_STATES.get_ptr_mut(class) else { return };
    // SAFETY: map values; the second is this CPU's own.
    let (control, state) = unsafe { (&*control, &mut *state) };
    state.selected += 1;
    if !afford(state, control) {
        state.over_budget += 1;
        return;
    }
    let there = frame.readable_octets();
    let most = WEIR_EVENT_SNAP.load();
    let captured = if there < most { there } else { most };
    // Asked before the copy: with nobody to read, a refusal is to be cheap.
    const AVAILABLE: u64 = 0;
    const RECORD: u64 = size_of::<EventHeader>() as u64 + 16;
    if WEIR_EVENT_RING.query(AVAILABLE) + captured as u64 + RECORD > event::RING_OCTETS as u64 {
        state.ring_full += 1;
        return;
    }
    let Some(record) = WEIR_EVENT_SCRATCH.get_ptr_mut(0) else { return };
    // Between 1 and the most, in a way that the verifier sees.
    let captured = bounded::<{ event::MAX_SNAP - 1 }>((captured - 1) as u64) + 1;
    // SAFETY: this CPU's own value; bottom halves are off, so it works at one frame at a time.
    let record = unsafe { &mut *record };
    if !context.copy(frame.outer_octets, record.octets.as_mut_ptr(), captured) {
        state.unreadable += 1;
        return;
    }
    record.header = EventHeader {
        time_ns: clock::precise(control),
        ifindex: frame.ifindex,
        octets: there,
        captured,
        gso_size: frame.gso_size,
        tag: frame.offloaded_tag(),
        class: class as u8,
        point: (what >> 16) as u8,
        flags,
        reserved: 0,
    };
    let octets = size_of::<EventHeader>() as u64 + captured as u64;
    // SAFETY: the scratch has so many octets, by the bound above.
    let refused = unsafe {
        bpf_ringbuf_output(
            (&raw const WEIR_EVENT_RING).cast_mut().cast(),
            core::ptr::from_mut(record).cast(),
            octets,
            0,
        )
    };
    if refused != 0 {
        state.ring_full += 1;
        return;
    }
    state.delivered += 1;
    state.delivered_octets += captured as u64;
    state.cut += (captured < there) as u64;
}

/// One of [`class`]. What stands in no bit of the mask is wanted by nobody.
#[inline(always)]
fn class_of<C: Context>(context: &C, frame: &Frame, what: u32, at: u32, payload: u32, hash: u32) -> u32 {
    let protocol = (what >> 8) as u8;
    if what & BESIDE_IP as u32 != 0 {
        return beside_ip(&mut frame.window());
    }
    if protocol == ICMPV6 {
        return class::NDP;
    }
    let mut window = frame.window();
    window.skip(bounded::<0x7fff>(at as u64));
    let Some(header) = transport_start(&window) else { return class::NONE };
    if protocol == TCP {
        return segment(context, frame, header, at, payload, hash);
    }
    match of_ports(header.ports()) {
        class::NONE => start(context, frame, at >> 16).map_or(class::NONE, of_datagram),
        known => known,
    }
}

/// The first octets of a payload.
#[inline(always)]
fn start<C: Context>(context: &C, frame: &Frame, place: u32) -> Option<Prefix> {
    let mut window = frame.window();
    window.skip(bounded::<0x7fff>(place as u64));
    match prefix(&window) {
        Some(found) => Some(found),
        None if frame.is_partial() => {
            let scratch = WEIR_EVENT_SCRATCH.get_ptr_mut(0)?;
            // SAFETY: this CPU's own value, aligned to 8 octets.
            let octets = unsafe { (&raw mut (*scratch).octets).cast::<u8>() };
            if !context.copy(frame.outer_octets + place, octets, Prefix::OCTETS) {
                return None;
            }
            // SAFETY: as above.
            Some(Prefix::from_memory(unsafe { octets.cast::<[u64; 2]>().read() }))
        }
        None => None,
    }
}

/// The class of a TCP segment. A `ClientHello` that goes on in further segments is noted, so that these are taken
/// as well: by what they go on with, not by what they look like.
#[inline(always)]
fn segment<C: Context>(
    context: &C,
    frame: &Frame,
    header: TransportStart,
    at: u32,
    payload: u32,
    hash: u32,
) -> u32 {
    if is_dns(header.ports()) {
        return class::DNS;
    }
    let sequence = header.sequence();
    let Some(place) = WEIR_EVENT_HELLOS.get_ptr_mut(hash % event::CONTINUATIONS) else { return class::NONE };
    // SAFETY: a map value. CPUs share it and write whole words: one that is lost costs a hello.
    let noted = unsafe { place.read_volatile() };
    let until = noted as u32;
    if (noted >> 32) as u32 == hash && noted != 0 && until.wrapping_sub(sequence).wrapping_sub(1) < MOST_AHEAD
    {
        return class::TLS_CLIENT;
    }
    if payload < Prefix::OCTETS {
        return class::NONE;
    }
    let Some(start) = start(context, frame, at >> 16) else { return class::NONE };
    let class = of_segment(start);
    if class == class::TLS_CLIENT
        && let Hello::GoesOn(octets) = hello(start, payload)
    {
        let until = sequence.wrapping_add(octets);
        // SAFETY: as above.
        unsafe { place.write_volatile((hash as u64) << 32 | until as u64) };
    }
    class
}

/// How far before its noted end a segment of a hello can begin.
const MOST_AHEAD: u32 = 1 << 15;

/// Whether the class may spend one more event on this CPU. Time is credit: each event costs the time in which the
/// budget grants one. The clock is read once a tick, so that a flood is refused without.
#[inline(always)]
fn afford(state: &mut EventState, control: &Control) -> bool {
    let cost = WEIR_EVENT_COST_NS.load();
    if cost == 0 {
        return true;
    }
    // SAFETY: a helper without arguments.
    let tick = unsafe { bpf_jiffies64() };
    if state.tick != tick {
        state.tick = tick;
        let now = clock::precise(control);
        let credit = state.credit_ns + (now - state.reckoned_ns);
        state.credit_ns =
            if credit < WEIR_EVENT_BURST_NS.load() { credit } else { WEIR_EVENT_BURST_NS.load() };
        state.reckoned_ns = now;
    }
    if state.credit_ns < cost {
        return false;
    }
    state.credit_ns -= cost;
    true
}

/// Copies the first octets of a frame that is one buffer into the scratch, for XDP before kernel 5.18, which has
/// no helper that does it. Followed by the verifier on its own.
#[inline(always)]
pub fn copy_linear(frame: &Frame, octets: u32) -> bool {
    const WORD: usize = size_of::<u64>();
    let Some(record) = WEIR_EVENT_SCRATCH.get_ptr_mut(0) else { return false };
    // SAFETY: this CPU's own value, aligned to 8 octets.
    let to = unsafe { (&raw mut (*record).octets).cast::<u8>() };
    // The last word first, which may overlap the one before it: so nothing is left behind the loop. No frame is
    // shorter than a word.
    let last = bounded::<{ event::MAX_SNAP - 1 }>(octets.saturating_sub(WORD as u32) as u64) as usize;
    if !copy_word(frame, to, last) {
        return false;
    }
    for step in 0..event::MAX_SNAP as usize / WORD {
        if step * WORD >= last {
            break;
        }
        if !copy_word(frame, to, step * WORD) {
            return false;
        }
    }
    true
}

/// Copies eight octets at a place; false where the frame ends before. `to` has room.
#[inline(always)]
fn copy_word(frame: &Frame, to: *mut u8, place: usize) -> bool {
    let from = frame.start + place;
    if from + size_of::<u64>() > frame.end {
        return false;
    }
    // SAFETY: both ends are checked; the kernel reads packet bytes, and writes map values, at any alignment. Volatile,
    // or the compiler would call a `memcpy` that is not there.
    unsafe { to.add(place).cast::<u64>().write_volatile((from as *const u64).read_volatile()) };
    true
}
