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

/// What a transport header says.
#[derive(Clone, Copy)]
pub(super) struct Transport {
    src_port: u16,
    dst_port: u16,
    tcp_flags: u8,
    icmp_type: u8,
    icmp_code: u8,
    header_octets: u32,
}

/// No transport header, or none that may be read.
#[inline(always)]
pub(super) const fn nothing() -> Transport {
    Transport { src_port: 0, dst_port: 0, tcp_flags: 0, icmp_type: 0, icmp_code: 0, header_octets: 0 }
}

/// Reads the header at the front of `window`, of which the IP header grants `left` octets.
#[inline(always)]
pub(super) fn transport(window: &mut Window<'_>, protocol: u8, left: u32) -> Result<Transport, Reject> {
    let mut found = nothing();
    match protocol {
        TCP if left >= 14 => {
            let tcp: Tcp = window.peek().ok_or(Reject::Truncated)?;
            found.src_port = u16::from_be(tcp.src);
            found.dst_port = u16::from_be(tcp.dst);
            found.tcp_flags = tcp.flags;
            found.header_octets = (tcp.offset >> 4) as u32 * 4;
        }
        TCP | UDP | DCCP | SCTP | UDP_LITE if left >= 4 => {
            let ports: Ports = window.peek().ok_or(Reject::Truncated)?;
            found.src_port = u16::from_be(ports.src);
            found.dst_port = u16::from_be(ports.dst);
            found.header_octets = 8;
        }
        ICMP | ICMPV6 if left >= 2 => {
            let icmp: Icmp = window.peek().ok_or(Reject::Truncated)?;
            found.icmp_type = icmp.kind;
            found.icmp_code = icmp.code;
            found.header_octets = 8;
        }
        _ => {}
    }
    Ok(found)
}

impl Transport {
    #[inline(always)]
    pub(super) fn headers(self, protocol: u8, octets: u32, network_octets: u32, fragments: u8) -> Headers {
        Headers {
            protocol,
            src_port: self.src_port,
            dst_port: self.dst_port,
            octets,
            header_octets: network_octets + self.header_octets,
            flags: Flags {
                tcp: self.tcp_flags,
                fragments,
                first_tcp: self.tcp_flags,
                icmp_type: self.icmp_type,
                icmp_code: self.icmp_code,
            },
        }
    }
}
