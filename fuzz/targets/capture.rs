//! The reader of captures.
//!
//! It comes to an end; frames hold no more bytes than the file; the same file in small pieces gives the same
//! frames and the same error.
#![no_main]

use std::io::{self, Read};

use libfuzzer_sys::fuzz_target;
use weir_sensor::capture::{Capture, Carried, LinkType};

/// A frame, and how the file ended.
type Frames = (Vec<(i64, u32, LinkType, Vec<u8>)>, Option<String>);

/// Gives a file in pieces of a few bytes.
struct Pieces<'a>(&'a [u8]);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let octets = buffer.len().min(self.0.len()).min(3);
        let (piece, rest) = self.0.split_at(octets);
        buffer[..octets].copy_from_slice(piece);
        self.0 = rest;
        Ok(octets)
    }
}

fuzz_target!(|input: &[u8]| {
    let whole = read(input);
    assert!(whole.0.iter().map(|frame| frame.3.len()).sum::<usize>() <= input.len());
    if input.len() < 4096 {
        assert_eq!(read(Pieces(input)), whole, "pieces give what the whole gives");
    }
});

fn read(source: impl Read) -> Frames {
    let mut frames = Vec::new();
    let mut capture = match Capture::open(source) {
        Ok(capture) => capture,
        Err(error) => return (frames, Some(error.to_string())),
    };
    loop {
        match capture.next_frame() {
            Ok(Some(frame)) => {
                assert!(frame.original_len as usize >= frame.bytes.len(), "the wire had what was captured");
                let carried = frame.link.carried(frame.bytes);
                if let Carried::Ethernet(bytes) | Carried::Ip(bytes) | Carried::Payload(_, bytes) = carried {
                    assert!(bytes.len() + frame.link.pseudo_header() as usize == frame.bytes.len());
                }
                frames.push((frame.time_ns, frame.original_len, frame.link, frame.bytes.to_vec()));
            }
            Ok(None) => return (frames, None),
            Err(error) => return (frames, Some(error.to_string())),
        }
    }
}
