//! Text that strangers wrote, made fit to be stored, compared and shown (I6).
//!
//! Called by every parser of `observe`: no name, header or description leaves it any other way. What must stay
//! true of what comes out: valid UTF-8, at most the given octets, and no character that moves a cursor, colours a
//! terminal, reorders a line or hides itself. Those are written out as `\u{1b}`, so that a name that holds them
//! stays different from one that does not; octets that are no UTF-8 become U+FFFD.

use std::fmt;
use std::hash::{Hash, Hasher};

use serde::{Serialize, Serializer};
pub use weir_wire::text::is_hostile;

/// Octets of a single text: user agents are the longest that mean something.
pub const MAX_TEXT: usize = 512;
/// Octets of a name: 255 on the wire, of which a few may have to be written out.
pub const MAX_NAME: usize = 1024;

/// What stands at the end of a text that was cut.
const CUT: &str = "…";

/// Cleans `bytes`, at most [`MAX_TEXT`] octets of the result.
#[must_use]
pub fn clean(bytes: &[u8]) -> String {
    let mut text = Bounded::new(MAX_TEXT);
    text.push_bytes(bytes, |_| false);
    text.finish()
}

/// Octets in hexadecimal.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect()
}

/// A text under construction that never grows over its bound.
struct Bounded {
    text: String,
    limit: usize,
    cut: bool,
}

impl Bounded {
    fn new(limit: usize) -> Self {
        Self { text: String::new(), limit: limit - CUT.len(), cut: false }
    }

    fn push_bytes(&mut self, bytes: &[u8], escaped: impl Fn(char) -> bool) {
        // No character of the result is shorter than its octets, but for those that are no UTF-8.
        let bytes = &bytes[..bytes.len().min(self.limit + CUT.len())];
        for chunk in bytes.utf8_chunks() {
            for character in chunk.valid().chars() {
                if escaped(character) {
                    self.push('\\');
                }
                if is_hostile(character) {
                    character.escape_unicode().for_each(|character| self.push(character));
                } else {
                    self.push(character);
                }
            }
            if !chunk.invalid().is_empty() {
                self.push(char::REPLACEMENT_CHARACTER);
            }
        }
    }

    fn push(&mut self, character: char) {
        self.cut |= self.text.len() + character.len_utf8() > self.limit;
        if !self.cut {
            self.text.push(character);
        }
    }

    fn finish(mut self) -> String {
        if self.cut {
            self.text.push_str(CUT);
        }
        self.text
    }
}

/// A domain name, cleaned, as its sender wrote it: compared without regard to ASCII case (RFC 4343).
///
/// The root is `.`; other names have no final dot. A dot or backslash inside a label has a backslash before it
/// (RFC 1035, 5.1).
#[derive(Clone, Debug, Default)]
pub struct Name(Box<str>);

impl Name {
    /// Of the labels of a name, without the empty one of the root.
    pub fn from_labels<'a>(labels: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut text = Bounded::new(MAX_NAME);
        for (place, label) in labels.enumerate() {
            if place > 0 {
                text.push('.');
            }
            text.push_bytes(label, |character| matches!(character, '.' | '\\'));
        }
        if text.text.is_empty() {
            text.push('.');
        }
        Self(text.finish().into())
    }

    /// Of a name in dotted form, as TLS and HTTP carry it. A final dot is dropped.
    #[must_use]
    pub fn from_dotted(bytes: &[u8]) -> Self {
        let mut text = Bounded::new(MAX_NAME);
        text.push_bytes(bytes.strip_suffix(b".").unwrap_or(bytes), |_| false);
        Self(text.finish().into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[must_use]
    pub fn is_root(&self) -> bool {
        &*self.0 == "."
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Name {}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.bytes().for_each(|byte| state.write_u8(byte.to_ascii_lowercase()));
        state.write_u8(0xff);
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher as _;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hostile_text_is_written_out() {
        // I6: terminal escapes, carriage returns, bidi overrides, zero widths, invalid UTF-8, C1 controls.
        assert_eq!(clean(b"\x1b]0;owned\x07\r\n"), "\\u{1b}]0;owned\\u{7}\\u{d}\\u{a}");
        assert_eq!(clean("exe\u{202e}gpj\u{200b}\u{9b}".as_bytes()), "exe\\u{202e}gpj\\u{200b}\\u{9b}");
        assert_eq!(clean(b"caf\xc3\xa9 \xff\xfe"), "caf\u{e9} \u{fffd}\u{fffd}");
        assert_eq!(clean("\u{1f389} printer".as_bytes()), "\u{1f389} printer");
        assert_eq!(clean(&[b'a'; 5000]).len(), MAX_TEXT);
        assert!(clean(&[b'a'; 5000]).ends_with("a\u{2026}"));
    }

    #[test]
    fn names_keep_their_labels_and_compare_without_case() {
        let name = |labels: &[&str]| Name::from_labels(labels.iter().map(|label| label.as_bytes()));
        assert_eq!(name(&["WWW", "Example", "org"]), Name::from_dotted(b"www.example.ORG."));
        assert_eq!(name(&["www", "example"]).as_str(), "www.example");
        assert_ne!(name(&["a.b", "c"]), name(&["a", "b", "c"]));
        assert_eq!(name(&["a.b", "c"]).as_str(), "a\\.b.c");
        assert!(name(&[]).is_root());
        let hasher = std::hash::RandomState::new();
        assert_eq!(hasher.hash_one(name(&["A", "b"])), hasher.hash_one(name(&["a", "B"])));
    }

    proptest! {
        #[test]
        fn whatever_comes_in_is_bounded_and_harmless(
            labels in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..600), 0..40),
        ) {
            let name = Name::from_labels(labels.iter().map(Vec::as_slice));
            let texts = [name.to_string(), clean(&labels.concat()), Name::from_dotted(&labels.concat()).to_string()];
            prop_assert!(texts.iter().all(|text| !text.chars().any(is_hostile)));
            prop_assert!(texts[0].len() <= MAX_NAME && texts[1].len() <= MAX_TEXT && texts[2].len() <= MAX_NAME);
        }

        #[test]
        fn characters_of_every_kind_are_harmless_when_cleaned(text in any::<String>()) {
            prop_assert!(!clean(text.as_bytes()).chars().any(is_hostile));
        }
    }
}
