//! One entry a line, with the habits of public lists: comments, counts behind the entry, hosts files, the
//! domain rules of ad blockers.

use super::super::entry::Entry;
use super::{ParseError, Reading};

/// Names that every hosts file has and no list means.
const LOCAL: [&str; 6] =
    ["localhost", "localhost.localdomain", "local", "broadcasthost", "ip6-localhost", "0.0.0.0"];

pub(super) fn read(bytes: &[u8], reading: &mut Reading) -> Result<(), ParseError> {
    for (line, text) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        match std::str::from_utf8(text) {
            Ok(text) => read_line(line, text, reading)?,
            Err(_) => reading.refuse(line, &String::from_utf8_lossy(text), "not UTF-8"),
        }
    }
    Ok(())
}

fn read_line(line: u64, text: &str, reading: &mut Reading) -> Result<(), ParseError> {
    let text = text.trim_start_matches('\u{feff}');
    let end = [text.find(['#', ';']), text.find("//").filter(|at| *at == 0)].into_iter().flatten().min();
    let text = text[..end.unwrap_or(text.len())].trim();
    if text.is_empty() || text.starts_with('!') {
        return Ok(());
    }
    if let Some(rule) = text.strip_prefix("||").and_then(|rule| rule.strip_suffix('^')) {
        return reading.word(line, &format!(".{rule}"));
    }
    // A range may have spaces around its dash.
    if text.contains(" - ")
        && let Ok(entry @ Entry::Range(..)) = Entry::parse(text)
    {
        return reading.add(entry);
    }
    let mut words = text.split([' ', '\t', ',']).filter(|word| !word.is_empty());
    let Some(first) = words.next() else { return Ok(()) };
    if matches!(first, "0.0.0.0" | "127.0.0.1" | "::" | "::1")
        && let Some(second) = words.next()
    {
        return [second]
            .into_iter()
            .chain(words)
            .filter(|name| !LOCAL.contains(name))
            .try_for_each(|name| reading.word(line, name));
    }
    reading.word(line, first)
}
