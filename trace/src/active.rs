//! A piece of work that goes on, and whose it is.

use std::time::SystemTime;

use opentelemetry::context::FutureExt as _;
use opentelemetry::trace::{SpanContext, Status, TraceContextExt as _};
use opentelemetry::{Context, KeyValue};

use crate::Tracer;

/// A span that is not over. One that is dropped before it is ended failed.
#[derive(Debug)]
pub struct Active {
    context: Context,
    ended: bool,
}

impl Active {
    pub(crate) fn new(context: Context) -> Self {
        Self { context, ended: false }
    }

    /// What a request that it makes carries.
    #[must_use]
    pub fn span_context(&self) -> SpanContext {
        self.context.span().span_context().clone()
    }

    /// For the log.
    #[must_use]
    pub fn trace_id(&self) -> String {
        self.context.span().span_context().trace_id().to_string()
    }

    /// Does the work as part of it, so that [`current`] finds it.
    pub async fn within<F: Future>(&self, work: F) -> F::Output {
        work.with_context(self.context.clone()).await
    }

    /// Ends it; `failure` is what failed, if something did.
    pub fn end(mut self, attributes: impl IntoIterator<Item = KeyValue>, failure: Option<String>) {
        self.ended = true;
        let span = self.context.span();
        span.set_attributes(attributes);
        if let Some(failure) = failure {
            span.set_attribute(KeyValue::new("error.type", failure.clone()));
            span.set_status(Status::error(failure));
        }
        span.end();
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        if !self.ended {
            let span = self.context.span();
            span.set_status(Status::error("nobody waited for its end"));
            span.end();
        }
    }
}

/// The work that is done here, if it is recorded: for the calls that it makes.
#[must_use]
pub fn current() -> Option<Current> {
    Context::map_current(|context| {
        let tracer = context.get::<Tracer>()?;
        context.span().is_recording().then(|| Current { tracer: tracer.clone(), context: context.clone() })
    })
}

/// The trace that is worked for here, recorded or not, for the log.
#[must_use]
pub fn trace_id() -> Option<String> {
    Context::map_current(|context| {
        let span = context.span();
        let span = span.span_context();
        span.is_valid().then(|| span.trace_id().to_string())
    })
}

/// Work that is recorded.
#[derive(Clone, Debug)]
pub struct Current {
    tracer: Tracer,
    context: Context,
}

impl Current {
    /// A call that it made and that is over.
    pub fn called(
        &self,
        name: &'static str,
        started: SystemTime,
        attributes: Vec<KeyValue>,
        failure: Option<String>,
    ) {
        self.tracer.call(&self.context, name, started, attributes, failure);
    }
}
