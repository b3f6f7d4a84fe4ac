//! From Ethernet to IP: VLAN tags (802.1Q, 802.1ad), PPPoE sessions (RFC 2516), MPLS label stacks
//! (RFC 3032), LLC/SNAP (RFC 1042).

use weir_sensor_common::{
    event,
    link::{self, LinkStack},
};

use super::{
    Reject,
    window::{Window, header},
};

header!(Ethernet { dst: [u8; 6], src: [u8; 6], ethertype: u16 });
header!(VlanTag { tci: u16, ethertype: u16 });
header!(Pppoe { version_type: u8, code: u8, session: u16, length: u16, protocol: [u8; 2] });
header!(LlcSnap { llc: [u8; 3], oui: [u8; 3], ethertype: u16 });

/// Which IP header comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    V4,
    V6,
}

/// What the first headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// IPv4 behind a bare Ethernet header or a single VLAN tag, with that link's number.
    V4(u16),
    /// IPv6, the same.
    V6(u16),
    /// Several headers, or others than tags: [`stacked`] follows them.
    Stacked,
}

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const PPPOE_SESSION: u16 = 0x8864;
const MPLS_UNICAST: u16 = 0x8847;
const MPLS_MULTICAST: u16 = 0x8848;
/// Values below are an 802.3 length, and an LLC header follows.
const FIRST_ETHERTYPE: u16 = 0x0600;
/// Tags that are passed before a protocol beside IP.
const MAX_TAGS: usize = 4;
const PPP_IPV4: u8 = 0x21;
const PPP_IPV6: u8 = 0x57;

/// Ethernet and the first tag, which is all that most frames have before IP. `offloaded` is a tag that the
/// device or the stack took out of the frame (an skb's `vlan_tci`): the outermost one.
#[inline(always)]
pub fn link(window: &mut Window<'_>, offloaded: Option<u16>) -> Result<Link, Reject> {
    let ethernet: Ethernet = window.take().ok_or(Reject::Truncated)?;
    let mut ethertype = u16::from_be(ethernet.ethertype);
    let number = match offloaded {
        None if is_vlan(ethertype) => {
            let inline: VlanTag = window.take().ok_or(Reject::Truncated)?;
            ethertype = u16::from_be(inline.ethertype);
            link::SINGLE_VLAN + vlan_id(u16::from_be(inline.tci))
        }
        None => link::BARE,
        Some(tci) => link::SINGLE_VLAN + vlan_id(tci),
    };
    match ethertype {
        IPV4 => Ok(Link::V4(number)),
        IPV6 => Ok(Link::V6(number)),
        _ if may_hold_ip(ethertype) => Ok(Link::Stacked),
        _ => Err(Reject::NonIp),
    }
}

/// A frame that begins with IP: the version nibble is all there is to go by.
#[inline(always)]
pub fn layer3(window: &Window<'_>) -> Result<Link, Reject> {
    let first: u8 = window.peek().ok_or(Reject::Truncated)?;
    match first >> 4 {
        4 => Ok(Link::V4(link::BARE)),
        6 => Ok(Link::V6(link::BARE)),
        _ => Err(Reject::NonIp),
    }
}

/// All link headers of a frame, outermost first, into `stack`; `window` stands at its start. The place is the
/// caller's: a BPF program keeps it in a map, because its own stack is small and may not be indexed by a
/// variable before kernel 5.12.
#[inline(always)]
pub fn stacked(
    window: &mut Window<'_>,
    offloaded: Option<u16>,
    stack: &mut LinkStack,
) -> Result<Network, Reject> {
    let ethernet: Ethernet = window.take().ok_or(Reject::Truncated)?;
    let mut ethertype = u16::from_be(ethernet.ethertype);
    stack.depth = 0;
    stack.headers = [0; link::MAX_DEPTH];
    if let Some(tci) = offloaded {
        push(stack, link::VLAN | vlan_id(tci) as u32)?;
    }
    for _ in 0..link::MAX_DEPTH {
        if !is_vlan(ethertype) {
            break;
        }
        let tag: VlanTag = window.take().ok_or(Reject::Truncated)?;
        push(stack, link::VLAN | vlan_id(u16::from_be(tag.tci)) as u32)?;
        ethertype = u16::from_be(tag.ethertype);
    }
    match ethertype {
        IPV4 => Ok(Network::V4),
        IPV6 => Ok(Network::V6),
        PPPOE_SESSION => pppoe(window, stack),
        MPLS_UNICAST | MPLS_MULTICAST => mpls(window, stack),
        length if length < FIRST_ETHERTYPE => snap(window, stack),
        _ => Err(Reject::NonIp),
    }
}

#[inline(always)]
fn pppoe(window: &mut Window<'_>, stack: &mut LinkStack) -> Result<Network, Reject> {
    let session: Pppoe = window.peek().ok_or(Reject::Truncated)?;
    if session.code != 0 {
        return Err(Reject::NonIp);
    }
    // A PPP protocol field whose first octet is odd is compressed to that octet (RFC 1661, 6.5).
    let (protocol, octets) = match session.protocol {
        [0, protocol] => (protocol, 8),
        [protocol, _] => (protocol, 7),
    };
    let network = match protocol {
        PPP_IPV4 => Network::V4,
        PPP_IPV6 => Network::V6,
        _ => return Err(Reject::NonIp),
    };
    window.skip(octets);
    push(stack, link::PPPOE)?;
    Ok(network)
}

#[inline(always)]
fn mpls(window: &mut Window<'_>, stack: &mut LinkStack) -> Result<Network, Reject> {
    const BOTTOM_OF_STACK: u32 = 0x100;
    for _ in 0..link::MAX_DEPTH {
        let entry = u32::from_be(window.take().ok_or(Reject::Truncated)?);
        push(stack, link::MPLS | entry >> 12)?;
        if entry & BOTTOM_OF_STACK != 0 {
            // MPLS does not say what it carries: IP is told by its version, and an IPv4 header is at
            // least five words long. Everything else (pseudowires, control words) is not ours.
            return match window.peek::<u8>() {
                Some(first) if first >> 4 == 4 && first & 0xf >= 5 => Ok(Network::V4),
                Some(first) if first >> 4 == 6 => Ok(Network::V6),
                Some(_) => Err(Reject::NonIp),
                None => Err(Reject::Truncated),
            };
        }
    }
    Err(Reject::NonIp)
}

#[inline(always)]
fn snap(window: &mut Window<'_>, stack: &mut LinkStack) -> Result<Network, Reject> {
    let header: LlcSnap = window.take().ok_or(Reject::Truncated)?;
    if header.llc != [0xaa, 0xaa, 0x03] || header.oui != [0, 0, 0] {
        return Err(Reject::NonIp);
    }
    let network = match u16::from_be(header.ethertype) {
        IPV4 => Network::V4,
        IPV6 => Network::V6,
        _ => return Err(Reject::NonIp),
    };
    push(stack, link::SNAP)?;
    Ok(network)
}

/// What a frame that is not IP is about: one of [`event::class`], or none of them. `window` stands at its start.
#[inline(always)]
#[must_use]
pub fn beside_ip(window: &mut Window<'_>) -> u32 {
    /// `01:00:0c:cc:cc:cc`, which several of one vendor's protocols share.
    const CDP_GROUP: [u8; 6] = [0x01, 0x00, 0x0c, 0xcc, 0xcc, 0xcc];
    const CDP: u16 = 0x2000;
    const ARP: u16 = 0x0806;
    let Some(ethernet) = window.take::<Ethernet>() else { return event::class::NONE };
    let mut ethertype = u16::from_be(ethernet.ethertype);
    for _ in 0..MAX_TAGS {
        if !is_vlan(ethertype) {
            break;
        }
        let Some(tag) = window.take::<VlanTag>() else { return event::class::NONE };
        ethertype = u16::from_be(tag.ethertype);
    }
    match ethertype {
        ARP => event::class::ARP,
        0x88cc => event::class::LLDP,
        length if length < FIRST_ETHERTYPE => match window.take::<LlcSnap>() {
            Some(snap) if u16::from_be(snap.ethertype) == CDP && ethernet.dst == CDP_GROUP => {
                event::class::CDP
            }
            Some(snap) if u16::from_be(snap.ethertype) == ARP => event::class::ARP,
            _ => event::class::NONE,
        },
        _ => event::class::NONE,
    }
}

#[inline(always)]
fn push(stack: &mut LinkStack, header: u32) -> Result<(), Reject> {
    let depth = stack.depth as usize;
    let slot = stack.headers.get_mut(depth).ok_or(Reject::NonIp)?;
    *slot = header;
    stack.depth = depth as u32 + 1;
    Ok(())
}

#[inline(always)]
const fn vlan_id(tci: u16) -> u16 {
    tci & 0x0fff
}

/// Whether a VLAN tag follows (802.1Q, 802.1ad, and two numbers from before them).
#[inline(always)]
#[must_use]
pub const fn is_vlan(ethertype: u16) -> bool {
    matches!(ethertype, 0x8100 | 0x88a8 | 0x9100 | 0x9200)
}

#[inline(always)]
const fn may_hold_ip(ethertype: u16) -> bool {
    matches!(ethertype, PPPOE_SESSION | MPLS_UNICAST | MPLS_MULTICAST)
        || ethertype < FIRST_ETHERTYPE
        || is_vlan(ethertype)
}
