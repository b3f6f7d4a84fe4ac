//! Text into tokens, each with its place.

use super::{Expected, ExpressionError};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// Letters, digits and what stands in numbers, addresses, names and patterns.
    Word(String),
    /// What stood between quotes.
    Text(String),
    Operator(&'static str),
    Open,
    Close,
    Comma,
}

/// A token and where it is, in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) token: Token,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Longest first: `<=` is not `<` and something else.
const OPERATORS: [&str; 8] = ["!=", "!~", "<=", ">=", "=", "<", ">", "~"];

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || "_.:/*-".contains(char)
}

/// A value as it can stand in an expression: in quotes where it is more than a word.
#[must_use]
pub fn quoted(value: &str) -> String {
    if !value.is_empty() && value.chars().all(is_word) {
        return value.to_owned();
    }
    let escaped = value.chars().flat_map(|char| {
        let escape = matches!(char, '"' | '\\').then_some('\\');
        escape.into_iter().chain([char])
    });
    format!("\"{}\"", escaped.collect::<String>())
}

pub(super) fn tokens(text: &str) -> Result<Vec<Placed>, ExpressionError> {
    let chars: Vec<char> = text.chars().collect();
    let mut placed = Vec::new();
    let mut at = 0;
    while let Some(&char) = chars.get(at) {
        let start = at;
        let token = match char {
            _ if char.is_whitespace() => {
                at += 1;
                continue;
            }
            '(' | ')' | ',' => {
                at += 1;
                match char {
                    '(' => Token::Open,
                    ')' => Token::Close,
                    _ => Token::Comma,
                }
            }
            '"' | '\'' => {
                let (quoted, end) = between_quotes(&chars, at)?;
                at = end;
                Token::Text(quoted)
            }
            _ if is_word(char) => {
                at += chars[at..].iter().take_while(|char| is_word(**char)).count();
                Token::Word(chars[start..at].iter().collect())
            }
            _ => {
                let operator = OPERATORS.into_iter().find(|operator| {
                    operator.chars().enumerate().all(|(offset, char)| chars.get(at + offset) == Some(&char))
                });
                let Some(operator) = operator else {
                    let shown = if char.is_control() { '\u{fffd}' } else { char };
                    return Err(error(start, format!("`{shown}` has no meaning here")));
                };
                at += operator.len();
                Token::Operator(operator)
            }
        };
        placed.push(Placed { token, start, end: at });
    }
    Ok(placed)
}

/// Quoted text and where it ends; a backslash takes the next character as it is.
fn between_quotes(chars: &[char], start: usize) -> Result<(String, usize), ExpressionError> {
    let quote = chars[start];
    let mut text = String::new();
    let mut at = start + 1;
    while let Some(&char) = chars.get(at) {
        match char {
            _ if char == quote => return Ok((text, at + 1)),
            '\\' => {
                at += 1;
                match chars.get(at) {
                    Some(escaped) => text.push(*escaped),
                    None => break,
                }
            }
            '\0' => return Err(error(at, "a name has no zero bytes".to_owned())),
            _ => text.push(char),
        }
        at += 1;
    }
    Err(error(start, "this quote is never closed".to_owned()))
}

fn error(at: usize, message: String) -> ExpressionError {
    ExpressionError { at, message, expected: Vec::<Expected>::new() }
}
