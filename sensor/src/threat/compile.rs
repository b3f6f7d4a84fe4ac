//! All lists to one set of prefixes, of which the longest decides: what the kernel's trie is filled with.
//!
//! - What is allowed is in no list, whatever is listed inside of it or around it.
//! - Where one list would drop an address and another only observes it, it is dropped; else the list with the
//!   longest prefix has it, of equal ones the first in the configuration.
//! - A protected address is listed and never dropped.
//!
//! Prefixes that say nothing new are left out, and neighbours that say the same become one.

use super::ListId;
use super::entry::{Prefix, V4, mask};
use crate::kernel::ListedPrefix;

/// A list's part.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    pub list: ListId,
    pub drops: bool,
    pub prefixes: &'a [Prefix],
}

/// What holds at a prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Holds {
    list: u8,
    drops: bool,
    allowed: bool,
    protected: bool,
}

/// What is said of the addresses of a prefix.
type Says = (u8, bool);

impl Holds {
    const fn says(self) -> Says {
        if self.allowed { (0, false) } else { (self.list, self.drops && !self.protected) }
    }

    /// With what is said at a longer prefix.
    const fn narrowed(self, own: Self) -> Self {
        let keeps = own.list == 0 || (self.drops && !own.drops);
        let (list, drops) = if keeps { (self.list, self.drops) } else { (own.list, own.drops) };
        let (allowed, protected) = (self.allowed || own.allowed, self.protected || own.protected);
        Self { list, drops, allowed, protected }
    }
}

/// Merges lists, in the order of the configuration.
#[must_use]
pub fn compile(sources: &[Source<'_>], allowed: &[Prefix], protected: &[Prefix]) -> Vec<ListedPrefix> {
    let of = |holds: Holds| move |prefix: &Prefix| (*prefix, holds);
    let mut all: Vec<(Prefix, Holds)> =
        Vec::with_capacity(sources.iter().map(|source| source.prefixes.len()).sum());
    for Source { list, drops, prefixes } in sources {
        all.extend(prefixes.iter().map(of(Holds { list: list.0, drops: *drops, ..Holds::default() })));
    }
    all.extend(allowed.iter().map(of(Holds { allowed: true, ..Holds::default() })));
    all.extend(protected.iter().map(of(Holds { protected: true, ..Holds::default() })));
    // IPv4 is no part of the IPv6 network that its addresses are written in.
    all.push((V4, Holds::default()));
    // Wider ones first. Stable: of equal prefixes the order of the lists stays.
    all.sort_by_key(|(prefix, _)| *prefix);

    let mut buckets: Vec<Vec<(u128, Says)>> = vec![Vec::new(); 129];
    let mut above: Vec<(Prefix, Holds)> = Vec::new();
    for same in all.chunk_by(|a, b| a.0 == b.0) {
        let prefix = same[0].0;
        while above.last().is_some_and(|(wider, _)| !wider.contains(prefix)) {
            above.pop();
        }
        let around = above.last().map_or(Holds::default(), |(_, holds)| *holds);
        // The first list of those that drop, else the first: a later one must not replace an equal one.
        let own = same.iter().fold(Holds::default(), |sum, (_, own)| Holds {
            list: if sum.list == 0 || (own.drops && !sum.drops) { own.list } else { sum.list },
            drops: sum.drops || own.drops,
            allowed: sum.allowed || own.allowed,
            protected: sum.protected || own.protected,
        });
        let holds = if prefix == V4 { Holds::default() } else { around.narrowed(own) };
        if holds.says() != around.says() {
            buckets[usize::from(prefix.length)].push((prefix.bits, holds.says()));
        }
        above.push((prefix, holds));
    }
    join(buckets)
}

/// Neighbours that say the same become the prefix around both, whose own word nobody hears any more.
fn join(mut buckets: Vec<Vec<(u128, Says)>>) -> Vec<ListedPrefix> {
    let mut joined = Vec::new();
    for length in (0..=128_u8).rev() {
        let mut bucket = std::mem::take(&mut buckets[usize::from(length)]);
        // Joined ones come behind those that stood here, and replace them.
        bucket.sort_by_key(|(bits, _)| *bits);
        let last = |same: &[(u128, Says)]| same.last().copied();
        let bucket: Vec<_> = bucket.chunk_by(|a, b| a.0 == b.0).filter_map(last).collect();
        let mut left = bucket.as_slice();
        while let [(bits, says), rest @ ..] = left {
            let sibling = length > 0 && bits & !mask(length - 1) == 0;
            match rest {
                [(next, same), rest @ ..]
                    if sibling && same == says && *next == bits | 1 << (128 - u32::from(length)) =>
                {
                    buckets[usize::from(length) - 1].push((*bits, *says));
                    left = rest;
                }
                _ => {
                    joined.push(ListedPrefix { bits: *bits, length, list: says.0, drops: says.1 });
                    left = rest;
                }
            }
        }
    }
    // In the order of addresses, the trie is filled along its own branches.
    joined.sort_unstable_by_key(|prefix| (prefix.bits, prefix.length));
    joined
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::super::entry::Entry;
    use super::*;

    fn prefixes(texts: &[&str]) -> Vec<Prefix> {
        let read = |text: &&str| match Entry::parse(text) {
            Ok(Entry::Network(prefix)) => prefix,
            other => panic!("{text}: {other:?}"),
        };
        texts.iter().map(read).collect()
    }

    fn compiled(lists: &[(bool, &[&str])], allowed: &[&str], protected: &[&str]) -> String {
        let lists: Vec<(bool, Vec<Prefix>)> =
            lists.iter().map(|(drops, texts)| (*drops, prefixes(texts))).collect();
        let sources: Vec<Source<'_>> = (1..)
            .zip(&lists)
            .map(|(list, (drops, prefixes))| Source { list: ListId(list), drops: *drops, prefixes })
            .collect();
        compile(&sources, &prefixes(allowed), &prefixes(protected))
            .iter()
            .map(|prefix| {
                let shown = Prefix { bits: prefix.bits, length: prefix.length };
                format!("{shown}={}{}", prefix.list, if prefix.drops { "!" } else { "" })
            })
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn k10_the_longest_prefix_has_an_address_and_equal_ones_the_first_list() {
        assert_eq!(
            compiled(
                &[(false, &["192.0.2.0/24", "192.0.2.0/24"]), (false, &["192.0.2.0/24", "192.0.2.9"])],
                &[],
                &[]
            ),
            "192.0.2.0/24=1 192.0.2.9/32=2"
        );
    }

    #[test]
    fn k10_neighbours_become_one_and_what_says_nothing_new_is_left_out() {
        let quarter = ["192.0.2.0/26", "192.0.2.64/26", "192.0.2.128/25", "192.0.2.77", "192.0.2.200/29"];
        assert_eq!(compiled(&[(false, &quarter)], &[], &[]), "192.0.2.0/24=1");
        // Not neighbours of one parent.
        let two = ["192.0.2.64/26", "192.0.2.128/26"];
        assert_eq!(compiled(&[(false, &two)], &[], &[]), "192.0.2.64/26=1 192.0.2.128/26=1");
    }

    #[test]
    fn k10_what_drops_wins_over_what_observes() {
        let lists: &[(bool, &[&str])] =
            &[(false, &["192.0.2.0/25", "192.0.2.128/25"]), (true, &["192.0.2.0/24"])];
        assert_eq!(compiled(lists, &[], &[]), "192.0.2.0/24=2!");
        let lists: &[(bool, &[&str])] = &[(false, &["192.0.2.0/24"]), (true, &["192.0.2.0/24", "192.0.2.3"])];
        assert_eq!(compiled(lists, &[], &[]), "192.0.2.0/24=2!");
    }

    #[test]
    fn k10_what_is_allowed_is_in_no_list_inside_or_around() {
        let lists: &[(bool, &[&str])] = &[(true, &["192.0.2.0/24", "192.0.2.9"]), (false, &["192.0.2.10"])];
        assert_eq!(compiled(lists, &["192.0.2.8/29"], &[]), "192.0.2.0/24=1! 192.0.2.8/29=0");
        assert_eq!(compiled(lists, &["192.0.0.0/16"], &[]), "");
    }

    #[test]
    fn k10_what_is_protected_is_listed_and_never_dropped() {
        let lists: &[(bool, &[&str])] = &[(true, &["192.0.2.0/24", "127.0.0.1"])];
        assert_eq!(
            compiled(lists, &[], &["192.0.2.1", "127.0.0.0/8"]),
            "127.0.0.1/32=1 192.0.2.0/24=1! 192.0.2.1/32=1"
        );
    }

    #[test]
    fn k10_a_network_of_ipv6_lists_no_address_of_ipv4() {
        assert_eq!(
            compiled(&[(true, &["::/8", "192.0.2.1"])], &[], &[]),
            "::/8=1! 0.0.0.0/0=0 192.0.2.1/32=1!"
        );
    }

    /// What a plain reading of the rules says of an address.
    fn plainly(
        address: Prefix,
        lists: &[(bool, Vec<Prefix>)],
        allowed: &[Prefix],
        protected: &[Prefix],
    ) -> Says {
        if allowed.iter().any(|prefix| prefix.contains(address)) {
            return (0, false);
        }
        let mut best: Option<(bool, u8, u8)> = None;
        for (list, (drops, prefixes)) in (1_u8..).zip(lists) {
            for prefix in prefixes.iter().filter(|prefix| prefix.contains(address)) {
                let better = best.is_none_or(|(other, length, _)| (*drops, prefix.length) > (other, length));
                if better {
                    best = Some((*drops, prefix.length, list));
                }
            }
        }
        let shielded = protected.iter().any(|prefix| prefix.contains(address));
        best.map_or((0, false), |(drops, _, list)| (list, drops && !shielded))
    }

    fn some(most: usize) -> impl Strategy<Value = Vec<Prefix>> {
        // Few bits, so that prefixes meet.
        let one = (0_u8..16, 120_u8..=128).prop_map(|(bits, length)| {
            let address = IpAddr::from([10, 0, 0, bits << 4 | bits]);
            Prefix::new(address, length - 96).expect("a length of IPv4")
        });
        proptest::collection::vec(one, 0..most)
    }

    proptest! {
        #[test]
        fn k10_the_trie_says_what_the_rules_say(
            first in some(12), second in some(12), third in some(6), allowed in some(3), protected in some(3)
        ) {
            let lists = [(false, first), (true, second), (false, third)];
            let sources: Vec<Source<'_>> = (1..)
                .zip(&lists)
                .map(|(list, (drops, prefixes))| Source { list: ListId(list), drops: *drops, prefixes })
                .collect();
            let trie = compile(&sources, &allowed, &protected);
            for last in 0..=255 {
                let address = Prefix::host(IpAddr::from([10, 0, 0, last]));
                let longest = trie
                    .iter()
                    .filter(|entry| Prefix { bits: entry.bits, length: entry.length }.contains(address))
                    .max_by_key(|entry| entry.length);
                let says = longest.map_or((0, false), |entry| (entry.list, entry.drops));
                let (list, drops) = plainly(address, &lists, &allowed, &protected);
                prop_assert_eq!(says, (list, drops), "{}", address);
            }
        }
    }
}
