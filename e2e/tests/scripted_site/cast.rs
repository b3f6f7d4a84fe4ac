//! Who is in the office: machines as their owner knows them, and devices as the API should.

use std::net::Ipv4Addr;

use weir_e2e::office::{CLOCK, GATEWAY_MAC, Lease, PROVIDER_MAC, Profile, WAN_MAC};

const fn machine(name: &'static str, mac: &'static str, last: u8, class: Option<&'static str>) -> Profile {
    Profile { name, mac, address: Ipv4Addr::new(192, 168, 7, last), class, lease: Lease::Gateway }
}

/// Made by Raspberry Pi, as far as its card says.
const fn culprit(name: &'static str, mac: &'static str, last: u8) -> Profile {
    machine(name, mac, last, None)
}

// Those who behave.
pub const LAPTOP: Profile = machine("laptop", "00:06:5b:00:00:10", 110, Some("MSFT 5.0"));
pub const PRINTER: Profile = machine("printer-7", "00:26:ab:00:00:11", 111, None);
pub const THERMOSTAT: Profile = machine("thermostat", "08:3a:8d:00:00:12", 112, None);
pub const NAS: Profile = machine("filestore", "00:11:32:00:00:13", 113, None);
/// Makes up another address each time it comes.
pub const PHONE: Profile = machine("anns-phone", "9a:00:00:00:00:14", 114, Some("android-dhcp-14"));
pub const PHONE_AGAIN: Profile = machine("anns-phone", "6e:00:00:00:00:15", 115, Some("android-dhcp-14"));

// Those who do not.
pub const SWEEPER: Profile = culprit("sweeper", "b8:27:eb:00:01:20", 120);
pub const PROBER: Profile = culprit("prober", "b8:27:eb:00:01:21", 121);
pub const CREEPER: Profile = culprit("creeper", "b8:27:eb:00:01:22", 122);
pub const FLOODER: Profile = culprit("flooder", "b8:27:eb:00:01:23", 123);
pub const GUESSER: Profile = culprit("guesser", "b8:27:eb:00:01:24", 124);
pub const TUNNELLER: Profile = culprit("tunneller", "b8:27:eb:00:01:25", 125);
pub const SEEKER: Profile = culprit("seeker", "b8:27:eb:00:01:26", 126);
pub const CALLER: Profile = culprit("caller", "b8:27:eb:00:01:27", 127);
pub const LEAKER: Profile = culprit("leaker", "b8:27:eb:00:01:28", 128);
pub const TRAVELLER: Profile = culprit("traveller", "b8:27:eb:00:01:29", 129);
pub const SPOOFER: Profile = culprit("spoofer", "b8:27:eb:00:01:2a", 130);
pub const ROGUE: Profile = culprit("rogue", "b8:27:eb:00:01:2b", 131);
pub const REVELLER: Profile = culprit("reveller", "b8:27:eb:00:01:2c", 132);
pub const VETERAN: Profile = culprit("veteran", "b8:27:eb:00:01:2d", 133);
/// Comes late, with a card that nobody knows; the rogue gives it its address.
pub const NEWCOMER: Profile =
    Profile { lease: Lease::Elsewhere, ..culprit("newcomer", "b8:27:eb:00:01:2e", 210) };
/// Both have the same address.
pub const TWINS: [Profile; 2] = [
    Profile { lease: Lease::Fixed, ..culprit("twin-a", "b8:27:eb:00:01:30", 77) },
    Profile { lease: Lease::Fixed, ..culprit("twin-b", "b8:27:eb:00:01:31", 77) },
];

/// Who has a lease beside the roster.
pub const LEASES: &[Profile] = &[PHONE_AGAIN];

pub const ROSTER: &[Profile] = &[
    LAPTOP, PRINTER, THERMOSTAT, NAS, PHONE, SWEEPER, PROBER, CREEPER, FLOODER, GUESSER, TUNNELLER, SEEKER,
    CALLER, LEAKER, TRAVELLER, SPOOFER, ROGUE, REVELLER, VETERAN, NEWCOMER, TWINS[0], TWINS[1],
];

/// In the United Kingdom, by the database.
pub const WEB: Ipv4Addr = Ipv4Addr::new(81, 2, 69, 142);
pub const OLD: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 20);
pub const MALWARE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 14);

/// Names that exist.
pub const NAMES: &[(&str, Ipv4Addr)] = &[
    ("www.example.net", WEB),
    ("time.example.net", CLOCK),
    ("old.example.net", OLD),
    ("cdn.malware.example", MALWARE),
];

/// A device as the API should have it: keys, name, vendor, type, addresses.
pub type Known =
    (&'static str, Option<&'static str>, Option<&'static str>, Option<&'static str>, &'static [&'static str]);

const PI: Option<&str> = Some("Raspberry Pi Foundation");

pub const DEVICES: &[Known] = &[
    (
        GATEWAY_MAC,
        None,
        Some("Routerboard.com"),
        Some("router"),
        &["192.168.7.1", "fd07:7::1", "fe80::4e5e:cff:fe00:1"],
    ),
    (WAN_MAC, None, Some("Routerboard.com"), None, &["100.64.0.1"]),
    (PROVIDER_MAC, None, Some("Juniper Networks"), None, &["100.64.0.2"]),
    (
        LAPTOP.mac,
        Some("laptop"),
        Some("Dell Inc."),
        Some("computer"),
        &["192.168.7.110", "fd07:7::206:5bff:fe00:10", "fe80::206:5bff:fe00:10"],
    ),
    (PRINTER.mac, Some("printer-7"), Some("Seiko Epson Corporation"), Some("printer"), &["192.168.7.111"]),
    (THERMOSTAT.mac, Some("thermostat"), Some("Espressif Inc."), Some("iot"), &["192.168.7.112"]),
    (NAS.mac, Some("filestore"), Some("Synology Incorporated"), Some("nas"), &["192.168.7.113"]),
    // One, by its name and its habits.
    (
        "6e:00:00:00:00:15 9a:00:00:00:00:14",
        Some("anns-phone"),
        None,
        Some("phone"),
        &["192.168.7.114", "192.168.7.115"],
    ),
    (SWEEPER.mac, Some("sweeper"), PI, None, &["192.168.7.120"]),
    (PROBER.mac, Some("prober"), PI, None, &["192.168.7.121"]),
    (CREEPER.mac, Some("creeper"), PI, None, &["192.168.7.122"]),
    (FLOODER.mac, Some("flooder"), PI, None, &["192.168.7.123"]),
    (GUESSER.mac, Some("guesser"), PI, None, &["192.168.7.124"]),
    (TUNNELLER.mac, Some("tunneller"), PI, None, &["192.168.7.125"]),
    (SEEKER.mac, Some("seeker"), PI, None, &["192.168.7.126"]),
    (CALLER.mac, Some("caller"), PI, None, &["192.168.7.127"]),
    (LEAKER.mac, Some("leaker"), PI, None, &["192.168.7.128"]),
    (TRAVELLER.mac, Some("traveller"), PI, None, &["192.168.7.129"]),
    // And what it claims.
    (SPOOFER.mac, Some("spoofer"), PI, None, &["192.168.7.113", "192.168.7.130"]),
    // By what it gives and advertises.
    (ROGUE.mac, Some("rogue"), PI, Some("router"), &["192.168.7.131", "fe80::ba27:ebff:fe00:12b"]),
    (REVELLER.mac, Some("reveller"), PI, None, &["192.168.7.132"]),
    (VETERAN.mac, Some("veteran"), PI, None, &["192.168.7.133"]),
    (NEWCOMER.mac, Some("newcomer"), PI, None, &["192.168.7.210"]),
    // Cards of two makers' numbers are two devices, whatever they say of their address.
    (TWINS[0].mac, None, PI, None, &["192.168.7.77"]),
    (TWINS[1].mac, None, PI, None, &["192.168.7.77"]),
];
