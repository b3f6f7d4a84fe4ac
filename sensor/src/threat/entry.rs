//! One entry of a list: a network, a range of addresses or a domain, from hostile text.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

/// A prefix of either version; IPv4 as `::ffff:a.b.c.d`, 96 longer than it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    /// Zero below `length`.
    pub bits: u128,
    pub length: u8,
}

/// Where `::ffff:0:0/96` begins.
const MAPPED: u128 = 0xffff << 32;

/// All of IPv4.
pub const V4: Prefix = Prefix { bits: MAPPED, length: 96 };

/// A network that is wider than this says more of the list than of the network.
const WIDEST: u8 = 8;

/// A domain.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain {
    /// Lower case, without a dot at the end.
    pub name: String,
    /// What it covers.
    pub cover: Cover,
}

/// How far a domain reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cover {
    /// `example.org`
    Name,
    /// `*.example.org`: all below it.
    Below,
    /// `.example.org`: it and all below it.
    Both,
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Network(Prefix),
    /// First and last address, of one version.
    Range(u128, u128),
    Domain(Domain),
}

/// Why a text is no entry.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum EntryError {
    #[error("neither an address, a network nor a domain")]
    Neither,
    #[error("a network wider than /{WIDEST}")]
    TooWide,
    #[error("a prefix length that the address does not have")]
    Length,
    #[error("a range whose ends are of two versions or the wrong way round")]
    Range,
}

impl Prefix {
    /// The address and all of its bits.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        Self { bits: crate::kernel::address_bits(address), length: 128 }
    }

    /// `length` as it is written: up to 32 or 128.
    pub fn new(address: IpAddr, length: u8) -> Result<Self, EntryError> {
        let (most, offset) = if address.is_ipv4() { (32, 96) } else { (128, 0) };
        if length > most {
            return Err(EntryError::Length);
        }
        let length = length + offset;
        Ok(Self { bits: crate::kernel::address_bits(address) & mask(length), length })
    }

    /// Whether `other` lies within it.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.length <= other.length && other.bits & mask(self.length) == self.bits
    }

    /// The address it begins with.
    #[must_use]
    pub fn address(self) -> IpAddr {
        let address = Ipv6Addr::from_bits(self.bits);
        if self.is_v4() { IpAddr::V4(Ipv4Addr::from_bits(self.bits as u32)) } else { IpAddr::V6(address) }
    }

    fn is_v4(self) -> bool {
        self.length >= 96 && self.bits >> 32 == MAPPED >> 32
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = if self.is_v4() { self.length - 96 } else { self.length };
        write!(f, "{}/{length}", self.address())
    }
}

/// The highest `length` bits.
#[must_use]
pub const fn mask(length: u8) -> u128 {
    if length == 0 { 0 } else { u128::MAX << (128 - length) }
}

/// The fewest prefixes that are the addresses from `first` to `last`, in order.
pub fn cover(first: u128, last: u128, mut each: impl FnMut(Prefix)) {
    let mut at = first;
    loop {
        // As much as is aligned here and does not reach beyond the end.
        let mut length = 128 - at.trailing_zeros().min(127) as u8;
        while at | !mask(length) > last {
            length += 1;
        }
        each(Prefix { bits: at, length });
        match (at | !mask(length)).checked_add(1) {
            Some(next) if next <= last => at = next,
            _ => return,
        }
    }
}

impl Entry {
    /// Of one word of a list: an address, `address/length`, `first-last`, `address:port` (the port is left out),
    /// a domain with `*.` or `.` before it where it is to cover more than itself.
    pub fn parse(text: &str) -> Result<Self, EntryError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Network(Prefix::host(address)));
        }
        if let Some((address, length)) = text.split_once('/') {
            let address: IpAddr = address.parse().map_err(|_| EntryError::Neither)?;
            let length: u8 = length.parse().map_err(|_| EntryError::Length)?;
            if length < WIDEST {
                return Err(EntryError::TooWide);
            }
            let prefix = Prefix::new(address, length)?;
            // Written as IPv6.
            if prefix.is_v4() && prefix.length < 96 + WIDEST {
                return Err(EntryError::TooWide);
            }
            return Ok(Self::Network(prefix));
        }
        if let Some((first, last)) = text.split_once('-')
            && let (Ok(first), Ok(last)) = (first.trim().parse::<IpAddr>(), last.trim().parse::<IpAddr>())
        {
            return range(first, last);
        }
        if let Some((address, port)) = text.rsplit_once(':')
            && let (Ok(address), Ok(_)) = (address.parse::<Ipv4Addr>(), port.parse::<u16>())
        {
            return Ok(Self::Network(Prefix::host(address.into())));
        }
        domain(text).map(Self::Domain).ok_or(EntryError::Neither)
    }
}

fn range(first: IpAddr, last: IpAddr) -> Result<Entry, EntryError> {
    let wide = if first.is_ipv4() { 128 - 96 - WIDEST } else { 128 - WIDEST };
    let (low, high) = (crate::kernel::address_bits(first), crate::kernel::address_bits(last));
    if first.is_ipv4() != last.is_ipv4() || low > high {
        return Err(EntryError::Range);
    }
    if high - low >= 1 << wide {
        return Err(EntryError::TooWide);
    }
    Ok(Entry::Range(low, high))
}

/// A domain as lists write it: letters, digits, `-` and `_`; other scripts as they are in the DNS (`xn--`).
pub fn domain(text: &str) -> Option<Domain> {
    let (cover, name) = if let Some(name) = text.strip_prefix("*.") {
        (Cover::Below, name)
    } else if let Some(name) = text.strip_prefix('.') {
        (Cover::Both, name)
    } else {
        (Cover::Name, text)
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.len() > 253 || !name.contains('.') {
        return None;
    }
    let sound = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    // An address that is cut short is no domain.
    let last = name.rsplit('.').next()?;
    if !name.split('.').all(sound) || last.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(Domain { name: name.to_ascii_lowercase(), cover })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> String {
        match Entry::parse(text) {
            Ok(Entry::Network(prefix)) => prefix.to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn networks_of_both_versions_are_read_and_masked() {
        for (text, shown) in [
            ("192.0.2.1", "192.0.2.1/32"),
            ("192.0.2.77/24", "192.0.2.0/24"),
            ("2001:db8::77/32", "2001:db8::/32"),
            ("2001:DB8::1", "2001:db8::1/128"),
            ("192.0.2.1:8080", "192.0.2.1/32"),
            ("::ffff:192.0.2.1", "192.0.2.1/32"),
            ("10.0.0.0/8", "10.0.0.0/8"),
        ] {
            assert_eq!(network(text), shown, "{text}");
        }
        for (text, error) in [
            ("0.0.0.0/0", EntryError::TooWide),
            ("10.0.0.0/7", EntryError::TooWide),
            ("::ffff:0.0.0.0/96", EntryError::TooWide),
            ("192.0.2.0/33", EntryError::Length),
            ("192.0.2.0/-1", EntryError::Length),
            ("192.0.2", EntryError::Neither),
            ("192.0.2.9-192.0.2.8", EntryError::Range),
            ("192.0.2.9-2001:db8::", EntryError::Range),
            ("0.0.0.0-255.255.255.255", EntryError::TooWide),
            ("http://example.org/", EntryError::Neither),
            ("", EntryError::Neither),
            ("a..b", EntryError::Neither),
            ("localhost", EntryError::Neither),
            ("m\u{fc}nchen.example", EntryError::Neither),
        ] {
            assert_eq!(Entry::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_range_is_the_fewest_prefixes() {
        let covered = |text: &str| {
            let Ok(Entry::Range(first, last)) = Entry::parse(text) else { panic!("a range: {text}") };
            let mut prefixes = Vec::new();
            cover(first, last, |prefix| prefixes.push(prefix.to_string()));
            prefixes.join(" ")
        };
        assert_eq!(covered("192.0.2.0-192.0.2.255"), "192.0.2.0/24");
        assert_eq!(covered("192.0.2.3-192.0.2.8"), "192.0.2.3/32 192.0.2.4/30 192.0.2.8/32");
        assert_eq!(covered("192.0.2.5-192.0.2.5"), "192.0.2.5/32");
        assert_eq!(
            covered("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127"
        );
    }

    #[test]
    fn domains_say_how_far_they_reach() {
        let read = |text| domain(text).map(|domain| (domain.name, domain.cover));
        assert_eq!(read("Example.ORG."), Some(("example.org".to_owned(), Cover::Name)));
        assert_eq!(read("*.example.org"), Some(("example.org".to_owned(), Cover::Below)));
        assert_eq!(read(".example.org"), Some(("example.org".to_owned(), Cover::Both)));
        assert_eq!(read("*.*.org"), None);
    }
}
