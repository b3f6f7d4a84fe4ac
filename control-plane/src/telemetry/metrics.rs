//! Every metric of the server, in one place. Names have the prefix `weir_` and base units; no label's
//! values can be chosen by a stranger (routes are templates, statuses and categories are ours).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::core::Collector;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::ingest::Reason;
use crate::store::jobs::Outcome;
use crate::store::{Class, PoolState, erasure};
use crate::stream::End;

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
    pub connections: Connections,
    pub stream: Streaming,
    pub exports_in_flight: IntGauge,
    pub export_rows: IntCounter,
    /// outcome: `not_modified`, `hit`, `miss`
    pub kept_answers: IntCounterVec,
    /// class, operation
    pub query_seconds: HistogramVec,
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
    pub clocks: Clocks,
    pub losses: Losses,
    pub sensors: SensorGauges,
    pub presence: PresenceMetrics,
    /// outcome: `granted`, `wrong`, `blocked_account`, `blocked_address`, `failed`
    pub logins: IntCounterVec,
    pub refresh_tokens_reused: IntCounter,
    /// reason: missing, unknown, expired, revoked, role, scope, kind
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

/// Who was held against a limit, and where the buckets are.
#[derive(Debug)]
pub struct Limiting {
    /// class
    pub limited: IntCounterVec,
    /// by: redis, local
    pub decisions: IntCounterVec,
    pub shed: IntCounter,
    pub redis_up: IntGauge,
    pub redis_lost: IntCounter,
}

impl Limiting {
    fn new(b: &Builder) -> Self {
        Self {
            limited: b.counters(
                "weir_rate_limited_total",
                "Requests over their principal's limit, by class: query, read, write, ingest",
                &["class"],
            ),
            decisions: b.counters(
                "weir_rate_limit_decisions_total",
                "Requests held against a limit, by who keeps the buckets: redis (shared), local",
                &["by"],
            ),
            shed: b.counter("weir_http_shed_total", "Questions turned away because too many were in work"),
            redis_up: b.gauge("weir_redis_up", "Whether Redis is configured and there"),
            redis_lost: b.counter("weir_redis_lost_total", "Times that Redis went away"),
        }
    }
}

/// The listener's TLS.
#[derive(Debug)]
pub struct Tls {
    /// outcome: done, failed, timeout
    pub handshakes: IntCounterVec,
    /// outcome: done, failed
    pub reloads: IntCounterVec,
    pub expiry: IntGauge,
}

/// Who is connected.
#[derive(Debug)]
pub struct Connections {
    pub open: IntGauge,
    pub refused: IntCounter,
}

impl Connections {
    fn new(b: &Builder) -> Self {
        Self {
            open: b.gauge("weir_http_connections", "Open connections, those of WebSockets apart"),
            refused: b.counter(
                "weir_http_connections_refused_total",
                "Connections that were closed at once: api.max_connections were open",
            ),
        }
    }
}

impl Tls {
    fn new(b: &Builder) -> Self {
        let tls = Self {
            handshakes: b.counters(
                "weir_tls_handshakes_total",
                "TLS handshakes by outcome: done, failed, timeout",
                &["outcome"],
            ),
            reloads: b.counters(
                "weir_tls_reloads_total",
                "Times that certificate and key were read again: done, or failed (the old ones go on)",
                &["outcome"],
            ),
            expiry: b.gauge(
                "weir_tls_certificate_expiry_timestamp_seconds",
                "When the listener's certificate ends; 0 where it speaks plain HTTP",
            ),
        };
        for outcome in ["done", "failed"] {
            tls.handshakes.with_label_values(&[outcome]);
            tls.reloads.with_label_values(&[outcome]);
        }
        tls
    }
}

/// Events on their way to whoever follows them.
#[derive(Debug)]
pub struct Streaming {
    pub listening: IntGauge,
    pub published: IntCounter,
    pub cursor: IntGauge,
    /// transport: websocket, sse
    pub clients: IntGaugeVec,
    pub refused: IntCounter,
    pub sent: IntCounter,
    /// reason
    pub closed: IntCounterVec,
    pub delivery_seconds: Histogram,
    pub read_failures: IntCounter,
}

impl Streaming {
    fn new(b: &Builder) -> Self {
        let streaming = Self {
            cursor: b.gauge("weir_event_cursor", "The last event that this instance has read"),
            clients: b.add(IntGaugeVec::new(
                Opts::new("weir_stream_clients", "Open streams by transport: websocket, sse"),
                &["transport"],
            )),
            refused: b.counter(
                "weir_stream_refused_total",
                "Streams that were not opened because the caller or the instance has as many as are allowed",
            ),
            sent: b.counter("weir_stream_events_sent_total", "Events written to streams"),
            closed: b.counters(
                "weir_stream_closed_total",
                "Streams that ended: behind (the client took events too slowly), stopping, revoked, expired, \
                 idle, pruned, failed (the database), unwanted, left (the client went away)",
                &["reason"],
            ),
            delivery_seconds: b.histogram(
                "weir_stream_delivery_seconds",
                "Time from an event to its being written to a stream; replayed ones are as old as they are",
                LATENCY,
            ),
            read_failures: b.counter(
                "weir_stream_read_failures_total",
                "Reads of events that failed and are tried again; meanwhile streams stand still",
            ),
            listening: b.gauge(
                "weir_event_listener_up",
                "Whether Postgres can tell this instance of new events; without that it looks every second",
            ),
            published: b
                .counter("weir_events_published_total", "Events that this instance gave their cursors"),
        };
        for end in End::ALL {
            streaming.closed.with_label_values(&[end.name()]);
        }
        for transport in ["websocket", "sse"] {
            streaming.clients.with_label_values(&[transport]);
        }
        streaming
    }
}

/// What batches told of their sensors' clocks.
#[derive(Debug)]
pub struct Clocks {
    pub skew_seconds: Histogram,
    pub flagged: IntCounter,
    pub moved: IntCounter,
    pub steps: IntCounter,
}

impl Clocks {
    fn new(b: &Builder) -> Self {
        Self {
            skew_seconds: b.histogram(
                "weir_ingest_clock_skew_seconds",
                "Distance between a sensor's clock and ours as a batch arrived, the way included",
                SKEW,
            ),
            flagged: b.counter(
                "weir_ingest_clock_flagged_total",
                "Batches from a sensor whose clock was over five minutes off",
            ),
            moved: b.counter(
                "weir_ingest_clock_moved_total",
                "Batches stored at another time than their sensor said, since that could not be true",
            ),
            steps: b.counter("weir_ingest_clock_steps_total", "Epochs within which a sensor's clock was set"),
        }
    }
}

/// Flows that were counted and are not stored, by reason.
#[derive(Debug)]
pub struct Losses {
    pub batches: IntCounterVec,
    pub packets: IntCounterVec,
}

impl Losses {
    fn new(b: &Builder) -> Self {
        let losses = Self {
            batches: b.counters(
                "weir_ingest_dropped_batches_total",
                "Batches whose flows are not stored, by reason: spool_bytes, spool_age, quarantine, corrupt \
                 (the sensor's notices), expired (came too late)",
                &["reason"],
            ),
            packets: b.counters(
                "weir_ingest_dropped_packets_total",
                "Packets in flows that were counted and are not stored, by reason",
                &["reason"],
            ),
        };
        // A counter that appears with its first loss would hide that loss from a rate.
        for reason in Reason::ALL {
            losses.batches.with_label_values(&[reason.name()]);
            losses.packets.with_label_values(&[reason.name()]);
        }
        losses
    }
}

/// How the sensors stand, as a job last saw it in the database; the same on every instance.
#[derive(Debug)]
pub struct SensorGauges {
    pub active: IntGauge,
    pub clock_flagged: IntGauge,
    pub spool_degraded: IntGauge,
    pub quarantining: IntGauge,
    pub waiting_batches: IntGauge,
}

impl SensorGauges {
    fn new(b: &Builder) -> Self {
        Self {
            active: b.gauge("weir_sensors", "Sensors that are neither revoked nor deleted"),
            clock_flagged: b
                .gauge("weir_sensors_clock_flagged", "Sensors whose clock is over five minutes off"),
            spool_degraded: b
                .gauge("weir_sensors_spool_degraded", "Sensors that cannot write their spool's disk"),
            quarantining: b
                .gauge("weir_sensors_quarantining", "Sensors that keep batches aside which we refused"),
            waiting_batches: b
                .gauge("weir_sensors_waiting_batches", "Batches that wait in the spools of all sensors"),
        }
    }
}

/// Which sensors are there, as the watch last saw it; the same on every instance.
#[derive(Debug)]
pub struct PresenceMetrics {
    pub online: IntGauge,
    pub offline: IntGauge,
    pub never: IntGauge,
    /// to
    changes: IntCounterVec,
}

impl PresenceMetrics {
    fn new(b: &Builder) -> Self {
        let presence = Self {
            online: b.gauge("weir_sensors_online", "Sensors that are there, revoked ones apart"),
            offline: b.gauge(
                "weir_sensors_offline",
                "Sensors that were there and are silent for sensors.offline_after_s, revoked ones apart",
            ),
            never: b.gauge("weir_sensors_never_seen", "Sensors that were never heard of, revoked ones apart"),
            changes: b.counters(
                "weir_sensor_presence_changes_total",
                "Sensors that this instance told to be online again, or offline",
                &["to"],
            ),
        };
        presence.changed("online", 0);
        presence.changed("offline", 0);
        presence
    }

    pub fn changed(&self, to: &str, sensors: usize) {
        self.changes.with_label_values(&[to]).inc_by(sensors as u64);
    }
}

/// Background jobs: what this instance ran, and when any did.
#[derive(Debug)]
pub struct JobMetrics {
    /// job, outcome
    pub runs: IntCounterVec,
    /// job
    seconds: HistogramVec,
    /// job
    last_success: GaugeVec,
}

impl JobMetrics {
    fn new(b: &Builder) -> Self {
        Self {
            runs: b.counters(
                "weir_job_runs_total",
                "Runs of background jobs that ended on this instance, by outcome: done, failed, overran (cut \
                 off at its deadline), stopped (with the server), lost (to another instance)",
                &["job", "outcome"],
            ),
            seconds: b.histograms(
                "weir_job_duration_seconds",
                "Time that a run of a background job took",
                &["job"],
                JOB,
            ),
            last_success: b.gauges(
                "weir_job_last_success_timestamp_seconds",
                "When the last run of a job that came to its end began, on whichever instance; 0 before the \
                 first",
                &["job"],
            ),
        }
    }

    /// Its series begin at 0.
    pub fn known(&self, job: &str) {
        for outcome in Outcome::ALL {
            self.runs.with_label_values(&[job, outcome.name()]);
        }
        self.last_success.with_label_values(&[job]);
    }

    pub fn ended(&self, job: &str, outcome: Outcome, took: Duration) {
        self.runs.with_label_values(&[job, outcome.name()]).inc();
        self.seconds.with_label_values(&[job]).observe(took.as_secs_f64());
    }

    pub fn succeeded(&self, job: &str, at: Option<SystemTime>) {
        let since = at.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        self.last_success.with_label_values(&[job]).set(since.as_secs_f64());
    }
}

/// Rules and what was told of them, on this instance.
#[derive(Debug)]
pub struct AlertMetrics {
    pub failing_rules: IntGauge,
    /// state
    transitions: IntCounterVec,
    /// kind, outcome
    deliveries: IntCounterVec,
}

impl AlertMetrics {
    fn new(b: &Builder) -> Self {
        let alerts = Self {
            failing_rules: b.gauge(
                "weir_alert_rules_failing",
                "Rules whose question had no answer in the last look that this instance took at them",
            ),
            transitions: b.counters(
                "weir_alert_transitions_total",
                "Alerts that began to fire, and that were resolved",
                &["state"],
            ),
            deliveries: b.counters(
                "weir_alert_deliveries_total",
                "Attempts to tell a receiver, by its kind and the outcome: delivered, failed (tried again), given_up",
                &["kind", "outcome"],
            ),
        };
        for state in ["firing", "resolved"] {
            alerts.transitions.with_label_values(&[state]);
        }
        for kind in ["webhook", "alertmanager", "email"] {
            for outcome in ["delivered", "failed", "given_up"] {
                alerts.deliveries.with_label_values(&[kind, outcome]);
            }
        }
        alerts
    }

    pub fn transitions(&self, state: &str, alerts: usize) {
        self.transitions.with_label_values(&[state]).inc_by(alerts as u64);
    }

    pub fn delivery(&self, kind: &str, outcome: &str) {
        self.deliveries.with_label_values(&[kind, outcome]).inc();
    }
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
            connections: Connections::new(&b),
            stream: Streaming::new(&b),
            query_seconds: b.histograms(
                "weir_db_transaction_duration_seconds",
                "Time a connection was held for one transaction, by query class and operation",
                &["class", "operation"],
                LATENCY,
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
                 scope, kind (a credential of a kind that the route does not take)",
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
        Arc::new(registered)
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
