//! A list's bytes to its entries. The bytes are a stranger's: whatever cannot be read is counted and, within a
//! bound, shown with its line; a list that is not of its format at all is refused as a whole.

mod csv;
mod plain;
mod stix;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::entry::{Domain, Entry, EntryError, Prefix, cover};
use crate::config::{List, ListColumn, ListFormat};

/// Errors that are kept with their lines.
pub const SHOWN_ERRORS: usize = 20;
/// Octets of a line that an error shows.
const SHOWN_OCTETS: usize = 80;

/// How a list is to be read.
#[derive(Clone, Debug)]
pub struct Shape {
    pub format: ListFormat,
    pub column: Option<ListColumn>,
    /// Entries, and prefixes that ranges become.
    pub max_entries: usize,
}

impl Shape {
    /// As the configuration has it.
    #[must_use]
    pub fn of(list: &List) -> Self {
        Self { format: list.format, column: list.column.clone(), max_entries: list.max_entries }
    }
}

/// What a list holds.
#[derive(Debug, Default)]
pub struct Parsed {
    pub prefixes: Vec<Prefix>,
    pub domains: Vec<Domain>,
    pub errors: LineErrors,
}

/// Lines that could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineErrors {
    pub count: u64,
    /// The first of them.
    pub shown: Vec<LineError>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineError {
    /// From 1; of a STIX bundle the number of the object.
    pub line: u64,
    /// Cut short, and without control characters.
    pub text: String,
    pub reason: String,
}

/// Why a list is refused as a whole.
#[derive(Debug, Error)]
pub enum ParseError {
    #[error("it has more than {0} entries (`max_entries`)")]
    TooMany(usize),
    #[error("nothing in it is an address, a network or a domain ({} lines are not; line {}: {})", .0.count,
        .0.shown.first().map_or(0, |error| error.line),
        .0.shown.first().map_or("", |error| error.text.as_str()))]
    Nothing(LineErrors),
    #[error("of its lines {} can be read and {errors} cannot: is `format` right?", .entries)]
    Mostly { entries: usize, errors: u64 },
    #[error("it has no column `{0}`")]
    NoColumn(String),
    #[error("it is not a STIX bundle: {0}")]
    Stix(String),
}

/// Reads a list.
pub fn parse(bytes: &[u8], shape: &Shape) -> Result<Parsed, ParseError> {
    let mut reading = Reading { parsed: Parsed::default(), max_entries: shape.max_entries };
    match shape.format {
        ListFormat::Plain => plain::read(bytes, &mut reading)?,
        ListFormat::Csv => csv::read(bytes, shape.column.as_ref(), &mut reading)?,
        ListFormat::Stix => stix::read(bytes, &mut reading)?,
    }
    let Parsed { mut prefixes, mut domains, errors } = reading.parsed;
    let entries = prefixes.len() + domains.len();
    if errors.count > 0 && entries == 0 {
        return Err(ParseError::Nothing(errors));
    }
    if errors.count > entries as u64 {
        return Err(ParseError::Mostly { entries, errors: errors.count });
    }
    prefixes.sort_unstable();
    prefixes.dedup();
    domains.sort_unstable();
    domains.dedup();
    Ok(Parsed { prefixes, domains, errors })
}

/// A list being read.
struct Reading {
    parsed: Parsed,
    max_entries: usize,
}

impl Reading {
    fn add(&mut self, entry: Entry) -> Result<(), ParseError> {
        let Parsed { prefixes, domains, .. } = &mut self.parsed;
        match entry {
            Entry::Network(prefix) => prefixes.push(prefix),
            Entry::Range(first, last) => cover(first, last, |prefix| prefixes.push(prefix)),
            Entry::Domain(domain) => domains.push(domain),
        }
        if prefixes.len() + domains.len() > self.max_entries {
            return Err(ParseError::TooMany(self.max_entries));
        }
        Ok(())
    }

    /// One word that should be an entry.
    fn word(&mut self, line: u64, word: &str) -> Result<(), ParseError> {
        match Entry::parse(word) {
            Ok(entry) => self.add(entry),
            Err(error) => {
                self.wrong(line, word, error);
                Ok(())
            }
        }
    }

    fn wrong(&mut self, line: u64, text: &str, reason: EntryError) {
        self.refuse(line, text, &reason.to_string());
    }

    fn refuse(&mut self, line: u64, text: &str, reason: &str) {
        let errors = &mut self.parsed.errors;
        errors.count += 1;
        if errors.shown.len() < SHOWN_ERRORS {
            errors.shown.push(LineError { line, text: shown(text), reason: reason.to_owned() });
        }
    }
}

/// Safe to print: no control characters, no end that is out of sight.
fn shown(text: &str) -> String {
    let safe = |character: char| if character.is_control() { '\u{fffd}' } else { character };
    let mut shown: String = text.chars().take(SHOWN_OCTETS).map(safe).collect();
    if text.chars().nth(SHOWN_OCTETS).is_some() {
        shown.push('\u{2026}');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: ListFormat, column: Option<ListColumn>, text: &[u8]) -> Result<Parsed, ParseError> {
        parse(text, &Shape { format, column, max_entries: 1000 })
    }

    fn entries(parsed: &Parsed) -> String {
        let prefixes = parsed.prefixes.iter().map(ToString::to_string);
        let domains = parsed.domains.iter().map(|domain| format!("{}:{:?}", domain.name, domain.cover));
        prefixes.chain(domains).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn plain_lists_of_every_habit_are_read() {
        let text = b"# a comment\r\n\n; another\n// and one\n192.0.2.0/24 ; SBL1\n198.51.100.1\t7\n\
            198.51.100.1\n203.0.113.4 - 203.0.113.7 # a range\n0.0.0.0 ads.example.org www.ads.example.org\n\
            127.0.0.1 localhost\n||track.example.net^\nBAD.example.com # x\n*.evil.example\n2001:db8::/48\n";
        let parsed = read(ListFormat::Plain, None, text).expect("it is read");
        assert_eq!(parsed.errors, LineErrors::default());
        assert_eq!(
            entries(&parsed),
            "192.0.2.0/24 198.51.100.1/32 203.0.113.4/30 2001:db8::/48 ads.example.org:Name \
             bad.example.com:Name evil.example:Below track.example.net:Both www.ads.example.org:Name"
        );
    }

    #[test]
    fn what_cannot_be_read_is_counted_and_shown_with_its_line() {
        let mut text = b"192.0.2.1\n\xff\xfe\n192.0.2.2\n\x1b[31mred\n192.0.2.3\n192.0.2.4\n".to_vec();
        let parsed = read(ListFormat::Plain, None, &text).expect("it is read");
        assert_eq!(parsed.prefixes.len(), 4);
        let lines: Vec<u64> = parsed.errors.shown.iter().map(|error| error.line).collect();
        assert_eq!((parsed.errors.count, lines), (2, vec![2, 4]));
        assert!(!parsed.errors.shown[1].text.contains('\x1b'), "{:?}", parsed.errors.shown);
        for place in 0..100 {
            text.extend(format!("10.0.0.{place}\n{}\n", "x".repeat(500)).bytes());
        }
        let parsed = read(ListFormat::Plain, None, &text).expect("it is read");
        assert_eq!((parsed.errors.count, parsed.errors.shown.len()), (102, SHOWN_ERRORS));
        assert!(parsed.errors.shown.iter().all(|error| error.text.len() < 100));
    }

    #[test]
    fn a_page_of_something_else_is_refused() {
        let page = b"<!DOCTYPE html>\n<html>\n<body>Not found</body>\n</html>\n";
        let error = read(ListFormat::Plain, None, page).expect_err("no list").to_string();
        assert!(error.contains("4 lines") && error.contains("<!DOCTYPE"), "{error}");
        let mostly = b"192.0.2.1\n<a>\n<b>\n";
        assert!(matches!(
            read(ListFormat::Plain, None, mostly),
            Err(ParseError::Mostly { entries: 1, errors: 2 })
        ));
        let many = (0..1001).map(|place| format!("10.0.{}.{}\n", place / 256, place % 256));
        let many = many.collect::<Vec<_>>().concat();
        assert!(matches!(read(ListFormat::Plain, None, many.as_bytes()), Err(ParseError::TooMany(1000))));
        assert_eq!(entries(&read(ListFormat::Plain, None, b"").expect("an empty list is a list")), "");
    }

    #[test]
    fn csv_is_read_by_name_or_number_of_the_column() {
        let named =
            b"first_seen,\"dst ip\",port\n2024,192.0.2.1,80\n2024,\"198.51.100.0/24\",80\n# end\nx,y,z\n";
        let name = Some(ListColumn::Name("dst ip".to_owned()));
        let parsed = read(ListFormat::Csv, name, named).expect("it is read");
        assert_eq!(entries(&parsed), "192.0.2.1/32 198.51.100.0/24");
        assert_eq!((parsed.errors.count, parsed.errors.shown[0].line), (1, 5));
        let numbered =
            b"# \"seen\",\"ip\"\n\"2024\",\"192.0.2.9:443\"\n\"2024\"\n\"2024\",\"bad.example.org\"\n";
        let parsed = read(ListFormat::Csv, Some(ListColumn::Number(2)), numbered).expect("it is read");
        assert_eq!(entries(&parsed), "192.0.2.9/32 bad.example.org:Name");
        assert_eq!((parsed.errors.count, parsed.errors.shown[0].line), (1, 3));
        let missing = Some(ListColumn::Name("nope".to_owned()));
        assert!(matches!(read(ListFormat::Csv, missing, named), Err(ParseError::NoColumn(_))));
    }

    #[test]
    fn indicators_of_a_stix_bundle_are_read() {
        let bundle = br#"{"type":"bundle","id":"bundle--1","objects":[
            {"type":"identity","name":"x"},
            {"type":"indicator","pattern_type":"stix","pattern":"[ipv4-addr:value = '192.0.2.1']"},
            {"type":"indicator","pattern":"[domain-name:value='bad.example.org' OR ipv6-addr:value = '2001:db8::/64']"},
            {"type":"indicator","pattern":"[ipv4-addr:value = '192.0.2.3']","revoked":true},
            {"type":"indicator","pattern":"[ipv4-addr:value = '192.0.2.4']","valid_until":"2001-01-01T00:00:00Z"},
            {"type":"indicator","pattern":"[ipv4-addr:value = '192.0.2.5' AND ipv4-addr:value = '192.0.2.6']"},
            {"type":"indicator","pattern":"[file:hashes.MD5 = 'x']"},
            {"type":"indicator","pattern":"[ipv4-addr:value ISSUBSET '198.51.100.0/24']"},
            {"type":"indicator","pattern":7}
        ]}"#;
        let parsed = read(ListFormat::Stix, None, bundle).expect("it is read");
        assert_eq!(entries(&parsed), "192.0.2.1/32 198.51.100.0/24 2001:db8::/64 bad.example.org:Name");
        let lines: Vec<u64> = parsed.errors.shown.iter().map(|error| error.line).collect();
        assert_eq!((parsed.errors.count, lines), (3, vec![6, 7, 9]));
        assert!(matches!(read(ListFormat::Stix, None, b"{\"type\":\"x\"}"), Err(ParseError::Stix(_))));
        assert!(matches!(
            read(ListFormat::Stix, None, "[".repeat(100_000).as_bytes()),
            Err(ParseError::Stix(_))
        ));
    }
}
