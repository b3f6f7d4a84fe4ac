//! Flows in words, for tables.

use std::net::IpAddr;

/// A protocol by its usual name, else its number.
#[must_use]
pub fn protocol(number: u32) -> String {
    let name = match number {
        1 => "icmp",
        2 => "igmp",
        6 => "tcp",
        17 => "udp",
        47 => "gre",
        50 => "esp",
        51 => "ah",
        58 => "icmpv6",
        89 => "ospf",
        132 => "sctp",
        number => return number.to_string(),
    };
    name.to_owned()
}

/// An address with its port, where it has one.
#[must_use]
pub fn endpoint(address: IpAddr, port: u16) -> String {
    match (address, port) {
        (address, 0) => address.to_string(),
        (IpAddr::V4(address), port) => format!("{address}:{port}"),
        (IpAddr::V6(address), port) => format!("[{address}]:{port}"),
    }
}
