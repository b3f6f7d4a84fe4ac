//! Rows that people name: by their id, or by a name that can never be taken for one.

/// A row named by a path, a filter or a command.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    Id(i32),
    Name(String),
}

impl Reference {
    /// An id or a name; `None` for what can be neither.
    pub(super) fn parse(text: &str, is_name: fn(&str) -> bool) -> Option<Self> {
        if let Ok(id) = text.parse::<i32>() {
            return (id > 0 && !text.starts_with('+')).then_some(Self::Id(id));
        }
        is_name(text).then(|| Self::Name(text.to_owned()))
    }

    /// For statements that compare both columns.
    pub(super) fn parts(&self) -> (Option<i32>, Option<&str>) {
        match self {
            Self::Id(id) => (Some(*id), None),
            Self::Name(name) => (None, Some(name)),
        }
    }
}

/// Whether a name has 1 to 63 bytes that are all `plain`, begins with a letter or digit, and is no number.
pub(super) fn is_name(name: &str, plain: fn(u8) -> bool) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(plain)
        && name.as_bytes()[0].is_ascii_alphanumeric()
        && !name.bytes().all(|byte| byte.is_ascii_digit())
}
