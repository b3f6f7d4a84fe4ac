//! Continuation tokens: where a page ended, of which question, signed.
//!
//! A token holds the window as it was resolved for the first page and a hash of the other parameters, so
//! the pages of one question belong together and a token cannot be carried to another. It is opaque to
//! clients and its signature is checked before anything in it is believed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::window::Window;
use crate::store::flows::Position;

const VERSION: u8 = 1;
const HASH: usize = 16;
const TAG: usize = 16;
/// version, hash, from, to, window start, sensor, flow, tag
const LENGTH: usize = 1 + HASH + 8 + 8 + 8 + 4 + 8 + TAG;

/// Identifies a question: its parameters without those that only choose a page of it.
pub fn question(given: &[(String, String)]) -> [u8; HASH] {
    let mut hash = Sha256::new();
    for (name, value) in given.iter().filter(|(name, _)| name != "limit" && name != "continuation") {
        for part in [name, value] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
    }
    let mut short = [0; HASH];
    short.copy_from_slice(&hash.finalize()[..HASH]);
    short
}

/// The token for the page after `position`.
pub fn seal(key: &[u8; 32], question: [u8; HASH], window: Window, position: Position) -> String {
    let mut bytes = Vec::with_capacity(LENGTH);
    bytes.push(VERSION);
    bytes.extend_from_slice(&question);
    bytes.extend_from_slice(&window.from.as_microsecond().to_be_bytes());
    bytes.extend_from_slice(&window.to.as_microsecond().to_be_bytes());
    bytes.extend_from_slice(&position.window_start_us.to_be_bytes());
    bytes.extend_from_slice(&position.sensor_id.to_be_bytes());
    bytes.extend_from_slice(&position.flow_id.to_be_bytes());
    let tag = mac(key, &bytes).finalize().into_bytes();
    bytes.extend_from_slice(&tag[..TAG]);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// What a token says, if it is ours and of this question.
pub fn open(key: &[u8; 32], question: [u8; HASH], token: &str) -> Option<(Window, Position)> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    if bytes.len() != LENGTH {
        return None;
    }
    let (payload, tag) = bytes.split_at(LENGTH - TAG);
    mac(key, payload).verify_truncated_left(tag).ok()?;
    let (version, payload) = payload.split_first()?;
    let (hash, payload) = payload.split_at(HASH);
    if *version != VERSION || hash != question {
        return None;
    }
    let number = |at: usize| payload.get(at..at + 8)?.try_into().ok().map(i64::from_be_bytes);
    let window = Window {
        from: Timestamp::from_microsecond(number(0)?).ok()?,
        to: Timestamp::from_microsecond(number(8)?).ok()?,
    };
    let position = Position {
        window_start_us: number(16)?,
        sensor_id: i32::from_be_bytes(payload.get(24..28)?.try_into().ok()?),
        flow_id: number(28)?,
    };
    Some((window, position))
}

/// The token for the page after `position` of a list that is no list of flows; `list` tells lists apart.
pub fn seal_position(key: &[u8; 32], list: &str, question: [u8; HASH], position: &[u8]) -> String {
    let mut bytes = position.to_vec();
    let tag = position_mac(key, list, question, position).finalize().into_bytes();
    bytes.extend_from_slice(&tag[..TAG]);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The position that a token of [`seal_position`] holds.
pub fn open_position<const N: usize>(
    key: &[u8; 32],
    list: &str,
    question: [u8; HASH],
    token: &str,
) -> Option<[u8; N]> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (position, tag) = bytes.split_at_checked(N)?;
    if tag.len() != TAG {
        return None;
    }
    position_mac(key, list, question, position).verify_truncated_left(tag).ok()?;
    position.try_into().ok()
}

fn position_mac(key: &[u8; 32], list: &str, question: [u8; HASH], position: &[u8]) -> Hmac<Sha256> {
    let mut mac = mac(key, b"weir list position, version 1");
    for part in [list.as_bytes(), &question, position] {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac
}

fn mac(key: &[u8; 32], bytes: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
    mac.update(bytes);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn sample() -> (Window, Position) {
        let window = Window {
            from: "2026-01-01T00:00:00Z".parse().expect("a time"),
            to: "2026-01-01T01:00:00.000001Z".parse().expect("a time"),
        };
        (window, Position { window_start_us: 1_767_225_600_123_456, sensor_id: 3, flow_id: i64::MAX })
    }

    #[test]
    fn a_token_opens_to_what_was_sealed() {
        let (window, position) = sample();
        let token = seal(&KEY, [1; HASH], window, position);
        assert_eq!(open(&KEY, [1; HASH], &token), Some((window, position)));
    }

    /// A3: a token that was changed, or is of another question or key, is no token.
    #[test]
    fn a_token_of_another_key_or_question_or_with_a_changed_bit_does_not_open() {
        let (window, position) = sample();
        let token = seal(&KEY, [1; HASH], window, position);
        assert_eq!(open(&[8; 32], [1; HASH], &token), None);
        assert_eq!(open(&KEY, [2; HASH], &token), None);
        for at in 0..LENGTH {
            let mut bytes = URL_SAFE_NO_PAD.decode(&token).expect("base64url");
            bytes[at] ^= 1;
            assert_eq!(open(&KEY, [1; HASH], &URL_SAFE_NO_PAD.encode(&bytes)), None, "byte {at}");
        }
        assert_eq!(open(&KEY, [1; HASH], ""), None);
    }

    /// A3: a position belongs to its list, its question and its key, to the bit.
    #[test]
    fn a3_a_position_opens_where_it_was_sealed_and_nowhere_else() {
        let token = seal_position(&KEY, "audit", [1; HASH], &7_i64.to_be_bytes());
        assert_eq!(open_position(&KEY, "audit", [1; HASH], &token), Some(7_i64.to_be_bytes()));
        assert_eq!(open_position::<8>(&KEY, "users", [1; HASH], &token), None);
        assert_eq!(open_position::<8>(&KEY, "audit", [2; HASH], &token), None);
        assert_eq!(open_position::<8>(&[8; 32], "audit", [1; HASH], &token), None);
        assert_eq!(open_position::<16>(&KEY, "audit", [1; HASH], &token), None);
        assert_eq!(open_position::<8>(&KEY, "audit", [1; HASH], ""), None);
        let (window, position) = sample();
        let flows = seal(&KEY, [1; HASH], window, position);
        assert_eq!(open_position::<37>(&KEY, "audit", [1; HASH], &flows), None);
    }

    #[test]
    fn the_page_size_is_no_part_of_the_question() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let one = question(&[pair("limit", "1"), pair("port", "80")]);
        assert_eq!(one, question(&[pair("continuation", "x"), pair("port", "80")]));
        assert_ne!(one, question(&[pair("port", "81")]));
        assert_ne!(question(&[pair("ab", "c")]), question(&[pair("a", "bc")]));
    }
}
