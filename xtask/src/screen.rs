//! What a person sees: progress on standard error, results on standard output, colour only where both
//! the stream is a terminal and `NO_COLOR` is not set.

use std::io::{IsTerminal as _, stderr, stdout};

const BOLD: &str = "1";
const RED: &str = "1;31";
const GREEN: &str = "1;32";

/// A step begins.
pub fn step(text: &str) {
    eprintln!("{} {text}", paint("==>", GREEN, stderr().is_terminal()));
}

/// Detail of the step that runs.
pub fn detail(text: &str) {
    eprintln!("    {text}");
}

/// The command failed.
pub fn failure(error: &anyhow::Error) {
    eprintln!("{} {error:#}", paint("error:", RED, stderr().is_terminal()));
}

/// A heading in a result.
pub fn heading(text: &str) {
    println!("\n{}", paint(text, BOLD, stdout().is_terminal()));
}

/// The last word on a result.
pub fn verdict(good: bool, text: &str) {
    println!("{}", paint(text, if good { GREEN } else { RED }, stdout().is_terminal()));
}

/// Rows under headings, columns as wide as their widest cell; all but the first are right-aligned.
pub fn table(headings: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(String::as_str);
        cells.chain(headings.get(column).copied()).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells
            .zip(&widths)
            .enumerate()
            .map(
                |(column, (cell, &width))| {
                    if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                },
            )
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    println!("{}", line(&mut headings.iter().copied()));
    for row in rows {
        println!("{}", line(&mut row.iter().map(String::as_str)));
    }
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn paint(text: &str, colour: &str, terminal: bool) -> String {
    if terminal && std::env::var_os("NO_COLOR").is_none() {
        format!("\x1b[{colour}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_by_thousands() {
        let grouped: Vec<String> = [0, 999, 1000, 1_234_567].map(grouped).into();
        assert_eq!(grouped, ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn nothing_is_painted_off_a_terminal() {
        assert_eq!(paint("x", RED, false), "x");
    }
}
