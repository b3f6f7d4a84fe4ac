//! A frame as the programs get it: where its bytes are, how long it is on the wire, where it was seen.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_skb_pull_data, bpf_xdp_get_buff_len},
    programs::{TcContext, XdpContext},
};

use weir_sensor_ebpf::Window;

/// Bytes that are pulled together when headers lie beyond the linear part of an skb: Ethernet, a deep link
/// stack, IPv6 with extension headers and TCP fit.
const PULL: u32 = 256;

/// Ethernet with tags, IPv6 and GRE, and room to spare; a bound that the verifier can see.
const MAX_OUTER: u32 = 0xff;

/// One frame at one observation point.
#[derive(Clone, Copy)]
pub struct Frame {
    pub start: usize,
    pub end: usize,
    /// Octets on the wire, also those beyond `end`.
    pub octets: u32,
    pub ifindex: u32,
    /// A tag that is not in the bytes any more, or [`NO_TAG`]. Not an `Option`: the half of one that has no
    /// value is a register that was never written, and the verifier refuses to see it moved.
    offloaded_tag: u32,
    pub gso_size: u32,
    pub gso_segs: u32,
    /// Octets at hand before `start`: outer headers, see [`Frame::pass_outer_headers`].
    pub outer_octets: u32,
}

/// No offloaded tag.
pub const NO_TAG: u32 = u32::MAX;

/// Octets that an offloaded tag takes on the wire.
#[inline(always)]
const fn tag_octets(tag: u32) -> u32 {
    if tag == NO_TAG { 0 } else { 4 }
}

/// As the parser wants it.
#[inline(always)]
pub fn tag(offloaded: u32) -> Option<u16> {
    if offloaded == NO_TAG { None } else { Some(offloaded as u16) }
}

impl Frame {
    #[inline(always)]
    fn xdp(context: &XdpContext, octets: u32) -> Self {
        Self {
            start: opaque(context.data()),
            end: opaque(context.data_end()),
            octets,
            ifindex: context.ingress_ifindex() as u32,
            offloaded_tag: NO_TAG,
            gso_size: 0,
            gso_segs: 0,
            outer_octets: 0,
        }
    }

    /// Of an XDP program that takes frames in several buffers.
    #[inline(always)]
    pub fn xdp_frags(context: &XdpContext) -> Self {
        // SAFETY: the context is the program's own.
        let octets = unsafe { bpf_xdp_get_buff_len(context.as_ptr().cast()) };
        Self::xdp(context, octets as u32)
    }

    /// Of an XDP program whose frames are one buffer.
    #[inline(always)]
    pub fn xdp_linear(context: &XdpContext) -> Self {
        Self::xdp(context, (context.data_end() - context.data()) as u32)
    }

    /// Of a TC program.
    #[inline(always)]
    pub fn skb(context: &TcContext) -> Self {
        // SAFETY: the context is the program's own; the verifier turns each field into a checked load.
        let skb = unsafe { &*context.skb.skb };
        let offloaded_tag = if skb.vlan_present == 0 { NO_TAG } else { skb.vlan_tci };
        Self {
            start: opaque(context.data()),
            end: opaque(context.data_end()),
            octets: skb.len + tag_octets(offloaded_tag),
            ifindex: skb.ifindex,
            offloaded_tag,
            gso_size: skb.gso_size,
            gso_segs: skb.gso_segs,
            outer_octets: 0,
        }
    }

    /// For a frame that came in by a device without link headers. Before kernel 5.14, IP tunnels (ipip, sit,
    /// GRE) leave the skb's link header where the outer packet's was, and a TC program sees all from there on.
    /// What the stack itself took for the frame's length tells where the inner packet begins.
    #[inline(always)]
    pub fn pass_outer_headers(&mut self, context: &TcContext) {
        // SAFETY: the context is the program's own; the verifier turns each field into a checked load.
        let skb = unsafe { &*context.skb.skb };
        let (len, inner) = (skb.len, skb.wire_len);
        // A test run leaves the length unset.
        if inner != 0 && inner < len {
            let outer = (len - inner) & MAX_OUTER;
            self.start += outer as usize;
            self.octets -= outer;
            self.outer_octets = outer;
        }
    }

    /// As [`NO_TAG`] or a tag control information.
    #[inline(always)]
    pub fn offloaded_tag(&self) -> u32 {
        self.offloaded_tag
    }

    /// Octets that can be read in the bytes, or would be if they were linear.
    #[inline(always)]
    pub fn readable_octets(&self) -> u32 {
        self.octets - tag_octets(self.offloaded_tag)
    }

    /// Octets of the frame behind where `window` stands. What was passed could be read, so it is within them.
    #[inline(always)]
    pub fn left(&self, window: &Window<'_>) -> u32 {
        self.readable_octets().wrapping_sub(window.taken())
    }

    /// The bytes at hand.
    #[inline(always)]
    pub fn window(&self) -> Window<'_> {
        // SAFETY: the frame's own bounds, which the verifier checks again.
        unsafe { Window::from_raw(self.start, self.end) }
    }

    /// Whether the frame goes on beyond the bytes at hand.
    #[inline(always)]
    pub fn is_partial(&self) -> bool {
        ((self.end - self.start) as u32) < self.readable_octets()
    }
}

/// A packet pointer whose upper half the compiler does not know to be zero. A context shows pointers as 32-bit
/// fields, which the verifier replaces; told so, the compiler would compare them as 32-bit numbers, and the
/// verifier would not see a bounds check.
#[inline(always)]
pub fn opaque(pointer: usize) -> usize {
    let mut pointer = pointer;
    // SAFETY: a register moved onto itself, which the compiler must take as changed. (Without any instruction
    // the line information would have two entries for one place, which the kernel refuses.)
    unsafe { core::arch::asm!("{pointer} = {pointer}", pointer = inout(reg) pointer) };
    pointer
}

/// Makes the headers of an skb linear, where memory allows. The frame must be taken anew afterwards.
#[inline(always)]
pub fn pull(context: &TcContext) {
    let octets = if context.len() < PULL { context.len() } else { PULL };
    // SAFETY: the context is the program's own.
    unsafe { bpf_skb_pull_data(context.as_ptr().cast(), octets) };
}
