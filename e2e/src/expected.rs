//! Flows as a capture's truth has them and as Postgres has them, in one form: one direction each, with
//! the link stack in the key.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use weir_testbed::Result;
use weir_testbed::capture::Capture;
use weir_testbed::weir::Flow;

/// Source, destination, protocol, source port, destination port, link stack.
pub type Key = (String, String, u8, u16, u16, Vec<String>);

/// Packets and layer-3 octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub packets: u64,
    pub octets: u64,
}

pub type Flows = BTreeMap<Key, Counted>;

impl AddAssign for Counted {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.octets += other.octets;
    }
}

/// The captures that can be compared frame by frame after a replay over Ethernet: every frame fits, was
/// captured whole, and no frame is one that parsers dispute or whose header lies about its length.
pub fn captures() -> Result<Vec<Capture>> {
    const MTU: u32 = 1500;
    let mut captures = Capture::all()?;
    captures.retain(|capture| {
        let truth = &capture.truth;
        capture.fits(MTU)
            && truth.totals.l2_bytes == truth.totals.l2_bytes_cap
            && truth.disputed.is_empty()
            && truth.totals.parse_notes.is_empty()
            && truth.flows.iter().all(|flow| flow.l3_len_anomalies == 0)
    });
    Ok(captures)
}

/// What all of these captures hold together.
#[must_use]
pub fn truth(captures: &[Capture]) -> Flows {
    let mut flows = Flows::new();
    for flow in captures.iter().flat_map(|capture| &capture.truth.flows) {
        let key = (flow.src.clone(), flow.dst.clone(), flow.proto, flow.sport, flow.dport, flow.l2.clone());
        *flows.entry(key).or_default() += Counted { packets: flow.packets, octets: flow.l3_bytes };
    }
    flows
}

/// What is committed, each connection split into its two directions.
#[must_use]
pub fn committed(stored: &[Flow]) -> Flows {
    let mut flows = Flows::new();
    for flow in stored {
        let Flow { src, dst, protocol, src_port, dst_port, link, .. } = flow.clone();
        let back = (dst.clone(), src.clone(), protocol, dst_port, src_port, link.clone());
        let there = (src, dst, protocol, src_port, dst_port, link);
        for (key, packets, octets) in
            [(there, flow.packets, flow.octets), (back, flow.reverse_packets, flow.reverse_octets)]
        {
            if packets > 0 {
                *flows.entry(key).or_default() += Counted { packets, octets };
            }
        }
    }
    flows
}
