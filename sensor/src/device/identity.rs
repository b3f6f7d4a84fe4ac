//! What a device is known by, and how much each of these is worth.
//!
//! The rule, with its reasons, is in `docs/enrichment.md`. In short: the same identifier is the same device; an
//! identifier that lasts joins what a made-up link address had set apart; and nothing ever joins two cards whose
//! makers gave them different addresses.

use std::fmt;

use crate::observe::Mac;

/// Octets of an identifier's value.
const MAX_VALUE: usize = 256;

/// What a device is known by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Identifier {
    /// A link address.
    Mac(Mac),
    /// DHCP unique identifier (RFC 8415, 11), in hexadecimal; also from `DHCPv4` (RFC 4361).
    Duid(String),
    /// `DHCPv4` client identifier that is neither a DUID nor a link address.
    ClientId(String),
    /// UPnP's unique device name.
    Uuid(String),
    /// What a service calls the device that offers it, by the service's name.
    Service(String),
}

/// How much an identifier is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Worth {
    /// The device may drop it at any time: a link address that it made up, or that several share.
    Passing,
    /// Made to outlive addresses and restarts.
    Lasting,
    /// Its card's own.
    Anchor,
}

impl Identifier {
    /// Of `DHCPv4`'s option 61, in hexadecimal. None where it says what the link address says already.
    #[must_use]
    pub fn of_client_id(hexadecimal: &str) -> Option<Self> {
        match hexadecimal.get(..2)? {
            // A hardware type and an address.
            "01" if hexadecimal.len() == 14 => None,
            // An association, then a DUID (RFC 4361): the one that the client has for IPv6, too.
            "ff" => Self::of_duid(hexadecimal.get(10..)?),
            // Shorter ones are numbers of interfaces and the like.
            _ if hexadecimal.len() >= 10 => Some(Self::ClientId(bounded(hexadecimal))),
            _ => None,
        }
    }

    /// Of a DUID in hexadecimal: a type and something behind it.
    #[must_use]
    pub fn of_duid(hexadecimal: &str) -> Option<Self> {
        let body = hexadecimal.get(4..).filter(|body| body.len() >= 8)?;
        distinct(body).then(|| Self::Duid(bounded(hexadecimal)))
    }

    /// Of SSDP's `uuid:…::…`. A number that a maker left at nought, or at one digit, is nobody's.
    #[must_use]
    pub fn of_usn(unique_name: &str) -> Option<Self> {
        let name = unique_name.split("::").next()?;
        let uuid = name.get(..5).filter(|scheme| scheme.eq_ignore_ascii_case("uuid:")).map(|_| &name[5..])?;
        (uuid.len() >= 8 && distinct(uuid)).then(|| Self::Uuid(bounded(&uuid.to_ascii_lowercase())))
    }

    /// Of a text record of a service: `id=…` and the like.
    #[must_use]
    pub fn of_service(service: &str, text: &str) -> Option<Self> {
        let (key, value) = text.split_once('=')?;
        let names = SERVICES
            .iter()
            .any(|(known, its)| service.eq_ignore_ascii_case(known) && key.eq_ignore_ascii_case(its));
        let value = value.trim().to_ascii_lowercase();
        (names && value.len() >= 8 && distinct(&value))
            .then(|| Self::Service(bounded(&format!("{} {value}", service.to_ascii_lowercase()))))
    }

    #[must_use]
    pub fn worth(&self) -> Worth {
        match self {
            Self::Mac(mac) if mac.is_locally_administered() || is_shared(*mac) => Worth::Passing,
            Self::Mac(_) => Worth::Anchor,
            _ => Worth::Lasting,
        }
    }

    /// The word for its kind.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Mac(mac) if mac.is_locally_administered() => "random_mac",
            Self::Mac(mac) if is_shared(*mac) => "shared_mac",
            Self::Mac(_) => "mac",
            Self::Duid(_) => "duid",
            Self::ClientId(_) => "client_id",
            Self::Uuid(_) => "uuid",
            Self::Service(_) => "service",
        }
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac(mac) => mac.fmt(f),
            Self::Duid(text) | Self::ClientId(text) | Self::Uuid(text) | Self::Service(text) => {
                f.write_str(text)
            }
        }
    }
}

/// Services that say in a text record which device offers them.
const SERVICES: [(&str, &str); 5] = [
    // Google Cast: stable over resets of the name.
    ("_googlecast._tcp", "id"),
    // IPP Everywhere (PWG 5100.14): the printer's UUID.
    ("_ipp._tcp", "uuid"),
    ("_ipps._tcp", "uuid"),
    // AirPlay: the address of the device's own card, also while another is in use.
    ("_airplay._tcp", "deviceid"),
    // HomeKit: kept until the accessory is reset.
    ("_hap._tcp", "id"),
];

/// Addresses that pass between routers: VRRP (RFC 9568), HSRP, GLBP.
fn is_shared(mac: Mac) -> bool {
    matches!(
        mac.0,
        [0, 0, 0x5e, 0, 1 | 2, _]
            | [0, 0, 0x0c, 7, 0xac, _]
            | [0, 0, 0x0c, 0x9f, 0xf0..=0xff, _]
            | [0, 5, 0x73, 0xa0, ..]
            | [0, 7, 0xb4, ..]
    )
}

/// Whether a number is not one digit all over.
fn distinct(number: &str) -> bool {
    let mut digits = number.bytes().filter(u8::is_ascii_alphanumeric);
    let first = digits.next();
    digits.any(|digit| Some(digit) != first)
}

fn bounded(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_VALUE)].to_owned()
}

/// Host names that makers give to all that they make, or that say nothing: no part of what recognises a device.
const COMMON: [&str; 22] = [
    "android",
    "computer",
    "debian",
    "desktop",
    "dhcp",
    "espressif",
    "ipad",
    "iphone",
    "kali",
    "laptop",
    "localhost",
    "macbook",
    "none",
    "null",
    "openwrt",
    "pc",
    "raspberrypi",
    "ubuntu",
    "unknown",
    "user-pc",
    "watch",
    "wlan0",
];

/// How a client behaves towards DHCP: its name, what it asks for, what it says it is.
///
/// Neither a name nor a fingerprint identifies anybody: many have the same. Together they recognise a device whose
/// made-up address has changed, if the name is its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Habit {
    name: String,
    parameters: Vec<u8>,
    vendor_class: Option<String>,
}

impl Habit {
    /// None where there is too little to recognise anybody by.
    #[must_use]
    pub fn of(name: &str, parameters: &[u8], vendor_class: Option<&str>) -> Option<Self> {
        let name = name.to_lowercase();
        let own = name.len() >= 4
            && !COMMON.contains(&name.as_str())
            && !name.bytes().all(|byte| byte.is_ascii_digit());
        (own && parameters.len() >= 3).then(|| Self {
            name: bounded(&name),
            parameters: parameters.to_vec(),
            vendor_class: vendor_class.map(bounded),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_worth_what_they_last() {
        let mac = |octets| Identifier::Mac(Mac(octets)).worth();
        assert_eq!(mac([0xb0, 0xc5, 0x54, 1, 2, 3]), Worth::Anchor);
        assert_eq!(mac([0xb2, 0xc5, 0x54, 1, 2, 3]), Worth::Passing, "made up");
        assert_eq!(mac([0, 0, 0x5e, 0, 1, 9]), Worth::Passing, "of a virtual router");
        let client = Identifier::of_client_id;
        assert_eq!(client("01b0c554010203"), None, "the link address again");
        assert_eq!(client("00"), None);
        let duid = Identifier::of_duid("00020000ab11aabbccdd");
        assert!(duid.is_some());
        assert_eq!(client("ff00000001"), None);
        assert_eq!(client("ff0000000100020000ab11aabbccdd"), duid, "as for IPv6 (RFC 4361)");
        assert_eq!(client("0066756e6e79"), Some(Identifier::ClientId("0066756e6e79".into())));
    }

    #[test]
    fn numbers_that_makers_left_at_nought_are_nobodys() {
        let usn = Identifier::of_usn;
        assert_eq!(usn("uuid:00000000-0000-0000-0000-000000000000::upnp:rootdevice"), None);
        assert_eq!(usn("urn:x"), None);
        let same = Some(Identifier::Uuid("2f402f80-da50-11e1-9b23-001788102201".into()));
        assert_eq!(usn("uuid:2F402F80-da50-11e1-9b23-001788102201::upnp:rootdevice"), same);
        assert_eq!(usn("uuid:2f402f80-da50-11e1-9b23-001788102201"), same);
        assert_eq!(Identifier::of_duid("0001ffffffffffffffff"), None);
        assert_eq!(Identifier::of_service("_googlecast._tcp", "fn=Kitchen"), None);
        assert!(Identifier::of_service("_GoogleCast._tcp", "id=0123456789abcdef").is_some());
    }

    #[test]
    fn a_common_name_recognises_nobody() {
        for name in ["iPhone", "android", "pc", "12345678", ""] {
            assert_eq!(Habit::of(name, &[1, 3, 6, 15], None), None, "{name}");
        }
        assert_eq!(Habit::of("anns-phone", &[1], None), None, "hardly a fingerprint");
        assert_eq!(Habit::of("Anns-Phone", &[1, 3, 6], None), Habit::of("anns-phone", &[1, 3, 6], None));
        assert_ne!(Habit::of("anns-phone", &[1, 3, 6], None), Habit::of("anns-phone", &[1, 6, 3], None));
    }
}
