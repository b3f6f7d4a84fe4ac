//! Whether an SPDX licence expression can be met by licences of a list.

use std::collections::BTreeSet;

/// `A OR B` needs one of the two, `A AND B` both; the old `A/B` means `A OR B`. What cannot be read is
/// not allowed.
pub fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    either(&mut rest, allowed).is_some_and(|met| met && rest.is_empty())
}

fn either(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let mut met = both(rest, allowed)?;
    while let Some(("OR", after)) = split(rest) {
        *rest = after;
        met |= both(rest, allowed)?;
    }
    Some(met)
}

fn both(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let mut met = one(rest, allowed)?;
    while let Some(("AND", after)) = split(rest) {
        *rest = after;
        met &= one(rest, allowed)?;
    }
    Some(met)
}

fn one(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let (first, after) = split(rest)?;
    *rest = after;
    if first == "(" {
        let met = either(rest, allowed)?;
        let (")", after) = split(rest)? else { return None };
        *rest = after;
        return Some(met);
    }
    if let Some(("WITH", after)) = split(rest) {
        let (exception, after) = split(after)?;
        *rest = after;
        return Some(allowed.contains(&format!("{first} WITH {exception}")));
    }
    Some(allowed.contains(first))
}

fn split<'a, 'b>(rest: &'b [&'a str]) -> Option<(&'a str, &'b [&'a str])> {
    rest.split_first().map(|(first, after)| (*first, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_met_as_spdx_reads_it() {
        let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
        for (expression, met) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("MIT OR GPL-3.0", true),
            ("GPL-3.0/MIT", true),
            ("MIT AND GPL-3.0", false),
            ("(MIT OR GPL-3.0) AND ISC", true),
            ("MIT OR GPL-3.0 AND GPL-2.0", true),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("Apache-2.0", false),
            ("", false),
            ("(MIT", false),
            ("MIT ISC", false),
        ] {
            assert_eq!(is_allowed(expression, &allowed), met, "{expression}");
        }
    }
}
