//! A1, A8: exports are complete, bounded in number, and give back what they hold.

use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Field;
use serde_json::Value;
use weir_wire::Flow;

use crate::support::{Plane, batch, eventually, flow, recent_minute_ns};

/// More than a few pages.
const FLOWS: u32 = 4_500;

async fn plane_with_many_flows() -> Plane<'static> {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let flows = (0..FLOWS)
        .map(|number| Flow { src_port: number, ..flow([10, 0, 0, 1], [192, 0, 2, 80], 1 + number % 2, 1) });
    plane.store(&token, &batch(1, 0, recent_minute_ns(), flows.collect())).await;
    plane
}

async fn text(plane: &Plane<'_>, path: &str, kind: &str) -> String {
    let response = plane.get(path).await;
    assert_eq!(response.status(), 200, "{path}");
    let header = |name: &str| response.headers()[name].to_str().expect("text").to_owned();
    assert!(header("content-type").starts_with(kind), "{path}");
    assert!(header("content-disposition").starts_with("attachment; filename=\"weir-flows."), "{path}");
    response.text().await.expect("a whole file")
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_an_export_has_every_flow_once_as_the_list_shows_it() {
    let plane = plane_with_many_flows().await;
    let file = text(&plane, "/api/v1/flows/export", "application/x-ndjson").await;
    let lines: Vec<Value> =
        file.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
    let mut ports: Vec<u64> = lines.iter().filter_map(|line| line["src_port"].as_u64()).collect();
    ports.sort_unstable();
    assert_eq!(ports, (0..u64::from(FLOWS)).collect::<Vec<_>>());
    let page = plane.json("/api/v1/flows?limit=1000").await;
    assert_eq!(&lines[..1_000], &page["items"].as_array().expect("a list")[..]);

    // Filters and limits hold; nothing is an empty file.
    let odd = text(&plane, "/api/v1/flows/export?filter=dst_port%3D2&limit=7", "application/x-ndjson").await;
    assert_eq!(odd.lines().count(), 7);
    assert_eq!(text(&plane, "/api/v1/flows/export?dst_port=9", "application/x-ndjson").await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_an_export_as_csv_is_the_same_flows() {
    let plane = plane_with_many_flows().await;
    let file = text(&plane, "/api/v1/flows/export?format=csv", "text/csv").await;
    let lines: Vec<&str> = file.lines().collect();
    assert_eq!(lines.len(), 1 + FLOWS as usize);
    assert!(
        lines[0].starts_with("sensor,sensor_id,window_start,start,first,last,src,dst,protocol,src_port,")
    );
    let columns = lines[0].split(',').count();
    assert!(lines.iter().all(|line| line.split(',').count() == columns));
    assert!(
        lines[1].starts_with("edge-1,1,") && lines[1].contains(",10.0.0.1,192.0.2.80,6,"),
        "{}",
        lines[1]
    );
    let empty = text(&plane, "/api/v1/flows/export?format=csv&dst_port=9", "text/csv").await;
    assert_eq!(empty.lines().count(), 1, "a file without flows has its header");
}

/// A value as the list shows it.
fn shown(name: &str, field: &Field) -> Value {
    let time = |ns: i128| {
        let at = jiff::Timestamp::from_nanosecond(ns).expect("a time");
        Value::from(format!("{at:.9}"))
    };
    match field {
        Field::Null => Value::Null,
        Field::Bool(value) => Value::from(*value),
        Field::Int(value) => Value::from(*value),
        Field::Long(value) if matches!(name, "start" | "first" | "last") => time(i128::from(*value)),
        Field::Long(value) => Value::from(*value),
        Field::TimestampMicros(value) => time(i128::from(*value) * 1_000),
        Field::Str(value) => Value::from(value.as_str()),
        other => panic!("{name}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_an_export_as_parquet_reads_back_as_the_same_flows() {
    let plane = plane_with_many_flows().await;
    // More than one row group, and more than a group is in memory at once.
    plane
        .sql("INSERT INTO flow SELECT flow.* FROM flow CROSS JOIN generate_series(1, 20) WHERE dst_port = 1");
    let response = plane.get("/api/v1/flows/export?format=parquet").await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/vnd.apache.parquet");
    let reader = SerializedFileReader::new(response.bytes().await.expect("a whole file")).expect("Parquet");
    let rows = i64::from(FLOWS) / 2 * 21 + i64::from(FLOWS) / 2;
    assert_eq!(reader.metadata().file_metadata().num_rows(), rows);
    assert!(reader.metadata().num_row_groups() > 1);
    let file = text(&plane, "/api/v1/flows/export", "application/x-ndjson").await;
    let mut lines = file.lines();
    for (number, row) in reader.get_row_iter(None).expect("rows").enumerate() {
        let (row, line) = (row.expect("a row"), lines.next().expect("as many lines"));
        // Each is compared by its port and its counts, every hundredth whole.
        let line: Value = serde_json::from_str(line).expect("an object");
        for (name, field) in row.get_column_iter() {
            if number % 100 != 0 && !matches!(name.as_str(), "src_port" | "packets" | "octets") {
                continue;
            }
            let expected = match &line[name] {
                // Lists are joined, as in the CSV; these flows have none.
                Value::Array(list) if list.is_empty() => Value::from(""),
                other => other.clone(),
            };
            assert_eq!(shown(name, field), expected, "{name}");
        }
        assert_eq!(row.len(), line.as_object().expect("an object").len(), "every field has its column");
    }
    assert_eq!(lines.next(), None);

    let empty = plane.get("/api/v1/flows/export?format=parquet&dst_port=9").await;
    let reader = SerializedFileReader::new(empty.bytes().await.expect("a file")).expect("Parquet");
    assert_eq!(reader.metadata().file_metadata().num_rows(), 0);
    assert_eq!(reader.metadata().file_metadata().schema_descr().num_columns(), 53);
}

#[tokio::test(flavor = "multi_thread")]
async fn a8_exports_are_few_at_once_and_an_abandoned_one_gives_its_place_back() {
    let plane = plane_with_many_flows().await;
    // Rows enough that a file which nobody reads fills every buffer on its way.
    plane
        .sql("INSERT INTO flow SELECT flow.* FROM flow CROSS JOIN generate_series(1, 60) WHERE dst_port = 1");
    let first = plane.get("/api/v1/flows/export").await;
    let second = plane.get("/api/v1/flows/export").await;
    assert_eq!((first.status().as_u16(), second.status().as_u16()), (200, 200));
    let third = plane.get("/api/v1/flows/export").await;
    assert_eq!(third.status(), 429);
    assert!(third.headers().contains_key("retry-after"));
    let problem: Value = third.json().await.expect("a problem");
    assert_eq!(problem["category"], "rate_limit", "{problem}");

    drop((first, second));
    eventually("the places are free and no transaction is left", || async {
        let idle = plane.sql(
            "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND xact_start IS NOT NULL AND pid <> pg_backend_pid()",
        );
        let metrics = plane.get("/metrics").await.text().await.expect("text");
        metrics.contains("weir_exports_in_flight 0") && idle == "0"
    })
    .await;
    assert_eq!(plane.get("/api/v1/flows/export?limit=1").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a5_an_export_that_breaks_is_not_a_complete_file() {
    let plane = plane_with_many_flows().await;
    plane
        .sql("INSERT INTO flow SELECT flow.* FROM flow CROSS JOIN generate_series(1, 60) WHERE dst_port = 1");
    let response = plane.get("/api/v1/flows/export").await;
    assert_eq!(response.status(), 200);
    // Whatever it asks at this moment, its transaction has read flows.
    let ended = plane.sql(
        "SELECT count(pg_terminate_backend(pid)) FROM (SELECT DISTINCT pid FROM pg_locks
             WHERE relation = 'flow'::regclass AND pid <> pg_backend_pid()
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS readers",
    );
    assert_ne!(ended, "0", "the export is under way");
    assert!(response.bytes().await.is_err(), "the connection ends before the file does");
}
