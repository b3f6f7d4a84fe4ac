//! What passes on the wire while the sensor is measured: captures that tcpreplay sends at a fixed rate.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context as _, Result};
use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep};

/// Hosts inside: each has a card of its own.
const CLIENTS: u32 = 250;
/// Names that ordinary clients look up.
const NAMES: u32 = 20_000;
/// Flows between a flow's frames: what stands for a round trip.
const APART: u32 = 50;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of ten flows four are lookups, four are TLS connections from SYN to FIN, two exchange datagrams.
    Ordinary,
    /// Each flow is a lookup of a name that nobody looked up before.
    Names,
    /// Each frame is the ARP announcement of another card with another address.
    Cards,
    /// Each flow is the SYN of another stranger.
    Addresses,
}

impl Kind {
    /// Frames of so many flows.
    pub fn frames(self, flows: u32) -> u32 {
        match self {
            Self::Ordinary => flows / 10 * (4 * 2 + 4 * 7 + 2 * 2),
            Self::Names => flows * 2,
            Self::Cards | Self::Addresses => flows,
        }
    }

    /// Writes a classic capture with so many flows, which begin one after the other.
    pub fn write(self, flows: u32, file: &Path) -> Result<()> {
        let named = || format!("write {}", file.display());
        let mut capture = BufWriter::new(File::create(file).with_context(named)?);
        for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
            capture.write_all(&word.to_le_bytes()).with_context(named)?;
        }
        for number in 0..flows + APART * 8 {
            for step in 0..8 {
                // A flow's next frame comes when so many others have begun.
                let Some(flow) = number.checked_sub(step * APART).filter(|flow| *flow < flows) else {
                    continue;
                };
                let Some(frame) = self.frame(flow, step)? else { continue };
                for word in [number, 0, frame.len() as u32, frame.len() as u32] {
                    capture.write_all(&word.to_le_bytes()).with_context(named)?;
                }
                capture.write_all(&frame).with_context(named)?;
            }
        }
        capture.flush().with_context(named)
    }

    /// A flow's frame number `step`; `None` after its last.
    fn frame(self, flow: u32, step: u32) -> Result<Option<Vec<u8>>> {
        let there = Way { flow, back: false };
        let back = Way { flow, back: true };
        match (self, flow % 10, step) {
            (Self::Ordinary, 0..=3, 0) => lookup(there, &name(flow % NAMES)).map(Some),
            (Self::Ordinary, 0..=3, 1) => lookup(back, &name(flow % NAMES)).map(Some),
            (Self::Ordinary, 4..=7, _) => connection(flow, step),
            (Self::Ordinary, 8..=9, 0) => datagram(there, 4_500, &[7; 120]).map(Some),
            (Self::Ordinary, 8..=9, 1) => datagram(back, 4_500, &[7; 600]).map(Some),
            (Self::Names, _, 0) => lookup(there, &unique(flow)).map(Some),
            (Self::Names, _, 1) => lookup(back, &unique(flow)).map(Some),
            (Self::Cards, _, 0) => Ok(Some(announcement(flow))),
            (Self::Addresses, _, 0) => stranger(flow).map(Some),
            _ => Ok(None),
        }
    }
}

fn name(number: u32) -> String {
    format!("host-{number}.shop{}.example.net", number % 50)
}

/// Long, and told from every other by its first letters.
fn unique(number: u32) -> String {
    format!("{number:08x}{number:0>40}.{number:0>50}.example.org")
}

/// A direction of a flow.
#[derive(Clone, Copy)]
struct Way {
    flow: u32,
    back: bool,
}

impl Way {
    fn client(self) -> u32 {
        self.flow % CLIENTS
    }

    /// The client's port, by which its flows differ.
    fn port(self) -> u16 {
        10_000 + (self.flow / CLIENTS % 50_000) as u16
    }

    /// Ethernet and IP from one side to the other: the client's own card and address, a server behind the gateway's.
    fn headers(self) -> PacketBuilderStep<IpHeaders> {
        let client = self.client();
        let card = [0x00, 0x1b, 0x21, 0, (client >> 8) as u8, client as u8];
        let gateway = [0x00, 0x1b, 0x21, 0xff, 0xff, 0xfe];
        let inside = [10, 20, (client >> 8) as u8, client as u8 + 1];
        // A network that the test databases of places know.
        let outside = [81, 2, 69, 142 + (self.flow % 50) as u8];
        if self.back {
            PacketBuilder::ethernet2(gateway, card).ipv4(outside, inside, 60)
        } else {
            PacketBuilder::ethernet2(card, gateway).ipv4(inside, outside, 64)
        }
    }
}

fn datagram(way: Way, service: u16, payload: &[u8]) -> Result<Vec<u8>> {
    let (from, to) = if way.back { (service, way.port()) } else { (way.port(), service) };
    let packet = way.headers().udp(from, to);
    let mut frame = Vec::with_capacity(packet.size(payload.len()));
    packet.write(&mut frame, payload).context("make a datagram")?;
    Ok(frame)
}

/// A question for a name's address; on the way back its answer (RFC 1035).
fn lookup(way: Way, name: &str) -> Result<Vec<u8>> {
    let mut message = (way.flow as u16).to_be_bytes().to_vec();
    message.extend([if way.back { 0x81 } else { 1 }, if way.back { 0x80 } else { 0 }]);
    message.extend([0, 1, 0, u8::from(way.back), 0, 0, 0, 0]);
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    if way.back {
        // For five minutes.
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4]);
        message.extend(Ipv4Addr::new(81, 2, 69, 142 + (way.flow % 50) as u8).octets());
    }
    datagram(way, 53, &message)
}

/// SYN, SYN-ACK, ACK, hello, an answer, both FINs.
fn connection(flow: u32, step: u32) -> Result<Option<Vec<u8>>> {
    let back = matches!(step, 1 | 4 | 6);
    let way = Way { flow, back };
    let (from, to) = if back { (443, way.port()) } else { (way.port(), 443) };
    let hello = client_hello(&name(flow % NAMES));
    let answer = [0x17, 3, 3, 2, 88].into_iter().chain([7; 600]).collect::<Vec<u8>>();
    let asked = 1 + hello.len() as u32;
    let told = 1 + answer.len() as u32;
    let tcp = |sequence| way.headers().tcp(from, to, sequence, 64_000);
    let (packet, payload) = match step {
        0 => (tcp(0).syn(), Vec::new()),
        1 => (tcp(0).syn().ack(1), Vec::new()),
        2 => (tcp(1).ack(1), Vec::new()),
        3 => (tcp(1).ack(1).psh(), hello),
        4 => (tcp(1).ack(asked).psh(), answer),
        5 => (tcp(asked).ack(told).fin(), Vec::new()),
        6 => (tcp(told).ack(asked + 1).fin(), Vec::new()),
        _ => return Ok(None),
    };
    let mut frame = Vec::with_capacity(packet.size(payload.len()));
    packet.write(&mut frame, &payload).context("make a segment")?;
    Ok(Some(frame))
}

/// A TLS 1.3 hello with a server's name and little else (RFC 8446, RFC 6066).
fn client_hello(name: &str) -> Vec<u8> {
    let length = |octets: usize| (octets as u16).to_be_bytes();
    let entry = [&[0][..], &length(name.len()), name.as_bytes()].concat();
    let list = [&length(entry.len())[..], &entry].concat();
    let server_name = [&[0, 0][..], &length(list.len()), &list].concat();
    let extensions = [&server_name[..], &[0, 43, 0, 3, 2, 3, 4]].concat();
    let mut body = vec![3, 3];
    body.extend([9; 32]);
    // No session, two ciphers, no compression.
    body.extend([0, 0, 4, 0x13, 1, 0x13, 2, 1, 0]);
    body.extend(length(extensions.len()));
    body.extend(extensions);
    let handshake = [&[1, 0][..], &length(body.len()), &body].concat();
    [&[22, 3, 1][..], &length(handshake.len()), &handshake].concat()
}

/// A gratuitous ARP request (RFC 5227) of card and address `number`.
fn announcement(number: u32) -> Vec<u8> {
    let [_, a, b, c] = number.to_be_bytes();
    let card = [0x00, 0x1b, 0x21, a, b, c];
    let address = [10, 64 + a, b, c];
    let mut frame = [&[0xff; 6][..], &card, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &card, &address].concat();
    frame.extend([0; 6]);
    frame.extend(address);
    frame.resize(60, 0);
    frame
}

/// A SYN from an address outside that is nobody else's.
fn stranger(number: u32) -> Result<Vec<u8>> {
    let [_, a, b, c] = number.to_be_bytes();
    let gateway = [0x00, 0x1b, 0x21, 0xff, 0xff, 0xfe];
    let packet = PacketBuilder::ethernet2(gateway, [0x00, 0x1b, 0x21, 0, 0, 1])
        .ipv4([60 + a, b, c, 9], [10, 20, 0, 2], 50)
        .tcp(40_000 + c as u16, 443, number, 1_024)
        .syn();
    let mut frame = Vec::with_capacity(packet.size(0));
    packet.write(&mut frame, &[]).context("make a SYN")?;
    Ok(frame)
}
