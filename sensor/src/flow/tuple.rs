//! The five-tuple without its direction: what both sides of a connection share.

use std::net::IpAddr;

use crate::kernel::FlowKey;

/// An address and a port; ordered, so that both directions agree which end is the low one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Endpoint {
    pub(super) address: IpAddr,
    pub(super) port: u16,
}

/// A five-tuple whose lower endpoint stands first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Tuple {
    pub(super) low: Endpoint,
    pub(super) high: Endpoint,
    pub(super) protocol: u8,
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

impl Tuple {
    /// The tuple of a key and the way the key goes.
    pub(super) fn of(key: &FlowKey) -> (Self, Way) {
        let source = Endpoint { address: key.src, port: key.src_port };
        let destination = Endpoint { address: key.dst, port: key.dst_port };
        if source <= destination {
            (Self { low: source, high: destination, protocol: key.protocol }, Way::Up)
        } else {
            (Self { low: destination, high: source, protocol: key.protocol }, Way::Down)
        }
    }

    /// The key of the packets that go this way.
    pub(super) fn key(&self, way: Way) -> FlowKey {
        let (source, destination) = match way {
            Way::Up => (self.low, self.high),
            Way::Down => (self.high, self.low),
        };
        FlowKey {
            src: source.address,
            dst: destination.address,
            protocol: self.protocol,
            src_port: source.port,
            dst_port: destination.port,
        }
    }
}
