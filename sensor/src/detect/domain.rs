//! What may be read from a domain name without asking anybody.

/// What stands under two-letter top-level domains in the place of a name: registries sell below it.
const SECOND_LEVEL: [&str; 14] =
    ["ac", "co", "com", "edu", "gob", "gov", "ltd", "mil", "ne", "net", "nom", "or", "org", "sch"];

/// Of each letter the letters that hardly ever follow it: pairs with less than 0.1 % of all pairs in the words of
/// SCOWL's American English list (size 60), bit 0 for `a`.
const RARE: [u32; 26] = [
    0x02c1_42b1,
    0x03ed_b6ee,
    0x03e5_b26e,
    0x03e9_b6ee,
    0x0311_4682,
    0x03ed_b6ce,
    0x03e9_b62e,
    0x03e7_beee,
    0x01d1_0780,
    0x03ff_ffff,
    0x03fb_feef,
    0x02e3_b6e6,
    0x03eb_2eec,
    0x03e3_9aa2,
    0x0381_06b0,
    0x03e1_366e,
    0x03ef_ffff,
    0x02e1_86a2,
    0x03e3_266a,
    0x02e1_b66e,
    0x03f1_46a0,
    0x03ff_feee,
    0x03ff_beee,
    0x03ff_ffff,
    0x03ff_ffff,
    0x03ff_ffef,
];
/// Shorter labels are too short to judge.
const MIN_LABEL: usize = 7;
/// Of random letters some 70 % of the pairs are rare, of words some 15 %.
const RARE_PERCENT: usize = 45;

/// The part of a name that somebody registered, about: two labels, three below `co.uk` and its like. What no one
/// registers (one label, reverse lookups, names of the link) has none. `name` is in lower case.
pub(super) fn registered(name: &str) -> Option<&str> {
    let mut dots = name.rmatch_indices('.').map(|(at, _)| at);
    let last = dots.next()?;
    let top = &name[last + 1..];
    if top.is_empty() || matches!(top, "arpa" | "local") {
        return None;
    }
    let Some(second) = dots.next() else { return Some(name) };
    let sold_below = top.len() == 2 && SECOND_LEVEL.contains(&&name[second + 1..last]);
    let start = if sold_below { dots.next().map_or(0, |third| third + 1) } else { second + 1 };
    Some(&name[start..])
}

/// Whether a label reads like random letters and digits, and not like words: by how many of its pairs are rare, after
/// Yadav et al., "Detecting Algorithmically Generated Malicious Domain Names" (IMC 2010). `label` is in lower case.
pub(super) fn looks_generated(label: &str) -> bool {
    let bytes = label.as_bytes();
    let plain = bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-');
    if bytes.len() < MIN_LABEL || !plain || label.starts_with("xn--") {
        return false;
    }
    let (mut pairs, mut rare) = (0, 0);
    for pair in bytes.windows(2) {
        match (pair[0], pair[1]) {
            (b'-', _) | (_, b'-') => {}
            // Numbers say nothing.
            (a, b) if a.is_ascii_digit() && b.is_ascii_digit() => {}
            (a, b) if a.is_ascii_digit() || b.is_ascii_digit() => (pairs, rare) = (pairs + 1, rare + 1),
            (a, b) => {
                let is_rare = RARE[usize::from(a - b'a')] >> (b - b'a') & 1 == 1;
                (pairs, rare) = (pairs + 1, rare + usize::from(is_rare));
            }
        }
    }
    pairs >= MIN_LABEL - 1 && rare * 100 >= RARE_PERCENT * pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registered_part_of_a_name_is_found() {
        for (name, part) in [
            ("www.example.org", Some("example.org")),
            ("example.org", Some("example.org")),
            ("a.b.example.co.uk", Some("example.co.uk")),
            ("co.uk", Some("co.uk")),
            ("a.b.t1.de", Some("t1.de")),
            ("printer", None),
            ("printer.local", None),
            ("4.3.2.1.in-addr.arpa", None),
            ("", None),
            (".", None),
            ("a..b", Some(".b")),
        ] {
            assert_eq!(registered(name), part, "{name}");
        }
    }

    #[test]
    fn random_labels_look_generated_and_words_do_not() {
        for generated in ["xjwqkvbzpt", "kq3v9z1x7wfj2", "mfhzqjwxkvbd", "a8f3e1b7c4d2f6", "qpwzxkjvhgfd"] {
            assert!(looks_generated(generated), "{generated}");
        }
        for word in [
            "wikipedia",
            "stackoverflow",
            "windowsupdate",
            "doubleclick",
            "googlesyndication",
            "sueddeutsche",
            "scorecardresearch",
            "steamstatic",
            "mail-server-2024",
            "printer1234567",
            "xn--mnchen-3ya",
            "short",
            "",
            "caf\u{e9}caf\u{e9}caf\u{e9}",
        ] {
            assert!(!looks_generated(word), "{word}");
        }
    }
}
