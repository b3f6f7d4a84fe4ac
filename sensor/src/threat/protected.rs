//! Addresses that no list may drop, whatever a feed says: a list that is wrong must not cut the host off from
//! those who could mend it. They are observed like all others.
//!
//! This host itself (loopback, its interfaces' addresses), what is local by definition (link-local, multicast,
//! broadcast, unspecified), its gateways, its DNS servers, and the control plane.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::entry::Prefix;
use crate::kernel;

/// What is local by definition.
const LOCAL: [(IpAddr, u8); 10] = [
    (IpAddr::V4(Ipv4Addr::LOCALHOST), 8),
    (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 32),
    (IpAddr::V4(Ipv4Addr::BROADCAST), 32),
    (IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16),
    (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4),
    (IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
    (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 128),
    (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
    (IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8),
    (IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0)), 16),
];

/// All of them now, sorted. `control_plane` are the addresses that its name has. What cannot be read protects
/// nothing: the rest does.
#[must_use]
pub fn protected(control_plane: &[IpAddr]) -> Vec<Prefix> {
    let mut prefixes: BTreeSet<Prefix> =
        LOCAL.into_iter().filter_map(|(address, length)| Prefix::new(address, length).ok()).collect();
    let mut hosts: Vec<IpAddr> = control_plane.to_vec();
    hosts.extend(kernel::host_addresses());
    hosts.extend(gateways4(&fs::read_to_string("/proc/net/route").unwrap_or_default()));
    hosts.extend(gateways6(&fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default()));
    hosts.extend(name_servers(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default()));
    prefixes.extend(hosts.into_iter().map(Prefix::host));
    prefixes.into_iter().collect()
}

/// Third column of /proc/net/route: an address as the machine keeps it, in hexadecimal.
fn gateways4(table: &str) -> Vec<IpAddr> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| u32::from_str_radix(line.split_whitespace().nth(2)?, 16).ok())
        .filter(|word| *word != 0)
        .map(|word| IpAddr::from(word.to_ne_bytes()))
        .collect()
}

/// Fifth column of `/proc/net/ipv6_route`: 32 digits.
fn gateways6(table: &str) -> Vec<IpAddr> {
    table
        .lines()
        .filter_map(|line| u128::from_str_radix(line.split_whitespace().nth(4)?, 16).ok())
        .filter(|bits| *bits != 0)
        .map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)))
        .collect()
}

/// `nameserver ADDRESS` of resolv.conf(5).
fn name_servers(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            if words.next()? != "nameserver" {
                return None;
            }
            // A link-local one names its interface.
            words.next()?.split('%').next()?.parse().ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_and_name_servers_are_read_as_the_kernel_writes_them() {
        let word = u32::from_ne_bytes([192, 0, 2, 254]);
        let table = format!(
            "Iface Destination Gateway Flags\neth0 00000000 {word:08X} 0003 0 0\neth0 0002000A 00000000 0001\n"
        );
        assert_eq!(gateways4(&table), ["192.0.2.254".parse::<IpAddr>().expect("an address")]);
        let zeros = "0".repeat(32);
        let table = format!(
            "{zeros} 00 {zeros} 00 20010db8000000000000000000000001 00000400 00000001 00000000 00000003 eth0\n\
             {zeros} 00 {zeros} 00 {zeros} 00000400 00000001 00000000 00000003 eth0\n"
        );
        assert_eq!(gateways6(&table), ["2001:db8::1".parse::<IpAddr>().expect("an address")]);
        let conf = "# x\nsearch example.org\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\nnameserver x\n";
        assert_eq!(
            name_servers(conf),
            ["192.0.2.53", "fe80::1"].map(|text| text.parse::<IpAddr>().expect("an address"))
        );
    }

    #[test]
    fn this_host_is_protected_from_its_lists() {
        let control_plane: IpAddr = "203.0.113.7".parse().expect("an address");
        let protected = protected(&[control_plane]);
        for address in ["127.0.0.1", "::1", "224.0.0.251", "255.255.255.255", "203.0.113.7", "fe80::9"] {
            let host = Prefix::host(address.parse().expect("an address"));
            assert!(protected.iter().any(|prefix| prefix.contains(host)), "{address}");
        }
        let stranger = Prefix::host("198.51.100.66".parse().expect("an address"));
        assert!(!protected.iter().any(|prefix| prefix.contains(stranger)));
    }
}
