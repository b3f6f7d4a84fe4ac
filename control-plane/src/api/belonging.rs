//! Sites, groups and labels of sensors: what may be said, and how.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::ApiError;
use super::error::FieldError;
use crate::store::sensors::is_name;

/// What a site, a group or a label's key is.
pub const NAME: &str = "a name of 1 to 63 letters, digits, `.`, `_`, `-`, not only digits";
const MAX_LABELS: usize = 32;
/// Bytes of a label's value.
const MAX_VALUE: usize = 128;

/// A site or a group.
pub fn name(text: &str) -> Option<String> {
    is_name(text).then(|| text.to_owned())
}

/// `key=value,key=value`.
pub fn labels(text: &str) -> Option<BTreeMap<String, String>> {
    let labels: Option<BTreeMap<String, String>> = text
        .split(',')
        .map(|pair| pair.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())))
        .collect();
    labels.filter(|labels| labels.len() <= MAX_LABELS && labels.iter().all(is_label))
}

/// Every fault of what a body says.
pub fn check<'a>(
    site: impl IntoIterator<Item = &'a String>,
    group: impl IntoIterator<Item = &'a String>,
    labels: Option<&BTreeMap<String, String>>,
) -> Result<(), ApiError> {
    let mut errors = Vec::new();
    let mut wrong = |field: &str, message: String| {
        errors.push(FieldError { field: field.to_owned(), message });
    };
    if site.into_iter().any(|site| !is_name(site)) {
        wrong("site", format!("is not {NAME}"));
    }
    if group.into_iter().any(|group| !is_name(group)) {
        wrong("group", format!("is not {NAME}"));
    }
    if let Some(labels) = labels {
        if labels.len() > MAX_LABELS {
            wrong("labels", format!("has more than {MAX_LABELS}"));
        }
        if !labels.iter().all(is_label) {
            wrong(
                "labels",
                format!(
                    "has a key that is not {NAME}, or a value with more than {MAX_VALUE} bytes, control \
                     characters or a comma"
                ),
            );
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::parameters(errors)) }
}

fn is_label((key, value): (&String, &String)) -> bool {
    is_name(key) && value.len() <= MAX_VALUE && !value.chars().any(|char| char.is_control() || char == ',')
}

/// Tells what is null from what is left out.
// serde's shape: left out, null, or said.
#[allow(clippy::option_option)]
pub fn said<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}
