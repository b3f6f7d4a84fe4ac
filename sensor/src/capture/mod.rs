//! Capture files as a stream of frames: classic pcap and pcapng, in both byte orders.
//!
//! Called by `replay`. What must stay true: a frame is yielded with every byte the file holds of it (a
//! header's snap length cuts nothing), memory is bounded whatever lengths a file claims, and a file that
//! ends in the middle of a record yields all frames before it and then says where it was cut.
//!
//! Records are framed here, so that each is read whole and bounded, and decoded by `pcap-parser`.

mod classic;
mod link;
mod ng;
#[cfg(test)]
mod tests;

use std::io::{self, BufReader, Read};

use thiserror::Error;

pub use link::{Carried, LinkType};

/// Largest record or block that is read. The largest frame that can be replayed has 65,549 bytes; larger
/// ones are still read so that they can be counted as refused, and pcapng keeps secrets and names in
/// blocks of some megabytes.
const MAX_RECORD: u32 = 16 << 20;

/// Interfaces that one pcapng section may describe; a merged capture of a large switch has hundreds.
const MAX_INTERFACES: usize = 65_536;

/// One captured frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Nanoseconds since the Unix epoch.
    pub time_ns: i64,
    /// Length on the wire; at least the number of captured bytes.
    pub original_len: u32,
    pub link: LinkType,
    /// The captured bytes.
    pub bytes: &'a [u8],
}

/// Why a capture cannot be read, or not further.
#[derive(Debug, Error)]
pub enum CaptureError {
    #[error("reading at byte {offset} failed: {source}")]
    Read { offset: u64, source: io::Error },
    #[error("this is neither a pcap nor a pcapng file")]
    Unrecognised,
    #[error("the file is empty")]
    Empty,
    #[error("the file is cut short in the record at byte {offset}; the frames before it were counted")]
    Truncated { offset: u64 },
    #[error(
        "the record at byte {offset} claims {claimed} bytes, more than the {MAX_RECORD} that any capture needs; \
         the frames before it were counted"
    )]
    RecordTooLarge { offset: u64, claimed: u32 },
    #[error("the block at byte {offset} is malformed; the frames before it were counted")]
    Malformed { offset: u64 },
    #[error(
        "the packet at byte {offset} was captured on interface {interface}, which the file does not describe; \
         the frames before it were counted"
    )]
    UnknownInterface { offset: u64, interface: u32 },
    #[error(
        "link type {0} cannot be replayed; Ethernet (1), raw IP (12, 14, 101, 228, 229), Linux cooked (113, 276) \
         and loopback (0, 108) can"
    )]
    LinkType(u32),
    #[error("the section at byte {offset} describes more than {MAX_INTERFACES} interfaces")]
    TooManyInterfaces { offset: u64 },
}

/// A capture being read.
pub struct Capture<R: Read> {
    format: Format,
    source: Source<R>,
}

enum Format {
    Classic(classic::Header),
    Ng(ng::Section),
}

impl<R: Read> Capture<R> {
    /// Reads the file's header.
    pub fn open(source: R) -> Result<Self, CaptureError> {
        let mut source =
            Source { inner: BufReader::with_capacity(256 << 10, source), record: Vec::new(), offset: 0 };
        match source.start(4) {
            Ok(true) => {}
            Ok(false) => return Err(CaptureError::Empty),
            Err(CaptureError::Truncated { .. }) => return Err(CaptureError::Unrecognised),
            Err(error) => return Err(error),
        }
        let format = if ng::is_section_header(&source.record) {
            Format::Ng(ng::Section::default())
        } else {
            Format::Classic(classic::Header::read(&mut source)?)
        };
        Ok(Self { format, source })
    }

    /// The next frame; `None` at the end of the file. After an error there is nothing more to read.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, CaptureError> {
        match &mut self.format {
            Format::Classic(header) => header.next_frame(&mut self.source),
            Format::Ng(section) => section.next_frame(&mut self.source),
        }
    }
}

/// The file, one record at a time.
struct Source<R: Read> {
    inner: BufReader<R>,
    /// The record being read, from its first byte.
    record: Vec<u8>,
    /// Where that record starts in the file.
    offset: u64,
}

impl<R: Read> Source<R> {
    /// Starts a record and reads its first `len` bytes. `false` where the file ends before it.
    fn start(&mut self, len: usize) -> Result<bool, CaptureError> {
        self.offset += self.record.len() as u64;
        self.record.clear();
        match self.fill(len) {
            Err(CaptureError::Truncated { .. }) if self.record.is_empty() => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// Reads on until the record has `len` bytes.
    fn fill(&mut self, len: usize) -> Result<(), CaptureError> {
        let missing = len.saturating_sub(self.record.len());
        // `take` and `read_to_end` grow the buffer with what is there, not with what is claimed.
        let read = (&mut self.inner).take(missing as u64).read_to_end(&mut self.record);
        match read {
            Err(source) => Err(CaptureError::Read { offset: self.offset, source }),
            Ok(read) if read < missing => Err(CaptureError::Truncated { offset: self.offset }),
            Ok(_) => Ok(()),
        }
    }

    /// Reads on until the record has the `claimed` bytes, if that many can be true.
    fn fill_claimed(&mut self, claimed: u32) -> Result<(), CaptureError> {
        if claimed > MAX_RECORD {
            return Err(CaptureError::RecordTooLarge { offset: self.offset, claimed });
        }
        self.fill(claimed as usize)
    }
}

/// Four bytes of `bytes` at `at`, in the file's byte order; 0 past the end, which callers have excluded.
fn u32_at(bytes: &[u8], at: usize, big_endian: bool) -> u32 {
    let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk::<4>) else { return 0 };
    if big_endian { u32::from_be_bytes(*word) } else { u32::from_le_bytes(*word) }
}
