//! S5, I6: processes of local flows come back with the flows, are filtered by, and go when the last flow does.

use jiff::Timestamp;
use serde_json::{Value, json};
use weir_wire::{Batch, Flow, Process, limits};

use crate::devices::{CARD, items, with_address};
use crate::support::{ADMIN_TOKEN, Plane, batch, flow, ports, recent_minute_ns};

/// Three flows, told apart by the responder's port: from a process, to one, between the two.
fn local(generation: u8) -> Batch {
    let curl =
        Process { name: "curl".to_owned(), executable: "/usr/bin/curl".to_owned(), ..Process::default() };
    let web = Process {
        name: "nginx".to_owned(),
        container: "0123456789abcdef".repeat(4),
        unit: "docker.service".to_owned(),
        ..Process::default()
    };
    let with = |port: u32, src_process: u32, dst_process: u32| Flow {
        src_process,
        dst_process,
        ..flow([10, 0, 0, 1], [10, 0, 0, 2], port, 1)
    };
    let flows = vec![with(1, 1, 0), with(2, 0, 2), with(3, 1, 2), with(4, 0, 0)];
    Batch { processes: vec![curl, web], ..batch(generation, 0, recent_minute_ns(), flows) }
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_flows_are_chosen_by_process_and_stored_once() {
    let plane = Plane::start().await;
    let tokens = [plane.sensor("edge-1").await, plane.sensor("edge-2").await];
    plane.store(&tokens[0], &local(1)).await;
    for (filter, expected) in [
        ("process = curl", vec![1, 3]),
        ("src_process = curl", vec![1, 3]),
        ("dst_process = curl", vec![]),
        ("process ~ \"*n*x\"", vec![2, 3]),
        ("not process = curl", vec![2, 4]),
        ("executable ~ \"/usr/*\"", vec![1, 3]),
        ("container ~ 0123*", vec![2, 3]),
        ("unit = \"docker.service\" and process != curl", vec![2]),
    ] {
        assert_eq!(ports(&plane, filter).await, expected, "{filter}");
    }
    let page = plane.json("/api/v1/flows?filter=dst_port%20%3D%203").await;
    let item = &page["items"][0];
    let web = ["dst_process", "dst_executable", "dst_container", "dst_unit"].map(|name| item[name].clone());
    let container = "0123456789abcdef".repeat(4);
    assert_eq!(json!(web), json!(["nginx", null, container, "docker.service"]));
    assert_eq!(item["src_executable"], "/usr/bin/curl");

    // However many batches, sensors and repeats bring it.
    plane.store(&tokens[1], &local(2)).await;
    let (status, _) = plane.post(&tokens[1], &local(2)).await;
    assert_eq!(status, 200);
    assert_eq!(plane.sql("SELECT name FROM process ORDER BY name"), "curl\nnginx");

    // Completion offers what is there.
    let offered = plane.json("/api/v1/flows/filter?filter=process%20%3D%20n").await;
    let candidates = offered["candidates"].as_array().expect("a list");
    assert!(candidates.iter().any(|candidate| candidate["text"] == "nginx"), "{offered}");

    // Gone with the last flow.
    plane.sql("UPDATE process SET last_used = now() - interval '10 years' WHERE name = 'curl'");
    assert!(plane.jobs().round(Timestamp::now()).await.expect("the round runs"));
    assert_eq!(plane.sql("SELECT name FROM process"), "nginx");
}

/// What a ranking has: entries with their flows, then all others and all.
async fn ranked(plane: &Plane<'_>, by: &str, query: &str) -> (bool, Vec<(String, i64)>, i64, i64) {
    let top = plane.json(&format!("/api/v1/flows/top?by={by}&metric=flows{query}")).await;
    let flows = |sums: &Value| sums["flows"].as_i64().expect("a count");
    let items = top["items"].as_array().expect("items").iter();
    let items = items.map(|item| (item[by].as_str().expect("its name").to_owned(), flows(item)));
    (top["exact"] == true, items.collect(), flows(&top["other"]), flows(&top["total"]))
}

/// S5, A8: rollups know what the rows know, each flow once.
#[tokio::test(flavor = "multi_thread")]
async fn s5_processes_are_ranked_alike_from_rows_and_from_rollups() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    for generation in 1..=3 {
        plane.store(&token, &local(generation)).await;
    }
    let container = "0123456789abcdef".repeat(4);
    let own = |names: &[(&str, i64)]| {
        names.iter().map(|(name, flows)| ((*name).to_owned(), *flows)).collect::<Vec<_>>()
    };
    let expected = [
        ("process", own(&[("curl", 6), ("nginx", 3)]), 3),
        ("executable", own(&[("/usr/bin/curl", 6)]), 6),
        ("container", own(&[(&container, 3)]), 9),
        ("unit", own(&[("docker.service", 3)]), 9),
    ];
    for (by, items, other) in &expected {
        assert_eq!(ranked(&plane, by, "").await, (true, items.clone(), *other, 12), "{by}");
    }
    let filter = "&filter=process%20%3D%20nginx";
    assert_eq!(ranked(&plane, "process", filter).await, (true, own(&[("curl", 3), ("nginx", 3)]), 0, 6));
    let compared = plane.json("/api/v1/flows/top?by=process&compare=previous").await;
    assert_eq!(compared["items"][0]["previous"]["flows"], 0, "{compared}");
    // As if there were more flows than are counted one by one: the sums by protocol say how many there are.
    for table in ["rollup_1m", "rollup_1h"] {
        plane.sql(&format!("UPDATE {table} SET flows = flows + 1000000 WHERE dimension = 5"));
    }
    for (by, items, other) in &expected {
        assert_eq!(
            ranked(&plane, by, "").await,
            (false, items.clone(), other + 1_000_000, 1_000_012),
            "{by}"
        );
    }
    let compared = plane.json("/api/v1/flows/top?by=process&compare=previous").await;
    assert_eq!(compared["items"][0]["previous"]["flows"], 0, "{compared}");
    plane.sql("DELETE FROM process WHERE name = 'nginx'");
    assert_eq!(
        ranked(&plane, "process", "").await.1,
        own(&[("curl", 6)]),
        "what has no name is among the others"
    );
}

/// U5: sums by the processes of an erased device's flows are told of nobody, and are what they were.
#[tokio::test(flavor = "multi_thread")]
async fn u5_an_erased_device_takes_what_its_processes_are_called_out_of_the_sums() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let sent = Batch { devices: vec![with_address(&[CARD], [10, 0, 0, 1])], ..local(1) };
    plane.store(&token, &sent).await;
    let sums = |table: &str| {
        plane.sql(&format!(
            "SELECT string_agg(coalesce(name, '-') || ' ' || flows, ',' ORDER BY name)
             FROM {table} LEFT JOIN process ON process_id = number WHERE dimension = 9"
        ))
    };
    for table in ["rollup_1m", "rollup_1h"] {
        assert_eq!(sums(table), "curl 2,nginx 1");
    }
    let id = items(&plane, "").await[0]["id"].clone();
    let (status, begun) = plane.erase(&format!("/api/v1/devices/{id}?erase=true"), ADMIN_TOKEN).await;
    assert_eq!(status, 202, "{begun}");
    plane.all_erased().await;
    for table in ["rollup_1m", "rollup_1h"] {
        assert_eq!(sums(table), "nginx 1,- 2");
    }
    assert_eq!(plane.count("erasure_process"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn i6_hostile_processes_are_cleaned_and_never_cost_a_count() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let mut sent = local(1);
    sent.processes = vec![
        Process {
            name: "a\u{1b}[2J\u{202e}".to_owned(),
            executable: "x".repeat(5_000),
            ..Process::default()
        },
        Process { executable: "/no/name".to_owned(), ..Process::default() },
    ];
    plane.store(&token, &sent).await;
    let page = plane.json("/api/v1/flows?filter=dst_port%20%3D%203").await;
    let item = &page["items"][0];
    assert_eq!(item["src_process"], "a\u{fffd}[2J\u{fffd}");
    assert_eq!(item["src_executable"].as_str().map(str::len), Some(limits::MAX_EXECUTABLE));
    assert_eq!(page["items"][0]["dst_process"], Value::Null, "one without a name is none");

    // A number that stands for nothing is a batch that nobody made.
    let mut wrong = local(2);
    wrong.flows[0].src_process = 3;
    let (status, problem) = plane.post(&token, &wrong).await;
    assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!("flows[0].src_process")));
}
