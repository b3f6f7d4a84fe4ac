//! Whether an address may be connected to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::store::filter::Network;

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("this host itself")]
    Loopback,
    #[error("no address of a host")]
    Unspecified,
    #[error("link-local, as are the metadata services of clouds")]
    LinkLocal,
    #[error("multicast or broadcast")]
    Multicast,
    #[error("in a private network")]
    Private,
    #[error("reserved")]
    Reserved,
}

/// An allowed network is allowed whatever it is; so are public addresses.
pub(super) fn judge(address: IpAddr, allowed: &[Network]) -> Result<(), Refusal> {
    let address = unwrapped(address);
    if allowed.iter().any(|network| network.contains(address)) {
        return Ok(());
    }
    let refusal = match address {
        IpAddr::V4(address) => v4(address),
        IpAddr::V6(address) => v6(address),
    };
    refusal.map_or(Ok(()), Err)
}

/// An IPv4 address that is carried in an IPv6 one: mapped, compatible, by NAT64 or by 6to4.
fn unwrapped(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let segments = v6.segments();
    let v4 = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match segments {
        // `::` and `::1` are not IPv4.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => address,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => v4(high, low),
        _ => address,
    }
}

fn v4(address: Ipv4Addr) -> Option<Refusal> {
    let octets = address.octets();
    match octets {
        [0, ..] => Some(Refusal::Unspecified),
        [127, ..] => Some(Refusal::Loopback),
        [169, 254, ..] => Some(Refusal::LinkLocal),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Some(Refusal::Private),
        [224..=239, ..] | [255, 255, 255, 255] => Some(Refusal::Multicast),
        [192, 0, 0, _] | [198, 18..=19, ..] | [240..=255, ..] => Some(Refusal::Reserved),
        _ => None,
    }
}

fn v6(address: Ipv6Addr) -> Option<Refusal> {
    let [first, second, ..] = address.segments();
    match first {
        _ if address.is_unspecified() => Some(Refusal::Unspecified),
        _ if address.is_loopback() => Some(Refusal::Loopback),
        0xfe80..=0xfebf => Some(Refusal::LinkLocal),
        0xfc00..=0xfdff | 0xfec0..=0xfeff => Some(Refusal::Private),
        0xff00.. => Some(Refusal::Multicast),
        // Teredo carries an IPv4 address in a form of its own; 64:ff9b:1::/48 is NAT64 of the local network.
        0x2001 if second == 0 => Some(Refusal::Reserved),
        0x64 => Some(Refusal::Reserved),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(address: &str, allowed: &[&str]) -> Result<(), Refusal> {
        let allowed: Vec<_> = allowed.iter().map(|text| Network::parse(text).expect(text)).collect();
        judge(address.parse().expect(address), &allowed)
    }

    #[test]
    fn i6_public_addresses_pass_and_those_inside_do_not() {
        for (address, refusal) in [
            ("127.255.0.9", Refusal::Loopback),
            ("::1", Refusal::Loopback),
            ("::ffff:127.0.0.1", Refusal::Loopback),
            ("0.0.0.0", Refusal::Unspecified),
            ("::", Refusal::Unspecified),
            ("169.254.169.254", Refusal::LinkLocal),
            ("64:ff9b::169.254.169.254", Refusal::LinkLocal),
            ("fe80::1", Refusal::LinkLocal),
            ("172.31.255.255", Refusal::Private),
            ("2002:c0a8:101::1", Refusal::Private),
            ("100.64.0.1", Refusal::Private),
            ("fd00:ec2::254", Refusal::Private),
            ("239.1.1.1", Refusal::Multicast),
            ("ff02::1", Refusal::Multicast),
            ("255.255.255.255", Refusal::Multicast),
            ("198.19.0.1", Refusal::Reserved),
            ("2001:0:53aa::1", Refusal::Reserved),
        ] {
            assert_eq!(judged(address, &[]), Err(refusal), "{address}");
        }
        for public in
            ["192.0.2.7", "8.8.8.8", "172.32.0.1", "2001:db8::1", "::ffff:8.8.8.8", "2002:808:808::1"]
        {
            assert_eq!(judged(public, &[]), Ok(()), "{public}");
        }
    }

    #[test]
    fn i6_what_is_allowed_is_allowed_and_its_neighbour_is_not() {
        assert_eq!(judged("10.1.2.3", &["10.1.2.0/24"]), Ok(()));
        assert_eq!(judged("::ffff:10.1.2.3", &["10.1.2.0/24"]), Ok(()));
        assert_eq!(judged("10.1.3.3", &["10.1.2.0/24"]), Err(Refusal::Private));
        assert_eq!(judged("::1", &["127.0.0.0/8"]), Err(Refusal::Loopback));
        assert_eq!(judged("fd00::1", &["fd00::/8"]), Ok(()));
    }
}
