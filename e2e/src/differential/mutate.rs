//! Frames made of real ones: with their bits, lengths, link headers and extension headers changed, by a seed.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use weir_sensor::kernel::ReplayLink;

use super::FRAME_OCTETS;

const ETHERNET: usize = 14;

/// Extension headers, and what looks like one.
const NEXT_HEADERS: [u8; 16] = [0, 43, 44, 50, 51, 59, 60, 135, 139, 140, 6, 17, 58, 132, 33, 255];
const TAGS: [u16; 4] = [0x8100, 0x88a8, 0x9100, 0x9200];

/// A stream of frames that is the same for the same seed and captures.
pub struct Mutator {
    random: StdRng,
    seeds: Vec<Vec<u8>>,
}

impl Mutator {
    #[must_use]
    pub fn new(seed: u64, seeds: Vec<Vec<u8>>) -> Self {
        Self { random: StdRng::seed_from_u64(seed), seeds }
    }

    /// Frames that begin as `link` says.
    pub fn frames(&mut self, count: usize, link: ReplayLink) -> Vec<Vec<u8>> {
        (0..count).map(|_| self.frame(link)).collect()
    }

    fn frame(&mut self, link: ReplayLink) -> Vec<u8> {
        let mut frame = self.seeds.choose(&mut self.random).cloned().unwrap_or_default();
        for _ in 0..self.random.random_range(0..5) {
            self.change(&mut frame);
        }
        if link == ReplayLink::RawIp && frame.len() > ETHERNET {
            frame.drain(..ETHERNET);
        }
        frame.truncate(*FRAME_OCTETS.end());
        if frame.len() < *FRAME_OCTETS.start() {
            frame.resize(*FRAME_OCTETS.start(), 0);
        }
        frame
    }

    fn change(&mut self, frame: &mut Vec<u8>) {
        match self.random.random_range(0..20) {
            0..=4 => self.bytes(frame),
            5 | 6 => self.cut(frame),
            7..=9 => self.length(frame),
            10 => self.tags(frame),
            11 => self.pppoe(frame),
            12 => self.labels(frame),
            13 => self.snap(frame),
            14..=16 => self.chain(frame),
            17 => self.fragment(frame),
            18 => self.protocol(frame),
            _ => self.splice(frame),
        }
    }

    /// Anywhere in the headers.
    fn bytes(&mut self, frame: &mut [u8]) {
        for _ in 0..self.random.random_range(1..4) {
            let reach = frame.len().min(110);
            let Some(byte) = frame.get_mut(self.random.random_range(0..reach.max(1))) else { return };
            *byte = match self.random.random_range(0..4) {
                0 => *byte ^ 1 << self.random.random_range(0..8),
                1 => 0,
                2 => 0xff,
                _ => self.random.random(),
            };
        }
    }

    fn cut(&mut self, frame: &mut Vec<u8>) {
        let keep = self.random.random_range(*FRAME_OCTETS.start()..=frame.len().clamp(16, 120));
        frame.truncate(keep);
    }

    /// An IP length that says more or less than there is.
    fn length(&mut self, frame: &mut [u8]) {
        let (at, header) = match ip(frame) {
            Some(4) => (ETHERNET + 2, 0),
            Some(6) => (ETHERNET + 4, 40),
            _ => return,
        };
        let there = (frame.len() - ETHERNET) as i32 - header;
        let claim = match self.random.random_range(0..4) {
            0 => there + self.random.random_range(-3..4),
            1 => self.random.random_range(0..64),
            2 => 0,
            _ => self.random.random_range(0..0x1_0000),
        };
        put(frame, at, claim as u16);
        if header == 0 && self.random.random_ratio(1, 4) {
            frame[ETHERNET] = 0x40 | self.random.random_range(0..16);
        }
    }

    fn tags(&mut self, frame: &mut Vec<u8>) {
        for _ in 0..self.random.random_range(1..15) {
            let tag = *TAGS.choose(&mut self.random).unwrap_or(&TAGS[0]);
            let [a, b] = tag.to_be_bytes();
            let [c, d] =
                (self.random.random_range(0..4_u16) << 12 | self.random.random_range(0..6)).to_be_bytes();
            insert(frame, 12, &[a, b, c, d]);
        }
    }

    /// Before the network header; behind tags, if the type at hand is a tag's.
    fn pppoe(&mut self, frame: &mut Vec<u8>) {
        let protocol: &[u8] = match (ip(frame), self.random.random_range(0..3)) {
            (Some(4), 0) => &[0x21],
            (Some(4), _) => &[0, 0x21],
            (Some(6), 0) => &[0x57],
            (Some(6), _) => &[0, 0x57],
            _ => &[0xc0, 0x21],
        };
        let code = u8::from(self.random.random_ratio(1, 10)) * 0xa7;
        let header = [&[0x88, 0x64, 0x11, code, 0, 1, 0, 40], protocol].concat();
        replace_type(frame, &header);
    }

    fn labels(&mut self, frame: &mut Vec<u8>) {
        let count = self.random.random_range(1..14);
        let mut header = vec![0x88, 0x47 + u8::from(self.random.random_ratio(1, 4))];
        for place in 0..count {
            let bottom = place + 1 == count && !self.random.random_ratio(1, 10);
            let label = self.random.random_range(0..6_u32) << 12 | u32::from(bottom) << 8 | 64;
            header.extend(label.to_be_bytes());
        }
        replace_type(frame, &header);
    }

    fn snap(&mut self, frame: &mut Vec<u8>) {
        let Some(kind) = frame.get(12..ETHERNET).map(<[u8]>::to_vec) else { return };
        let [a, b] = self.random.random_range(0..0x700_u16).to_be_bytes();
        let oui = u8::from(self.random.random_ratio(1, 8));
        replace_type(frame, &[&[a, b, 0xaa, 0xaa, 3, oui, 0, 0], kind.as_slice()].concat());
    }

    /// IPv6 extension headers behind the IPv6 header, lengths right or not.
    fn chain(&mut self, frame: &mut Vec<u8>) {
        if ip(frame) != Some(6) || frame.len() < ETHERNET + 40 {
            return;
        }
        for _ in 0..self.random.random_range(1..20) {
            let kind = *NEXT_HEADERS.choose(&mut self.random).unwrap_or(&0);
            let next = std::mem::replace(&mut frame[ETHERNET + 6], kind);
            let units = if self.random.random_ratio(1, 12) { self.random.random() } else { 0_u8 };
            let mut header = vec![next, units];
            let octets = match kind {
                51 => (usize::from(units) + 2) * 4,
                44 => 8,
                _ => (usize::from(units) + 1) * 8,
            };
            header.resize(octets, 0);
            if kind == 44 {
                let word = *[0, 1, 8, 9, 0xfff8].choose(&mut self.random).unwrap_or(&0);
                put(&mut header, 2, word);
            }
            insert(frame, ETHERNET + 40, &header);
        }
        if !self.random.random_ratio(1, 4) {
            let there = frame.len().min(*FRAME_OCTETS.end()) - ETHERNET - 40;
            put(frame, ETHERNET + 4, there as u16);
        }
    }

    fn fragment(&mut self, frame: &mut [u8]) {
        if ip(frame) == Some(4) {
            let word = *[0x2000, 0x4000, 1, 0x2001, 0x1fff, 0x8000].choose(&mut self.random).unwrap_or(&0);
            put(frame, ETHERNET + 6, word);
        }
    }

    fn protocol(&mut self, frame: &mut [u8]) {
        let at = match ip(frame) {
            Some(4) => ETHERNET + 9,
            Some(6) => ETHERNET + 6,
            _ => return,
        };
        let known = [1, 6, 17, 33, 47, 58, 132, 136].choose(&mut self.random).copied();
        let any = self.random.random();
        if let Some(byte) = frame.get_mut(at) {
            *byte = if self.random.random() { any } else { known.unwrap_or(any) };
        }
    }

    /// The front of this and the end of another.
    fn splice(&mut self, frame: &mut Vec<u8>) {
        let Some(other) = self.seeds.choose(&mut self.random) else { return };
        let at = self.random.random_range(0..frame.len().max(1));
        frame.truncate(at);
        frame.extend(other.iter().skip(at));
    }
}

/// The IP version right behind the Ethernet header, if it is there.
fn ip(frame: &[u8]) -> Option<u8> {
    match frame.get(12..ETHERNET + 1)? {
        [0x08, 0x00, _] => Some(4),
        [0x86, 0xdd, _] => Some(6),
        _ => None,
    }
}

fn put(frame: &mut [u8], at: usize, word: u16) {
    if let Some(place) = frame.get_mut(at..at + 2) {
        place.copy_from_slice(&word.to_be_bytes());
    }
}

fn insert(frame: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if at <= frame.len() {
        frame.splice(at..at, bytes.iter().copied());
    }
}

/// Puts headers in the place of the Ethernet type.
fn replace_type(frame: &mut Vec<u8>, bytes: &[u8]) {
    if frame.len() >= ETHERNET {
        frame.splice(12..ETHERNET, bytes.iter().copied());
    }
}
