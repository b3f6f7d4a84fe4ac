//! No parameter of any route, and no value in any body, is SQL.

use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::Value;

use super::HOSTILE;
use crate::support::{ADMIN_TOKEN, Plane, batch, detection, encoded, mixed_flows, recent_minute_ns};

/// A request with one hostile value in it.
#[derive(Clone)]
struct Attempt {
    method: Method,
    path: String,
    header: Option<(String, String)>,
    body: Option<Value>,
    sensor: bool,
}

/// What an operation's parameter is in a request that is right.
fn example(parameter: &Value) -> String {
    match &parameter["example"] {
        Value::String(text) => text.clone(),
        Value::Null => "1".to_owned(),
        other => other.to_string(),
    }
}

/// The path with its parameters' examples, but for one.
fn concrete(path: &str, parameters: &[Value], odd: Option<(&str, &str)>) -> String {
    let mut concrete = path.to_owned();
    for parameter in parameters.iter().filter(|parameter| parameter["in"] == "path") {
        let name = parameter["name"].as_str().expect("a name");
        let value = match odd {
            Some((odd, value)) if odd == name => encoded(value),
            _ => encoded(&example(parameter)),
        };
        concrete = concrete.replace(&format!("{{{name}}}"), &value);
    }
    concrete
}

/// The body's example, once with each of its values replaced.
fn variants(example: &Value, hostile: &str) -> Vec<Value> {
    let leaves: Vec<String> = leaves(example, String::new());
    let replaced = |pointer: &String| {
        let mut variant = example.clone();
        if let Some(leaf) = variant.pointer_mut(pointer) {
            *leaf = hostile.into();
        }
        variant
    };
    leaves.iter().map(replaced).collect()
}

fn leaves(value: &Value, at: String) -> Vec<String> {
    match value {
        Value::Object(members) => members
            .iter()
            .flat_map(|(key, member)| {
                leaves(member, format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")))
            })
            .collect(),
        Value::Array(items) => {
            items.iter().enumerate().flat_map(|(index, item)| leaves(item, format!("{at}/{index}"))).collect()
        }
        _ => vec![at],
    }
}

/// Everything that can be asked wrongly, by the document.
fn attempts(document: &Value) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            let method: Method = method.to_uppercase().parse().expect("a method");
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let plain = concrete(path, &parameters, None);
            let sensor = path == "/api/v1/sensor/credentials" || path == "/api/v1/ingest";
            let plain = Attempt { method, path: plain, header: None, body: None, sensor };
            let schema = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str();
            let right = schema.map(|name| {
                let name = name.rsplit('/').next().expect("a name");
                document["components"]["schemas"][name]["example"].clone()
            });
            for hostile in HOSTILE {
                for parameter in &parameters {
                    let name = parameter["name"].as_str().expect("a name");
                    let mut attempt = plain.clone();
                    match parameter["in"].as_str() {
                        Some("path") => attempt.path = concrete(path, &parameters, Some((name, hostile))),
                        Some("header") => attempt.header = Some((name.to_owned(), hostile.to_owned())),
                        _ => attempt.path = format!("{}?{name}={}", plain.path, encoded(hostile)),
                    }
                    attempt.body.clone_from(&right);
                    attempts.push(attempt);
                }
                let bodies = right.iter().flat_map(|right| variants(right, hostile));
                attempts.extend(bodies.map(|body| Attempt { body: Some(body), ..plain.clone() }));
            }
        }
    }
    attempts
}

async fn send(plane: &Plane<'_>, sensor: &str, attempt: Attempt) -> (String, u16) {
    let token = if attempt.sensor { sensor } else { ADMIN_TOKEN };
    let what = format!("{} {} {:?} {:?}", attempt.method, attempt.path, attempt.header, attempt.body);
    let mut request = plane.request(attempt.method, &attempt.path, token);
    if let Some((name, value)) = attempt.header {
        // A client cannot send line breaks there; `header` tries it without one.
        let value: String = value.chars().filter(|char| !char.is_control()).collect();
        request = request.header(name, value.as_bytes());
    }
    if let Some(body) = attempt.body {
        request = request.json(&body);
    }
    let response = request.send().await.expect(&what);
    assert!(!response.headers().contains_key("set-cookie"), "{what}");
    let status = response.status().as_u16();
    // Streams do not end; everything else is read, so that an error on the way is one.
    if !attempt.path.contains("stream") {
        response.bytes().await.expect(&what);
    }
    (what, status)
}

/// The tables and columns that there are.
fn schema(plane: &Plane<'_>) -> String {
    plane.sql(
        "SELECT count(*), md5(string_agg(table_name || column_name || data_type, ',' ORDER BY table_name, column_name))
         FROM information_schema.columns
         WHERE table_schema = 'public' AND table_name IN (SELECT relname FROM pg_class WHERE NOT relispartition)",
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_every_parameter_of_every_route_is_a_value_and_no_sql() {
    let plane = Plane::start_with(|config| {
        let rate = weir_control_plane::config::Rate { per_minute: 6_000_000, burst: 1_000_000 };
        (config.limits.query, config.limits.read, config.limits.write) = (rate, rate, rate);
        config.limits.ingest = rate;
        config.api.queue_timeout_ms = 60_000;
    })
    .await;
    let token = plane.sensor("edge-1").await;
    let mut batch = batch(1, 0, recent_minute_ns(), mixed_flows());
    batch.detections = vec![detection("port_scan", "10.0.0.66", weir_wire::Severity::High, 3)];
    plane.store(&token, &batch).await;
    let (contents, tables) = (plane.contents(), schema(&plane));
    let document: Value = plane.json("/api/openapi.json").await;
    // What ends the sensor's credential, or the sensor, is tried last.
    let (last, first): (Vec<Attempt>, Vec<Attempt>) = attempts(&document)
        .into_iter()
        .partition(|attempt| attempt.sensor || attempt.path.contains("revoke"));
    let asked = first.len() + last.len();
    assert!(asked > 3_000, "{asked} requests only");
    let mut conflicts = 0;
    for attempts in [first, last] {
        let answers: Vec<(String, u16)> = futures_util::stream::iter(attempts)
            .map(|attempt| send(&plane, &token, attempt))
            .buffer_unordered(4)
            .collect()
            .await;
        for (what, status) in answers {
            assert!(matches!(status, 200 | 202 | 400..=499), "{what}: {status}");
            conflicts += usize::from(status == 409);
        }
    }
    // Postgres refused nothing but names that are taken, and slept over nothing.
    let metrics = plane.metrics().await;
    let errors = |kind: &str| -> usize {
        let line = format!("weir_db_errors_total{{kind=\"{kind}\"}} ");
        metrics.lines().find_map(|found| found.strip_prefix(&line)?.parse().ok()).unwrap_or_default()
    };
    assert!(errors("database") <= conflicts, "{} of {conflicts}", errors("database"));
    assert_eq!(errors("timeout"), 0);
    assert_eq!(schema(&plane), tables);
    assert_eq!(plane.contents(), contents);
}

/// The filter language has operators, patterns and texts of its own: each is bound or refused.
#[tokio::test(flavor = "multi_thread")]
async fn a2_texts_of_filters_are_values_in_every_place_that_takes_one() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    plane.store(&token, &batch(1, 0, recent_minute_ns(), mixed_flows())).await;
    for hostile in HOSTILE.into_iter().filter(|text| !text.contains(char::is_control)) {
        let text = hostile.replace('\\', "\\\\").replace('"', "\\\"");
        for filter in [
            format!("name = \"{text}\""),
            format!("name ~ \"{text}\""),
            format!("name in (\"{text}\", \"{text}\")"),
            format!("not (interface = \"{text}\") and dst_port = 0"),
            format!("sensor = \"{text}\""),
            format!("country = \"{text}\""),
            hostile.to_owned(),
        ] {
            let response = plane.get(&format!("/api/v1/flows?filter={}", encoded(&filter))).await;
            let status = response.status().as_u16();
            let body: Value = response.json().await.expect("JSON");
            match status {
                200 => assert_eq!(body["items"], serde_json::json!([]), "{filter}"),
                _ => assert_eq!((status, body["category"].as_str()), (400, Some("validation")), "{filter}"),
            }
        }
    }
    assert_eq!(plane.count("flow"), 41);
}
