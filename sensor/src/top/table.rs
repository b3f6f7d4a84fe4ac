//! Rows that can be sorted by any column and filtered by a text, whatever they are about.

use std::cmp::Ordering;

/// How a number is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Count,
    /// Bits a second.
    BitRate,
    /// So many a second.
    Rate,
}

/// One value of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Text(String),
    Number(f64, Unit),
}

impl Cell {
    /// A text that strangers may have written: what would do something to a terminal is left out (I6).
    pub fn text(text: &str) -> Self {
        let shown =
            |character: char| if weir_wire::text::is_hostile(character) { '\u{b7}' } else { character };
        Self::Text(text.chars().map(shown).collect())
    }

    /// As it is shown.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number, Unit::Count) => format!("{number:.0}"),
            Self::Number(number, Unit::BitRate) => format!("{}bit/s", scaled(*number)),
            Self::Number(number, Unit::Rate) => format!("{}/s", scaled(*number).trim_end()),
        }
    }

    /// As a program reads it: the number itself, in its unit.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::Number(number, _) => (*number).into(),
        }
    }

    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Number(a, _), Self::Number(b, _)) => a.total_cmp(b),
            // Columns are of one kind.
            (Self::Text(_), Self::Number(..)) => Ordering::Less,
            (Self::Number(..), Self::Text(_)) => Ordering::Greater,
        }
    }
}

/// Three digits and a prefix of the SI, with a blank between.
fn scaled(number: f64) -> String {
    let (mut number, mut prefix) = (number, "");
    for next in ["k", "M", "G", "T"] {
        if number < 999.5 {
            break;
        }
        (number, prefix) = (number / 1_000.0, next);
    }
    let digits = usize::from(!prefix.is_empty() && number < 99.95);
    format!("{number:.digits$} {prefix}")
}

/// What one view shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    pub columns: &'static [&'static str],
    pub rows: Vec<Vec<Cell>>,
}

/// In which order, and what of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub column: usize,
    pub descending: bool,
}

impl Table {
    /// Sorts by a column; rows that are equal there keep an order of their own, so that a screen does not jump.
    pub fn sort(&mut self, order: &Order) {
        self.rows.sort_by(|a, b| {
            let at = |row: &[Cell]| row.get(order.column).cloned();
            let by = match (at(a), at(b)) {
                (Some(a), Some(b)) if order.descending => b.compare(&a),
                (Some(a), Some(b)) => a.compare(&b),
                _ => Ordering::Equal,
            };
            let first = |row: &[Cell]| row.first().map(Cell::shown).unwrap_or_default();
            by.then_with(|| first(a).cmp(&first(b)))
        });
    }

    /// Keeps the rows that show every word of `filter` somewhere, in any case.
    pub fn filter(&mut self, filter: &str) {
        let words: Vec<String> = filter.split_whitespace().map(str::to_lowercase).collect();
        if words.is_empty() {
            return;
        }
        self.rows.retain(|row| {
            let line = row.iter().map(Cell::shown).collect::<Vec<_>>().join("\t").to_lowercase();
            words.iter().all(|word| line.contains(word.as_str()))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_texts_harmless() {
        let rates = [0.0, 999.0, 1_000.0, 99_940.0, 99_960.0, 1_234_567.0, 5e9];
        let shown = rates.map(|rate| Cell::Number(rate, Unit::BitRate).shown());
        assert_eq!(
            shown,
            ["0 bit/s", "999 bit/s", "1.0 kbit/s", "99.9 kbit/s", "100 kbit/s", "1.2 Mbit/s", "5.0 Gbit/s"]
        );
        assert_eq!(Cell::Number(12.0, Unit::Rate).shown(), "12/s");
        assert_eq!(Cell::Number(12_000.0, Unit::Rate).shown(), "12.0 k/s");
        assert_eq!(Cell::text("a\u{1b}[31mb\u{202e}c").shown(), "a\u{b7}[31mb\u{b7}c");
    }

    #[test]
    fn rows_are_sorted_by_any_column_and_filtered_by_all_words() {
        let row = |name: &str, number: f64| vec![Cell::text(name), Cell::Number(number, Unit::Count)];
        let mut table = Table {
            columns: &["name", "n"],
            rows: vec![row("Beta", 2.0), row("alpha", 10.0), row("beta", 10.0)],
        };
        let names = |table: &Table| table.rows.iter().map(|row| row[0].shown()).collect::<Vec<_>>();
        table.sort(&Order { column: 1, descending: true });
        assert_eq!(names(&table), ["alpha", "beta", "Beta"]);
        table.sort(&Order { column: 0, descending: false });
        assert_eq!(names(&table), ["Beta", "alpha", "beta"]);
        table.filter("BETA 10");
        assert_eq!(names(&table), ["beta"]);
    }
}
