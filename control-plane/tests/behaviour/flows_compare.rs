//! A1: `compare=previous` sets a window against the one of equal length before it.

use serde_json::{Value, json};

use crate::support::{Plane, SECOND, batch, flow, mixed_flows, recent_minute_ns, rfc3339};

const FIELDS: [&str; 5] = ["flows", "packets", "octets", "reverse_packets", "reverse_octets"];

fn sums(value: &Value) -> [i64; 5] {
    FIELDS.map(|field| value[field].as_i64().unwrap_or_else(|| panic!("{field} in {value}")))
}

fn key(item: &Value) -> Value {
    json!([item["src"], item["dst"], item["protocol"], item["port"]])
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_each_entry_has_what_it_had_in_the_window_before() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let now = recent_minute_ns();
    let mut before = mixed_flows();
    before.truncate(20);
    before.push(flow([10, 7, 7, 7], [192, 0, 2, 77], 8_443, 100));
    plane.store(&token, &batch(1, 0, now - 60 * SECOND, before)).await;
    plane.store(&token, &batch(1, 1, now, mixed_flows())).await;
    let window = |start: i64| format!("from={}&to={}", rfc3339(start), rfc3339(start + 60 * SECOND));
    let (current, earlier) = (window(now), window(now - 60 * SECOND));
    for by in ["source", "destination", "pair", "port", "protocol"] {
        let ask = async |window: &str, more: &str| {
            plane.json(&format!("/api/v1/flows/top?by={by}&{window}&limit=1000{more}")).await
        };
        let plain = ask(&current, "").await;
        let earlier = ask(&earlier, "").await;
        let compared = ask(&current, "&compare=previous").await;
        assert!(plain.get("previous").is_none() && plain["items"][0].get("previous").is_none());
        assert_eq!(sums(&compared["previous"]["total"]), sums(&earlier["total"]), "{by}");
        for end in ["from", "to", "exact"] {
            assert_eq!(compared["previous"][end], earlier[end], "{by}");
        }
        let items = compared["items"].as_array().expect("items");
        assert_eq!(items.len(), plain["items"].as_array().map_or(0, Vec::len), "{by}");
        let mut seen = 0;
        for (item, plain) in items.iter().zip(plain["items"].as_array().expect("items")) {
            assert_eq!((key(item), sums(item)), (key(plain), sums(plain)), "{by}");
            let mut there = earlier["items"].as_array().expect("items").iter();
            let before = there.find(|other| key(other) == key(item));
            seen += i64::from(before.is_some());
            assert_eq!(sums(&item["previous"]), before.map_or([0; 5], sums), "{by}: {item}");
        }
        assert!(seen > 0, "{by}: something was there before");
    }
    let series = async |window: &str, more: &str| {
        plane.json(&format!("/api/v1/flows/timeseries?{window}&step=10{more}")).await
    };
    let compared = series(&current, "&compare=previous").await;
    assert_eq!(compared["points"], series(&current, "").await["points"]);
    assert_eq!(compared["previous"], series(&earlier, "").await["points"]);
    assert!(series(&current, "").await.get("previous").is_none());
    for wrong in ["compare=", "compare=next", "compare=previous&compare=previous"] {
        assert_eq!(plane.get(&format!("/api/v1/flows/top?{wrong}")).await.status(), 400, "{wrong}");
    }
}

/// Steps that the window cuts are whole, in both.
#[tokio::test(flavor = "multi_thread")]
async fn a1_steps_before_are_as_many_and_end_where_the_others_begin() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let now = recent_minute_ns();
    for (epoch, back) in [(0, 600), (1, 300), (2, 0)] {
        plane.store(&token, &batch(1, epoch, now - back * SECOND, mixed_flows())).await;
    }
    let (from, to) = (rfc3339(now - 299 * SECOND), rfc3339(now + 30 * SECOND));
    let path = format!("/api/v1/flows/timeseries?from={from}&to={to}&step=2m&compare=previous");
    let series = plane.json(&path).await;
    let starts = |name: &str| -> Vec<jiff::Timestamp> {
        let steps = series[name].as_array().expect("steps").iter();
        steps.map(|step| step["start"].as_str().expect("a time").parse().expect("a time")).collect()
    };
    let (points, previous) = (starts("points"), starts("previous"));
    assert_eq!(points.len(), previous.len());
    let length = jiff::SignedDuration::from_secs(120 * points.len() as i64);
    let moved: Vec<_> = points.iter().map(|start| *start - length).collect();
    assert_eq!(previous, moved);
    let total = |name: &str| -> i64 {
        series[name].as_array().expect("steps").iter().map(|step| sums(step)[0]).sum()
    };
    assert!(total("points") >= 41 && total("points") + total("previous") >= 82, "{series}");
}
