//! One attempt: a POST with a timeout, no redirects, a bounded answer.

use std::time::{SystemTime, UNIX_EPOCH};

use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, DATE};
use reqwest::{Response, Url};
use tokio::sync::watch;
use weir_trace::{KeyValue, SpanKind, Tracer, header};

use super::answer::{Answer, Said, Trouble, date};
use super::parts::Packed;
use crate::config::ControlPlane;
use crate::control::{self, ClientError, Credential, Line, chain};

/// Where batches are taken.
const PATH: &str = "api/v1/ingest";
/// Bytes of an answer that are read; a problem document is smaller by far.
const MAX_ANSWER: usize = 64 << 10;
/// Characters of an answer that are logged.
const MAX_DETAIL: usize = 300;

/// Talks to one control plane.
pub struct Client {
    line: Line,
    url: Url,
    credential: Credential,
    identity: watch::Receiver<u64>,
    tracer: Tracer,
}

/// An attempt's answer and what it told about the clocks.
pub(super) struct Attempt {
    pub(super) answer: Answer,
    /// The control plane's clock less ours, seconds.
    pub(super) clock_skew: Option<f64>,
    /// Of which it is, for the log.
    pub(super) trace_id: Option<String>,
}

impl Client {
    /// Each attempt begins a trace.
    pub fn new(settings: &ControlPlane, tracer: Tracer) -> Result<Self, ClientError> {
        let url = control::address(settings, PATH)?;
        let credential = Credential::open(settings)?;
        let identity = credential.identity();
        let changes = identity.changes();
        Ok(Self { line: Line::new(settings, identity)?, url, credential, identity: changes, tracer })
    }

    /// What the sensor shows, for whoever else talks to the control plane.
    #[must_use]
    pub fn credential(&self) -> Credential {
        self.credential.clone()
    }

    /// Where batches go, for log lines.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// Reads the token file again: tokens are rotated while the sensor runs. Whether it has changed.
    pub(super) fn renew_credential(&mut self) -> Result<bool, ClientError> {
        self.credential.read_again()
    }

    /// Waits until the sensor shows another certificate, or none.
    pub(super) async fn another_identity(&mut self) {
        if self.identity.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Posts a batch once.
    pub(super) async fn post(&self, batch: &Packed) -> Attempt {
        let attributes = vec![
            KeyValue::new("weir.generation", batch.generation.to_string()),
            KeyValue::new("weir.epoch", batch.epoch.cast_signed()),
            KeyValue::new("weir.part", i64::from(batch.part)),
            KeyValue::new("weir.records", batch.records.cast_signed()),
        ];
        let Some(trace) = self.tracer.begin("ship", SpanKind::Client, None, attributes) else {
            return self.attempt(batch, None).await;
        };
        let attempt = self.attempt(batch, Some(header::write(&trace.span_context()))).await;
        let trace_id = Some(trace.trace_id());
        trace.end([], attempt.answer.failure().map(str::to_owned));
        Attempt { trace_id, ..attempt }
    }

    async fn attempt(&self, batch: &Packed, traceparent: Option<String>) -> Attempt {
        let sent_at = SystemTime::now();
        let milliseconds = sent_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let mut request = self
            .line
            .http()
            .post(self.url.clone())
            .header(AUTHORIZATION, self.credential.header())
            .header(CONTENT_TYPE, weir_wire::CONTENT_TYPE)
            .header(CONTENT_ENCODING, weir_wire::CONTENT_ENCODING)
            .header(weir_wire::SENT_AT_HEADER, milliseconds.to_string())
            .body(batch.body.clone());
        if let Some(traceparent) = traceparent {
            request = request.header(header::NAME, traceparent);
        }
        match request.send().await {
            Ok(response) => {
                let answered_at = SystemTime::now();
                let clock_skew = skew(&response, sent_at, answered_at);
                let (status, headers) = (response.status(), response.headers().clone());
                let said = said(response).await;
                Attempt { answer: Answer::new(status, &headers, said), clock_skew, trace_id: None }
            }
            Err(error) => {
                self.line.failed(&error);
                let trouble = if error.is_timeout() { Trouble::Timeout } else { Trouble::Connection };
                Attempt {
                    answer: Answer::Again { trouble, after: None, detail: chain(&error) },
                    clock_skew: None,
                    trace_id: None,
                }
            }
        }
    }
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
