//! The small language in which operators choose flows: `dst_port = 443 and not (src = 10.0.0.0/8)`.
//!
//! Text becomes tokens ([`token`]), tokens an [`Expression`] ([`parse`]), and `store` makes bound SQL of it:
//! no byte of the text reaches a statement. The same parser says what may come next ([`complete`]), so that
//! completion never offers what would be refused. Pure: no database, no HTTP.
//!
//! ```text
//! expression = all { "or" all }          all = negated { "and" negated }
//! negated    = "not" negated | "(" expression ")" | test
//! test       = field ( "=" | "!=" | "<" | "<=" | ">" | ">=" | "~" | "!~" ) value
//!            | field [ "not" ] "in" "(" value { "," value } ")"
//! ```
//!
//! Values are words (`tcp`, `10.0.0.0/8`, `10k`, `1000..2000`) or quoted text; `~` takes a pattern in which
//! `*` stands for anything. Words and names of responders do not care for case, names of
//! sensors and interfaces do.

mod complete;
mod field;
mod parse;
mod pattern;
mod token;

pub use complete::{Candidate, Completion, complete};
pub use field::{Field, Kind, protocol_number};
pub use parse::parse;
pub use pattern::matches;
pub use token::quoted;

use crate::store::filter::{Held, Network};

/// Longest text that is read, in bytes.
pub const MAX_TEXT: usize = 4_096;
/// Tests in an expression; each costs every row that is looked at.
pub const MAX_TESTS: usize = 64;
/// Values in all lists of an expression.
pub const MAX_VALUES: usize = 256;
/// Parentheses and negations within each other.
pub const MAX_DEPTH: usize = 32;

/// Which flows, as a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// At least two, joined by `and`.
    All(Vec<Expression>),
    /// At least two, joined by `or`.
    Any(Vec<Expression>),
    Not(Box<Expression>),
    Test(Test),
}

impl Expression {
    /// Shows every test.
    pub fn each(&self, see: &mut impl FnMut(&Test)) {
        match self {
            Self::All(parts) | Self::Any(parts) => {
                for part in parts {
                    part.each(see);
                }
            }
            Self::Not(inner) => inner.each(see),
            Self::Test(test) => see(test),
        }
    }

    /// Whether a test is of such a field.
    pub fn has(&self, is_such: impl Fn(Field) -> bool) -> bool {
        let mut has = false;
        self.each(&mut |test| has |= is_such(test.field));
        has
    }

    /// The same with other tests.
    #[must_use]
    pub fn with(&self, other: &impl Fn(&Test) -> Test) -> Self {
        let all = |parts: &[Self]| parts.iter().map(|part| part.with(other)).collect();
        match self {
            Self::All(parts) => Self::All(all(parts)),
            Self::Any(parts) => Self::Any(all(parts)),
            Self::Not(inner) => Self::Not(Box::new(inner.with(other))),
            Self::Test(test) => Self::Test(other(test)),
        }
    }
}

/// One field held against something. What is unknown of a flow passes no test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    pub field: Field,
    pub comparison: Comparison,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// One of these; at least one.
    Is(Vec<Value>),
    Below(u64),
    AtMost(u64),
    Above(u64),
    AtLeast(u64),
    /// A pattern; `*` stands for anything.
    Like(String),
    /// What devices had, in the place of their names: nobody writes it, `store::devices` puts it there.
    Held(Vec<Held>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Network(Network),
    Number(u64),
    /// From the first to the second, both included.
    Range(u64, u64),
    Text(String),
}

/// What is wrong with a text, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at character {}: {message}", .at + 1)]
pub struct ExpressionError {
    /// In characters from the start of the text.
    pub at: usize,
    pub message: String,
    /// What could stand there.
    pub(crate) expected: Vec<Expected>,
}

/// What the grammar allows at some place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// A field, `not`, or an opening parenthesis.
    Test,
    Operator(Field),
    Value(Field),
    /// `in` after `not`.
    In,
    OpenList,
    /// `,` or `)` in a list.
    ListGoesOn,
    /// `and`, `or`.
    Joiner,
    Close,
}
