//! The five-tuple without its direction: what both sides of a connection share.
//!
//! A million of these are sorted and looked up in an epoch: addresses are two words, so that comparing and
//! hashing are a few instructions.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::kernel::FlowKey;

/// An address and a port; ordered, so that both directions agree which end is the low one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Endpoint {
    /// High and low half; IPv4 in the lowest 32 bits.
    address: [u64; 2],
    pub(super) port: u16,
}

/// A five-tuple whose lower endpoint stands first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tuple {
    pub(super) low: Endpoint,
    pub(super) high: Endpoint,
    pub(super) protocol: u8,
    ip6: bool,
}

/// Which end of a [`Tuple`] sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Way {
    /// From the low endpoint to the high one; also where both are the same.
    Up = 0,
    Down = 1,
}

impl Way {
    pub(super) const BOTH: [Self; 2] = [Self::Up, Self::Down];

    pub(super) fn reverse(self) -> Self {
        match self {
            Self::Up => Self::Down,
            Self::Down => Self::Up,
        }
    }
}

impl Hash for Tuple {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Two addresses of one word are the rule; everything that tells tuples apart is in some word.
        if self.ip6 {
            state.write_u64(self.low.address[0]);
            state.write_u64(self.high.address[0]);
        }
        state.write_u64(self.low.address[1]);
        state.write_u64(self.high.address[1]);
        let ports = u64::from(self.low.port) << 32 | u64::from(self.high.port) << 16;
        state.write_u64(ports | u64::from(self.protocol) << 1 | u64::from(self.ip6));
    }
}

impl Tuple {
    /// The tuple of a key and the way the key goes.
    pub(super) fn of(key: &FlowKey) -> (Self, Way) {
        let source = Endpoint { address: words(key.src), port: key.src_port };
        let destination = Endpoint { address: words(key.dst), port: key.dst_port };
        let ip6 = key.src.is_ipv6();
        if source <= destination {
            (Self { low: source, high: destination, protocol: key.protocol, ip6 }, Way::Up)
        } else {
            (Self { low: destination, high: source, protocol: key.protocol, ip6 }, Way::Down)
        }
    }

    /// The key of the packets that go this way.
    pub(super) fn key(&self, way: Way) -> FlowKey {
        let (source, destination) = match way {
            Way::Up => (self.low, self.high),
            Way::Down => (self.high, self.low),
        };
        FlowKey {
            src: self.address(source),
            dst: self.address(destination),
            protocol: self.protocol,
            src_port: source.port,
            dst_port: destination.port,
        }
    }

    fn address(&self, endpoint: Endpoint) -> IpAddr {
        let [high, low] = endpoint.address;
        if self.ip6 {
            Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into()
        } else {
            Ipv4Addr::from_bits(low as u32).into()
        }
    }
}

fn words(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(address) => [0, u64::from(address.to_bits())],
        IpAddr::V6(address) => [(address.to_bits() >> 64) as u64, address.to_bits() as u64],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tuple_gives_its_keys_back_and_tells_the_families_apart() {
        let key = |src: &str, dst: &str| FlowKey {
            src: src.parse().expect("an address"),
            dst: dst.parse().expect("an address"),
            protocol: 6,
            src_port: 9,
            dst_port: 80,
        };
        let keys =
            [key("10.0.0.2", "10.0.0.1"), key("::a00:2", "::a00:1"), key("2001:db8::1", "2001:db8:1::")];
        for key in keys {
            let (tuple, way) = Tuple::of(&key);
            assert_eq!(tuple.key(way), key);
            let back = tuple.key(way.reverse());
            assert_eq!((back.src, back.dst_port), (key.dst, key.src_port));
            assert_eq!(Tuple::of(&back), (tuple, way.reverse()));
        }
        assert_ne!(Tuple::of(&keys[0]).0, Tuple::of(&keys[1]).0);
    }
}
