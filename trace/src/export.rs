//! Spans to the collector: many in one request, one request at a time, and none twice.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use prost::Message as _;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Response, Url, redirect};
use tokio::sync::{Notify, mpsc};

use crate::queue::{Count, Outcome};
use crate::{SettingsError, Traces};

/// Spans of one request.
const BATCH: usize = 512;
/// A span waits no longer for others to go with.
const LINGER: Duration = Duration::from_millis(500);
/// Bytes of an answer that are read.
const MAX_ANSWER: usize = 64 << 10;

pub struct Exporter {
    http: Client,
    url: Url,
    resource: ResourceAttributesWithSchema,
    count: Count,
}

impl Exporter {
    pub fn new(
        settings: &Traces,
        url: Url,
        resource: &Resource,
        count: Count,
    ) -> Result<Self, SettingsError> {
        let http = Client::builder()
            .timeout(Duration::from_millis(settings.timeout_ms))
            .default_headers(settings.headers()?)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .build()?;
        Ok(Self { http, url, resource: resource.into(), count })
    }

    /// Until nobody can begin a span any more, or until the end and what waits then.
    pub async fn run(self, mut waiting: mpsc::Receiver<SpanData>, end: Arc<Notify>) {
        let (mut spans, mut away, mut ending) = (Vec::with_capacity(BATCH), false, false);
        loop {
            tokio::select! {
                taken = waiting.recv_many(&mut spans, BATCH) => if taken == 0 { return },
                () = end.notified(), if !ending => {
                    ending = true;
                    waiting.close();
                    continue;
                }
            }
            let deadline = tokio::time::Instant::now() + LINGER;
            while spans.len() < BATCH && !ending {
                let room = BATCH - spans.len();
                tokio::select! {
                    taken = waiting.recv_many(&mut spans, room) => if taken == 0 { break },
                    () = tokio::time::sleep_until(deadline) => break,
                    () = end.notified() => {
                        ending = true;
                        waiting.close();
                    }
                }
            }
            self.export(std::mem::take(&mut spans), &mut away).await;
        }
    }

    async fn export(&self, spans: Vec<SpanData>, away: &mut bool) {
        let all = spans.len() as u64;
        match self.send(spans).await {
            Ok(refused) => {
                let refused = refused.min(all);
                (self.count)(Outcome::Exported, all - refused);
                (self.count)(Outcome::Refused, refused);
                if std::mem::replace(away, false) {
                    tracing::info!("the collector takes spans again");
                }
            }
            Err(error) => {
                (self.count)(Outcome::Refused, all);
                if !std::mem::replace(away, true) {
                    let error = error.without_url();
                    tracing::warn!(%error, "the collector at traces.endpoint takes no spans; they are dropped");
                }
            }
        }
    }

    /// Gives how many the collector says that it did not take.
    async fn send(&self, spans: Vec<SpanData>) -> Result<u64, reqwest::Error> {
        let resource_spans = group_spans_by_resource_and_scope(spans, &self.resource);
        let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        let request = self.http.post(self.url.clone()).header(CONTENT_TYPE, "application/x-protobuf");
        let answer = request.body(body).send().await?.error_for_status()?;
        let answer = ExportTraceServiceResponse::decode(&*beginning(answer).await?).unwrap_or_default();
        let refused = answer.partial_success.map_or(0, |partial| partial.rejected_spans);
        Ok(u64::try_from(refused).unwrap_or_default())
    }
}

async fn beginning(mut answer: Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        body.extend_from_slice(&chunk[..chunk.len().min(MAX_ANSWER - body.len())]);
        if body.len() == MAX_ANSWER {
            break;
        }
    }
    Ok(body)
}
