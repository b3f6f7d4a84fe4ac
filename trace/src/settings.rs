//! `[traces]`, the same in both programs' configuration.

use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

/// Where spans go.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Traces {
    /// Where a collector takes OTLP over HTTP, as `http://127.0.0.1:4318/v1/traces`. Off without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// File with a header a line, as `Authorization: Bearer …`, for the collector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers_file: Option<PathBuf>,
    /// Of the traces that begin here this share is recorded, 0 to 1; those of others are recorded if they want it.
    pub ratio: f64,
    /// Spans that wait for the collector; more are dropped and counted.
    pub queue: usize,
    /// What one request to the collector may take.
    pub timeout_ms: u64,
}

impl Default for Traces {
    fn default() -> Self {
        Self { endpoint: None, headers_file: None, ratio: 1.0, queue: 4_096, timeout_ms: 5_000 }
    }
}

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    // The URL may hold a password: it is not repeated.
    #[error("traces.endpoint: is not an http:// or https:// address")]
    Endpoint,
    #[error("traces.endpoint: holds a user name or password; put the credential into traces.headers_file")]
    Credential,
    #[error("traces.{key}: {value} is not between {low} and {high}")]
    Range { key: &'static str, value: f64, low: f64, high: f64 },
    #[error("traces.headers_file: read {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    // Neither is the line.
    #[error("traces.headers_file: line {line} of {path} is not of the form `Name: value`")]
    Header { path: PathBuf, line: usize },
    #[error("traces.endpoint: make a client for it: {0}")]
    Client(#[from] reqwest::Error),
}

impl Traces {
    /// Every value within its bounds.
    pub fn check(&self) -> Result<(), SettingsError> {
        self.url()?;
        for (key, value, low, high) in [
            ("ratio", self.ratio, 0.0, 1.0),
            ("queue", self.queue as f64, 1.0, 1e6),
            ("timeout_ms", self.timeout_ms as f64, 10.0, 60_000.0),
        ] {
            // Also what is no number.
            if !(low..=high).contains(&value) {
                return Err(SettingsError::Range { key, value, low, high });
            }
        }
        self.headers().map(drop)
    }

    pub(crate) fn url(&self) -> Result<Option<Url>, SettingsError> {
        let Some(text) = &self.endpoint else { return Ok(None) };
        let url = Url::parse(text).map_err(|_| SettingsError::Endpoint)?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(SettingsError::Endpoint);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(SettingsError::Credential);
        }
        Ok(Some(url))
    }

    /// For each request to the collector; never shown.
    pub(crate) fn headers(&self) -> Result<HeaderMap, SettingsError> {
        let Some(path) = &self.headers_file else { return Ok(HeaderMap::new()) };
        let text = std::fs::read_to_string(path)
            .map_err(|source| SettingsError::File { path: path.clone(), source })?;
        headers(path, &text)
    }
}

fn headers(path: &Path, text: &str) -> Result<HeaderMap, SettingsError> {
    let mut headers = HeaderMap::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let header = line.split_once(':').and_then(|(name, value)| {
            let mut value = HeaderValue::from_str(value.trim()).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::from_str(name.trim()).ok()?, value))
        });
        let (name, value) =
            header.ok_or_else(|| SettingsError::Header { path: path.to_owned(), line: at + 1 })?;
        headers.append(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o4_what_cannot_be_meant_is_refused_by_name() {
        let with = |endpoint: &str| Traces { endpoint: Some(endpoint.to_owned()), ..Traces::default() };
        assert!(Traces::default().check().is_ok());
        assert!(with("http://127.0.0.1:4318/v1/traces").check().is_ok());
        for wrong in ["", "4318", "ftp://collector/", "unix:/run/collector", "http://", "http://u:p@c/"] {
            let error = with(wrong).check().expect_err(wrong).to_string();
            assert!(error.contains("traces.endpoint") && !error.contains("u:p"), "{error}");
        }
        for (key, wrong) in [
            ("queue", Traces { queue: 0, ..Traces::default() }),
            ("ratio", Traces { ratio: 1.5, ..Traces::default() }),
            ("ratio", Traces { ratio: f64::NAN, ..Traces::default() }),
            ("timeout_ms", Traces { timeout_ms: 1, ..Traces::default() }),
        ] {
            let error = wrong.check().expect_err(key).to_string();
            assert!(error.starts_with(&format!("traces.{key}: ")), "{error}");
        }
    }

    #[test]
    fn u7_headers_come_from_a_file_and_are_not_shown() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let settings = Traces { headers_file: Some(file.path().to_owned()), ..Traces::default() };
        std::fs::write(file.path(), "Authorization: Bearer a-secret\n\nX-Scope: weir\n").expect("written");
        let headers = settings.headers().expect("two headers");
        assert_eq!(
            (&headers["authorization"], &headers["x-scope"]),
            (&"Bearer a-secret".parse().unwrap(), &"weir".parse().unwrap())
        );
        assert!(!format!("{headers:?}").contains("a-secret"));
        std::fs::write(file.path(), "X-Scope: weir\na secret without a name\n").expect("written");
        let error = settings.check().expect_err("no header").to_string();
        assert!(error.contains("line 2") && !error.contains("secret w"), "{error}");
        std::fs::remove_file(file.path()).expect("removed");
        assert!(settings.check().expect_err("no file").to_string().contains("traces.headers_file: read"));
    }
}
