//! Limits, connections, TLS, streams: who is served.

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};

use super::{Builder, LATENCY};
use crate::authority::Refusal;
use crate::stream::End;

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
    pub(super) fn new(b: &Builder) -> Self {
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

/// Certificates of sensors.
#[derive(Debug)]
pub struct ClientCertificates {
    pub issued: IntCounter,
    /// reason: handshake, missing, another, over, untrusted
    pub refused: IntCounterVec,
    pub expiry: IntGauge,
}

impl ClientCertificates {
    pub(super) fn new(b: &Builder) -> Self {
        let certificates = Self {
            issued: b.counter("weir_client_certificates_issued_total", "Certificates that were signed for sensors"),
            refused: b.counters(
                "weir_client_certificates_refused_total",
                "Certificates of sensors that did not do, by reason: handshake (not of ours, or over), missing, \
                 another (sensor's), over, untrusted (its authority)",
                &["reason"],
            ),
            expiry: b.gauge(
                "weir_client_ca_expiry_timestamp_seconds",
                "When the authority that signs sensors' certificates ends; 0 where there are none",
            ),
        };
        certificates.refused.with_label_values(&["handshake"]);
        for refusal in Refusal::ALL {
            certificates.refused.with_label_values(&[refusal.name()]);
        }
        certificates
    }
}

/// Who is connected.
#[derive(Debug)]
pub struct Connections {
    pub open: IntGauge,
    pub refused: IntCounter,
}

impl Connections {
    pub(super) fn new(b: &Builder) -> Self {
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
    pub(super) fn new(b: &Builder) -> Self {
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
    pub(super) fn new(b: &Builder) -> Self {
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
