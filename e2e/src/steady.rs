//! Traffic that goes on while things break: the same frames over and over, each pass counted, so that
//! every flow's packets and octets are known whenever it stops.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use weir_testbed::netns::Namespace;
use weir_testbed::scratch::Scratch;
use weir_testbed::traffic::Replay;
use weir_testbed::{Error, Result};

use crate::Counted;

/// Frames of a pass that no flow takes, of each kind.
const ODD: u64 = 5;
const ETHERNET: usize = 14;

/// `SOURCE|DESTINATION|PROTOCOL|SOURCE PORT|DESTINATION PORT`, one direction.
pub type Flow = String;

/// A pass of frames, and what counts it.
#[derive(Debug)]
pub struct Steady {
    capture: PathBuf,
    /// What one pass adds to each flow.
    pub flows: BTreeMap<Flow, Counted>,
    /// All frames of a pass and their layer-2 octets.
    pub sent: Counted,
    /// Frames that are not IP; as many are IP and malformed.
    pub odd: u64,
    _folder: Scratch,
}

impl Steady {
    /// So many connections, a third of them with an answer, with one to three packets a direction. The same
    /// for the same seed.
    pub fn new(connections: u32, seed: u64) -> Result<Self> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut frames = Vec::new();
        let mut flows: BTreeMap<Flow, Counted> = BTreeMap::new();
        for number in 0..connections {
            let there = Connection::new(number);
            for direction in [Some(&there), number.is_multiple_of(3).then_some(&there.back())] {
                let Some(connection) = direction else { continue };
                for _ in 0..random.random_range(1..=3) {
                    let packet = connection.packet(random.random_range(60..400));
                    let octets = (packet.len() - ETHERNET) as u64;
                    *flows.entry(connection.flow()).or_default() += Counted { packets: 1, octets };
                    frames.push(packet);
                }
            }
        }
        for _ in 0..ODD {
            // An EtherType for local experiments; an IPv4 header that is shorter than one can be.
            frames.push(frame(0x88b5, &[0; 46]));
            frames.push(frame(0x0800, &[&[0x44, 0, 0, 46][..], &[0; 42]].concat()));
        }
        frames.shuffle(&mut random);
        let octets = frames.iter().map(|frame| frame.len() as u64).sum();
        let folder = Scratch::new("steady")?;
        let capture = folder.path().join("pass.pcap");
        fs::write(&capture, pcap(&frames)).map_err(Error::io(format!("write {}", capture.display())))?;
        let sent = Counted { packets: frames.len() as u64, octets };
        Ok(Self { capture, flows, sent, odd: ODD, _folder: folder })
    }

    /// Layer-3 octets of a pass that are in flows, or in a full table's overflow.
    #[must_use]
    pub fn ip_octets(&self) -> u64 {
        self.flows.values().map(|counted| counted.octets).sum()
    }

    /// Sends pass after pass at so many frames a second while `work` is done, then ends the last one. What
    /// `work` gave, and the number of passes.
    pub fn while_at<T>(
        &self,
        sender: &Namespace,
        interface: &str,
        pps: u32,
        work: impl FnOnce() -> T,
    ) -> Result<(T, u64)> {
        let done = Arc::new(AtomicBool::new(false));
        thread::scope(|scope| {
            let stop = Arc::clone(&done);
            let passes = scope.spawn(move || {
                let replay = Replay { pps: Some(pps), ..Replay::default() };
                let mut passes = 0;
                while passes == 0 || !stop.load(Ordering::Relaxed) {
                    let sent = replay.send(sender, interface, &self.capture)?;
                    assert_eq!(Counted { packets: sent.frames, octets: sent.octets }, self.sent);
                    passes += 1;
                }
                Ok(passes)
            });
            let guard = Done(done);
            let worked = work();
            drop(guard);
            let passes = passes.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            passes.map(|passes| (worked, passes))
        })
    }
}

/// Ends the traffic, also where the work panics.
struct Done(Arc<AtomicBool>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One direction of a connection.
struct Connection {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    ports: (u16, u16),
}

impl Connection {
    /// One in eight speaks IPv6, half of them speak TCP.
    fn new(number: u32) -> Self {
        let (source, destination) = if number.is_multiple_of(8) {
            let host =
                |net: u16| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, number as u16 + 1));
            (host(1), host(2))
        } else {
            let host = Ipv4Addr::from_bits(0x0a00_0001 + number);
            (host.into(), Ipv4Addr::new(198, 51, 100, (number % 200) as u8 + 1).into())
        };
        let protocol = if number.is_multiple_of(2) { 6 } else { 17 };
        Self {
            source,
            destination,
            protocol,
            ports: (20_000 + number as u16 % 30_000, 7_000 + number as u16 % 50),
        }
    }

    fn back(&self) -> Self {
        let Self { source, destination, protocol, ports } = *self;
        Self { source: destination, destination: source, protocol, ports: (ports.1, ports.0) }
    }

    fn flow(&self) -> Flow {
        let Self { source, destination, protocol, ports } = self;
        format!("{source}|{destination}|{protocol}|{}|{}", ports.0, ports.1)
    }

    /// A frame with so many octets of layer 3.
    fn packet(&self, octets: u16) -> Vec<u8> {
        let mut transport: Vec<u8> = [self.ports.0.to_be_bytes(), self.ports.1.to_be_bytes()].concat();
        if self.protocol == 6 {
            // In the middle of a connection: ACK, with a header of five words.
            transport.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 4, 0, 0, 0, 0, 0]);
        }
        let header = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let length = octets.to_be_bytes();
                let start = [0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, self.protocol, 0, 0];
                [&start[..], &source.octets(), &destination.octets()].concat()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let length = (octets - 40).to_be_bytes();
                let start = [0x60, 0, 0, 0, length[0], length[1], self.protocol, 64];
                [&start[..], &source.octets(), &destination.octets()].concat()
            }
            _ => unreachable!("both ends of a connection are of one family"),
        };
        if self.protocol == 17 {
            transport.extend((octets - header.len() as u16).to_be_bytes());
            transport.extend([0, 0]);
        }
        let mut packet = [header, transport].concat();
        packet.resize(usize::from(octets), 0);
        frame(if self.source.is_ipv4() { 0x0800 } else { 0x86dd }, &packet)
    }
}

fn frame(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], &ethertype.to_be_bytes(), payload].concat()
}

/// As a classic capture of Ethernet.
pub(crate) fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut capture = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        capture.extend(word.to_le_bytes());
    }
    for (number, frame) in frames.iter().enumerate() {
        for word in [0, number as u32, frame.len() as u32, frame.len() as u32] {
            capture.extend(word.to_le_bytes());
        }
        capture.extend(frame);
    }
    capture
}
