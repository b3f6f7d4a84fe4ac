//! One attempt: a POST with a timeout, no redirects, a bounded answer.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderValue};
use reqwest::{Certificate, Response, Url, redirect};
use thiserror::Error;

use super::answer::{Answer, Said, Trouble, date};
use super::parts::Packed;
use crate::config::{ControlPlane, Secret};

/// Where batches are taken.
const PATH: &str = "api/v1/ingest";
/// Bytes of an answer that are read; a problem document is smaller by far.
const MAX_ANSWER: usize = 64 << 10;
/// Characters of an answer that are logged.
const MAX_DETAIL: usize = 300;

/// Why there is no client.
#[derive(Debug, Error)]
pub enum ClientError {
    #[error("control_plane.url `{url}` cannot be used: {reason}")]
    Url { url: String, reason: String },
    #[error("read control_plane.{key} {path}: {source}", path = path.display())]
    File { key: &'static str, path: PathBuf, source: std::io::Error },
    #[error("control_plane.token_file {path} holds no token: one line of printable characters is expected", path = .0.display())]
    Token(PathBuf),
    #[error("control_plane.ca_file {path} holds no certificate in PEM: {reason}", path = path.display())]
    Certificates { path: PathBuf, reason: String },
    #[error("no control_plane.token and no control_plane.token_file")]
    NoToken,
    #[error("make the HTTPS client: {0}")]
    Build(#[source] reqwest::Error),
}

/// Talks to one control plane.
pub struct Client {
    http: reqwest::Client,
    url: Url,
    credential: HeaderValue,
    token_file: Option<PathBuf>,
}

/// An attempt's answer and what it told about the clocks.
pub(super) struct Attempt {
    pub(super) answer: Answer,
    /// The control plane's clock less ours, seconds.
    pub(super) clock_skew: Option<f64>,
}

impl Client {
    pub fn new(settings: &ControlPlane) -> Result<Self, ClientError> {
        let wrong = |reason: String| ClientError::Url { url: settings.url.clone(), reason };
        // A base without a final slash would lose its last segment in the join.
        let base = format!("{}/", settings.url.trim_end_matches('/'));
        let url =
            Url::parse(&base).and_then(|base| base.join(PATH)).map_err(|error| wrong(error.to_string()))?;
        let credential = match (&settings.token, &settings.token_file) {
            (Some(token), _) => bearer(token).ok_or(ClientError::NoToken)?,
            (None, Some(path)) => read_token(path)?,
            (None, None) => return Err(ClientError::NoToken),
        };
        let timeout = settings.timeout.0;
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("weir-sensor/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .timeout(timeout)
            .connect_timeout(timeout)
            .pool_idle_timeout(Duration::from_secs(90))
            .pool_max_idle_per_host(1);
        if let Some(path) = &settings.ca_file {
            for certificate in read_certificates(path)? {
                builder = builder.add_root_certificate(certificate);
            }
        }
        let http = builder.build().map_err(ClientError::Build)?;
        Ok(Self { http, url, credential, token_file: settings.token_file.clone() })
    }

    /// Where batches go, for log lines.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// Reads the token file again: tokens are rotated while the sensor runs. Whether it has changed.
    pub(super) fn renew_credential(&mut self) -> Result<bool, ClientError> {
        let Some(path) = &self.token_file else { return Ok(false) };
        let credential = read_token(path)?;
        let changed = credential != self.credential;
        self.credential = credential;
        Ok(changed)
    }

    /// Posts a batch once.
    pub(super) async fn post(&self, batch: &Packed) -> Attempt {
        let sent_at = SystemTime::now();
        let milliseconds = sent_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let request = self
            .http
            .post(self.url.clone())
            .header(AUTHORIZATION, self.credential.clone())
            .header(CONTENT_TYPE, weir_wire::CONTENT_TYPE)
            .header(CONTENT_ENCODING, weir_wire::CONTENT_ENCODING)
            .header(weir_wire::SENT_AT_HEADER, milliseconds.to_string())
            .body(batch.body.clone());
        match request.send().await {
            Ok(response) => {
                let answered_at = SystemTime::now();
                let clock_skew = skew(&response, sent_at, answered_at);
                let (status, headers) = (response.status(), response.headers().clone());
                let said = said(response).await;
                Attempt { answer: Answer::new(status, &headers, said), clock_skew }
            }
            Err(error) => {
                let trouble = if error.is_timeout() { Trouble::Timeout } else { Trouble::Connection };
                Attempt {
                    answer: Answer::Again { trouble, after: None, detail: chain(&error) },
                    clock_skew: None,
                }
            }
        }
    }
}

fn bearer(token: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn read_token(path: &PathBuf) -> Result<HeaderValue, ClientError> {
    let text = std::fs::read_to_string(path).map_err(|source| ClientError::File {
        key: "token_file",
        path: path.clone(),
        source,
    })?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ClientError::Token(path.clone()));
    }
    bearer(&Secret::new(token.to_owned())).ok_or_else(|| ClientError::Token(path.clone()))
}

fn read_certificates(path: &PathBuf) -> Result<Vec<Certificate>, ClientError> {
    let pem = std::fs::read(path).map_err(|source| ClientError::File {
        key: "ca_file",
        path: path.clone(),
        source,
    })?;
    let wrong = |reason: String| ClientError::Certificates { path: path.clone(), reason };
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| wrong(chain(&error)))?;
    if certificates.is_empty() { Err(wrong("the file has none".to_owned())) } else { Ok(certificates) }
}

/// The answer's Date against the middle of the exchange.
fn skew(response: &Response, sent_at: SystemTime, answered_at: SystemTime) -> Option<f64> {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map(|since| since.as_secs_f64()).ok();
    let theirs = seconds(date(response.headers().get(DATE)?.to_str().ok()?)?)?;
    let ours = f64::midpoint(seconds(sent_at)?, seconds(answered_at)?);
    // The header has whole seconds: less than one of difference is none.
    let skew = theirs + 0.5 - ours;
    Some(if skew.abs() < 1.0 { 0.0 } else { skew })
}

/// What the start of an answer's body says, fit for a log line.
async fn said(mut response: Response) -> Said {
    let mut body = Vec::new();
    while body.len() < MAX_ANSWER {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk[..chunk.len().min(MAX_ANSWER - body.len())]),
            Ok(None) | Err(_) => break,
        }
    }
    let json: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
    let field = |name: &str| json.as_ref().and_then(|json| json.get(name)?.as_str());
    let text = field("detail")
        .or_else(|| field("title"))
        .map_or_else(|| String::from_utf8_lossy(&body).into_owned(), str::to_owned);
    Said {
        problem: field("type").unwrap_or_default().to_owned(),
        detail: text
            .chars()
            .map(|char| if char.is_control() { ' ' } else { char })
            .take(MAX_DETAIL)
            .collect(),
        duplicate: field("status") == Some("duplicate"),
    }
}

/// An error with its causes; reqwest keeps the telling part in them.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
