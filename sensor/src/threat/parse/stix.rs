//! Indicators of a STIX 2.1 bundle (OASIS, <https://docs.oasis-open.org/cti/stix/v2.1/>): patterns that compare
//! an address or a domain with a value, alone or joined by `OR`. Others need more than one observation, which a
//! list cannot say; they are counted as not read.

use serde::Deserialize;
use serde_json::Value;

use super::{ParseError, Reading};

#[derive(Deserialize)]
struct Bundle {
    r#type: String,
    #[serde(default)]
    objects: Vec<Object>,
}

/// Any object: what is not an indicator is passed over, whatever it has.
#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    r#type: Value,
    #[serde(default)]
    pattern: Value,
    #[serde(default)]
    revoked: Value,
    #[serde(default)]
    valid_until: Value,
}

pub(super) fn read(bytes: &[u8], reading: &mut Reading) -> Result<(), ParseError> {
    let bundle: Bundle =
        serde_json::from_slice(bytes).map_err(|error| ParseError::Stix(error.to_string()))?;
    if bundle.r#type != "bundle" {
        return Err(ParseError::Stix("its type is another".to_owned()));
    }
    let now = jiff::Timestamp::now();
    for (number, object) in (1..).zip(&bundle.objects) {
        if object.r#type != "indicator" || object.revoked == true {
            continue;
        }
        let until = object.valid_until.as_str().and_then(|time| time.parse::<jiff::Timestamp>().ok());
        if until.is_some_and(|until| until <= now) {
            continue;
        }
        let Some(pattern) = object.pattern.as_str() else {
            reading.refuse(number, "", "an indicator without a pattern");
            continue;
        };
        match values(pattern) {
            Some(values) => values.into_iter().try_for_each(|value| reading.word(number, value))?,
            None => reading.refuse(number, pattern, "a pattern that no list of addresses or domains can say"),
        }
    }
    Ok(())
}

/// The values of a pattern `[path = 'value' OR path = 'value']`.
fn values(pattern: &str) -> Option<Vec<&str>> {
    let mut rest = pattern.trim().strip_prefix('[')?.strip_suffix(']')?;
    let mut values = Vec::new();
    loop {
        let path = ["ipv4-addr:value", "ipv6-addr:value", "domain-name:value"];
        let after = path.iter().find_map(|path| rest.trim_start().strip_prefix(path))?.trim_start();
        let after = after.strip_prefix('=').or_else(|| after.strip_prefix("ISSUBSET"))?;
        let (value, after) = after.trim_start().strip_prefix('\'')?.split_once('\'')?;
        values.push(value);
        let after = after.trim();
        if after.is_empty() {
            return Some(values);
        }
        rest = after.strip_prefix("OR")?;
    }
}
