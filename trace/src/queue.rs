//! From the end of a span to the exporter: a bounded queue that is never waited for.
//!
//! OpenTelemetry's own batch processor has such a queue too, with a thread of its own and a count of what it dropped
//! that nobody can read.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use tokio::sync::mpsc;

/// What became of spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Exported,
    /// The queue was full.
    Dropped,
    /// The collector did not take them.
    Refused,
}

impl Outcome {
    pub const ALL: [Self; 3] = [Self::Exported, Self::Dropped, Self::Refused];

    /// For metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exported => "exported",
            Self::Dropped => "dropped",
            Self::Refused => "refused",
        }
    }
}

pub type Count = Arc<dyn Fn(Outcome, u64) + Send + Sync>;

pub struct Queue {
    pub waiting: mpsc::Sender<SpanData>,
    pub count: Count,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Queue")
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.waiting.try_send(span).is_err() {
            (self.count)(Outcome::Dropped, 1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}
