//! Layer 2: what stands between Ethernet and IP, and the file that the frames end up in.

/// Bytes of a classic pcap file's header, and of the header of each frame in it.
pub const FILE_HEADER: usize = 24;
pub const FRAME_HEADER: usize = 16;
/// The shortest Ethernet frame, without its check sequence.
const MIN_FRAME: usize = 60;
/// 2024-01-01T00:00:00Z: any fixed time will do, one that people recognise does best.
const BEGIN_S: u64 = 1_704_067_200;
/// Between two frames, microseconds.
const GAP_US: u64 = 700;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// The headers between the Ethernet addresses and IP.
#[derive(Clone, Copy)]
pub enum Stack {
    Bare,
    /// 802.1Q.
    Vlan(u16),
    /// 802.1ad outside, 802.1Q inside.
    QinQ(u16, u16),
    /// Two MPLS labels, outermost first.
    Mpls(u32, u32),
    /// A PPPoE session.
    Pppoe(u16),
    /// 802.2 LLC and SNAP.
    Snap,
}

/// Frames in the order and with the times in which they were seen.
#[derive(Default)]
pub struct Wire {
    frames: Vec<Vec<u8>>,
}

impl Wire {
    /// An IP packet (either version) in a frame from one host to another; hosts are numbered.
    pub fn ip(&mut self, from: u8, to: u8, stack: Stack, packet: &[u8]) {
        let ethertype = if packet[0] >> 4 == 6 { IPV6 } else { IPV4 };
        let mut body = Vec::with_capacity(packet.len() + 16);
        match stack {
            Stack::Bare => put(&mut body, &[ethertype]),
            Stack::Vlan(id) => put(&mut body, &[0x8100, id, ethertype]),
            Stack::QinQ(outer, inner) => put(&mut body, &[0x88a8, outer, 0x8100, inner, ethertype]),
            Stack::Mpls(outer, inner) => {
                put(&mut body, &[0x8847]);
                // Label, no traffic class, bottom-of-stack bit on the last, TTL 64 (RFC 3032).
                body.extend((outer << 12 | 64).to_be_bytes());
                body.extend((inner << 12 | 0x100 | 64).to_be_bytes());
            }
            Stack::Pppoe(session) => {
                let protocol = if ethertype == IPV6 { 0x0057 } else { 0x0021 };
                put(&mut body, &[0x8864, 0x1100, session, packet.len() as u16 + 2, protocol]);
            }
            Stack::Snap => {
                put(&mut body, &[packet.len() as u16 + 8, 0xaaaa]);
                body.extend([0x03, 0, 0, 0]);
                put(&mut body, &[ethertype]);
            }
        }
        body.extend(packet);
        self.frame(mac(to), mac(from), &body);
    }

    /// Any frame: addresses, then the type and what follows it. Padded as a network card would.
    pub fn frame(&mut self, to: [u8; 6], from: [u8; 6], body: &[u8]) {
        let mut frame = [&to[..], &from[..], body].concat();
        frame.resize(frame.len().max(MIN_FRAME), 0);
        self.frames.push(frame);
    }

    /// A classic pcap file: microseconds, Ethernet, little-endian.
    pub fn into_pcap(self) -> Vec<u8> {
        let frames: usize = self.frames.iter().map(|frame| FRAME_HEADER + frame.len()).sum();
        let mut file = Vec::with_capacity(FILE_HEADER + frames);
        for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
            file.extend(word.to_le_bytes());
        }
        for (index, frame) in self.frames.iter().enumerate() {
            let since_us = index as u64 * GAP_US;
            let length = frame.len() as u32;
            let second = (BEGIN_S + since_us / 1_000_000) as u32;
            for word in [second, (since_us % 1_000_000) as u32, length, length] {
                file.extend(word.to_le_bytes());
            }
            file.extend(frame);
        }
        file
    }
}

/// A locally administered address: 02:00:5e:00:53:NN (the last bytes are RFC 7042's for documentation).
pub fn mac(host: u8) -> [u8; 6] {
    [0x02, 0x00, 0x5e, 0x00, 0x53, host]
}

fn put(body: &mut Vec<u8>, words: &[u16]) {
    for word in words {
        body.extend(word.to_be_bytes());
    }
}
