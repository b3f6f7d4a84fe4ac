//! Begins spans, and has those that are over sent.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _,
    TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use crate::export::Exporter;
use crate::queue::{Count, Outcome, Queue};
use crate::{Active, SettingsError, Traces};

/// Begins spans; cheap to clone.
#[derive(Clone, Default)]
pub struct Tracer(Option<Arc<Inner>>);

struct Inner {
    sdk: SdkTracer,
    end: Arc<Notify>,
    exporter: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_on() { "Tracer(on)" } else { "Tracer(off)" })
    }
}

impl Tracer {
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    /// Begins to send, if the settings name a collector. `service` is what the collector calls the program.
    pub fn start(
        settings: &Traces,
        service: &'static str,
        count: impl Fn(Outcome, u64) + Send + Sync + 'static,
    ) -> Result<Self, SettingsError> {
        settings.check()?;
        let Some(url) = settings.url()? else { return Ok(Self::off()) };
        let count: Count = Arc::new(count);
        let resource = Resource::builder_empty()
            .with_service_name(service)
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let exporter = Exporter::new(settings, url, &resource, Arc::clone(&count))?;
        let (waiting, queue) = mpsc::channel(settings.queue);
        let provider = SdkTracerProvider::builder()
            .with_span_processor(Queue { waiting, count })
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.ratio))))
            .with_resource(resource)
            .build();
        let end = Arc::new(Notify::new());
        let exporter = Mutex::new(Some(tokio::spawn(exporter.run(queue, Arc::clone(&end)))));
        Ok(Self(Some(Arc::new(Inner { sdk: provider.tracer("weir"), end, exporter }))))
    }

    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins a piece of work that `caller` caused, or that begins a trace. `None` if the tracer is off and there is no
    /// caller; where it is not to be recorded nothing of it is sent, but whose work it is can be told.
    #[must_use]
    pub fn begin(
        &self,
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
        caller: Option<SpanContext>,
        attributes: Vec<KeyValue>,
    ) -> Option<Active> {
        let parent = Context::new();
        let (parent, inner) = match (caller, &self.0) {
            (None, None) => return None,
            (Some(caller), None) => return Some(Active::new(parent.with_remote_span_context(caller))),
            (None, Some(inner)) => (parent, inner),
            (Some(caller), Some(inner)) => (parent.with_remote_span_context(caller), inner),
        };
        let span = SpanBuilder::from_name(name).with_kind(kind).with_attributes(attributes);
        let span = inner.sdk.build_with_context(span, &parent);
        Some(Active::new(parent.with_span(span).with_value(self.clone())))
    }

    /// A call that work made and that is over.
    pub(crate) fn call(
        &self,
        caller: &Context,
        name: &'static str,
        started: SystemTime,
        attributes: Vec<KeyValue>,
        failure: Option<String>,
    ) {
        let Some(inner) = &self.0 else { return };
        let span = SpanBuilder::from_name(name)
            .with_kind(SpanKind::Client)
            .with_start_time(started)
            .with_attributes(attributes);
        let mut span = inner.sdk.build_with_context(span, caller);
        if let Some(failure) = failure {
            span.set_attribute(KeyValue::new("error.type", failure.clone()));
            span.set_status(Status::error(failure));
        }
        span.end();
    }

    /// Sends what waits, for no longer than this; what begins afterwards is dropped.
    pub async fn finish(&self, within: Duration) {
        let Some(inner) = &self.0 else { return };
        let exporter = inner.exporter.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut exporter) = exporter else { return };
        inner.end.notify_one();
        if tokio::time::timeout(within, &mut exporter).await.is_err() {
            exporter.abort();
        }
    }
}
