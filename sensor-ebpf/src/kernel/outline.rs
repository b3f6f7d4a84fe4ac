//! The rare and branchy parts of the way of a frame, each a function that the verifier follows once, on its
//! own, instead of on every path that leads to it. That keeps the programs far below the limit of a million
//! steps, on old kernels too, and the common path short.
//!
//! Such functions must be global (`no_mangle`), take the context and numbers only, and give a number. The
//! two program types have contexts of different names, hence a pair of each.

use aya_ebpf::{
    bindings::{__sk_buff, xdp_md},
    helpers::generated::{bpf_skb_load_bytes, bpf_xdp_load_bytes},
    programs::{TcContext, XdpContext},
};
use aya_log_ebpf::{debug, info};
use weir_sensor_ebpf::{Reject, Window, extensions, stacked};

use super::{
    account::{self, Direction, outcome},
    event,
    frame::{self, Frame, opaque},
    link_number,
    maps::WEIR_WALK,
    packed,
    settings::WEIR_XDP_HELPERS,
};

/// What differs between the contexts.
pub trait Context: aya_ebpf::EbpfContext {
    fn data(&self) -> usize;
    fn data_end(&self) -> usize;
    /// Passes a link stack: `tag` is an offloaded tag, or [`frame::NO_TAG`]. A packed link.
    fn stacked(&self, tag: u32, half: u32, cpu: u32) -> u64;
    /// Passes extension headers from `taken` on. A packed chain.
    fn extensions(&self, taken: u32, protocol: u32, rest: u32) -> u64;
    /// Hands a packet to userspace, if it is what it seems; see [`event::take`].
    fn event(&self, what: u32, at: u32, payload: u32, hash: u32);
    /// The frame; without outer headers, where an skb has some (`tunnelled`).
    fn frame(&self, tunnelled: bool) -> Frame;
    /// Copies octets of the frame, from `offset` on, to the scratch of events, of which `to` is the start.
    fn copy(&self, offset: u32, to: *mut u8, octets: u32) -> bool;
}

impl Context for XdpContext {
    #[inline(always)]
    fn data(&self) -> usize {
        self.data()
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        self.data_end()
    }

    #[inline(always)]
    fn stacked(&self, tag: u32, half: u32, cpu: u32) -> u64 {
        weir_xdp_stacked(self.ctx, tag, half, cpu)
    }

    #[inline(always)]
    fn extensions(&self, taken: u32, protocol: u32, rest: u32) -> u64 {
        weir_xdp_extensions(self.ctx, taken, protocol, rest)
    }

    #[inline(always)]
    fn event(&self, what: u32, at: u32, payload: u32, hash: u32) {
        weir_xdp_event(self.ctx, what, at, payload, hash);
    }

    #[inline(always)]
    fn frame(&self, _: bool) -> Frame {
        if WEIR_XDP_HELPERS.load() == 0 { Frame::xdp_linear(self) } else { Frame::xdp_frags(self) }
    }

    #[inline(always)]
    fn copy(&self, offset: u32, to: *mut u8, octets: u32) -> bool {
        if WEIR_XDP_HELPERS.load() == 0 {
            return weir_xdp_copy(self.ctx, octets) != 0;
        }
        // SAFETY: the context is the program's own, and the scratch has room.
        unsafe { bpf_xdp_load_bytes(self.ctx, offset, to.cast(), octets) == 0 }
    }
}

impl Context for TcContext {
    #[inline(always)]
    fn data(&self) -> usize {
        self.data()
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        self.data_end()
    }

    #[inline(always)]
    fn stacked(&self, tag: u32, half: u32, cpu: u32) -> u64 {
        weir_tc_stacked(self.skb.skb, tag, half, cpu)
    }

    #[inline(always)]
    fn extensions(&self, taken: u32, protocol: u32, rest: u32) -> u64 {
        weir_tc_extensions(self.skb.skb, taken, protocol, rest)
    }

    #[inline(always)]
    fn event(&self, what: u32, at: u32, payload: u32, hash: u32) {
        weir_tc_event(self.skb.skb, what, at, payload, hash);
    }

    #[inline(always)]
    fn frame(&self, tunnelled: bool) -> Frame {
        let mut frame = Frame::skb(self);
        if tunnelled {
            frame.pass_outer_headers(self);
        }
        frame
    }

    #[inline(always)]
    fn copy(&self, offset: u32, to: *mut u8, octets: u32) -> bool {
        // SAFETY: the context is the program's own, and the scratch has room.
        unsafe { bpf_skb_load_bytes(self.skb.skb.cast(), offset, to.cast(), octets) == 0 }
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weir_xdp_stacked(context: *mut xdp_md, tag: u32, half: u32, cpu: u32) -> u64 {
    pass_stack(&XdpContext::new(context), tag, half, cpu)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weir_tc_stacked(context: *mut __sk_buff, tag: u32, half: u32, cpu: u32) -> u64 {
    pass_stack(&TcContext::new(context), tag, half, cpu)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weir_xdp_extensions(context: *mut xdp_md, taken: u32, protocol: u32, rest: u32) -> u64 {
    pass_extensions(&XdpContext::new(context), taken, protocol, rest)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weir_tc_extensions(context: *mut __sk_buff, taken: u32, protocol: u32, rest: u32) -> u64 {
    pass_extensions(&TcContext::new(context), taken, protocol, rest)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weir_xdp_event(context: *mut xdp_md, what: u32, at: u32, payload: u32, hash: u32) -> u32 {
    event::take(&XdpContext::new(context), what, at, payload, hash);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weir_tc_event(context: *mut __sk_buff, what: u32, at: u32, payload: u32, hash: u32) -> u32 {
    event::take(&TcContext::new(context), what, at, payload, hash);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weir_xdp_copy(context: *mut xdp_md, octets: u32) -> u32 {
    event::copy_linear(&Frame::xdp_linear(&XdpContext::new(context)), octets) as u32
}

/// Counts a TC program's packet; an [`outcome`]. Where that is to pull, it must be called again, `last`, when
/// the headers are linear.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weir_tc_count(context: *mut __sk_buff, ingress: u32, last: u32) -> u32 {
    let direction = if ingress == 0 { Direction::Egress } else { Direction::Ingress };
    account::skb(&TcContext::new(context), direction, last != 0)
}

/// Counts a TC program's packet, whose headers are made linear if they must; an [`outcome`].
#[inline(always)]
pub fn tc(context: &TcContext, direction: Direction) -> u32 {
    let ingress = matches!(direction, Direction::Ingress) as u32;
    let found = weir_tc_count(context.skb.skb, ingress, 0);
    if found != outcome::PULL {
        return found;
    }
    frame::pull(context);
    weir_tc_count(context.skb.skb, ingress, 1)
}

#[inline(always)]
fn pass_stack(context: &impl Context, tag: u32, half: u32, cpu: u32) -> u64 {
    // SAFETY: the packet's own bounds.
    let mut window = unsafe { Window::from_raw(opaque(context.data()), opaque(context.data_end())) };
    let Some(stack) = link_number::scratch() else { return packed::reject(Reject::NonIp) };
    let network = stacked(&mut window, frame::tag(tag), stack);
    match network {
        Ok(network) => {
            let number = link_number::intern(stack, half & 1, cpu).unwrap_or(packed::NO_NUMBER);
            packed::link(network, number, window.taken())
        }
        Err(reject) => packed::reject(reject),
    }
}

#[inline(always)]
fn pass_extensions(context: &impl Context, taken: u32, protocol: u32, rest: u32) -> u64 {
    // SAFETY: the packet's own bounds.
    let mut window = unsafe { Window::from_raw(opaque(context.data()), opaque(context.data_end())) };
    window.skip(taken & 0x1ff);
    let Some(walk) = WEIR_WALK.get_ptr_mut(0) else { return packed::reject(Reject::Malformed) };
    // SAFETY: this CPU's own value; bottom halves are off, so it works at one frame at a time.
    match extensions(&window, protocol as u8, rest, unsafe { &mut *walk }) {
        Ok(chain) => packed::chain(chain),
        Err(reject) => packed::reject(reject),
    }
}

/// Logs the first frame of a point.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_log_first(point: u32, ifindex: u32) -> u32 {
    info!(&(), "first frame at point {} (interface index {})", point, ifindex);
    0
}

/// Logs a frame that was not counted into a flow though it claims to be IP.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_log_refused(point: u32, octets: u32, not_linear: u32) -> u32 {
    if not_linear == 0 {
        debug!(&(), "malformed frame of {} octets at point {}", octets, point);
    } else {
        debug!(&(), "headers of a frame of {} octets at point {} are not linear", octets, point);
    }
    0
}
