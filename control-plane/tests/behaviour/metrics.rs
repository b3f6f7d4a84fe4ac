//! O1: what the server counts about itself.

use crate::support::{Plane, batch, eventually, mixed_flows, recent_minute_ns};

#[tokio::test(flavor = "multi_thread")]
async fn o1_requests_errors_pool_queries_and_ingest_are_counted() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let batch = batch(1, 0, recent_minute_ns(), mixed_flows());
    plane.store(&token, &batch).await;
    plane.post(&token, &batch).await;
    plane.json("/api/v1/flows").await;
    assert_eq!(plane.get("/api/v1/flows?limit=0").await.status(), 400);
    assert_eq!(plane.get("/some/secret/path").await.status(), 404);
    // What the server does by itself, such as looking for events, takes a connection now and then.
    eventually("no connection is in use", || async {
        plane.metrics().await.contains("\nweir_db_pool_active_connections 0\n")
    })
    .await;
    let text = plane.metrics().await;
    for line in [
        "weir_http_request_duration_seconds_count{method=\"POST\",route=\"/api/v1/ingest\",status=\"200\"} 2",
        "weir_http_request_duration_seconds_count{method=\"GET\",route=\"/api/v1/flows\",status=\"400\"} 1",
        "weir_http_request_duration_seconds_count{method=\"GET\",route=\"(none)\",status=\"404\"} 1",
        "weir_http_errors_total{category=\"validation\"} 1",
        "weir_http_errors_total{category=\"not_found\"} 1",
        "weir_ingest_batches_total{outcome=\"stored\"} 1",
        "weir_ingest_batches_total{outcome=\"duplicate\"} 1",
        "weir_ingest_rows_total 41",
        "weir_ingest_lag_seconds_count 1",
        "weir_ingest_in_flight 0",
        "weir_db_pool_waiting 0",
        "weir_db_transaction_duration_seconds_count{class=\"ingest\",operation=\"ingest\"} 2",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    for name in [
        "weir_ingest_bytes_total",
        "weir_db_pool_connections",
        "weir_db_pool_idle_connections",
        "process_resident_memory_bytes",
    ] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} in\n{text}");
    }
    assert!(!text.contains("secret"), "no path of a stranger is a label");
    let ours = text.lines().filter(|line| !line.starts_with('#'));
    assert!(ours.clone().all(|line| line.starts_with("weir_") || line.starts_with("process_")));
}
