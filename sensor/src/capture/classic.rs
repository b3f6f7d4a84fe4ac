//! Classic pcap: a file header with byte order, time unit and link type, then records.

use std::io::Read;

use pcap_parser::{parse_pcap_frame, parse_pcap_frame_be, parse_pcap_frame_modified, parse_pcap_header};

use super::{CaptureError, Frame, LinkType, Source, u32_at};

/// Bytes of the file header.
const FILE_HEADER: usize = 24;

/// What the file header says about every record.
pub(super) struct Header {
    big_endian: bool,
    /// Kuznetsov's variant: a longer record header.
    modified: bool,
    /// Nanoseconds of one unit of the records' sub-second field.
    unit_ns: i64,
    link: LinkType,
}

impl Header {
    /// Reads the rest of the file header; the source holds its first four bytes.
    pub(super) fn read<R: Read>(source: &mut Source<R>) -> Result<Self, CaptureError> {
        // Bytes of another format are called that, however few there are.
        const MAGICS: [u32; 5] = [0xa1b2_c3d4, 0xa1b2_3c4d, 0xa1b2_cd34, 0xd4c3_b2a1, 0x4d3c_b2a1];
        if !MAGICS.contains(&u32_at(&source.record, 0, false)) {
            return Err(CaptureError::Unrecognised);
        }
        source.fill(FILE_HEADER)?;
        let Ok((_, header)) = parse_pcap_header(&source.record) else {
            return Err(CaptureError::Unrecognised);
        };
        // The upper 16 bits tell about frame check sequences and classes, not about the link.
        let link = LinkType::new(header.network.0.cast_unsigned() & 0xffff)?;
        Ok(Self {
            big_endian: header.is_bigendian(),
            modified: header.is_modified_format(),
            unit_ns: if header.is_nanosecond_precision() { 1 } else { 1_000 },
            link,
        })
    }

    pub(super) fn next_frame<'a, R: Read>(
        &mut self,
        source: &'a mut Source<R>,
    ) -> Result<Option<Frame<'a>>, CaptureError> {
        let header_len = if self.modified { 24 } else { 16 };
        if !source.start(header_len)? {
            return Ok(None);
        }
        let claimed = u32_at(&source.record, 8, self.big_endian);
        source.fill_claimed(claimed.saturating_add(header_len as u32))?;
        let record = match (self.big_endian, self.modified) {
            (true, _) => parse_pcap_frame_be(&source.record),
            (false, false) => parse_pcap_frame(&source.record),
            (false, true) => parse_pcap_frame_modified(&source.record),
        };
        let Ok((_, record)) = record else { return Err(CaptureError::Malformed { offset: source.offset }) };
        Ok(Some(Frame {
            time_ns: i64::from(record.ts_sec) * 1_000_000_000 + i64::from(record.ts_usec) * self.unit_ns,
            original_len: record.origlen.max(record.caplen),
            link: self.link,
            bytes: record.data,
        }))
    }
}
