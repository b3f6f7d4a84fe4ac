//! A1, A8: rankings and series equal the rows that they are made of, from whichever table they come.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::{Plane, SECOND, batch, flow, mixed_flows, recent_minute_ns, rfc3339};

/// Key columns of a ranking, in `flow`.
const DIMENSIONS: &[(&str, &[&str], &str)] = &[
    ("source", &["src"], "host(src)"),
    ("destination", &["dst"], "host(dst)"),
    ("pair", &["src", "dst"], "host(src) || ' ' || host(dst)"),
    ("port", &["protocol", "port"], "protocol || ' ' || dst_port"),
    ("protocol", &["protocol"], "protocol::text"),
];

/// The ranking by SQL: key, then octets, packets and flows of both directions.
fn truth(plane: &Plane<'_>, key: &str) -> BTreeMap<String, [u64; 3]> {
    plane
        .sql(&format!(
            "SELECT {key}, sum(octets + reverse_octets), sum(packets + reverse_packets), count(*) FROM flow GROUP BY 1"
        ))
        .lines()
        .map(|line| {
            let mut columns = line.split('|');
            let key = columns.next().expect("a key").to_owned();
            let mut number = || columns.next().expect("a column").parse().expect("a number");
            (key, [number(), number(), number()])
        })
        .collect()
}

fn sums(value: &Value) -> [u64; 3] {
    let field = |name: &str| value[name].as_u64().expect("a count");
    [field("octets") + field("reverse_octets"), field("packets") + field("reverse_packets"), field("flows")]
}

fn key(item: &Value, fields: &[&str]) -> String {
    let words = fields.iter().map(|field| match &item[*field] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_rankings_equal_the_rows() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    plane.store(&token, &batch(1, 0, recent_minute_ns(), mixed_flows())).await;
    for (by, fields, sql) in DIMENSIONS {
        let truth = truth(&plane, sql);
        for (place, metric) in ["octets", "packets", "flows"].into_iter().enumerate() {
            let top = plane.json(&format!("/api/v1/flows/top?by={by}&metric={metric}&limit=1000")).await;
            assert_eq!(
                (top["by"].as_str(), top["metric"].as_str(), top["exact"].as_bool()),
                (Some(*by), Some(metric), Some(true))
            );
            let items = top["items"].as_array().expect("a list");
            let found: BTreeMap<String, [u64; 3]> =
                items.iter().map(|item| (key(item, fields), sums(item))).collect();
            assert_eq!(found, truth, "{by}");
            let ranks: Vec<u64> = items.iter().map(|item| sums(item)[place]).collect();
            assert!(ranks.is_sorted_by(|a, b| a >= b), "{by} {metric}: {ranks:?}");
            let total =
                truth.values().fold([0; 3], |sum, row| [sum[0] + row[0], sum[1] + row[1], sum[2] + row[2]]);
            assert_eq!((sums(&top["total"]), sums(&top["other"])), (total, [0; 3]));
        }
    }
    let top = plane.json("/api/v1/flows/top?by=source&limit=2").await;
    let named = top["items"].as_array().expect("a list").iter().map(|item| sums(item)[0]).sum::<u64>();
    assert_eq!(sums(&top["other"])[0], sums(&top["total"])[0] - named);
    let filtered = plane.json("/api/v1/flows/top?by=port&address=2001:db8::1").await;
    assert_eq!(
        (filtered["items"][0]["port"].as_u64(), filtered["items"][0]["protocol"].as_u64()),
        (Some(53), Some(17))
    );
    let nothing = plane.json("/api/v1/flows/top?src=203.0.113.9").await;
    assert_eq!((nothing["items"].as_array().map(Vec::len), sums(&nothing["total"])), (Some(0), [0; 3]));
}

/// More rows than are counted one by one: the rollups answer, their totals exact and their leaders right.
#[tokio::test(flavor = "multi_thread")]
async fn a8_many_rows_are_ranked_from_rollups_with_exact_totals() {
    let plane = Plane::start_with(|config| config.ingest.rollup_keys = 20).await;
    let token = plane.sensor("edge-1").await;
    let start = recent_minute_ns() / (3_600 * SECOND) * 3_600 * SECOND - 3_600 * SECOND;
    for epoch in 0..4 {
        // One busy server among forty thousand small talkers, over two hours.
        let mut flows: Vec<_> = (0..40_000_u32)
            .map(|i| flow((0x0b00_0000 + i).to_be_bytes(), [192, 0, (i % 256) as u8, (i / 256) as u8], 80, 1))
            .collect();
        flows.push(flow([10, 0, 0, 1], [203, 0, 113, 80], 443, 1_000_000));
        plane.store(&token, &batch(1, epoch, start + (epoch as i64) * 1_200 * SECOND, flows)).await;
    }
    let (from, to) = (rfc3339(start), rfc3339(start + 2 * 3_600 * SECOND));
    for by in ["source", "destination", "pair", "port"] {
        let top = plane.json(&format!("/api/v1/flows/top?by={by}&from={from}&to={to}&limit=5")).await;
        assert_eq!(top["exact"], false, "{by}");
        assert_eq!(sums(&top["items"][0]), [4 * 800_000_000, 4 * 1_500_000, 4], "{by}: {}", top["items"][0]);
        let total = plane
            .sql("SELECT sum(octets + reverse_octets), sum(packets + reverse_packets), count(*) FROM flow");
        let [octets, packets, flows] = sums(&top["total"]);
        assert_eq!(format!("{octets}|{packets}|{flows}"), total, "{by}");
    }
    // What the busy server had before is found among all keys, whatever else was large then.
    let later = batch(1, 4, start + 7_200 * SECOND, vec![flow([10, 0, 0, 1], [203, 0, 113, 80], 443, 1)]);
    plane.store(&token, &later).await;
    let next = rfc3339(start + 4 * 3_600 * SECOND);
    let compared =
        plane.json(&format!("/api/v1/flows/top?by=pair&from={to}&to={next}&compare=previous")).await;
    assert_eq!(
        (compared["exact"].as_bool(), compared["previous"]["exact"].as_bool()),
        (Some(true), Some(false))
    );
    assert_eq!(sums(&compared["items"][0]), [800, 1, 1]);
    assert_eq!(sums(&compared["items"][0]["previous"]), [4 * 800_000_000, 4 * 1_500_000, 4]);
    // Under a protocol's filter the pooled keys belong to no protocol; the total is exact all the same.
    let tcp = plane.json(&format!("/api/v1/flows/top?by=port&protocol=tcp&from={from}&to={to}")).await;
    assert_eq!((tcp["exact"].as_bool(), sums(&tcp["total"])[2]), (Some(false), 4 * 40_001));
    let by_protocol = plane.json(&format!("/api/v1/flows/top?by=protocol&from={from}&to={to}")).await;
    assert_eq!(sums(&by_protocol["other"]), [0; 3]);
}

/// A bucket that is over keeps its largest keys; what it loses in names it keeps in sums, a late batch
/// included.
#[tokio::test(flavor = "multi_thread")]
async fn a8_buckets_that_are_over_are_trimmed_with_exact_totals() {
    let plane = Plane::start_with(|config| config.ingest.rollup_keys = 20).await;
    let token = plane.sensor("edge-1").await;
    let start = recent_minute_ns() / (3_600 * SECOND) * 3_600 * SECOND - 7_200 * SECOND;
    let send = async |epoch: u64| {
        // Other small talkers in each batch, and the same busy server.
        let mut flows: Vec<_> = (0..30_u8)
            .map(|i| {
                flow(
                    [10, 0, epoch as u8, i],
                    [192, 0, i, epoch as u8],
                    1_000 + u32::from(i),
                    1 + u64::from(i),
                )
            })
            .collect();
        flows.push(flow([10, 9, 9, 9], [203, 0, 113, 80], 443, 1_000));
        plane.store(&token, &batch(1, epoch, start + epoch as i64 * SECOND, flows)).await;
    };
    let sums = |table: &str| {
        plane.sql(&format!(
            "SELECT dimension, sum(flows), sum(packets), sum(octets), sum(reverse_packets), sum(reverse_octets)
             FROM {table} GROUP BY 1 ORDER BY 1"
        ))
    };
    let most = |table: &str| -> u64 {
        let sql = format!(
            "SELECT max(n) FROM (SELECT count(*) AS n FROM {table} WHERE dimension < 5 GROUP BY dimension) AS keys"
        );
        plane.sql(&sql).parse().expect("a number")
    };
    for epoch in 0..10 {
        send(epoch).await;
    }
    for late in 0..2 {
        for table in ["rollup_1m", "rollup_1h"] {
            assert!(most(table) > 21, "{table} has more keys than one batch names");
        }
        let before = (sums("rollup_1m"), sums("rollup_1h"));
        assert!(plane.jobs().round(jiff::Timestamp::now()).await.expect("the round runs"));
        assert_eq!((sums("rollup_1m"), sums("rollup_1h")), before);
        for table in ["rollup_1m", "rollup_1h"] {
            assert!(most(table) <= 21, "{table} has {} keys", most(table));
            let server =
                plane.sql(&format!("SELECT flows FROM {table} WHERE dimension = 2 AND dst = '203.0.113.80'"));
            assert_eq!(server, (10 + late).to_string());
        }
        send(10 + late).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_series_of_every_step_equal_the_rows() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let start = recent_minute_ns() - 7_200 * SECOND;
    for epoch in 0..6 {
        plane.store(&token, &batch(1, epoch, start + (epoch as i64) * 700 * SECOND, mixed_flows())).await;
    }
    let (from, to) = (rfc3339(start), rfc3339(start + 3_600 * SECOND + 1));
    let window = format!("from={from}&to={to}");
    for (step, seconds, filter, source) in [
        ("10", 10, "", "flows"),
        ("1m", 60, "", "rollup_1m"),
        ("5m", 300, "&sensor=edge-1&protocol=udp", "rollup_1m"),
        ("1h", 3_600, "", "rollup_1h"),
        ("1d", 86_400, "", "rollup_1h"),
        ("1h", 3_600, "&dst_port=53", "flows"),
    ] {
        let series = plane.json(&format!("/api/v1/flows/timeseries?{window}&step={step}{filter}")).await;
        assert_eq!(
            (series["step_seconds"].as_i64(), series["source"].as_str()),
            (Some(seconds), Some(source)),
            "{step}"
        );
        let condition = if filter.is_empty() { "TRUE" } else { "dst_port = 53" };
        let truth = plane.sql(&format!(
            "SELECT extract(epoch FROM date_bin('{seconds} s', window_start, 'epoch'))::bigint,
                    sum(octets + reverse_octets), sum(packets + reverse_packets), count(*)
             FROM flow WHERE {condition} GROUP BY 1 ORDER BY 1"
        ));
        let points = series["points"].as_array().expect("a list");
        let found: Vec<String> = points
            .iter()
            .filter(|point| point["flows"] != 0)
            .map(|point| {
                let start: jiff::Timestamp =
                    point["start"].as_str().expect("a time").parse().expect("a time");
                let [octets, packets, flows] = sums(point);
                format!("{}|{octets}|{packets}|{flows}", start.as_second())
            })
            .collect();
        assert_eq!(found.join("\n"), truth, "{step}{filter}");
    }
    let series = plane.json(&format!("/api/v1/flows/timeseries?{window}&step=60")).await;
    assert!(
        series["points"].as_array().is_some_and(|points| points.len() == 61),
        "steps without traffic are there"
    );
    let default = plane.json(&format!("/api/v1/flows/timeseries?{window}")).await;
    assert_eq!(default["step_seconds"], 30);
}
