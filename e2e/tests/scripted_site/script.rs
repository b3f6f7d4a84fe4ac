//! What happens in the office: a morning in which all behave, an afternoon in which some do not.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use weir_e2e::office::{BEACON, GATEWAY, GATEWAY_V6, Office, PLAIN, SINK, SSH, Station, TELNET, frames};
use weir_sensor::detect::Kind;
use weir_testbed::process::Process;

use super::cast::{
    CALLER, CREEPER, FLOODER, GUESSER, LAPTOP, LEAKER, MALWARE, NAS, NEWCOMER, OLD, PHONE, PHONE_AGAIN,
    PRINTER, PROBER, REVELLER, ROGUE, ROSTER, SEEKER, SPOOFER, SWEEPER, THERMOSTAT, TRAVELLER, TUNNELLER,
    TWINS, VETERAN, WEB,
};

pub const LISTED_ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 13);
pub const LISTED_DOMAIN: &str = "malware.example";
/// Where the caller's master is.
pub const MASTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 44);
pub const GUESSED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 22);
pub const TERMINAL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 23);
/// Nobody answers there.
pub const SYN_FLOODED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 80);
pub const UDP_FLOODED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 53);
pub const ICMP_FLOODED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
/// In systems 1221 and, in Sweden, 29518.
const HOME: Ipv4Addr = Ipv4Addr::new(1, 128, 0, 1);
const AWAY: Ipv4Addr = Ipv4Addr::new(89, 160, 20, 112);
/// Takes uploads.
const CLOUD: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 90);
/// Beyond a second; calls that are closer are one.
const TICK: Duration = Duration::from_millis(1500);

/// All machines, plugged in.
pub struct Stage {
    stations: Vec<Station>,
    stop: AtomicBool,
}

fn did(done: weir_testbed::Result<()>) {
    done.expect("it is done");
}

impl Stage {
    pub fn set(office: &Office) -> Self {
        let plug_in = |profile| office.plug_in(profile).expect("a machine is plugged in");
        Self { stations: ROSTER.iter().copied().map(plug_in).collect(), stop: AtomicBool::new(false) }
    }

    fn the(&self, profile: weir_e2e::office::Profile) -> &Station {
        let found = self.stations.iter().find(|station| station.profile.mac == profile.mac);
        found.expect("everybody in the roster is plugged in")
    }

    /// Everybody but one comes, and is seen.
    pub fn arrival(&self) {
        thread::scope(|scope| {
            for station in self.stations.iter().filter(|station| station.profile.mac != NEWCOMER.mac) {
                scope.spawn(|| did(station.join()));
            }
        });
        for twin in TWINS {
            did(self.the(twin).speaks_on_the_link());
        }
    }

    /// What is usual.
    pub fn morning(&self) {
        self.the(LAPTOP).speak_ipv6().expect("IPv6 is on");
        for station in [NAS, TWINS[0], TWINS[1]] {
            did(self.the(station).speaks_on_the_link());
        }
        self.the(PRINTER).serves_a_page(631).expect("the printer has a page");
        self.usual();
        // Not in the afternoon: who is spoofed gets no answers.
        did(self.the(NAS).looks_up("www.example.net"));
        did(self.the(NAS).greets(WEB, 443, "www.example.net", &[]));
        did(self.the(LEAKER).talks(CLOUD, SINK, "a little"));
        did(self.the(TRAVELLER).talks(HOME, PLAIN, "GET / HTTP/1.0\r\n\r\n"));
        did(self.the(TRAVELLER).talks(WEB, PLAIN, "GET / HTTP/1.0\r\n\r\n"));
    }

    /// What nobody should mind.
    fn usual(&self) {
        let (laptop, printer, thermostat) = (self.the(LAPTOP), self.the(PRINTER), self.the(THERMOSTAT));
        did(laptop.looks_up("www.example.net"));
        did(laptop.greets(WEB, 443, "www.example.net", &[]));
        // A few typing errors, a service that is down.
        for wrong in ["wwww.example.net", "wiki.example.net", "intranet.example.org"] {
            did(laptop.looks_up(wrong));
        }
        (2000..2010).for_each(|port| did(laptop.tries(CLOUD, port)));
        // A busy page, and who is behind the addresses of a log.
        (0..30).for_each(|_| did(laptop.talks(WEB, PLAIN, "GET /picture HTTP/1.0\r\n\r\n")));
        for host in 0..120 {
            did(laptop.looks_up(&format!("{host}.113.0.203.in-addr.arpa")));
        }
        // A backup that stays in the house.
        did(laptop.uploads(GATEWAY, 64));
        did(printer.announces("_ipp._tcp", "Office Printer", "office-printer"));
        did(thermostat.looks_up("time.example.net"));
        did(thermostat.asks_the_time());
        did(thermostat.looks_up("www.example.net"));
        did(thermostat.talks(WEB, PLAIN, "GET /weather HTTP/1.1\r\nHost: www.example.net\r\n\r\n"));
    }

    /// Meanwhile two act by the clock: one asks what time it is, one calls its master.
    pub fn while_clocks_tick<T>(&self, work: impl FnOnce() -> T) -> T {
        thread::scope(|scope| {
            scope.spawn(|| self.by_the_clock(|| self.the(THERMOSTAT).asks_the_time()));
            scope.spawn(|| self.by_the_clock(|| self.the(CALLER).talks(MASTER, BEACON, "anything?\n")));
            let _stops = Stops(&self.stop);
            work()
        })
    }

    fn by_the_clock(&self, act: impl Fn() -> weir_testbed::Result<()>) {
        let mut next = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            did(act());
            next += TICK;
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }

    /// The newcomer comes, the phone comes back, and everybody does what they do, all at once. The rogue goes on until it is dropped.
    #[must_use]
    pub fn afternoon(&self, office: &Office) -> Process {
        let curl = ["--silent", "--show-error", "--fail", "http://192.168.7.111:631/"];
        office.gateway.launch("curl").args(curl).run().expect("the gateway reads the printer's page");
        let rogue = office.rogue(self.the(ROGUE), &[NEWCOMER]).expect("the rogue begins");
        thread::scope(|scope| {
            scope.spawn(|| {
                self.usual();
                did(self.the(LAPTOP).looks_up_by_ipv6(GATEWAY_V6, "www.example.net"));
                did(self.the(PHONE).returns_as(PHONE_AGAIN));
                did(self.the(PHONE).looks_up("www.example.net"));
            });
            scope.spawn(|| did(self.the(NEWCOMER).join()));
            scope.spawn(|| self.scans());
            scope.spawn(|| self.names());
            scope.spawn(|| self.connections());
            scope.spawn(|| {
                for _ in 0..4 {
                    did(self.the(SPOOFER).sends(&[frames::arp_answer(&SPOOFER, NAS.address)], 1, 10));
                    did(self.the(NAS).speaks_on_the_link());
                }
            });
        });
        rogue
    }

    fn scans(&self) {
        for host in 100..140 {
            did(self.the(SWEEPER).tries(Ipv4Addr::new(203, 0, 113, host), 445));
        }
        for port in 1000..1040 {
            did(self.the(PROBER).tries(CLOUD, port));
        }
        // Few ports of few hosts: too few of each for the others' windows.
        for port in 2000..2016 {
            for host in 150..154 {
                did(self.the(CREEPER).tries(Ipv4Addr::new(203, 0, 113, host), port));
            }
        }
    }

    fn names(&self) {
        for number in 0..120 {
            did(self.the(TUNNELLER).looks_up(&format!("{number:032x}.{number:032x}.tunnel.example")));
        }
        // Letters by a generator of old: 25 domains of 14.
        let mut state: u32 = 20_261_122;
        for _ in 0..25 {
            let mut letter = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                char::from(b"xqzjkvwbfpmhg"[(state >> 16) as usize % 13])
            };
            let domain: String = (0..14).map(|_| letter()).collect();
            did(self.the(SEEKER).looks_up(&format!("{domain}.example")));
        }
        did(self.the(REVELLER).looks_up("cdn.malware.example"));
        did(self.the(REVELLER).talks(LISTED_ADDRESS, PLAIN, "GET / HTTP/1.0\r\n\r\n"));
    }

    /// Connections by name.
    pub fn visits(&self) {
        did(self.the(LAPTOP).greets(WEB, 443, "www.example.net", &[]));
        did(self.the(NAS).greets(WEB, 443, "www.example.net", &[]));
        did(self.the(PHONE).greets(WEB, 443, "www.example.net", &[]));
        did(self.the(THERMOSTAT).asks_the_time());
        let request = "GET /weather HTTP/1.1\r\nHost: www.example.net\r\n\r\n";
        did(self.the(THERMOSTAT).talks(WEB, PLAIN, request));
        did(self.the(REVELLER).greets(MALWARE, 443, "cdn.malware.example", &[]));
        let deprecated = ["-tls1", "-cipher", "ALL:@SECLEVEL=0"];
        did(self.the(VETERAN).greets(OLD, 8443, "old.example.net", &deprecated));
    }

    fn connections(&self) {
        for attempt in 0..25 {
            did(self.the(GUESSER).talks(GUESSED, SSH, &format!("password{attempt}\r\n")));
        }
        let veteran = self.the(VETERAN);
        did(veteran.looks_up("old.example.net"));
        did(veteran.talks(TERMINAL, TELNET, "root\r\n"));
        did(self.the(TRAVELLER).talks(AWAY, PLAIN, "GET / HTTP/1.0\r\n\r\n"));
        did(self.the(LEAKER).uploads(CLOUD, 64));
    }

    /// One after the other, since they take the wire for themselves. Each lasts four seconds of its window of ten;
    /// where a busy machine sends it too slowly, it is sent again until it is found.
    pub fn floods(&self, is_found: impl Fn(Kind) -> bool) {
        let flooder = self.the(FLOODER);
        until_found(Kind::SynFlood, &is_found, |round| {
            let ports = (0..1_500).map(|number| 10_000 + round * 1_500 + number);
            let syns: Vec<_> = ports.map(|port| frames::syn(&FLOODER, port, SYN_FLOODED, 80)).collect();
            did(flooder.sends(&syns, 1, 400));
        });
        until_found(Kind::IcmpFlood, &is_found, |_| {
            did(flooder.sends(&[frames::echo(&FLOODER, ICMP_FLOODED)], 3_000, 800));
        });
        until_found(Kind::UdpFlood, &is_found, |_| {
            did(flooder.sends(&[frames::datagram(&FLOODER, 40_000, UDP_FLOODED, 9_999)], 140_000, 35_000));
        });
    }
}

fn until_found(kind: Kind, is_found: impl Fn(Kind) -> bool, flood: impl Fn(u16)) {
    const ROUNDS: u16 = 10;
    for round in 0..ROUNDS {
        flood(round);
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if is_found(kind) {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
    panic!("{} was not found in {ROUNDS} rounds", kind.word());
}

/// Also where the work panics.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
