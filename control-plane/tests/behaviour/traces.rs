//! A6, O4: a request is part of its caller's trace, down to its statements; and whatever the collector does, no request
//! waits for it.

use std::net::TcpListener;

use reqwest::Method;
use serde_json::json;
use weir_control_plane::config::{Config, Traces};
use weir_testbed::collector::{Collector, Span};

use crate::support::{ADMIN_TOKEN, Plane, batch, eventually, mixed_flows, recent_minute_ns};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SHIP: &str = "00f067aa0ba902b7";

fn to(collector: &Collector) -> impl FnOnce(&mut Config) {
    let endpoint = Some(collector.endpoint());
    move |config| config.traces = Traces { endpoint, ..Traces::default() }
}

/// The requests among spans.
fn requests(spans: &[Span]) -> Vec<Span> {
    spans.iter().filter(|span| span.kind == "SPAN_KIND_SERVER").cloned().collect()
}

/// Waits for the span of a request, which ends last; gives it and those that it caused.
async fn request(collector: &Collector, id: &str) -> (Span, Vec<Span>) {
    let asked = |span: &Span| span.attributes.get("weir.request_id").is_some_and(|found| found == id);
    eventually("the request's span comes", || async { collector.spans().iter().any(asked) }).await;
    let spans = collector.spans();
    let request = spans.iter().find(|span| asked(span)).expect("it came").clone();
    let caused = spans.into_iter().filter(|span| span.parent == request.id).collect();
    (request, caused)
}

fn counted(plane: &Plane<'_>, outcome: &str) -> u64 {
    plane.state().metrics.spans.with_label_values(&[outcome]).get()
}

#[tokio::test(flavor = "multi_thread")]
async fn o4_a_batch_is_one_trace_from_its_sensor_to_the_statements_that_store_it() {
    let collector = Collector::start().expect("a collector");
    let plane = Plane::start_with(to(&collector)).await;
    let token = plane.sensor("edge-1").await;
    let send = async |id: &str, generation: u8, flags: &str| {
        let wire = batch(generation, 0, recent_minute_ns(), mixed_flows());
        let request = plane
            .request(Method::POST, "/api/v1/ingest", &token)
            .header("content-type", weir_wire::CONTENT_TYPE)
            .header("content-encoding", weir_wire::CONTENT_ENCODING)
            .header("traceparent", format!("00-{TRACE}-{SHIP}-{flags}"))
            .header("x-request-id", id)
            .body(weir_wire::encode(&wire).expect("it encodes"));
        request.send().await.expect("an answer").status().as_u16()
    };
    assert_eq!(send("batch-7", 1, "01").await, 200);
    let (batch, statements) = request(&collector, "batch-7").await;
    assert_eq!((batch.trace.as_str(), batch.parent.as_str()), (TRACE, SHIP));
    assert_eq!((batch.service.as_str(), batch.name.as_str()), ("weir-control-plane", "POST /api/v1/ingest"));
    let expected = [
        ("http.request.method", "POST"),
        ("http.response.status_code", "200"),
        ("http.route", "/api/v1/ingest"),
        ("weir.request_id", "batch-7"),
    ];
    let found: Vec<(&str, &str)> = batch.attributes.iter().map(|(key, value)| (&**key, &**value)).collect();
    assert_eq!((found, &batch.failure), (expected.to_vec(), &None));
    assert!(
        statements
            .iter()
            .all(|span| span.trace == TRACE && span.kind == "SPAN_KIND_CLIENT" && span.failure.is_none())
    );
    let texts: Vec<&str> = statements.iter().map(|span| &*span.attributes["db.query.text"]).collect();
    for statement in ["INSERT INTO batch", "COPY flow_", "INTO rollup_1m", "COMMIT"] {
        assert!(texts.iter().any(|text| text.contains(statement)), "{statement}: {texts:?}");
    }
    assert!(texts.iter().all(|text| !text.contains('\n') && !text.contains("edge-1")), "{texts:?}");

    // A statement that fails says so, and so does its request; what a database says of it is not in the trace.
    plane.arm("rollup_1h", "INSERT");
    assert_eq!(send("batch-8", 2, "01").await, 500);
    plane.disarm();
    let (failed, statements) = request(&collector, "batch-8").await;
    assert_eq!(failed.failure.as_deref(), Some("500"));
    let failures: Vec<&str> = statements.iter().filter_map(|span| span.failure.as_deref()).collect();
    assert_eq!(failures, ["P0001"], "raise_exception");
    assert!(!format!("{statements:?}").contains("injected"));

    // Whoever asks not to be recorded is not; what begins here does, and is its own trace.
    assert_eq!(send("batch-9", 3, "00").await, 200);
    let own = plane.request(Method::GET, "/api/v1/sensors", ADMIN_TOKEN).header("x-request-id", "own");
    assert_eq!(own.send().await.expect("an answer").status(), 200);
    let (own, statements) = request(&collector, "own").await;
    assert_eq!(own.parent, "");
    assert!(own.trace != TRACE && !statements.is_empty());
    assert!(!format!("{:?}", collector.spans()).contains("batch-9"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_what_is_no_trace_context_begins_a_trace_here() {
    let collector = Collector::start().expect("a collector");
    let secret = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(secret.path(), "Authorization: Bearer of-the-collector\n").expect("it is written");
    let headers_file = Some(secret.path().to_owned());
    let endpoint = Some(collector.endpoint());
    let plane = Plane::start_with(move |config| {
        config.traces = Traces { endpoint, headers_file, ..Traces::default() };
    })
    .await;
    let wrong = [
        format!("00-{TRACE}-{SHIP}"),
        format!("00-{TRACE}-{SHIP}-1"),
        format!("ff-{TRACE}-{SHIP}-01"),
        format!("00-{}-{SHIP}-01", "0".repeat(32)),
        format!("00-{}-{SHIP}-01", TRACE.to_uppercase()),
        format!("00-{TRACE}-{SHIP}-01, 00-{TRACE}-{SHIP}-01"),
    ];
    for (at, header) in wrong.iter().enumerate() {
        let asked = plane.request(Method::GET, "/api/v1/jobs", ADMIN_TOKEN).header("traceparent", header);
        let asked = asked.header("x-request-id", format!("wrong-{at}"));
        assert_eq!(asked.send().await.expect("an answer").status(), 200, "{header}");
        let (span, _) = request(&collector, &format!("wrong-{at}")).await;
        assert!(span.parent.is_empty() && span.trace != TRACE, "{header}: {span:?}");
    }
    // Two of them, of which nobody knows which is right.
    let asked = plane.request(Method::GET, "/api/v1/jobs", ADMIN_TOKEN).header("x-request-id", "twice");
    let right = format!("00-{TRACE}-{SHIP}-01");
    let asked = asked.header("traceparent", &right).header("traceparent", &right);
    assert_eq!(asked.send().await.expect("an answer").status(), 200);
    assert!(request(&collector, "twice").await.0.parent.is_empty());
    assert_eq!(collector.authorization(), "Bearer of-the-collector");
    assert_eq!(requests(&collector.spans()).len(), wrong.len() + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn o4_a_collector_that_hangs_or_is_away_holds_nobody_up_and_what_is_lost_is_counted() {
    // It takes connections and never says a word.
    let hanging = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = hanging.local_addr().expect("an address");
    let stuck = Plane::start_with(move |config| {
        let endpoint = Some(format!("http://{address}/v1/traces"));
        // Longer than the test.
        config.traces = Traces { endpoint, queue: 4, timeout_ms: 60_000, ..Traces::default() };
    })
    .await;
    let token = stuck.sensor("edge-1").await;
    eventually("there is no room for more", || async {
        assert_eq!(stuck.get("/api/v1/sensors").await.status(), 200);
        counted(&stuck, "dropped") > 0
    })
    .await;
    stuck.store(&token, &batch(1, 0, recent_minute_ns(), mixed_flows())).await;
    assert_eq!((stuck.count("batch"), counted(&stuck, "exported")), (1, 0));

    let mut away = Plane::start_with(|config| {
        // The discard port, where nobody is.
        config.traces.endpoint = Some("http://127.0.0.1:9/v1/traces".to_owned());
    })
    .await;
    let token = away.sensor("edge-1").await;
    away.store(&token, &batch(1, 0, recent_minute_ns(), mixed_flows())).await;
    eventually("what it did not take is counted", || async { counted(&away, "refused") > 0 }).await;
    let metrics = away.metrics().await;
    assert!(metrics.contains("weir_trace_spans_total{outcome=\"exported\"} 0"), "{metrics}");
    away.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o4_of_the_traces_that_begin_here_a_share_is_recorded_and_the_last_ones_are_sent_at_the_end() {
    let collector = Collector::start().expect("a collector");
    let endpoint = Some(collector.endpoint());
    let mut plane = Plane::start_with(move |config| {
        config.traces = Traces { endpoint, ratio: 0.0, ..Traces::default() };
    })
    .await;
    assert_eq!(plane.get("/api/v1/sensors").await.status(), 200);
    let wanted = plane.request(Method::GET, "/api/v1/jobs", ADMIN_TOKEN).header("x-request-id", "wanted");
    let wanted = wanted.header("traceparent", format!("00-{TRACE}-{SHIP}-01"));
    assert_eq!(wanted.send().await.expect("an answer").status(), 200);
    plane.stop().await;
    let asked = requests(&collector.spans());
    assert_eq!(asked.iter().map(|span| &*span.name).collect::<Vec<_>>(), ["GET /api/v1/jobs"]);

    let plane = Plane::start().await;
    assert_eq!(plane.get("/api/v1/sensors").await.status(), 200);
    assert!(!plane.state().tracer.is_on(), "off unless a collector is named");
    assert_eq!(["exported", "dropped", "refused"].map(|outcome| counted(&plane, outcome)), [0; 3]);
    assert_eq!(serde_json::to_value(&plane.config.traces).expect("JSON")["ratio"], json!(1.0));
}
