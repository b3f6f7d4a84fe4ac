//! What reaches the terminal: tables for people, JSON for programs, and no character of a stranger that would do
//! something to either.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;
use weir_wire::text::is_hostile;

use crate::client::ClientError;

const BOLD: &str = "\u{1b}[1m";
const RED: &str = "\u{1b}[31m";
const YELLOW: &str = "\u{1b}[33m";
const PLAIN: &str = "\u{1b}[0m";
/// Columns of a cell.
const MAX_CELL: usize = 60;

/// A text of the server's, fit to be shown: hostile characters are written out as in JSON.
pub fn safe(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for char in text.chars() {
        if is_hostile(char) {
            for unit in char.encode_utf16(&mut [0; 2]) {
                let _ = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(char);
        }
    }
    safe
}

/// Prints a line; a reader that went away ends the program in peace.
pub fn line(text: &str) -> Result<(), ClientError> {
    writeln!(io::stdout().lock(), "{text}").map_err(ClientError::Write)
}

/// A value as a line of JSON, the same value with its hostile characters escaped.
pub fn json(value: &impl Serialize) -> Result<(), ClientError> {
    let text = serde_json::to_string(value).map_err(|error| ClientError::Write(error.into()))?;
    line(&safe(&text))
}

/// Says something on standard error.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", text.lines().map(safe).collect::<Vec<_>>().join("\n"));
}

/// An error, for people.
pub fn error(error: &ClientError) {
    let label = if io::stderr().is_terminal() { format!("{RED}error:{PLAIN}") } else { "error:".to_owned() };
    let text: Vec<String> = error.to_string().lines().map(safe).collect();
    let _ = writeln!(io::stderr().lock(), "{label} {}", text.join("\n"));
}

/// Rows under headings, as wide as they need to be.
pub struct Table {
    headings: &'static [&'static str],
    rows: Vec<Vec<String>>,
    /// The column whose words have a colour, on a terminal.
    coloured: Option<usize>,
}

impl Table {
    pub fn new(headings: &'static [&'static str]) -> Self {
        Self {
            headings,
            rows: Vec::new(),
            coloured: headings.iter().position(|it| *it == "SEVERITY" || *it == "STATE"),
        }
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        let cut = |cell: String| {
            let cell = safe(&cell);
            if cell.chars().count() <= MAX_CELL {
                return cell;
            }
            cell.chars().take(MAX_CELL - 1).chain(['…']).collect()
        };
        self.rows.push(Vec::from(cells.map(cut)));
    }

    pub fn print(&self, none: &str) -> Result<(), ClientError> {
        let terminal = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        if self.rows.is_empty() {
            note(none);
            return Ok(());
        }
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0).max(self.headings[column].len())
        };
        let widths: Vec<usize> = (0..self.headings.len()).map(width).collect();
        let headings: Vec<String> = self.headings.iter().map(|heading| (*heading).to_owned()).collect();
        let head = render(&headings, &widths, None);
        line(&if terminal { format!("{BOLD}{head}{PLAIN}") } else { head })?;
        for row in &self.rows {
            line(&render(row, &widths, self.coloured.filter(|_| terminal)))?;
        }
        Ok(())
    }
}

fn render(row: &[String], widths: &[usize], coloured: Option<usize>) -> String {
    let mut text = String::new();
    for (column, (cell, &width)) in row.iter().zip(widths).enumerate() {
        let padded = if column + 1 == row.len() { cell.clone() } else { format!("{cell:width$}  ") };
        let colour = match cell.as_str() {
            "critical" | "high" | "firing" | "revoked" => RED,
            "warning" | "medium" | "pending" | "offline" => YELLOW,
            _ => "",
        };
        if coloured == Some(column) && !colour.is_empty() {
            let _ = write!(text, "{colour}{padded}{PLAIN}");
        } else {
            text.push_str(&padded);
        }
    }
    text
}

/// Octets for people.
pub fn octets(octets: i64) -> String {
    let mut value = octets as f64;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if value.abs() < 1_000.0 {
            return if unit == "B" { format!("{octets} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1_000.0;
    }
    format!("{value:.1} PB")
}

/// A time of the API's to the second, in UTC.
pub fn time(text: &str) -> String {
    let seconds = text.get(..19).filter(|_| text.is_ascii());
    seconds.map_or_else(|| text.to_owned(), |seconds| seconds.replace('T', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i6_what_strangers_wrote_moves_no_cursor() {
        let hostile = "a\u{1b}[2J\r\n\u{9b}31m\u{202e}b\u{7}";
        assert!(!safe(hostile).contains(is_hostile));
        let json = serde_json::json!({ "name": hostile }).to_string();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe(&json)).expect("JSON")["name"], hostile);
        let mut table = Table::new(&["NAME"]);
        table.row([hostile.repeat(100)]);
        assert!(!table.rows[0][0].contains(is_hostile));
        assert_eq!(table.rows[0][0].chars().count(), MAX_CELL);
    }

    #[test]
    fn octets_have_three_digits_or_so() {
        assert_eq!([0, 999, 1_000, 12_345_678].map(octets), ["0 B", "999 B", "1.0 kB", "12.3 MB"]);
    }
}
