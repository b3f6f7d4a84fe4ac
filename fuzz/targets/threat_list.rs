//! Threat lists: any bytes are a list or an error that says something.
//!
//! What is read is masked, sorted and bounded; errors are bounded and safe to print; the lists' merge says of an
//! address what the list says; every domain of a list is found in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_sensor::config::{ListColumn, ListFormat};
use weir_sensor::threat::{Cover, Domains, ListId, Prefix, Shape, Source, V4, compile, parse};

const MOST: usize = 4096;

fuzz_target!(|input: &[u8]| {
    let Some((first, bytes)) = input.split_first() else { return };
    let (format, column) = match first & 3 {
        0 => (ListFormat::Plain, None),
        1 => (ListFormat::Csv, Some(ListColumn::Name("ip".to_owned()))),
        2 => (ListFormat::Csv, Some(ListColumn::Number(2))),
        _ => (ListFormat::Stix, None),
    };
    let parsed = match parse(bytes, &Shape { format, column, max_entries: MOST }) {
        Ok(parsed) => parsed,
        Err(error) => {
            assert!(!error.to_string().contains('\x1b'), "{error}");
            return;
        }
    };
    assert!(parsed.prefixes.len() + parsed.domains.len() <= MOST);
    assert!(parsed.prefixes.is_sorted() && parsed.domains.is_sorted());
    assert!(parsed.errors.shown.len() as u64 <= parsed.errors.count);
    for error in &parsed.errors.shown {
        assert!(error.text.len() < 1000 && !error.text.chars().any(char::is_control), "{:?}", error.text);
    }
    let source = Source { list: ListId(1), drops: first & 4 != 0, prefixes: &parsed.prefixes };
    let merged = compile(&[source], &[], &[]);
    // An IPv6 prefix around the addresses that stand for IPv4 is cut into pieces that leave those out.
    let is_cut = |prefix: &Prefix| prefix.length < V4.length && prefix.contains(V4);
    assert!(merged.len() <= parsed.prefixes.len() || parsed.prefixes.iter().any(is_cut));
    for prefix in parsed.prefixes.iter().filter(|prefix| !is_cut(prefix)).take(64) {
        // A prefix that was left out or joined lies within one that says the same.
        let within = |entry: &&weir_sensor::kernel::ListedPrefix| {
            Prefix { bits: entry.bits, length: entry.length }.contains(*prefix)
        };
        assert!(merged.iter().find(within).is_some_and(|entry| entry.list == 1), "{prefix}");
    }
    let domains = Domains::new(&[(ListId(1), &parsed.domains)], &[]);
    for domain in parsed.domains.iter().take(64) {
        let below = format!("x.{}", domain.name);
        let name = if domain.cover == Cover::Below { &below } else { &domain.name };
        // A name that is too long for the DNS is in no list.
        assert!(domains.listed(name) == Some(ListId(1)) || name.len() > 253, "{name}");
    }
});
