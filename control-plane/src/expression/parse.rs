//! Tokens into a tree, or the place of the first fault and what was expected there.

use super::token::{Placed, Token, tokens};
use super::{
    Comparison, Expected, Expression, ExpressionError, Field, Kind, MAX_DEPTH, MAX_TESTS, MAX_TEXT,
    MAX_VALUES, Test, Value, protocol_number,
};
use crate::store::filter::Network;

/// Reads an expression.
pub fn parse(text: &str) -> Result<Expression, ExpressionError> {
    if text.len() > MAX_TEXT {
        let message = format!("{} bytes are more than {MAX_TEXT}", text.len());
        return Err(ExpressionError { at: 0, message, expected: Vec::new() });
    }
    parse_tokens(&tokens(text)?, text.chars().count())
}

/// The same from tokens; `end` is where the text ends.
pub(super) fn parse_tokens(tokens: &[Placed], end: usize) -> Result<Expression, ExpressionError> {
    let mut parser = Parser { tokens, next: 0, end, tests: 0, values: 0 };
    let expression = parser.any(0)?;
    match parser.peek() {
        None => Ok(expression),
        Some(_) => Err(parser.unexpected("expected `and` or `or`", vec![Expected::Joiner])),
    }
}

struct Parser<'a> {
    tokens: &'a [Placed],
    next: usize,
    end: usize,
    tests: usize,
    values: usize,
}

type Parsed<T> = Result<T, ExpressionError>;

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|placed| &placed.token)
    }

    fn at(&self) -> usize {
        self.tokens.get(self.next).map_or(self.end, |placed| placed.start)
    }

    fn fault(&self, message: impl Into<String>) -> ExpressionError {
        ExpressionError { at: self.at(), message: message.into(), expected: Vec::new() }
    }

    fn unexpected(&self, message: &str, expected: Vec<Expected>) -> ExpressionError {
        ExpressionError { expected, ..self.fault(message) }
    }

    /// Takes a keyword if it is next.
    fn keyword(&mut self, keyword: &str) -> bool {
        let is_next = matches!(self.peek(), Some(Token::Word(word)) if word.eq_ignore_ascii_case(keyword));
        self.next += usize::from(is_next);
        is_next
    }

    fn take(&mut self, token: &Token) -> bool {
        let is_next = self.peek() == Some(token);
        self.next += usize::from(is_next);
        is_next
    }

    fn any(&mut self, depth: usize) -> Parsed<Expression> {
        let mut parts = vec![self.all(depth)?];
        while self.keyword("or") {
            parts.push(self.all(depth)?);
        }
        Ok(joined(parts, Expression::Any))
    }

    fn all(&mut self, depth: usize) -> Parsed<Expression> {
        let mut parts = vec![self.negated(depth)?];
        while self.keyword("and") {
            parts.push(self.negated(depth)?);
        }
        Ok(joined(parts, Expression::All))
    }

    fn negated(&mut self, depth: usize) -> Parsed<Expression> {
        if depth > MAX_DEPTH {
            return Err(self.fault(format!("more than {MAX_DEPTH} parentheses within each other")));
        }
        if self.keyword("not") {
            return Ok(Expression::Not(Box::new(self.negated(depth + 1)?)));
        }
        if self.take(&Token::Open) {
            let inner = self.any(depth + 1)?;
            if !self.take(&Token::Close) {
                let expected = vec![Expected::Joiner, Expected::Close];
                return Err(self.unexpected("expected `and`, `or` or `)`", expected));
            }
            return Ok(inner);
        }
        self.test()
    }

    fn test(&mut self) -> Parsed<Expression> {
        let field = match self.peek() {
            Some(Token::Word(word)) => Field::named(word),
            _ => None,
        };
        let Some(field) = field else {
            let names: Vec<&str> = Field::ALL.iter().map(|field| field.name()).collect();
            let message = format!("expected `not`, `(` or one of {}", names.join(", "));
            return Err(self.unexpected(&message, vec![Expected::Test]));
        };
        self.tests += 1;
        if self.tests > MAX_TESTS {
            return Err(self.fault(format!("more than {MAX_TESTS} tests")));
        }
        self.next += 1;
        let place = self.next;
        let (operator, negated) = self.operator(field)?;
        if !field.operators().contains(&operator) {
            self.next = place;
            return Err(self.wrong_operator(field));
        }
        let comparison = match operator {
            "in" => Comparison::Is(self.list(field)?),
            "=" => Comparison::Is(vec![self.value(field)?]),
            "~" => Comparison::Like(self.pattern(field)?),
            "<" => Comparison::Below(self.bound(field)?),
            "<=" => Comparison::AtMost(self.bound(field)?),
            ">" => Comparison::Above(self.bound(field)?),
            _ => Comparison::AtLeast(self.bound(field)?),
        };
        let test = Expression::Test(Test { field, comparison });
        Ok(if negated { Expression::Not(Box::new(test)) } else { test })
    }

    /// The operator without its negation, and whether it was negated.
    fn operator(&mut self, field: Field) -> Parsed<(&'static str, bool)> {
        if self.keyword("in") {
            return Ok(("in", false));
        }
        if self.keyword("not") {
            if self.keyword("in") {
                return Ok(("in", true));
            }
            return Err(self.unexpected("expected `in`", vec![Expected::In]));
        }
        let Some(&Token::Operator(operator)) = self.peek() else {
            return Err(self.wrong_operator(field));
        };
        self.next += 1;
        Ok(match operator {
            "!=" => ("=", true),
            "!~" => ("~", true),
            operator => (operator, false),
        })
    }

    fn wrong_operator(&self, field: Field) -> ExpressionError {
        let message = format!("expected one of {} after `{}`", field.operators().join(" "), field.name());
        self.unexpected(&message, vec![Expected::Operator(field)])
    }

    fn list(&mut self, field: Field) -> Parsed<Vec<Value>> {
        if !self.take(&Token::Open) {
            return Err(self.unexpected("expected `(` and a list of values", vec![Expected::OpenList]));
        }
        let mut values = vec![self.value(field)?];
        while self.take(&Token::Comma) {
            values.push(self.value(field)?);
        }
        if self.take(&Token::Close) {
            return Ok(values);
        }
        Err(self.unexpected("expected `,` or `)`", vec![Expected::ListGoesOn]))
    }

    /// The next token's text, which must be a value.
    fn raw(&self, field: Field) -> Parsed<&str> {
        match self.peek() {
            Some(Token::Word(text) | Token::Text(text)) => Ok(text),
            _ => Err(self.wrong_value(field)),
        }
    }

    fn wrong_value(&self, field: Field) -> ExpressionError {
        let message = format!("expected {} for `{}`", field.values(), field.name());
        self.unexpected(&message, vec![Expected::Value(field)])
    }

    fn value(&mut self, field: Field) -> Parsed<Value> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(self.fault(format!("more than {MAX_VALUES} values")));
        }
        let text = self.raw(field)?;
        let value = match field.kind() {
            Kind::Network => Network::parse(text).map(Value::Network),
            Kind::Number(most) => numbers(text, most),
            Kind::Label(most) => number(text).filter(|number| *number <= most).map(Value::Number),
            Kind::Protocol => protocol_number(text).map(|number| Value::Number(number.into())),
            Kind::Words(words) => words
                .iter()
                .find(|(word, _)| text.eq_ignore_ascii_case(word))
                .map(|(_, number)| Value::Number(u64::from(number.unsigned_abs()))),
            Kind::Name => Some(Value::Text(text.to_owned())),
            Kind::Country => {
                let is_code = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_alphabetic());
                is_code.then(|| Value::Text(text.to_ascii_uppercase()))
            }
            Kind::Flag => match () {
                () if text.eq_ignore_ascii_case("true") => Some(Value::Number(1)),
                () if text.eq_ignore_ascii_case("false") => Some(Value::Number(0)),
                () => None,
            },
        };
        let value = value.ok_or_else(|| self.wrong_value(field))?;
        self.next += 1;
        Ok(value)
    }

    fn pattern(&mut self, field: Field) -> Parsed<String> {
        let pattern = self.raw(field)?.to_owned();
        self.next += 1;
        Ok(pattern)
    }

    /// One number, for a comparison by size.
    fn bound(&mut self, field: Field) -> Parsed<u64> {
        if let Value::Number(number) = self.value(field)? {
            return Ok(number);
        }
        self.next -= 1;
        Err(self.fault("expected one number, not a range"))
    }
}

fn joined(mut parts: Vec<Expression>, join: fn(Vec<Expression>) -> Expression) -> Expression {
    if parts.len() == 1 { parts.remove(0) } else { join(parts) }
}

/// A number or a range of numbers, none above `most`.
fn numbers(text: &str, most: u64) -> Option<Value> {
    let bounded = |text| number(text).filter(|number| *number <= most);
    match text.split_once("..") {
        None => bounded(text).map(Value::Number),
        Some((low, high)) => {
            let (low, high) = (bounded(low)?, bounded(high)?);
            (low <= high).then_some(Value::Range(low, high))
        }
    }
}

/// Digits, maybe with a decimal multiplier: `10k` is 10,000.
fn number(text: &str) -> Option<u64> {
    let (digits, factor) = match text.char_indices().next_back()? {
        (at, 'k' | 'K') => (&text[..at], 1_000),
        (at, 'm' | 'M') => (&text[..at], 1_000_000),
        (at, 'g' | 'G') => (&text[..at], 1_000_000_000),
        _ => (text, 1),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(field: Field, comparison: Comparison) -> Expression {
        Expression::Test(Test { field, comparison })
    }

    fn is(field: Field, value: u64) -> Expression {
        test(field, Comparison::Is(vec![Value::Number(value)]))
    }

    #[test]
    fn and_binds_closer_than_or_and_not_closest() {
        let parsed =
            parse("dst_port = 443 or not protocol = UDP and (src_port < 1k or port in (53, 60..70))");
        let last = Expression::Any(vec![
            test(Field::SrcPort, Comparison::Below(1_000)),
            test(Field::Port, Comparison::Is(vec![Value::Number(53), Value::Range(60, 70)])),
        ]);
        let second = Expression::All(vec![Expression::Not(Box::new(is(Field::Protocol, 17))), last]);
        assert_eq!(parsed, Ok(Expression::Any(vec![is(Field::DstPort, 443), second])));
    }

    #[test]
    fn values_have_their_fields_types() {
        let network = |text| Value::Network(Network::parse(text).expect("a network"));
        for (text, field, comparison) in [
            ("src=10.1.2.3/8", Field::Src, Comparison::Is(vec![network("10.0.0.0/8")])),
            ("dst = 2001:db8::1", Field::Dst, Comparison::Is(vec![network("2001:db8::1")])),
            ("total_octets >= 5M", Field::TotalOctets, Comparison::AtLeast(5_000_000)),
            ("sensor ~ \"edge-*\"", Field::Sensor, Comparison::Like("edge-*".to_owned())),
            (
                r#"sensor = 'a "b\' c'"#,
                Field::Sensor,
                Comparison::Is(vec![Value::Text("a \"b' c".to_owned())]),
            ),
            ("tcp_state = Reset", Field::TcpState, Comparison::Is(vec![Value::Number(6)])),
            ("fragment = true", Field::Fragment, Comparison::Is(vec![Value::Number(1)])),
            ("vlan in (1,2)", Field::Vlan, Comparison::Is(vec![Value::Number(1), Value::Number(2)])),
        ] {
            assert_eq!(parse(text), Ok(test(field, comparison)), "{text}");
        }
        for (negated, plain) in
            [("port != 1", "port = 1"), ("sensor !~ a*", "sensor ~ a*"), ("port not in (1)", "port in (1)")]
        {
            let plain = parse(plain).expect("it is well formed");
            assert_eq!(parse(negated), Ok(Expression::Not(Box::new(plain))), "{negated}");
        }
    }

    /// A2: what is wrong is named with its place.
    #[test]
    fn faults_have_a_place_and_say_what_was_expected() {
        for (text, at, message) in [
            ("", 0, "expected `not`, `(` or one of src, dst"),
            ("dst_prt = 1", 0, "expected `not`, `(` or one of src, dst"),
            ("dst_port 443", 9, "expected one of = != < <= > >= in not in after `dst_port`"),
            ("src < 10.0.0.1", 4, "expected one of = != in not in after `src`"),
            ("dst_port = 65536", 11, "expected a number between 0 and 65535"),
            ("dst_port = 443 dst = 1", 15, "expected `and` or `or`"),
            ("(dst_port = 443", 15, "expected `and`, `or` or `)`"),
            ("port in (1 2)", 11, "expected `,` or `)`"),
            ("port in 1", 8, "expected `(` and a list"),
            ("port not 1", 9, "expected `in`"),
            ("port > 1..2", 7, "expected one number"),
            ("port = 2..1", 7, "expected a number"),
            ("tcp_state = open", 12, "expected one of unknown, syn_sent"),
            ("src = 10.0.0.0/33", 6, "expected an IP address"),
            ("sensor = \"edge", 9, "this quote is never closed"),
            ("port = 1; DROP TABLE flow", 8, "`;` has no meaning here"),
            ("port = 1 and", 12, "expected `not`, `(`"),
            ("é = 1", 0, "expected `not`, `(`"),
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!(error.at, at, "{text}: {error}");
            assert!(error.message.starts_with(message), "{text}: {error}");
        }
    }

    #[test]
    fn size_and_depth_are_bounded() {
        let deep = |levels: usize| format!("{}port = 1{}", "(".repeat(levels), ")".repeat(levels));
        assert!(parse(&deep(MAX_DEPTH)).is_ok());
        assert!(parse(&deep(MAX_DEPTH + 1)).is_err());
        assert!(parse(&format!("{}port = 1", "not ".repeat(MAX_DEPTH + 1))).is_err());
        let wide = |tests: usize| vec!["port = 1"; tests].join(" or ");
        assert!(parse(&wide(MAX_TESTS)).is_ok());
        assert!(parse(&wide(MAX_TESTS + 1)).is_err());
        let list = |values: usize| format!("port in ({})", vec!["1"; values].join(","));
        assert!(parse(&list(MAX_VALUES)).is_ok());
        assert!(parse(&list(MAX_VALUES + 1)).is_err());
        assert!(parse(&" ".repeat(MAX_TEXT + 1)).is_err());
    }
}
