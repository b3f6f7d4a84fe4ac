//! Ports, TCP flags, ICMP type and code: TCP (RFC 9293), UDP (RFC 768), DCCP (RFC 4340), SCTP (RFC 9260),
//! UDP-Lite (RFC 3828), ICMP (RFC 792), ICMPv6 (RFC 4443). Any other protocol is a number.

use weir_sensor_common::Flags;

use super::{
    Headers, Reject,
    window::{Window, header},
};

header!(Ports { src: u16, dst: u16 });
header!(Tcp { src: u16, dst: u16, sequence: [u16; 2], acknowledgment: [u16; 2], offset: u8, flags: u8 });
header!(Icmp { kind: u8, code: u8 });

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const DCCP: u8 = 33;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;

/// What a transport header says, packed as in [`Headers`].
#[derive(Clone, Copy)]
pub(super) struct Transport {
    ports: u32,
    flags: u64,
    header_octets: u32,
}

/// No transport header, or none that may be read.
#[inline(always)]
pub(super) const fn nothing() -> Transport {
    Transport { ports: 0, flags: 0, header_octets: 0 }
}

/// Reads the header at the front of `window`, of which the IP header grants `left` octets.
#[inline(always)]
pub(super) fn transport(window: &mut Window<'_>, protocol: u8, left: u32) -> Result<Transport, Reject> {
    match protocol {
        TCP if left >= 14 => {
            let tcp: Tcp = window.peek().ok_or(Reject::Truncated)?;
            let flags = Flags { tcp: tcp.flags, first_tcp: tcp.flags, ..Flags::default() };
            let header_octets = (tcp.offset >> 4) as u32 * 4;
            Ok(Transport { ports: ports(tcp.src, tcp.dst), flags: flags.pack(), header_octets })
        }
        TCP | UDP | DCCP | SCTP | UDP_LITE if left >= 4 => {
            let both: Ports = window.peek().ok_or(Reject::Truncated)?;
            let header_octets = if protocol == SCTP { 12 } else { 8 };
            Ok(Transport { ports: ports(both.src, both.dst), flags: 0, header_octets })
        }
        ICMP | ICMPV6 if left >= 2 => {
            let icmp: Icmp = window.peek().ok_or(Reject::Truncated)?;
            let flags = Flags { icmp_type: icmp.kind, icmp_code: icmp.code, ..Flags::default() };
            Ok(Transport { ports: 0, flags: flags.pack(), header_octets: 8 })
        }
        _ => Ok(nothing()),
    }
}

#[inline(always)]
const fn ports(src: u16, dst: u16) -> u32 {
    u16::from_be(src) as u32 | (u16::from_be(dst) as u32) << 16
}

impl Transport {
    #[inline(always)]
    pub(super) const fn headers(
        self,
        protocol: u8,
        octets: u32,
        network_octets: u32,
        fragments: u8,
    ) -> Headers {
        let fragments = Flags { fragments, ..Flags::NONE };
        Headers {
            protocol,
            ports: self.ports,
            octets,
            network_octets,
            header_octets: network_octets + self.header_octets,
            flags: self.flags | fragments.pack(),
        }
    }
}
