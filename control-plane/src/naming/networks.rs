//! Networks that operators named, and whose each address is.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weir_wire::PRIVATE;

use super::partition::{Claim, LABEL_MASK, Partition};
use super::scope::Kind;
use crate::store::filter::Network;

/// Terms of a filter by name beyond which the pieces are asked for: a few prefixes cost less.
const MAX_TERMS: usize = 16;

/// A network that somebody named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub name: String,
    /// The only sensor that sees it under these addresses; any without one.
    pub sensor_id: Option<i32>,
    /// Its addresses are ours.
    pub internal: bool,
    pub prefixes: Vec<Network>,
}

/// What an address can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Its network: the label is the place in the list, from 1.
    Network,
    /// Its [`Kind`].
    Kind,
}

/// The answers: for every sensor, and what some sensors' own networks add.
#[derive(Clone, Debug)]
pub struct Pieces {
    pub general: Partition,
    pub of_sensors: BTreeMap<i32, Partition>,
}

impl Pieces {
    fn new(claims: impl Iterator<Item = (Option<i32>, Claim)>) -> Self {
        let mut by_sensor: BTreeMap<Option<i32>, Vec<Claim>> = BTreeMap::new();
        for (sensor_id, claim) in claims {
            by_sensor.entry(sensor_id).or_default().push(claim);
        }
        let general = Partition::new(by_sensor.remove(&None).unwrap_or_default());
        let own = by_sensor.into_iter();
        let of_sensors = own.filter_map(|(id, claims)| Some((id?, Partition::new(claims)))).collect();
        Self { general, of_sensors }
    }

    /// The label of an address as a sensor sees it; 0 for none.
    fn label(&self, sensor_id: i32, address: IpAddr) -> u16 {
        let own = self.of_sensors.get(&sensor_id).map_or(0, |own| own.value(address));
        (self.general.value(address).max(own) & LABEL_MASK) as u16
    }
}

/// A prefix, and those within it that are another network's.
pub type Term = (Network, Vec<Network>);

/// All networks as they are called at one moment.
#[derive(Clone, Debug)]
pub struct Networks {
    named: Vec<Named>,
    names: Pieces,
    kinds: Pieces,
}

impl Default for Networks {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

/// A longer prefix holds before a shorter one; of two that are equal a sensor's own, then any with a name.
fn weight(network: &Network, rank: u16) -> u16 {
    u16::from(network.prefix()) * 4 + rank
}

impl Networks {
    /// Fewer than 2^16.
    #[must_use]
    pub fn new(named: Vec<Named>) -> Self {
        let claims = |label: fn(usize, &Named) -> u16| {
            named.iter().enumerate().flat_map(move |(place, named)| {
                named.prefixes.iter().map(move |network| {
                    let rank = if named.sensor_id.is_some() { 2 } else { 1 };
                    let weight = weight(network, rank);
                    (named.sensor_id, Claim { network: *network, weight, label: label(place, named) })
                })
            })
        };
        let of_kind =
            |network: Network, weight: u16, kind: Kind| (None, Claim { network, weight, label: kind as u16 });
        let private = PRIVATE.map(Network::from).map(|it| of_kind(it, weight(&it, 0), Kind::Internal));
        // Groups are nobody's own, whatever network they were named in.
        let groups = [
            (Ipv4Addr::new(224, 0, 0, 0).into(), 4, Kind::Multicast),
            (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0).into(), 8, Kind::Multicast),
            (Ipv4Addr::BROADCAST.into(), 32, Kind::Broadcast),
        ]
        .map(|(address, prefix, kind)| of_kind((address, prefix).into(), u16::MAX >> 1, kind));
        let kind = |_, named: &Named| (if named.internal { Kind::Internal } else { Kind::External }) as u16;
        let own = claims(kind).collect::<Vec<_>>();
        // Of a subnet of ours that is known, so is its directed broadcast.
        let broadcasts = own.iter().filter(|(_, claim)| {
            let subnet = claim.network.first().is_ipv4() && (8..=30).contains(&claim.network.prefix());
            subnet && claim.label == Kind::Internal as u16
        });
        let broadcasts = broadcasts.map(|(sensor_id, claim)| {
            let network = (claim.network.last(), 32).into();
            (*sensor_id, Claim { network, label: Kind::Broadcast as u16, ..*claim })
        });
        let kinds =
            Pieces::new(private.into_iter().chain(groups).chain(broadcasts).chain(own.iter().copied()));
        let names = Pieces::new(claims(|place, _| place as u16 + 1));
        Self { named, names, kinds }
    }

    #[must_use]
    pub fn named(&self) -> &[Named] {
        &self.named
    }

    #[must_use]
    pub fn pieces(&self, question: Question) -> &Pieces {
        match question {
            Question::Network => &self.names,
            Question::Kind => &self.kinds,
        }
    }

    /// What a label of [`Question::Network`] is called.
    #[must_use]
    pub fn called(&self, label: u16) -> Option<&str> {
        let place = usize::from(label).checked_sub(1)?;
        self.named.get(place).map(|named| named.name.as_str())
    }

    /// The network of an address as a sensor sees it.
    #[must_use]
    pub fn name(&self, sensor_id: i32, address: IpAddr) -> Option<&str> {
        self.called(self.names.label(sensor_id, address))
    }

    #[must_use]
    pub fn kind(&self, sensor_id: i32, address: IpAddr) -> Kind {
        Kind::of_label(self.kinds.label(sensor_id, address))
    }

    /// The labels of the networks with these names.
    #[must_use]
    pub fn labels(&self, is_meant: impl Fn(&str) -> bool) -> Vec<u16> {
        let places = self.named.iter().zip(1_u16..);
        places.filter(|(named, _)| is_meant(&named.name)).map(|(_, label)| label).collect()
    }

    /// The same as a few prefixes less those within them that are others'; `None` where it takes more than a few, or
    /// depends on the sensor.
    #[must_use]
    pub fn terms(&self, labels: &[u16]) -> Option<Vec<Term>> {
        if !self.names.of_sensors.is_empty() {
            return None;
        }
        let (mut chosen, mut others): (Vec<Network>, Vec<Network>) = Default::default();
        for (named, label) in self.named.iter().zip(1_u16..) {
            let of = if labels.contains(&label) { &mut chosen } else { &mut others };
            of.extend(&named.prefixes);
        }
        let mut terms = Vec::new();
        let mut count = chosen.len();
        for network in chosen.iter().take(MAX_TERMS + 1) {
            let within: Vec<Network> = others
                .iter()
                .filter(|other| network.contains(other.first()) && other.prefix() > network.prefix())
                .copied()
                .collect();
            let holes: Vec<Network> = within
                .iter()
                .filter(|hole| {
                    !within.iter().any(|other| other.prefix() < hole.prefix() && other.contains(hole.first()))
                })
                .copied()
                .collect();
            count += holes.len();
            terms.push((*network, holes));
        }
        (count <= MAX_TERMS).then_some(terms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, sensor_id: Option<i32>, internal: bool, prefixes: &[&str]) -> Named {
        let prefixes = prefixes.iter().map(|text| Network::parse(text).expect(text)).collect();
        Named { name: name.to_owned(), sensor_id, internal, prefixes }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// S5: the longest prefix names an address; a sensor's own network holds before another's of the same length.
    #[test]
    fn s5_the_longest_prefix_names_an_address_and_a_sensors_own_holds_for_it_alone() {
        let networks = Networks::new(vec![
            named("site", None, true, &["10.0.0.0/8", "2001:db8::/32"]),
            named("lab", None, false, &["10.7.0.0/16"]),
            named("home", None, true, &["192.168.1.0/24"]),
            named("attic", Some(7), true, &["192.168.1.0/24", "10.0.0.0/9"]),
        ]);
        for (sensor, text, expected) in [
            (1, "10.1.2.3", Some("site")),
            (7, "10.1.2.3", Some("attic")),
            (7, "10.200.2.3", Some("site")),
            (7, "10.7.1.1", Some("lab")),
            (1, "192.168.1.9", Some("home")),
            (7, "192.168.1.9", Some("attic")),
            (1, "2001:db8::9", Some("site")),
            (1, "192.168.2.9", None),
        ] {
            assert_eq!(networks.name(sensor, address(text)), expected, "{sensor} {text}");
        }
        assert_eq!(networks.terms(&[1]), None, "it depends on the sensor");
    }

    /// S5: private addresses are ours, unless a network says that they are not, and others where one says so.
    #[test]
    fn s5_an_address_is_ours_by_its_longest_prefix_and_a_group_is_nobodys() {
        let networks = Networks::new(vec![
            named("guests", None, false, &["10.9.0.0/16"]),
            named("office", None, true, &["203.0.113.0/24"]),
            named("everything", None, true, &["239.0.0.0/8"]),
        ]);
        for (text, expected) in [
            ("10.1.2.3", Kind::Internal),
            ("10.9.2.3", Kind::External),
            ("203.0.113.9", Kind::Internal),
            ("198.51.100.1", Kind::External),
            ("239.1.1.1", Kind::Multicast),
            ("ff02::fb", Kind::Multicast),
            ("fe80::1", Kind::Internal),
            ("255.255.255.255", Kind::Broadcast),
            ("203.0.113.255", Kind::Broadcast),
            ("10.9.255.255", Kind::External),
            ("10.1.2.255", Kind::Internal),
            ("2001:db8::1", Kind::External),
        ] {
            assert_eq!(networks.kind(1, address(text)), expected, "{text}");
        }
    }

    /// S5: what lies within a network and is another one's is not its own.
    #[test]
    fn s5_a_name_is_its_prefixes_less_what_others_have_within_them() {
        let networks = Networks::new(vec![
            named("site", None, true, &["10.0.0.0/8"]),
            named("lab", None, true, &["10.7.0.0/16"]),
            named("bench", None, true, &["10.7.1.0/24"]),
        ]);
        let network = |text| Network::parse(text).expect("a network");
        let terms = |labels: &[u16]| networks.terms(labels).expect("a few");
        assert_eq!(terms(&[1]), [(network("10.0.0.0/8"), vec![network("10.7.0.0/16")])]);
        assert_eq!(
            terms(&[1, 3]),
            [(network("10.0.0.0/8"), vec![network("10.7.0.0/16")]), (network("10.7.1.0/24"), vec![])]
        );
        let many = (0..=255).map(|at| named(&format!("n{at}"), None, true, &[&format!("10.0.{at}.0/24")]));
        let networks = Networks::new(many.chain([named("site", None, true, &["10.0.0.0/8"])]).collect());
        assert_eq!(networks.terms(&[257]), None);
        assert!(networks.terms(&[1]).is_some());
        assert_eq!(networks.labels(|name| name == "n7" || name == "site"), [8, 257]);
    }
}
