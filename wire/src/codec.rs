//! Batches to bytes and back, within [`crate::limits`].

use std::io::Read as _;

use prost::Message as _;
use thiserror::Error;

use crate::{Batch, limits};

/// zstd level: 3 halves the bytes of level 1 on flow records for a few microseconds a thousand.
const LEVEL: i32 = 3;

/// Why bytes are not a batch.
#[derive(Debug, Error)]
pub enum CodecError {
    #[error("the batch has {0} bytes, more than the {max} allowed", max = limits::MAX_COMPRESSED)]
    TooLarge(usize),
    #[error("the batch decompresses to more than the {max} bytes allowed", max = limits::MAX_DECOMPRESSED)]
    Bomb,
    #[error("the body is not zstd: {0}")]
    Zstd(std::io::Error),
    #[error("the body is not a batch: {0}")]
    Protobuf(#[from] prost::DecodeError),
}

/// Protobuf, then zstd with its checksum: a bit that flips on a disk or on the way is never a count.
pub fn encode(batch: &Batch) -> Result<Vec<u8>, CodecError> {
    let mut compressor = zstd::bulk::Compressor::new(LEVEL).map_err(CodecError::Zstd)?;
    compressor.include_checksum(true).map_err(CodecError::Zstd)?;
    let bytes = compressor.compress(&batch.encode_to_vec()).map_err(CodecError::Zstd)?;
    if bytes.len() > limits::MAX_COMPRESSED {
        return Err(CodecError::TooLarge(bytes.len()));
    }
    Ok(bytes)
}

/// The inverse of [`encode`], for bytes of a stranger: never allocates more than the limits allow.
pub fn decode(body: &[u8]) -> Result<Batch, CodecError> {
    if body.len() > limits::MAX_COMPRESSED {
        return Err(CodecError::TooLarge(body.len()));
    }
    let decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(CodecError::Zstd)?;
    let mut plain = Vec::new();
    decoder.take(limits::MAX_DECOMPRESSED as u64 + 1).read_to_end(&mut plain).map_err(CodecError::Zstd)?;
    if plain.len() > limits::MAX_DECOMPRESSED {
        return Err(CodecError::Bomb);
    }
    Ok(Batch::decode(plain.as_slice())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Flow, VERSION};

    fn batch() -> Batch {
        Batch {
            version: VERSION,
            generation: vec![7; 16],
            epoch: 3,
            parts: 1,
            flows: vec![Flow { ip_version: 4, packets: 2, octets: 120, ..Flow::default() }],
            ..Batch::default()
        }
    }

    #[test]
    fn a_batch_survives_the_wire() {
        let bytes = encode(&batch()).expect("a small batch fits");
        assert_eq!(decode(&bytes).expect("what was encoded decodes"), batch());
    }

    #[test]
    fn a_truncated_batch_is_an_error() {
        let bytes = encode(&batch()).expect("a small batch fits");
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end]).is_err(), "{end} of {} bytes", bytes.len());
        }
    }

    #[test]
    fn a_flipped_bit_is_an_error_or_without_meaning() {
        let bytes = encode(&batch()).expect("a small batch fits");
        for place in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[place / 8] ^= 1 << (place % 8);
            let read = decode(&flipped).unwrap_or_else(|_| batch());
            assert_eq!(read, batch(), "bit {place}");
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        let zeros = vec![0_u8; limits::MAX_DECOMPRESSED + 1];
        let bytes = zstd::bulk::compress(&zeros, 1).expect("zeros compress");
        assert!(matches!(decode(&bytes), Err(CodecError::Bomb)));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_decode_or_fail_without_panic(bytes in proptest::collection::vec(0_u8.., 0..4096)) {
            let _ = decode(&bytes);
        }
    }
}
