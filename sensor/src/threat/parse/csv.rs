//! Comma-separated values: one column is the list.

use super::super::entry::EntryError;
use super::{ParseError, Reading};
use crate::config::ListColumn;

pub(super) fn read(
    bytes: &[u8],
    column: Option<&ListColumn>,
    reading: &mut Reading,
) -> Result<(), ParseError> {
    let mut reader = ::csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .comment(Some(b'#'))
        .trim(::csv::Trim::All)
        .from_reader(bytes);
    let mut record = ::csv::ByteRecord::new();
    let mut index = match column {
        Some(ListColumn::Number(number)) => Some(number.saturating_sub(1)),
        Some(ListColumn::Name(_)) => None,
        None => Some(0),
    };
    // Reading from memory cannot fail, and lengths may differ: an error is none of the list's lines.
    while reader.read_byte_record(&mut record).unwrap_or(false) {
        // The record's own position is before the comments that were skipped.
        let after = reader.position();
        let is_cut = after.byte() == bytes.len() as u64 && bytes.last() != Some(&b'\n');
        let line = if is_cut { after.line() } else { after.line().saturating_sub(1) };
        let Some(index) = index else {
            let Some(ListColumn::Name(name)) = column else { continue };
            let found = record.iter().position(|field| field.eq_ignore_ascii_case(name.as_bytes()));
            index = Some(found.ok_or_else(|| ParseError::NoColumn(name.clone()))?);
            continue;
        };
        match record.get(index).map(std::str::from_utf8) {
            Some(Ok(field)) => reading.word(line, field)?,
            Some(Err(_)) => reading.refuse(line, "", "not UTF-8"),
            None if record.iter().all(<[u8]>::is_empty) => {}
            None => reading.wrong(line, "", EntryError::Neither),
        }
    }
    Ok(())
}
