//! What a segmentation-offload packet becomes on the wire.
//!
//! On egress an skb may hold many segments: the device, or the stack after us, cuts its payload into
//! pieces of `gso_size` and repeats the headers before each.

/// A GSO packet as the skb shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmented {
    /// Octets of the whole skb from the IP header on.
    pub octets: u32,
    /// Octets of the link headers before it.
    pub link_octets: u32,
    /// Octets of the headers that each segment repeats, from the IP header on.
    pub header_octets: u32,
    /// Payload of a full segment; 0 for a packet that is none.
    pub gso_size: u32,
    /// The skb's own count; 0 where nobody computed it.
    pub gso_segs: u32,
}

/// `GSO_BY_FRAGS` in `linux/skbuff.h`: the segments are the skb's fragments.
const GSO_BY_FRAGMENTS: u32 = 0xffff;

/// The same on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    pub packets: u32,
    /// Layer-3 octets of all of them.
    pub octets: u64,
    /// Layer-2 octets of all of them.
    pub octets_l2: u64,
}

impl Segmented {
    /// Counts segments from the payload, because `gso_segs` may be unset on packets from guests and tun
    /// devices; for tunnels, whose inner headers we do not read, and for packets that are cut by their
    /// fragments (SCTP), the skb's own count is better.
    #[inline(always)]
    #[must_use]
    pub fn on_the_wire(self, tunnelled: bool) -> Segments {
        let payload = self.octets.saturating_sub(self.header_octets);
        let by_payload = if self.gso_size == 0 { 1 } else { payload.div_ceil(self.gso_size) };
        let own_count = tunnelled || self.gso_size == GSO_BY_FRAGMENTS;
        let packets = if own_count && self.gso_segs != 0 { self.gso_segs } else { by_payload };
        let packets = if packets == 0 { 1 } else { packets };
        let repeats = (packets - 1) as u64;
        let octets = self.octets as u64 + repeats * self.header_octets as u64;
        Segments { packets, octets, octets_l2: octets + packets as u64 * self.link_octets as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_repeat_their_headers() {
        // 10,000 octets of TCP payload, 1,448 a segment, 52 octets of headers, Ethernet before them.
        let skb =
            Segmented { octets: 10_052, link_octets: 14, header_octets: 52, gso_size: 1448, gso_segs: 7 };
        let wire = skb.on_the_wire(false);
        assert_eq!(wire, Segments { packets: 7, octets: 10_000 + 7 * 52, octets_l2: 10_000 + 7 * 66 });
    }

    #[test]
    fn an_unset_segment_count_is_computed() {
        let skb = Segmented { octets: 3040, link_octets: 14, header_octets: 40, gso_size: 1500, gso_segs: 0 };
        assert_eq!(skb.on_the_wire(false).packets, 2);
    }

    #[test]
    fn sctp_is_cut_by_its_fragments() {
        let skb = Segmented {
            octets: 20 + 12 + 40_000,
            link_octets: 14,
            header_octets: 32,
            gso_size: 0xffff,
            gso_segs: 40,
        };
        assert_eq!(skb.on_the_wire(false).octets, 40_000 + 40 * 32);
    }

    #[test]
    fn a_plain_packet_is_itself() {
        let skb = Segmented { octets: 60, link_octets: 18, header_octets: 40, gso_size: 0, gso_segs: 0 };
        assert_eq!(skb.on_the_wire(false), Segments { packets: 1, octets: 60, octets_l2: 78 });
    }
}
