//! pcapng: sections of blocks; interfaces are described before the packets that name them.

use std::io::Read;

use pcap_parser::traits::PcapNGPacketBlock as _;
use pcap_parser::{Block, OptionCode, SHB_MAGIC, parse_block_be, parse_block_le};

use super::{CaptureError, Frame, LinkType, MAX_INTERFACES, Source, u32_at};

/// The byte-order magic of a section header, as its section's byte order has it.
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
/// The packet block that the enhanced one replaced; old files still hold it.
const OBSOLETE_PACKET: u32 = 2;
/// Type, length, interface and drops (16 bits each), two words of time, two lengths.
const OBSOLETE_PACKET_HEADER: usize = 28;

/// Whether a file starts as pcapng; the magic is a palindrome.
pub(super) fn is_section_header(start: &[u8]) -> bool {
    u32_at(start, 0, false) == SHB_MAGIC
}

/// The section being read.
#[derive(Default)]
pub(super) struct Section {
    big_endian: bool,
    interfaces: Vec<Interface>,
    /// Whether the first section header, which `Capture::open` began to read, is behind.
    begun: bool,
    /// Of the last packet that had a time; simple packets have none.
    last_time_ns: i64,
}

/// One described interface. Its link type is checked when a packet uses it: a section may describe a
/// device that cannot be replayed and hold none of its packets.
#[derive(Clone, Copy)]
struct Interface {
    link: u16,
    clock: Clock,
}

/// How an interface's packets tell the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clock {
    /// `if_tsresol`: a negative power of 10, or of 2 where the top bit is set.
    pub(super) resolution: u8,
    /// `if_tsoffset`, seconds.
    pub(super) offset_s: i64,
}

impl Clock {
    /// Nanoseconds since the Unix epoch, at the ends of its range where the file claims to be outside.
    pub(super) fn nanoseconds(self, units: u64) -> i64 {
        let units = u128::from(units);
        let power = u32::from(self.resolution & 0x7f);
        let nanoseconds = if self.resolution & 0x80 != 0 {
            (units * 1_000_000_000) >> power
        } else if power <= 9 {
            units * 10_u128.pow(9 - power)
        } else {
            10_u128.checked_pow(power - 9).map_or(0, |divisor| units / divisor)
        };
        let total = i128::from(self.offset_s) * 1_000_000_000 + nanoseconds.cast_signed();
        total.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
    }
}

/// Where the packet of a block is, and what it says of itself.
struct Packet {
    interface: u32,
    time: Option<u64>,
    captured: usize,
    original_len: u32,
    /// Offset of the captured bytes in the block.
    at: usize,
}

impl Section {
    pub(super) fn next_frame<'a, R: Read>(
        &mut self,
        source: &'a mut Source<R>,
    ) -> Result<Option<Frame<'a>>, CaptureError> {
        let packet = loop {
            if !self.read_block(source)? {
                return Ok(None);
            }
            if let Some(packet) = self.packet(&source.record, source.offset)? {
                break packet;
            }
        };
        let offset = source.offset;
        let Some(interface) = self.interfaces.get(packet.interface as usize) else {
            return Err(CaptureError::UnknownInterface { offset, interface: packet.interface });
        };
        let link = LinkType::new(u32::from(interface.link))?;
        if let Some(units) = packet.time {
            self.last_time_ns = interface.clock.nanoseconds(units);
        }
        let Some(bytes) = source.record.get(packet.at..packet.at + packet.captured) else {
            return Err(CaptureError::Malformed { offset });
        };
        let original_len = packet.original_len.max(packet.captured as u32);
        Ok(Some(Frame { time_ns: self.last_time_ns, original_len, link, bytes }))
    }

    /// Reads one block whole; `false` at the end of the file.
    fn read_block<R: Read>(&mut self, source: &mut Source<R>) -> Result<bool, CaptureError> {
        if self.begun {
            if !source.start(8)? {
                return Ok(false);
            }
        } else {
            source.fill(8)?;
            self.begun = true;
        }
        if is_section_header(&source.record) {
            source.fill(12)?;
            self.big_endian = u32_at(&source.record, 8, true) == BYTE_ORDER_MAGIC;
            if !self.big_endian && u32_at(&source.record, 8, false) != BYTE_ORDER_MAGIC {
                return Err(CaptureError::Malformed { offset: source.offset });
            }
        }
        let claimed = u32_at(&source.record, 4, self.big_endian);
        if claimed < 12 {
            return Err(CaptureError::Malformed { offset: source.offset });
        }
        source.fill_claimed(claimed)?;
        Ok(true)
    }

    /// Takes in what a block describes; the packet, if it is one.
    fn packet(&mut self, block: &[u8], offset: u64) -> Result<Option<Packet>, CaptureError> {
        let malformed = CaptureError::Malformed { offset };
        if u32_at(block, 0, self.big_endian) == OBSOLETE_PACKET {
            return self.obsolete_packet(block).map(Some).ok_or(malformed);
        }
        let parsed = if self.big_endian { parse_block_be(block) } else { parse_block_le(block) };
        let Ok((_, parsed)) = parsed else {
            // Only blocks that packets depend on have to be well-formed.
            let kind = u32_at(block, 0, self.big_endian);
            return if matches!(kind, 1 | 3 | 6 | SHB_MAGIC) { Err(malformed) } else { Ok(None) };
        };
        match parsed {
            Block::SectionHeader(_) => {
                self.interfaces.clear();
                Ok(None)
            }
            Block::InterfaceDescription(description) => {
                if self.interfaces.len() == MAX_INTERFACES {
                    return Err(CaptureError::TooManyInterfaces { offset });
                }
                let mut clock = Clock { resolution: 6, offset_s: 0 };
                for option in &description.options {
                    match (option.code, option.value()) {
                        (OptionCode::EndOfOpt, _) => break,
                        (OptionCode::IfTsresol, [resolution, ..]) => clock.resolution = *resolution,
                        (OptionCode::IfTsoffset, value) => {
                            if let Some(value) = value.first_chunk::<8>() {
                                clock.offset_s = if self.big_endian {
                                    i64::from_be_bytes(*value)
                                } else {
                                    i64::from_le_bytes(*value)
                                };
                            }
                        }
                        _ => {}
                    }
                }
                self.interfaces.push(Interface { link: description.linktype.0 as u16, clock });
                Ok(None)
            }
            Block::EnhancedPacket(packet) => {
                if packet.caplen as usize > packet.data.len() {
                    return Err(malformed);
                }
                Ok(Some(Packet {
                    interface: packet.if_id,
                    time: Some(u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low)),
                    captured: packet.caplen as usize,
                    original_len: packet.origlen,
                    at: 28,
                }))
            }
            // Padding cannot be told from captured bytes here, and is zeros as ours would be.
            Block::SimplePacket(packet) => Ok(Some(Packet {
                interface: 0,
                time: None,
                captured: packet.packet_data().len(),
                original_len: packet.origlen,
                at: 12,
            })),
            _ => Ok(None),
        }
    }

    fn obsolete_packet(&self, block: &[u8]) -> Option<Packet> {
        let interface = block.get(8..)?.first_chunk::<2>()?;
        let interface =
            if self.big_endian { u16::from_be_bytes(*interface) } else { u16::from_le_bytes(*interface) };
        let word = |at| u32_at(block, at, self.big_endian);
        let captured = word(20) as usize;
        // The block ends with its length again.
        (block.len() >= captured.checked_add(OBSOLETE_PACKET_HEADER + 4)?).then(|| Packet {
            interface: u32::from(interface),
            time: Some(u64::from(word(12)) << 32 | u64::from(word(16))),
            captured,
            original_len: word(24),
            at: OBSOLETE_PACKET_HEADER,
        })
    }
}
