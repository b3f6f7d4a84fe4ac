//! Query parameters: each read once, with its type and bounds; whatever is left over is an error.
//!
//! All faults of a request are reported together, each naming its parameter.

use std::ops::RangeInclusive;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use jiff::Timestamp;

use super::error::FieldError;
use super::{ApiError, AppState};

/// Longest value of a parameter that is echoed in an error.
const MAX_ECHO: usize = 64;

/// The pairs of a query string that were not read yet, and what was wrong so far.
pub struct Params {
    pairs: Vec<(String, String)>,
    errors: Vec<FieldError>,
}

/// A set of parameters that can be read from a query string.
pub trait FromParams: Sized {
    fn read(params: &mut Params) -> Self;
}

/// Extracts a `T`, or answers 400 and names every parameter at fault.
pub struct Query<T> {
    pub value: T,
    /// The parameters as they were given, in a fixed order; identifies the question.
    pub given: Vec<(String, String)>,
}

impl<T: FromParams> FromRequestParts<AppState> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &AppState) -> Result<Self, ApiError> {
        let mut params = Params::parse(parts.uri.query().unwrap_or_default());
        let mut given = params.pairs.clone();
        given.sort();
        let value = T::read(&mut params);
        params.finish()?;
        Ok(Self { value, given })
    }
}

/// A route without parameters.
pub struct NoParams;

impl FromParams for NoParams {
    fn read(_params: &mut Params) -> Self {
        Self
    }
}

impl Params {
    fn parse(query: &str) -> Self {
        let pairs = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        Self { pairs, errors: Vec::new() }
    }

    /// The value of a parameter that may be given once.
    pub fn text(&mut self, name: &str) -> Option<String> {
        let mut values = self.pairs.extract_if(.., |(key, _)| key == name).map(|(_, value)| value);
        let first = values.next();
        let more = values.count();
        if more > 0 {
            self.fault(name, format!("given {} times", more + 1));
        }
        first
    }

    /// A value that `read` understands; `expected` completes "is not …".
    pub fn parsed<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(name)?;
        let value = read(&text);
        if value.is_none() {
            self.fault(name, format!("{} is not {expected}", echo(&text)));
        }
        value
    }

    /// A whole number within bounds.
    pub fn number(&mut self, name: &str, bounds: RangeInclusive<u64>) -> Option<u64> {
        let (low, high) = (*bounds.start(), *bounds.end());
        self.parsed(name, &format!("between {low} and {high}"), |text| {
            digits(text).filter(|number| bounds.contains(number))
        })
    }

    /// A time that Postgres and the API can show.
    pub fn time(&mut self, name: &str) -> Option<Timestamp> {
        self.parsed(name, "a time of RFC 3339 between 1970 and 9999", |text| {
            text.parse::<Timestamp>().ok().filter(|at| (0..253_370_764_800).contains(&at.as_second()))
        })
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Option<T> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        self.parsed(name, &format!("one of {}", words.join(", ")), |text| {
            choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
        })
    }

    pub fn fault(&mut self, name: &str, message: impl Into<String>) {
        self.errors.push(FieldError { field: name.to_owned(), message: message.into() });
    }

    /// An error for every fault, and for every parameter that nobody asked for.
    fn finish(mut self) -> Result<(), ApiError> {
        let left: Vec<String> = self.pairs.iter().map(|(name, _)| name.clone()).collect();
        for name in left {
            self.errors.push(FieldError {
                field: shortened(&name),
                message: "is not a parameter of this route".to_owned(),
            });
        }
        if self.errors.is_empty() { Ok(()) } else { Err(ApiError::parameters(self.errors)) }
    }
}

/// The id in a path: a whole number from 1, in digits alone. `T` has the width of the column.
pub fn id<T: TryFrom<u64>>(field: &'static str, text: &str) -> Result<T, ApiError> {
    let id = digits(text).filter(|id| *id > 0).and_then(|id| T::try_from(id).ok());
    id.ok_or_else(|| ApiError::parameter(field, "is not an id (a number)"))
}

/// A number without a sign, which `parse` alone would take.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// A value as an error shows it: short, and without control characters.
fn echo(text: &str) -> String {
    format!("`{}`", shortened(text))
}

fn shortened(text: &str) -> String {
    let mut short: String =
        text.chars().take(MAX_ECHO).map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect();
    if text.chars().nth(MAX_ECHO).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A2: every parameter at fault is named, the unknown and the repeated ones too.
    #[test]
    fn every_fault_is_named() {
        let mut params = Params::parse("limit=0&port=80&port=81&nonsense=1&%00=2");
        assert_eq!(params.number("limit", 1..=1_000), None);
        assert_eq!(params.number("port", 0..=65_535), Some(80));
        let error = params.finish().expect_err("four faults");
        let fields: Vec<&str> = error.errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["limit", "port", "nonsense", "\u{fffd}"]);
    }

    #[test]
    fn numbers_are_digits_within_bounds() {
        for wrong in ["", "-1", "+1", "1.0", "0x10", "1e3", "1001", "99999999999999999999"] {
            let mut params = Params::parse(&format!("limit={wrong}"));
            assert_eq!(params.number("limit", 1..=1_000), None, "{wrong}");
            assert!(params.finish().is_err(), "{wrong}");
        }
    }
}
