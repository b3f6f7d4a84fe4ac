//! What the server says about itself: metrics for Prometheus, a log on standard error.

mod lines;
mod metrics;

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

use lines::Lines;
pub use metrics::{Metrics, Registered};

/// Starts the log. Call once; a second call in one process is ignored.
pub fn init_log(settings: &Log) {
    // The configuration was validated with this same parser.
    let filter = EnvFilter::try_new(&settings.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Lines(std::io::stderr()));
    let result = match settings.format {
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
        LogFormat::Text => builder.with_ansi(false).try_init(),
    };
    if result.is_err() {
        tracing::debug!("the log was started before");
    }
}
