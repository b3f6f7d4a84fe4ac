//! One event, one line: whatever a stranger got into a field of the log, it ends no line, begins none, and moves
//! no cursor of whoever reads it.

use std::fmt::Write as _;
use std::io::{self, Write};

use weir_wire::text::is_hostile;

/// Writes events of the log, each of which comes in one call with its line's end.
pub struct Lines<W>(pub W);

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.write_all(line(&String::from_utf8_lossy(event)).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The event with hostile characters as `\u001b`, which is an escape of JSON's strings, too.
fn line(event: &str) -> String {
    let (text, end) = event.strip_suffix('\n').map_or((event, ""), |text| (text, "\n"));
    let mut line = String::with_capacity(event.len());
    for char in text.chars() {
        if is_hostile(char) {
            for unit in char.encode_utf16(&mut [0; 2]) {
                let _ = write!(line, "\\u{unit:04x}");
            }
        } else {
            line.push(char);
        }
    }
    line.push_str(end);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_and_json_says_the_same_as_before() {
        let hostile = "a\r\n{\"level\":\"ERROR\"}\u{1b}[31m\u{9b}2J\u{202e}\u{e0041}é";
        assert_eq!(
            line(&format!("WARN x={hostile}\n")),
            "WARN x=a\\u000d\\u000a{\"level\":\"ERROR\"}\\u001b[31m\\u009b2J\\u202e\\udb40\\udc41é\n"
        );
        let json = serde_json::json!({"x": hostile});
        let written = line(&format!("{json}\n"));
        assert!(!written.trim_end().chars().any(is_hostile));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&written).expect("JSON"), json);
    }

    #[test]
    fn an_event_is_written_whole() {
        let mut written = Vec::new();
        Lines(&mut written).write_all(b"plain\n").expect("memory");
        Lines(&mut written).write_all(b"bro\xffken\n").expect("memory");
        assert_eq!(written, "plain\nbro\u{fffd}ken\n".as_bytes());
    }
}
