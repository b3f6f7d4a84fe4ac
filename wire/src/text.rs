//! Characters of text that strangers wrote (I6): one rule for whoever writes a name down and whoever keeps it.

/// Whether a character would do something to whoever shows it.
#[must_use]
pub fn is_hostile(character: char) -> bool {
    character.is_control()
        || matches!(character,
            // Soft hyphen, Arabic letter mark, Mongolian vowel separator, zero widths and directional marks.
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
            // Line and paragraph separators, embeddings, overrides and isolates.
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            // Byte order mark, interlinear annotation, tags.
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Whether a text is a domain name as configurations write it: letters in lower case, digits, hyphens, underscores and
/// dots between, at most 253 octets.
#[must_use]
pub fn is_plain_domain(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    let is_label = |label: &str| !label.is_empty() && label.len() <= 63 && label.bytes().all(plain);
    text.len() <= 253 && text.split('.').all(is_label)
}
