//! The envelope of every value in the spool's file.
//!
//! A magic word, the kind, the number, the length and a checksum over all of it stand before the bytes: a
//! value that is damaged, cut, or in another's place is noticed before it is believed, and whole values can
//! be found again in a file whose structure is gone.

/// Begins every sealed value. Chance of meeting it in other bytes: one in 2^64 per offset.
pub(super) const MAGIC: [u8; 8] = *b"\xf7Weir\x00sp";
/// Bytes before the sealed ones: magic, kind, number, length, checksum.
pub(super) const OVERHEAD: usize = 8 + 1 + 8 + 4 + 4;

/// What a sealed value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// A batch's header, that waits for delivery.
    Header = b'H',
    /// A batch's body.
    Body = b'B',
    /// An epoch's record in the ledger.
    Epoch = b'E',
}

/// Puts bytes into their envelope.
pub(super) fn seal(kind: Kind, number: u64, bytes: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(OVERHEAD + bytes.len());
    sealed.extend_from_slice(&MAGIC);
    sealed.push(kind as u8);
    sealed.extend_from_slice(&number.to_le_bytes());
    sealed.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    let sum = checksum(&sealed, bytes);
    sealed.extend_from_slice(&sum.to_le_bytes());
    sealed.extend_from_slice(bytes);
    sealed
}

/// Takes them out; `None` where anything differs.
pub(super) fn open(kind: Kind, number: u64, sealed: &[u8]) -> Option<&[u8]> {
    let (envelope, bytes) = sealed.split_at_checked(OVERHEAD)?;
    let found = Envelope::read(envelope)?;
    (found.kind == kind && found.number == number && found.length == bytes.len() && found.fits(bytes))
        .then_some(bytes)
}

/// What stands before a value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Envelope {
    pub(super) kind: Kind,
    pub(super) number: u64,
    pub(super) length: usize,
    sum: u32,
}

impl Envelope {
    /// Reads an envelope of [`OVERHEAD`] bytes.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; OVERHEAD] = bytes.try_into().ok()?;
        let [magic @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = bytes;
        if *magic != MAGIC {
            return None;
        }
        let kind = match bytes[8] {
            b'H' => Kind::Header,
            b'B' => Kind::Body,
            b'E' => Kind::Epoch,
            _ => return None,
        };
        let number = u64::from_le_bytes(bytes[9..17].try_into().ok()?);
        let length = u32::from_le_bytes(bytes[17..21].try_into().ok()?) as usize;
        let sum = u32::from_le_bytes(bytes[21..25].try_into().ok()?);
        Some(Self { kind, number, length, sum })
    }

    /// Whether these are the bytes that were sealed.
    pub(super) fn fits(&self, bytes: &[u8]) -> bool {
        let mut envelope = Vec::with_capacity(OVERHEAD);
        envelope.extend_from_slice(&MAGIC);
        envelope.push(self.kind as u8);
        envelope.extend_from_slice(&self.number.to_le_bytes());
        envelope.extend_from_slice(&(self.length as u32).to_le_bytes());
        checksum(&envelope, bytes) == self.sum
    }
}

fn checksum(envelope: &[u8], bytes: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(envelope);
    sum.update(bytes);
    sum.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_opens_only_whole_and_in_its_own_place() {
        let sealed = seal(Kind::Body, 7, b"flows");
        assert_eq!(open(Kind::Body, 7, &sealed), Some(&b"flows"[..]));
        assert_eq!(open(Kind::Body, 8, &sealed), None);
        assert_eq!(open(Kind::Header, 7, &sealed), None);
        for end in 0..sealed.len() {
            assert_eq!(open(Kind::Body, 7, &sealed[..end]), None);
        }
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(Kind::Body, 7, &damaged), None, "bit {bit}");
        }
    }
}
