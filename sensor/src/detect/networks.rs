//! Which addresses are inside, and which are nobody's own.

use std::net::IpAddr;

use weir_wire::PRIVATE;

use crate::config::Cidr;

/// Where an address is, as configured.
#[derive(Clone, Debug)]
pub struct Networks(Vec<Cidr>);

impl Networks {
    /// Those that count as inside; the private ones if none is named.
    #[must_use]
    pub fn new(internal: &[Cidr]) -> Self {
        if internal.is_empty() {
            return Self(PRIVATE.map(|(address, prefix)| Cidr { address, prefix }).to_vec());
        }
        Self(internal.to_vec())
    }

    #[must_use]
    pub fn internal(&self, address: IpAddr) -> bool {
        contains(&self.0, address)
    }

    /// Not inside, and a host.
    #[must_use]
    pub fn external(&self, address: IpAddr) -> bool {
        unicast(address) && !self.internal(address)
    }
}

/// Whether any of the networks has the address.
#[must_use]
pub fn contains(networks: &[Cidr], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(address))
}

/// Whether it may be a host: no group, no broadcast, not unspecified. A directed broadcast cannot be told
/// without the network's mask; `.255` is taken for one.
#[must_use]
pub fn unicast(address: IpAddr) -> bool {
    let group = match address {
        IpAddr::V4(address) => address.is_broadcast() || address.octets()[3] == 255,
        IpAddr::V6(_) => false,
    };
    !group && !address.is_multicast() && !address.is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_inside_outside_or_nobodys() {
        let networks = Networks::new(&[]);
        let of = |text: &str| {
            let address = text.parse().expect("an address");
            (networks.internal(address), networks.external(address))
        };
        assert_eq!(of("10.1.2.3"), (true, false));
        assert_eq!(of("fe80::1"), (true, false));
        assert_eq!(of("203.0.113.9"), (false, true));
        assert_eq!(of("2001:db8::1"), (false, true));
        assert_eq!(of("239.255.255.250"), (false, false));
        assert_eq!(of("ff02::fb"), (false, false));
        assert_eq!(of("255.255.255.255"), (false, false));
        let own = Networks::new(&["2001:db8::/32".parse().expect("a network")]);
        assert!(own.internal("2001:db8::1".parse().expect("an address")));
        assert!(own.external("10.0.0.1".parse().expect("an address")), "the list is complete");
        assert!("0.0.0.0/0".parse::<Cidr>().expect("all").contains("1.2.3.4".parse().expect("one")));
    }
}
