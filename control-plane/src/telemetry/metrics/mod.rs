//! Every metric of the server, in one place and the files below it. Names have the prefix `weir_` and base units; no label's
//! values can be chosen by a stranger (routes are templates, statuses and categories are ours).

mod sensors;
mod service;
mod work;

use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

use crate::ingest::Clipped;
use crate::store::{Class, PoolState, erasure};

pub use sensors::{Clocks, Losses, PresenceMetrics, SensorGauges};
pub use service::{ClientCertificates, Connections, Limiting, Streaming, Tls};
pub use work::{AlertMetrics, JobMetrics};

/// The metrics, shared by every part; cheap to clone.
pub type Metrics = Arc<Registered>;

/// See the help texts in [`Registered::new`].
#[derive(Debug)]
pub struct Registered {
    registry: Registry,
    /// method, route, status
    pub request_seconds: HistogramVec,
    /// category
    pub request_errors: IntCounterVec,
    pub requests_in_flight: IntGauge,
    pub limits: Limiting,
    pub tls: Tls,
    pub client_certificates: ClientCertificates,
    pub connections: Connections,
    pub stream: Streaming,
    pub exports_in_flight: IntGauge,
    pub export_rows: IntCounter,
    /// outcome: `not_modified`, `hit`, `miss`
    pub kept_answers: IntCounterVec,
    /// class, operation
    pub query_seconds: HistogramVec,
    /// outcome: exported, dropped, refused
    pub spans: IntCounterVec,
    /// class
    pub slow_statements: IntCounterVec,
    /// operation
    pub rollbacks: IntCounterVec,
    /// kind
    pub database_errors: IntCounterVec,
    pub pool_errors: IntCounter,
    pub ingest_rows: IntCounter,
    pub ingest_bytes: IntCounter,
    /// outcome: stored, notice, expired, duplicate, refused, failed
    pub ingest_batches: IntCounterVec,
    pub ingest_lag_seconds: Histogram,
    pub ingest_in_flight: IntGauge,
    /// reason: total, sensor
    pub ingest_busy: IntCounterVec,
    /// what: `flow`, `detection`, `device_fact`
    ingest_clipped: IntCounterVec,
    pub clocks: Clocks,
    pub losses: Losses,
    pub sensors: SensorGauges,
    pub presence: PresenceMetrics,
    /// outcome: `granted`, `wrong`, `blocked_account`, `blocked_address`, `failed`
    pub logins: IntCounterVec,
    pub refresh_tokens_reused: IntCounter,
    /// reason: missing, unknown, expired, revoked, role, scope, kind, certificate
    pub access_refused: IntCounterVec,
    pub jobs: JobMetrics,
    pub alerts: AlertMetrics,
    pub partitions_dropped: IntCounter,
    pub rollup_rows_pooled: IntCounter,
    /// kind
    pub erasures: IntCounterVec,
    pool_max: IntGauge,
    pool_total: IntGauge,
    pool_idle: IntGauge,
    pool_active: IntGauge,
    pool_waiting: IntGauge,
    pool_timeouts: IntGauge,
    pool_created: IntGauge,
    pool_closed_broken: IntGauge,
    pool_closed_invalid: IntGauge,
}

/// Registers metrics one after the other and remembers the first failure.
struct Builder(Registry);

impl Builder {
    fn add<C: Collector + Clone + 'static>(&self, metric: prometheus::Result<C>) -> C {
        let metric = metric.expect("names and labels are constants that Prometheus allows");
        self.0.register(Box::new(metric.clone())).expect("no name is used twice");
        metric
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::new(name, help))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.add(GaugeVec::new(Opts::new(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        self.add(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels))
    }
}

const LATENCY: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];
const JOB: &[f64] = &[0.01, 0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0];
const LAG: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 21_600.0, 86_400.0];
const SKEW: &[f64] = &[0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 3_600.0, 86_400.0];

fn erasures(b: &Builder) -> IntCounterVec {
    let help = "Erasures that came to their end, by kind of what was erased";
    let erasures = b.counters("weir_erasures_total", help, &["kind"]);
    for kind in erasure::Kind::ALL {
        erasures.with_label_values(&[kind.name()]);
    }
    erasures
}

fn slow_statements(b: &Builder) -> IntCounterVec {
    let slow = b.counters(
        "weir_db_slow_statements_total",
        "Statements that took database.slow_statement_ms or longer, by query class; the log has their text",
        &["class"],
    );
    for class in Class::ALL {
        slow.with_label_values(&[class.name()]);
    }
    slow
}

impl Registered {
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "a list: a line or two for each metric")]
    pub fn new() -> Metrics {
        let b = Builder(Registry::new());
        #[cfg(target_os = "linux")]
        let _ = b.0.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()));
        let registered = Self {
            request_seconds: b.histograms(
                "weir_http_request_duration_seconds",
                "Time from a request's head to its answer, by method, route template and status",
                &["method", "route", "status"],
                LATENCY,
            ),
            request_errors: b.counters(
                "weir_http_errors_total",
                "Answers with a problem, by its category",
                &["category"],
            ),
            requests_in_flight: b.gauge("weir_http_requests_in_flight", "Requests being answered"),
            exports_in_flight: b.gauge("weir_exports_in_flight", "Exports being streamed"),
            export_rows: b.counter("weir_export_rows_total", "Flows written to exports"),
            kept_answers: b.counters(
                "weir_kept_answers_total",
                "Questions whose answer may be kept: the caller had it, we had it, or it was worked out",
                &["outcome"],
            ),
            limits: Limiting::new(&b),
            tls: Tls::new(&b),
            client_certificates: ClientCertificates::new(&b),
            connections: Connections::new(&b),
            stream: Streaming::new(&b),
            query_seconds: b.histograms(
                "weir_db_transaction_duration_seconds",
                "Time a connection was held for one transaction, by query class and operation",
                &["class", "operation"],
                LATENCY,
            ),
            spans: b.counters(
                "weir_trace_spans_total",
                "Spans, by outcome: exported, dropped (the queue was full), refused (the collector did not take them)",
                &["outcome"],
            ),
            slow_statements: slow_statements(&b),
            rollbacks: b.counters("weir_db_rollbacks_total", "Transactions rolled back", &["operation"]),
            database_errors: b.counters("weir_db_errors_total", "Failed transactions, by kind", &["kind"]),
            pool_errors: b.counter(
                "weir_db_pool_errors_total",
                "Connections that could not be made or did not pass their test",
            ),
            ingest_rows: b.counter("weir_ingest_rows_total", "Flow records stored"),
            ingest_bytes: b.counter("weir_ingest_bytes_total", "Bytes of batch bodies, compressed"),
            ingest_batches: b.counters(
                "weir_ingest_batches_total",
                "Batches by outcome: stored, notice (of a loss), expired (too old), duplicate, refused (the \
                 sensor's fault), failed (ours)",
                &["outcome"],
            ),
            ingest_lag_seconds: b.histogram(
                "weir_ingest_lag_seconds",
                "Time from the end of a batch's window to its commit",
                LAG,
            ),
            ingest_in_flight: b.gauge("weir_ingest_in_flight", "Batches being decoded or stored"),
            ingest_busy: b.counters(
                "weir_ingest_busy_total",
                "Batches turned away because too many were in work, in total or of one sensor",
                &["reason"],
            ),
            ingest_clipped: b.counters(
                "weir_ingest_clipped_total",
                "What batches told of devices that were erased meanwhile: flow (stored without the device's \
                 address), detection, device_fact (not stored)",
                &["what"],
            ),
            clocks: Clocks::new(&b),
            losses: Losses::new(&b),
            sensors: SensorGauges::new(&b),
            presence: PresenceMetrics::new(&b),
            logins: b.counters(
                "weir_logins_total",
                "Attempts to log in: granted, wrong (name, password or disabled), blocked_account and \
                 blocked_address (too many failures before), failed (ours)",
                &["outcome"],
            ),
            refresh_tokens_reused: b.counter(
                "weir_refresh_tokens_reused_total",
                "Refresh tokens that came a second time, which ended their session",
            ),
            access_refused: b.counters(
                "weir_access_refused_total",
                "Requests turned away at a route's door, by reason: missing, unknown, expired, revoked, role, \
                 scope, kind (a credential of a kind that the route does not take), certificate (a sensor's)",
                &["reason"],
            ),
            jobs: JobMetrics::new(&b),
            alerts: AlertMetrics::new(&b),
            partitions_dropped: b
                .counter("weir_partitions_dropped_total", "Partitions dropped at the end of their retention"),
            erasures: erasures(&b),
            rollup_rows_pooled: b.counter(
                "weir_rollup_rows_pooled_total",
                "Rollup rows of small keys that were added to their bucket's row of all others",
            ),
            pool_max: b.gauge("weir_db_pool_max_connections", "Connections that the pool may hold"),
            pool_total: b.gauge("weir_db_pool_connections", "Connections that the pool holds"),
            pool_idle: b.gauge("weir_db_pool_idle_connections", "Connections that nobody uses"),
            pool_active: b.gauge("weir_db_pool_active_connections", "Connections in use"),
            pool_waiting: b.gauge("weir_db_pool_waiting", "Requests that wait for a connection"),
            pool_timeouts: b.gauge(
                "weir_db_pool_acquire_timeouts",
                "Requests that got no connection in time, since the start",
            ),
            pool_created: b.gauge("weir_db_pool_connections_created", "Connections made since the start"),
            pool_closed_broken: b.gauge(
                "weir_db_pool_connections_closed_broken",
                "Connections closed since the start because they were left broken or in use",
            ),
            pool_closed_invalid: b.gauge(
                "weir_db_pool_connections_closed_invalid",
                "Connections closed since the start because they failed the test at check-out",
            ),
            registry: b.0,
        };
        // A series that begins with its first event hides that event from a rate: these begin at 0.
        for outcome in ["stored", "duplicate", "refused", "failed"] {
            registered.ingest_batches.with_label_values(&[outcome]);
        }
        for outcome in ["granted", "wrong", "blocked_account", "blocked_address", "failed"] {
            registered.logins.with_label_values(&[outcome]);
        }
        registered.rollbacks.with_label_values(&["ingest"]);
        for outcome in weir_trace::Outcome::ALL {
            registered.spans.with_label_values(&[outcome.name()]);
        }
        registered.clipped(&Clipped::default(), 0);
        Arc::new(registered)
    }

    /// What of a batch was left out, since its device was erased.
    pub fn clipped(&self, clipped: &Clipped, facts: u64) {
        for (what, count) in
            [("flow", clipped.flows), ("detection", clipped.detections), ("device_fact", facts)]
        {
            self.ingest_clipped.with_label_values(&[what]).inc_by(count);
        }
    }

    /// Prometheus' text format, with the pool as it is now.
    #[must_use]
    pub fn render(&self, pool: PoolState) -> String {
        let set = |gauge: &IntGauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.pool_max, u64::from(pool.max));
        set(&self.pool_total, u64::from(pool.total));
        set(&self.pool_idle, u64::from(pool.idle));
        set(&self.pool_active, u64::from(pool.total.saturating_sub(pool.idle)));
        set(&self.pool_waiting, pool.waiting);
        set(&self.pool_timeouts, pool.timeouts);
        set(&self.pool_created, pool.created);
        set(&self.pool_closed_broken, pool.closed_broken);
        set(&self.pool_closed_invalid, pool.closed_invalid);
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_else(|error| {
            tracing::error!(%error, "render the metrics");
            String::new()
        })
    }
}
