//! What is counted where. A frame adds to its point's `frames` and then to exactly one of flow, overflow,
//! non-IP, malformed and filtered.

use aya_ebpf::{
    helpers::{bpf_get_prandom_u32, bpf_get_smp_processor_id},
    programs::{TcContext, XdpContext},
};
use weir_sensor_common::{
    Control, Count, Counters, DIRECT_IFINDEXES, Flags, HalfControl, Key, PointEntry, event::flag, filter,
    listed::loaded, wake,
};
use weir_sensor_ebpf::{
    Chain, Link, Reject, Segmented, Segments, Window, ipv4, ipv6_start, is_extension, layer3, link,
};

use super::{
    clock,
    event::{self, Offer},
    filter::{Subject, allows},
    frame::{self, Frame},
    listed,
    maps::{WEIR_CONTROL, WEIR_COUNTERS, WEIR_POINTS_DIRECT, WEIR_POINTS_HASHED, WEIR_REGIONS},
    outline::{Context, weir_log_first, weir_log_refused},
    packed,
    settings::{WEIR_CPUS, WEIR_POINTS, WEIR_TABLE_CPUS},
    table::{self, Addition, Place, Table},
    wake::ask,
};

/// Which way a frame goes.
#[derive(Clone, Copy)]
pub enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    /// Its bit in [`PointEntry::seen`].
    #[inline(always)]
    const fn bit(self) -> u8 {
        match self {
            Self::Ingress => 1,
            Self::Egress => 2,
        }
    }
}

/// TCP flags, in a packed word, after which the exact time matters: handshake round-trip times, ends of connections.
const SYN_OR_FIN: u64 = 0x03;

/// Protocols that carry further headers, which we do not read and each segment repeats: IP in IP, UDP
/// tunnels, GRE, ESP.
const fn is_tunnel(protocol: u8) -> bool {
    matches!(protocol, 4 | 17 | 41 | 47 | 50)
}

/// Where a frame is counted.
#[derive(Clone, Copy)]
struct Spot {
    control: &'static Control,
    epoch: u64,
    cpu: u32,
    point: u8,
    layer3: bool,
    egress: bool,
}

impl Spot {
    #[inline(always)]
    fn half(&self) -> u32 {
        (self.epoch & 1) as u32
    }

    #[inline(always)]
    fn settings(&self) -> &'static HalfControl {
        let halves = (&raw const self.control.halves).cast::<HalfControl>();
        // SAFETY: there are two halves.
        unsafe { &*halves.add(self.half() as usize) }
    }

    /// As an event has it.
    #[inline(always)]
    fn flags(&self) -> u8 {
        self.layer3 as u8 * flag::LAYER3 | self.egress as u8 * flag::EGRESS
    }

    /// Index of this CPU's region of counters.
    #[inline(always)]
    fn region(&self) -> u32 {
        self.half() * WEIR_CPUS.load() + self.cpu
    }
}

/// What becomes of a frame. Numbers, because the verifier follows functions that give one on their own.
pub mod outcome {
    pub const PASS: u32 = 0;
    /// Nothing was counted: the headers must be made linear first.
    pub const PULL: u32 = 1;
    /// It was counted, and a list drops it.
    pub const DROP: u32 = 2;
}

/// An XDP program's frame.
#[inline(always)]
pub fn frame(frame: &Frame, context: &XdpContext) -> u32 {
    let Some(spot) = spot(frame.ifindex, Direction::Ingress) else { return outcome::PASS };
    match count(frame, spot, context) {
        Ok(outcome) => outcome,
        Err(reject) => {
            refuse(spot, frame, reject, context);
            outcome::PASS
        }
    }
}

/// A TC program's frame. [`outcome::PULL`] where its headers are not linear; not so the `last` time, when what
/// can be made linear is.
#[inline(always)]
pub fn skb(context: &TcContext, direction: Direction, last: bool) -> u32 {
    let mut frame = Frame::skb(context);
    let Some(spot) = spot(frame.ifindex, direction) else { return outcome::PASS };
    if spot.layer3 && matches!(direction, Direction::Ingress) {
        frame.pass_outer_headers(context);
    }
    let reject = match count(&frame, spot, context) {
        Ok(outcome) => return outcome,
        Err(reject) => reject,
    };
    if !last && reject == Reject::Truncated && frame.is_partial() {
        return outcome::PULL;
    }
    refuse(spot, &frame, reject, context);
    outcome::PASS
}

/// Finds the point and this CPU; `None` where nothing is observed.
#[inline(always)]
fn spot(ifindex: u32, direction: Direction) -> Option<Spot> {
    let entry = point_entry(ifindex)?;
    // SAFETY: a map value; bytes of it are written by the sensor and, `seen`, by us.
    let PointEntry { ingress, egress, layer3, seen, .. } = unsafe { *entry };
    let point = match direction {
        Direction::Ingress => ingress,
        Direction::Egress => egress,
    };
    if point == 0 || point as u32 >= WEIR_POINTS.load() {
        return None;
    }
    if seen & direction.bit() == 0 {
        // SAFETY: as above. Two CPUs may both log; none counts by it.
        unsafe { (*entry).seen = seen | direction.bit() };
        weir_log_first(point as u32, ifindex);
    }
    // SAFETY: a map value that the sensor writes word by word.
    let control = unsafe { &*WEIR_CONTROL.get_ptr(0)? };
    // SAFETY: a word that the sensor replaces at once; read a single time, so that one half is meant.
    let epoch = unsafe { (&raw const control.epoch).read_volatile() };
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let egress = matches!(direction, Direction::Egress);
    Some(Spot { control, epoch, cpu, point, layer3: layer3 != 0, egress })
}

#[inline(always)]
fn point_entry(ifindex: u32) -> Option<*mut PointEntry> {
    if ifindex < DIRECT_IFINDEXES {
        WEIR_POINTS_DIRECT.get_ptr_mut(ifindex)
    } else {
        WEIR_POINTS_HASHED.get_ptr_mut(&ifindex)
    }
}

/// The counters of this CPU at this point.
#[inline(always)]
fn counters(spot: Spot) -> Option<&'static mut Counters> {
    let index = spot.region() * WEIR_POINTS.load() + spot.point as u32;
    // SAFETY: a map value of this CPU's own region, written with bottom halves off.
    WEIR_COUNTERS.get_ptr_mut(index).map(|counters| unsafe { &mut *counters })
}

/// Parses and counts a frame into its flow, or says why not; then nothing was counted.
#[inline(always)]
fn count<C: Context>(frame: &Frame, spot: Spot, context: &C) -> Result<u32, Reject> {
    let mut window = frame.window();
    let found =
        if spot.layer3 { layer3(&window)? } else { link(&mut window, frame::tag(frame.offloaded_tag()))? };
    match found {
        Link::V4(number) => count4(frame, spot, window, number, context),
        Link::V6(number) => count6(frame, spot, window, number, context),
        Link::Stacked => {
            let passed = context.stacked(frame.offloaded_tag(), spot.half(), spot.cpu);
            packed::accepted(passed)?;
            let number = packed::link_number(passed);
            let mut window = frame.window();
            window.skip(packed::link_taken(passed));
            if packed::link_is_v6(passed) {
                count6(frame, spot, window, number, context)
            } else {
                count4(frame, spot, window, number, context)
            }
        }
    }
}

#[inline(always)]
fn count4<C: Context>(
    frame: &Frame,
    spot: Spot,
    mut window: Window<'_>,
    number: u16,
    context: &C,
) -> Result<u32, Reject> {
    let left = frame.left(&window);
    let packet = ipv4(&mut window, left)?;
    Ok(into_flow(&packet, number, left, frame, spot, context))
}

#[inline(always)]
fn count6<C: Context>(
    frame: &Frame,
    spot: Spot,
    mut window: Window<'_>,
    number: u16,
    context: &C,
) -> Result<u32, Reject> {
    let left = frame.left(&window);
    let start = ipv6_start(&mut window, left)?;
    let mut chain = Chain::none(start.next_header);
    if is_extension(start.next_header) {
        let passed =
            context.extensions(frame.outer_octets + window.taken(), start.next_header as u32, start.rest);
        packed::accepted(passed)?;
        chain.protocol = packed::chain_protocol(passed);
        chain.fragments = packed::chain_fragments(passed);
        chain.readable = packed::chain_readable(passed);
        chain.octets = packed::chain_octets(passed);
        window.skip(chain.octets);
    }
    let packet = start.finish(&mut window, chain)?;
    Ok(into_flow(&packet, number, left, frame, spot, context))
}

/// Counts an IP packet, of which `left` octets are in the frame, as flow, overflow or filtered; then asks what
/// the lists want of it. An [`outcome`].
#[inline(always)]
fn into_flow<T: Table, C: Context>(
    packet: &T,
    link: u16,
    left: u32,
    frame: &Frame,
    spot: Spot,
    context: &C,
) -> u32 {
    let headers = packet.headers();
    let wire = if frame.gso_size == 0 {
        Segments { packets: 1, octets: headers.octets as u64, octets_l2: frame.octets as u64 }
    } else {
        Segmented {
            octets: left,
            link_octets: frame.octets - left,
            header_octets: headers.header_octets,
            gso_size: frame.gso_size,
            gso_segs: frame.gso_segs,
        }
        .on_the_wire(is_tunnel(headers.protocol))
    };
    let Some(counters) = counters(spot) else { return outcome::PASS };
    counters.frames += wire.packets as u64;
    counters.octets_l2 += wire.octets_l2;
    let addition = Addition { packets: wire.packets as u64, octets: wire.octets };
    let settings = spot.settings();
    let interval = settings.sampling_interval;
    // SAFETY: a helper without arguments.
    if interval > 1 && unsafe { bpf_get_prandom_u32() } % interval != 0 {
        counters.filtered += wire.packets as u64;
        counters.unsampled += wire.packets as u64;
        return listed::without_slot(packet, addition);
    }
    if link == packed::NO_NUMBER || spot.cpu >= WEIR_TABLE_CPUS.load() {
        // A drain gives neither link numbers at once nor slots to this CPU: it is not asked for.
        counters.overflow += wire.packets as u64;
        counters.overflow_octets += wire.octets;
        return listed::without_slot(packet, addition);
    }
    let key = Key::pack_with(headers.ports, headers.protocol, spot.point, link);
    let interest = if event::on() { event::interest(headers, left, spot.epoch) } else { 0 };
    let mut before = 0;
    let outcome = match table::find(packet, spot.half() * WEIR_TABLE_CPUS.load() + spot.cpu, key) {
        Place::Found(slot) => {
            let now = if headers.flags & SYN_OR_FIN == 0 {
                clock::coarse(spot.control)
            } else {
                clock::precise(spot.control)
            };
            // SAFETY: a map value of this CPU's own region.
            let slot = unsafe { &mut *slot };
            before = table::add(T::fields(slot), addition, headers.flags, now);
            let fields = T::fields(slot);
            if Count(*fields.count).is_guarded() {
                listed::verdict(Flags::mark(*fields.flags), addition)
            } else {
                outcome::PASS
            }
        }
        place => {
            if settings.rules != 0 || settings.default_action != filter::ALLOW {
                let (ip_version, src, dst) = packet.addresses();
                if !allows(settings, spot.half(), Subject { src, dst, key, ip_version }) {
                    counters.filtered += wire.packets as u64;
                    return listed::without_slot(packet, addition);
                }
            }
            if let Place::Free(slot) = place {
                let now_ns = clock::precise(spot.control);
                let mark = listed::mark(packet, loaded::ANY);
                // SAFETY: a map value of this CPU's own region.
                table::start(packet, key, unsafe { &mut *slot }, addition, now_ns, mark);
                fill::<T>(spot);
                if mark.drops() { listed::verdict(mark, addition) } else { outcome::PASS }
            } else {
                overflow(counters, wire, spot);
                listed::without_slot(packet, addition)
            }
        }
    };
    // All is counted; what was filtered or left out by sampling is not looked into.
    if event::on() {
        let link_octets = frame.readable_octets().wrapping_sub(left);
        let hash = packet.hash(key);
        let (point, flags) = (spot.point, spot.flags());
        event::offer(context, &Offer { interest, headers, link_octets, left, before, hash, point, flags });
    }
    outcome
}

/// Counts a slot that came into use, and asks for a drain at three quarters.
#[inline(always)]
fn fill<T: Table>(spot: Spot) {
    let Some(region) = WEIR_REGIONS.get_ptr_mut(spot.region()) else { return };
    // SAFETY: a map value of this CPU's own region.
    let used = T::used(unsafe { &mut *region });
    *used += 1;
    if *used == 3 << (T::bits() - 2) {
        ask(spot.epoch, spot.cpu, wake::FILLING);
    }
}

/// An IP packet that found no room.
#[inline(always)]
fn overflow(counters: &mut Counters, wire: Segments, spot: Spot) {
    counters.overflow += wire.packets as u64;
    counters.overflow_octets += wire.octets;
    if counters.overflow == wire.packets as u64 {
        ask(spot.epoch, spot.cpu, wake::OVERFLOW);
    }
}

/// A frame that is no flow's.
#[inline(always)]
fn refuse<C: Context>(spot: Spot, frame: &Frame, reject: Reject, context: &C) {
    let Some(counters) = counters(spot) else { return };
    let frames = if frame.gso_segs > 1 { frame.gso_segs as u64 } else { 1 };
    counters.frames += frames;
    counters.octets_l2 += frame.octets as u64;
    match reject {
        Reject::NonIp => {
            counters.non_ip += frames;
            if event::on() && !spot.layer3 {
                event::offer_beside_ip(context, spot.point, spot.flags());
            }
        }
        // Headers that lie where this program cannot read: the packet may be sound, so it is not called
        // malformed; it could not be attributed.
        Reject::Truncated if frame.is_partial() => {
            counters.overflow += frames;
            weir_log_refused(spot.point as u32, frame.octets, 1);
        }
        Reject::Malformed | Reject::Truncated => {
            counters.malformed += frames;
            weir_log_refused(spot.point as u32, frame.octets, 0);
        }
    }
}
