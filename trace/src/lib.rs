//! Traces: who caused what, from a sensor's batch to the statements that store it (A6, O4).
//!
//! [`Traces`] is `[traces]` of both programs' configuration, [`header`] the part of a trace that travels (W3C trace
//! context), an [`Active`] a piece of work that goes on, a [`Tracer`] begins them and sends what is over to a collector.
//! What must stay true: a program that is not asked to trace has a tracer that is off and costs a comparison; one whose
//! collector is stuck or away loses spans, counts them, and waits for nothing.

mod active;
mod export;
pub mod header;
mod queue;
mod settings;
mod tracer;

pub use active::{Active, Current, current, trace_id};
pub use opentelemetry::KeyValue;
/// For those who begin spans and give them attributes.
pub use opentelemetry::trace::{SpanContext, SpanKind, TraceId};
pub use queue::Outcome;
pub use settings::{SettingsError, Traces};
pub use tracer::Tracer;
