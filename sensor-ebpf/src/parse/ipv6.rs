//! IPv6 (RFC 8200), with a bounded chain of extension headers.

use weir_sensor_common::fragment;

use super::{
    Headers, Reject,
    transport::{nothing, transport},
    window::{Window, header},
};

header!(Ipv6Header {
    version_class_flow: [u8; 4],
    payload_length: u16,
    next_header: u8,
    hop_limit: u8,
    src: [u64; 2],
    dst: [u64; 2],
});
header!(Extension { next_header: u8, length: u8, fragment: u16 });

/// Extension headers that are followed. RFC 8200 has eight kinds and each but one at most once; a longer
/// chain is an evasion, not traffic, and counts as malformed.
const MAX_EXTENSIONS: usize = 16;

const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const MORE_FRAGMENTS: u16 = 1;
const FRAGMENT_OFFSET: u16 = 0xfff8;

/// An IPv6 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6 {
    /// Network byte order, as they lie in memory.
    pub src: [u64; 2],
    pub dst: [u64; 2],
    pub headers: Headers,
}

/// Where a chain of extension headers leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Of the header after the chain, or of the extension header that is cut short.
    pub protocol: u8,
    pub fragments: u8,
    /// Whether a transport header may be read behind the chain.
    pub readable: bool,
    /// Octets of the chain.
    pub octets: u32,
}

impl Chain {
    /// No extension headers: the IPv6 header's own next header is the transport.
    #[inline(always)]
    #[must_use]
    pub const fn none(protocol: u8) -> Self {
        Self { protocol, fragments: 0, readable: true, octets: 0 }
    }
}

/// The IPv6 header, and what is left behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Start {
    src: [u64; 2],
    dst: [u64; 2],
    /// Layer-3 octets by the header's own claim.
    octets: u32,
    pub next_header: u8,
    /// Octets of the packet behind the header.
    pub rest: u32,
}

/// Reads the packet that begins at the front of `window`; `left` octets of the frame are there on the wire.
#[inline(always)]
pub fn ipv6(window: &mut Window<'_>, left: u32) -> Result<Ipv6, Reject> {
    let start = ipv6_start(window, left)?;
    let chain = if is_extension(start.next_header) {
        extensions(window, start.next_header, start.rest, &mut Walk::default())?
    } else {
        Chain::none(start.next_header)
    };
    window.skip(chain.octets);
    start.finish(window, chain)
}

/// The first half of [`ipv6`]: a BPF program passes the extension headers, which are rare and branchy, in a
/// function that the verifier follows once.
#[inline(always)]
pub fn ipv6_start(window: &mut Window<'_>, left: u32) -> Result<Ipv6Start, Reject> {
    let header: Ipv6Header = window.take().ok_or(Reject::Truncated)?;
    if header.version_class_flow[0] >> 4 != 6 {
        return Err(Reject::Malformed);
    }
    let octets = 40 + u16::from_be(header.payload_length) as u32;
    if octets > left {
        return Err(Reject::Malformed);
    }
    // Payload length 0 is a jumbogram's or an offloaded packet's: what follows reaches the frame's end.
    let rest = if octets == 40 { left } else { octets } - 40;
    let Ipv6Header { next_header, src, dst, .. } = header;
    Ok(Ipv6Start { src, dst, octets, next_header, rest })
}

impl Ipv6Start {
    /// The second half: the transport header behind the chain, where `window` stands now.
    #[inline(always)]
    pub fn finish(self, window: &mut Window<'_>, chain: Chain) -> Result<Ipv6, Reject> {
        let transport = if chain.readable && chain.octets <= self.rest {
            transport(window, chain.protocol, self.rest - chain.octets)?
        } else {
            nothing()
        };
        Ok(Ipv6 {
            src: self.src,
            dst: self.dst,
            headers: transport.headers(chain.protocol, self.octets, 40 + chain.octets, chain.fragments),
        })
    }
}

/// Where the walk along a chain stands: a place in memory that the caller lends.
///
/// The walk reads it anew at each step, also where the compiler knows what it wrote. To the verifier, what
/// comes out of a map is any number: so each step looks like the one before and is followed once. From
/// registers it would tell apart every sum of lengths that can be reached, three to the power of sixteen.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Walk {
    protocol: u32,
    /// Octets of the packet that are left.
    rest: u32,
    /// Octets of the chain so far.
    octets: u32,
    fragments: u32,
}

/// Octets that a chain may take; longer ones, which take sixteen of the longest headers, are malformed.
const MAX_CHAIN: u32 = 0x7fff;

/// Passes the chain that begins with an extension header `protocol`, of which `rest` octets belong to the
/// packet. `window` stands before the chain and is not moved.
#[inline(always)]
pub fn extensions(window: &Window<'_>, protocol: u8, rest: u32, walk: &mut Walk) -> Result<Chain, Reject> {
    let place = core::ptr::from_mut(walk);
    let mut next = Walk { protocol: protocol as u32, rest, octets: 0, fragments: 0 };
    for _ in 0..MAX_EXTENSIONS {
        // SAFETY: `place` is the exclusive borrow above.
        let Walk { protocol, rest, octets, fragments } = unsafe {
            place.write_volatile(next);
            place.read_volatile()
        };
        let here = |readable| Chain {
            protocol: protocol as u8,
            fragments: fragments as u8,
            readable,
            octets: octets & MAX_CHAIN,
        };
        if fragments & fragment::LATER as u32 != 0 {
            return Ok(here(false));
        }
        if !is_extension(protocol as u8) {
            return Ok(here(true));
        }
        if rest < 8 {
            return Ok(here(false));
        }
        let mut at = *window;
        at.skip(octets & MAX_CHAIN);
        let extension: Extension = at.peek().ok_or(Reject::Truncated)?;
        let length = match protocol as u8 {
            FRAGMENT => 8,
            AUTHENTICATION => (extension.length as u32 + 2) * 4,
            _ => (extension.length as u32 + 1) * 8,
        };
        if length > rest {
            return Ok(here(false));
        }
        let found = if protocol as u8 == FRAGMENT { fragment_bits(extension.fragment) } else { 0 };
        next = Walk {
            protocol: extension.next_header as u32,
            rest: rest - length,
            octets: octets + length,
            fragments: fragments | found as u32,
        };
    }
    let Walk { protocol, octets, fragments, .. } = next;
    if octets > MAX_CHAIN {
        return Err(Reject::Malformed);
    }
    let (protocol, fragments) = (protocol as u8, fragments as u8);
    if fragments & fragment::LATER == 0 && is_extension(protocol) {
        return Err(Reject::Malformed);
    }
    let readable = fragments & fragment::LATER == 0;
    Ok(Chain { protocol, fragments, readable, octets: octets & MAX_CHAIN })
}

/// What a fragment header's offset and flags say; network byte order.
#[inline(always)]
const fn fragment_bits(word: u16) -> u8 {
    let word = u16::from_be(word);
    match (word & FRAGMENT_OFFSET, word & MORE_FRAGMENTS) {
        (0, 0) => fragment::ATOMIC,
        (0, _) => fragment::FIRST,
        _ => fragment::LATER,
    }
}

/// Whether a next header is an extension header.
#[inline(always)]
#[must_use]
pub const fn is_extension(protocol: u8) -> bool {
    matches!(protocol, 0 | 43 | FRAGMENT | AUTHENTICATION | 60 | 135 | 139 | 140)
}
