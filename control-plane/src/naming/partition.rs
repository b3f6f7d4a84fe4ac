//! All addresses cut into pieces of one label each, so that the longest prefix is found by one search.
//!
//! The same lists answer here and in Postgres (`width_bucket` finds the piece there), so that a column and a filter
//! cannot disagree.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::store::filter::Network;

/// Bits of a value that are the label; those above say how specific it is.
pub const LABEL_BITS: u32 = 16;
pub const LABEL_MASK: i32 = (1 << LABEL_BITS) - 1;

/// What a prefix says of its addresses.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    pub network: Network,
    /// The greatest of an address's claims holds.
    pub weight: u16,
    /// From 1; 0 is nobody's.
    pub label: u16,
}

impl Claim {
    fn value(self) -> i32 {
        (i32::from(self.weight) << LABEL_BITS) | i32::from(self.label)
    }
}

/// Pieces in order: where each begins, and the value of its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    bounds: Vec<IpAddr>,
    values: Vec<i32>,
}

impl Partition {
    /// Weights stay below 2^15.
    #[must_use]
    pub fn new(mut claims: Vec<Claim>) -> Self {
        // What holds others comes before them.
        claims
            .sort_by_key(|claim| (claim.network.first(), claim.network.prefix(), claim.weight, claim.label));
        let mut partition = Self { bounds: vec![Ipv4Addr::UNSPECIFIED.into()], values: vec![0] };
        // Where the prefixes end that hold the current address, and the greatest value up to each.
        let mut open: Vec<(IpAddr, i32)> = Vec::new();
        for claim in claims {
            partition.close(&mut open, Some(claim.network.first()));
            let value = open.last().map_or(0, |(_, value)| *value).max(claim.value());
            open.push((claim.network.last(), value));
            partition.cut(claim.network.first(), value);
        }
        partition.close(&mut open, None);
        partition
    }

    /// Ends the prefixes that end before an address, or all.
    fn close(&mut self, open: &mut Vec<(IpAddr, i32)>, before: Option<IpAddr>) {
        while let Some((last, _)) = open.pop_if(|(last, _)| before.is_none_or(|before| *last < before)) {
            if let Some(next) = next(last) {
                self.cut(next, open.last().map_or(0, |(_, value)| *value));
            }
        }
    }

    /// From here on the value is this one.
    fn cut(&mut self, at: IpAddr, value: i32) {
        if self.bounds.last() == Some(&at) {
            self.bounds.pop();
            self.values.pop();
        }
        if self.values.last() != Some(&value) {
            self.bounds.push(at);
            self.values.push(value);
        }
    }

    #[must_use]
    pub fn value(&self, address: IpAddr) -> i32 {
        let after = self.bounds.partition_point(|bound| *bound <= address);
        after.checked_sub(1).and_then(|at| self.values.get(at)).copied().unwrap_or(0)
    }

    /// The pieces of IPv4, which begin at nought.
    #[must_use]
    pub fn v4(&self) -> (Vec<u32>, Vec<i32>) {
        let pieces = self.bounds.iter().zip(&self.values);
        let of_v4 = |(bound, value): (&IpAddr, &i32)| match bound {
            IpAddr::V4(bound) => Some((bound.to_bits(), *value)),
            IpAddr::V6(_) => None,
        };
        pieces.filter_map(of_v4).unzip()
    }

    /// The pieces of IPv6, which begin at nought.
    #[must_use]
    pub fn v6(&self) -> (Vec<u128>, Vec<i32>) {
        let pieces = self.bounds.iter().zip(&self.values);
        let of_v6 = |(bound, value): (&IpAddr, &i32)| match bound {
            IpAddr::V6(bound) => Some((bound.to_bits(), *value)),
            IpAddr::V4(_) => None,
        };
        let first = (0, self.value(Ipv6Addr::UNSPECIFIED.into()));
        std::iter::once(first).chain(pieces.filter_map(of_v6).filter(|(bound, _)| *bound > 0)).unzip()
    }
}

/// The address behind; IPv6 begins behind IPv4, as Postgres orders them.
fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => Some(
            v4.to_bits()
                .checked_add(1)
                .map_or(Ipv6Addr::UNSPECIFIED.into(), |next| Ipv4Addr::from_bits(next).into()),
        ),
        IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|next| Ipv6Addr::from_bits(next).into()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim(text: &str, weight: u16, label: u16) -> Claim {
        Claim { network: Network::parse(text).expect(text), weight, label }
    }

    #[test]
    fn pieces_are_the_longest_prefixes() {
        let partition = Partition::new(vec![
            claim("10.0.0.0/8", 8, 1),
            claim("10.1.0.0/16", 16, 2),
            claim("10.1.255.0/24", 24, 3),
            claim("255.255.255.255", 32, 4),
            claim("::/0", 0, 5),
        ]);
        let label = |text: &str| partition.value(text.parse().expect("an address")) & LABEL_MASK;
        for (address, expected) in [
            ("9.255.255.255", 0),
            ("10.0.0.0", 1),
            ("10.1.0.0", 2),
            ("10.1.255.7", 3),
            ("10.2.0.0", 1),
            ("11.0.0.0", 0),
            ("255.255.255.255", 4),
            ("::", 5),
            ("ffff::1", 5),
        ] {
            assert_eq!(label(address), expected, "{address}");
        }
    }

    proptest! {
        /// S5: whatever prefixes there are, an address has the greatest of the claims that hold it.
        #[test]
        fn s5_a_search_finds_what_a_look_at_every_prefix_finds(
            claims in prop::collection::vec((any::<u32>(), 0_u8..=32, any::<bool>(), 0_u16..600, 1_u16..9), 0..40),
            addresses in prop::collection::vec((any::<u32>(), any::<bool>()), 40),
        ) {
            // Few different bits, so that prefixes nest and addresses meet them.
            let place = |bits: u32, six: bool| {
                let bits = bits & 0xf00f_000f;
                if six { IpAddr::V6(Ipv6Addr::from_bits(u128::from(bits) << 96)) } else { IpAddr::V4(Ipv4Addr::from_bits(bits)) }
            };
            let claims: Vec<Claim> = claims
                .into_iter()
                .map(|(bits, prefix, six, weight, label)| {
                    claim(&format!("{}/{prefix}", place(bits, six)), weight, label)
                })
                .collect();
            let partition = Partition::new(claims.clone());
            let ends = claims.iter().flat_map(|claim| [claim.network.first(), claim.network.last()]);
            let about = ends.clone().filter_map(next).chain(ends);
            for address in addresses.into_iter().map(|(bits, six)| place(bits, six)).chain(about) {
                let holds = claims.iter().filter(|claim| claim.network.contains(address));
                let expected = holds.map(|claim| claim.value()).max().unwrap_or(0);
                prop_assert_eq!(partition.value(address), expected, "{}", address);
            }
            let ((v4, of_v4), (v6, of_v6)) = (partition.v4(), partition.v6());
            prop_assert!(v4.is_sorted() && v6.is_sorted() && (v4[0], v6[0]) == (0, 0));
            let of_v4 = v4.into_iter().zip(of_v4).map(|(bits, value)| (Ipv4Addr::from_bits(bits).into(), value));
            let of_v6 = v6.into_iter().zip(of_v6).map(|(bits, value)| (Ipv6Addr::from_bits(bits).into(), value));
            for (bound, value) in of_v4.chain(of_v6) {
                prop_assert_eq!(partition.value(bound), value);
            }
        }
    }
}
