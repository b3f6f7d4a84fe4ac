//! What may come next: for an input field that helps while an expression is typed.

use super::field::PROTOCOLS;
use super::parse::parse_tokens;
use super::token::{Placed, Token, tokens};
use super::{Expected, ExpressionError, Field, Kind};

/// Something that may stand at the cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub text: String,
    /// For a person; empty where the text says it all.
    pub description: &'static str,
}

/// What may stand at the cursor instead of the word that is being typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    pub candidates: Vec<Candidate>,
    /// Names that only the database knows begin with `prefix`: of sensors or interfaces.
    pub names_of: Option<Field>,
    /// What of the word stands before the cursor.
    pub prefix: String,
    /// The candidate takes the place of these characters.
    pub replace: std::ops::Range<usize>,
}

/// Completes `text` at a cursor, in characters from its start.
#[must_use]
pub fn complete(text: &str, cursor: usize) -> Completion {
    let before: String = text.chars().take(cursor).collect();
    let cursor = before.chars().count();
    let nothing =
        Completion { candidates: Vec::new(), names_of: None, prefix: String::new(), replace: cursor..cursor };
    // Within quotes, or beyond something that has no meaning: nothing can be offered.
    let Ok(mut placed) = tokens(&before) else { return nothing };
    let (prefix, start) = match placed.last() {
        Some(Placed { token: Token::Word(word), start, end }) if *end == cursor => (word.clone(), *start),
        _ => (String::new(), cursor),
    };
    if !prefix.is_empty() {
        placed.pop();
    }
    let expected = match parse_tokens(&placed, start) {
        Ok(_) => vec![Expected::Joiner],
        Err(ExpressionError { at, expected, .. }) if at >= start => expected,
        Err(_) => return nothing,
    };
    let lower = prefix.to_lowercase();
    let mut candidates: Vec<Candidate> = expected.iter().flat_map(|expected| offered(*expected)).collect();
    candidates.retain(|candidate| candidate.text.to_lowercase().starts_with(&lower));
    let names_of = expected.iter().find_map(|expected| match expected {
        Expected::Value(field) if field.kind() == Kind::Name => Some(*field),
        _ => None,
    });
    Completion { candidates, names_of, prefix, replace: start..cursor }
}

fn offered(expected: Expected) -> Vec<Candidate> {
    let plain = |texts: &[&str]| {
        texts.iter().map(|text| Candidate { text: (*text).to_owned(), description: "" }).collect()
    };
    match expected {
        Expected::Test => {
            let fields = Field::ALL
                .iter()
                .map(|field| Candidate { text: field.name().to_owned(), description: field.description() });
            let mut all: Vec<Candidate> = fields.collect();
            all.extend(plain(&["not", "("]));
            all
        }
        Expected::Operator(field) => plain(field.operators()),
        Expected::In => plain(&["in"]),
        Expected::OpenList => plain(&["("]),
        Expected::ListGoesOn => plain(&[",", ")"]),
        Expected::Joiner => plain(&["and", "or"]),
        Expected::Close => plain(&[")"]),
        Expected::Value(field) => match field.kind() {
            Kind::Words(words) => plain(&words.iter().map(|(word, _)| *word).collect::<Vec<_>>()),
            Kind::Protocol => plain(&PROTOCOLS.iter().map(|(name, _)| *name).collect::<Vec<_>>()),
            Kind::Flag => plain(&["true", "false"]),
            Kind::Network | Kind::Number(_) | Kind::Label(_) | Kind::Name | Kind::Country => Vec::new(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::parse;

    fn texts(text: &str) -> Vec<String> {
        complete(text, text.chars().count()).candidates.into_iter().map(|candidate| candidate.text).collect()
    }

    #[test]
    fn what_is_offered_is_what_the_grammar_allows() {
        assert_eq!(texts("dst_p"), ["dst_port", "dst_process"]);
        assert_eq!(texts("dst_po"), ["dst_port"]);
        assert_eq!(texts("protocol = ud"), ["udp", "udplite"]);
        assert_eq!(texts("fragment "), ["=", "!="]);
        assert_eq!(texts("port = 443 "), ["and", "or"]);
        assert_eq!(texts("(port = 443 "), ["and", "or", ")"]);
        assert_eq!(texts("port in (1 "), [",", ")"]);
        assert_eq!(texts("direction not "), ["in"]);
        assert_eq!(texts("tcp_state in (established, c"), ["closing", "closed"]);
        assert_eq!(texts("port = "), Vec::<String>::new());
        assert_eq!(texts("nonsense = "), Vec::<String>::new());
        assert_eq!(texts("sensor = \"ed"), Vec::<String>::new());
        assert!(texts("").contains(&"not".to_owned()));
    }

    #[test]
    fn the_word_under_the_cursor_is_replaced_and_what_follows_it_stays() {
        let Completion { candidates, prefix, replace, .. } = complete("protocol = t and port = 1", 12);
        assert_eq!((candidates.len(), prefix.as_str(), replace), (1, "t", 11..12));
    }

    #[test]
    fn names_are_left_to_who_knows_them() {
        let Completion { names_of, prefix, .. } = complete("sensor = ed", 11);
        assert_eq!((names_of, prefix.as_str()), (Some(Field::Sensor), "ed"));
    }

    /// Whatever is offered can be typed: with it, the fault, if any, lies behind it.
    #[test]
    fn a_candidate_is_never_refused_where_it_was_offered() {
        for text in ["", "not ", "port ", "protocol = ", "(port = 1 ", "direction in (", "fragment != "] {
            for candidate in texts(text) {
                let typed = format!("{text}{candidate} ");
                if let Err(error) = parse(&typed) {
                    assert!(error.at >= text.chars().count() + candidate.chars().count(), "{typed}: {error}");
                }
            }
        }
    }
}
