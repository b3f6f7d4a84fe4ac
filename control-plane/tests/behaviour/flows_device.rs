//! S4, A1: flows are chosen by the device that had an address at the time, and show it.

use reqwest::Method;
use serde_json::{Value, json};
use weir_wire::{Batch, Device, Flow};

use crate::devices::{ANOTHER, CARD, MADE_UP, at_site, device, items, named, say, with_address};
use crate::support::{ADMIN_TOKEN, Plane, SECOND, batch, encoded, flow, ports, recent_minute_ns, rfc3339};

/// The address that changes hands.
const SHARED: [u8; 4] = [10, 0, 0, 5];
const SERVER: [u8; 4] = [192, 0, 2, 80];

fn epoch(number: u64, devices: Vec<Device>, flows: Vec<Flow>) -> Batch {
    Batch { devices, ..batch(1, number, recent_minute_ns() + number as i64 * 5 * SECOND, flows) }
}

fn called(key: (&str, &str), name: &str, address: [u8; 4]) -> Device {
    Device { names: named(&[], "mdns", name).names, ..with_address(&[key], address) }
}

/// Ann's laptop has the address in the first two epochs, Bob's phone from the third one on; the printer has another
/// one all the time. Flows are told apart by the responder's port, which is their epoch's number and which flow it is.
async fn two_after_each_other(plane: &Plane<'_>, token: &str) {
    let tell = |number: u64, devices| {
        let to = |src, dst, which: u32| flow(src, dst, number as u32 * 10 + which, 1);
        let printer = [10, 0, 0, 9];
        let flows = vec![to(SHARED, SERVER, 1), to(printer, SHARED, 2), to(SERVER, printer, 3)];
        epoch(number, devices, flows)
    };
    let laptop = || called(CARD, "Ann's laptop", SHARED);
    let phone = || called(MADE_UP, "bobs-phone", SHARED);
    let printer = || called(ANOTHER, "EPSON", [10, 0, 0, 9]);
    plane.store(token, &tell(1, vec![laptop(), printer()])).await;
    plane.store(token, &tell(2, vec![laptop()])).await;
    plane.store(token, &tell(3, vec![phone(), printer()])).await;
    plane.store(token, &tell(4, vec![phone()])).await;
}

async fn id_of(plane: &Plane<'_>, name: &str) -> Value {
    items(plane, &format!("?name={}", encoded(name))).await[0]["id"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_flows_are_chosen_by_who_had_the_address_at_the_time() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    two_after_each_other(&plane, &token).await;
    let laptop = id_of(&plane, "laptop").await;
    for (filter, expected) in [
        ("device = \"ann's LAPTOP\"", vec![11, 12, 21, 22]),
        ("src_device = \"Ann's laptop\"", vec![11, 21]),
        ("dst_device ~ ann*", vec![12, 22]),
        ("device = bobs-phone", vec![31, 32, 41, 42]),
        ("device in (bobs-phone, epson) and dst_device ~ *", vec![12, 13, 22, 23, 32, 33, 42, 43]),
        ("src_device != bobs-phone", vec![11, 12, 13, 21, 22, 23, 32, 33, 42, 43]),
        ("not device ~ *", vec![]),
        ("device = nobody", vec![]),
        ("device = 999999999999999999999", vec![]),
        (&format!("src_device = {laptop}"), vec![11, 21]),
        (&format!("src_device in ({laptop}, bobs-phone) and src_port = 50k"), vec![11, 21, 31, 41]),
    ] {
        assert_eq!(ports(&plane, filter).await, expected, "{filter}");
    }
    // Whatever takes a filter takes it.
    let filter = encoded("src_device = bobs-phone");
    let top = plane.json(&format!("/api/v1/flows/top?by=source&filter={filter}")).await;
    assert_eq!(
        (&top["exact"], &top["total"]["flows"], &top["items"][0]["src"]),
        (&json!(true), &json!(2), &json!("10.0.0.5"))
    );
    let steps = plane.json(&format!("/api/v1/flows/timeseries?filter={filter}")).await;
    let flows: i64 =
        steps["points"].as_array().expect("points").iter().filter_map(|it| it["flows"].as_i64()).sum();
    assert_eq!(flows, 2, "{steps}");
    let file =
        plane.get(&format!("/api/v1/flows/export?filter={filter}")).await.text().await.expect("a file");
    assert_eq!(file.lines().count(), 2);
    // Names are offered, quoted where they must be.
    let offered = plane.json("/api/v1/flows/filter?filter=dst_device%20%3D%20ANN").await;
    assert_eq!(offered["candidates"], json!([{"text": "\"Ann's laptop\"", "description": ""}]), "{offered}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_a_rule_watches_the_flows_of_a_device() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    two_after_each_other(&plane, &token).await;
    let above = |filter: &str, flows: u32| json!({"kind": "threshold", "measure": "flows", "window_s": 600, "filter": filter, "above": flows});
    let absent = |filter: &str| json!({"kind": "absence", "window_s": 600, "filter": filter});
    let cases = [
        (above("device = \"Ann's laptop\"", 3), true),
        (above("device = \"Ann's laptop\"", 4), false),
        (above("src_device = bobs-phone", 1), true),
        (absent("dst_device = bobs-phone"), false),
        (absent("dst_device = bobs-phone and port = 11"), true),
    ];
    for (number, (condition, firing)) in cases.into_iter().enumerate() {
        let rule = plane.rule(json!({"name": format!("rule-{number}"), "condition": condition})).await;
        plane.look(0).await;
        assert_eq!(plane.states(rule) == ["/firing"], firing, "{condition}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_each_flow_shows_whose_its_addresses_were() {
    let plane = Plane::start().await;
    let [near, also, far] =
        [plane.sensor("ams-1").await, plane.sensor("ams-2").await, plane.sensor("far").await];
    at_site(&plane, "ams-1", "ams").await;
    at_site(&plane, "ams-2", "ams").await;
    two_after_each_other(&plane, &near).await;
    // Another sensor of the site sees the same device, one elsewhere another network.
    plane.store(&also, &epoch(2, Vec::new(), vec![flow(SHARED, SERVER, 1, 1)])).await;
    plane.store(&far, &epoch(2, vec![device(&[CARD])], vec![flow(SHARED, SERVER, 2, 1)])).await;
    let [laptop, phone, printer] =
        [id_of(&plane, "laptop").await, id_of(&plane, "phone").await, id_of(&plane, "epson").await];
    let (_, named) = say(&plane, &phone, &json!({"name": "Bob's"})).await;
    assert_eq!(named["name"], "Bob's");
    let none = (Value::Null, Value::Null);
    let laptop = (json!("Ann's laptop"), laptop);
    let phone = (json!("Bob's"), phone);
    let printer = (json!("EPSON"), printer);
    let page = plane.json("/api/v1/flows").await;
    let shown: Vec<Value> = page["items"].as_array().expect("items").clone();
    assert_eq!(shown.len(), 14);
    for item in &shown {
        let end = |end: &str| (item[end].clone(), item[format!("{end}_id")].clone());
        let port = item["dst_port"].as_i64().expect("a port");
        let shared = if port < 30 { laptop.clone() } else { phone.clone() };
        let expected = match port % 10 {
            _ if port == 1 => (laptop.clone(), none.clone()),
            _ if port == 2 => (none.clone(), none.clone()),
            1 => (shared, none.clone()),
            2 => (printer.clone(), shared),
            _ => (none.clone(), printer.clone()),
        };
        assert_eq!((end("src_device"), end("dst_device")), expected, "{item}");
    }
    // Exports have the same columns.
    let file = plane.get("/api/v1/flows/export").await.text().await.expect("a file");
    let lines: Vec<Value> = file.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    assert_eq!(lines, shown);
    let table = plane.get("/api/v1/flows/export?format=csv&dst_port=42").await.text().await.expect("a file");
    let ends = format!(",EPSON,{},Bob's,{},", printer.1, phone.1);
    assert!(table.contains(&ends), "{table}");
}

/// S4: what was merged is one device in all flows, what is erased is none's.
#[tokio::test(flavor = "multi_thread")]
async fn s4_a_merged_device_has_the_flows_of_both_and_an_erased_one_none() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    two_after_each_other(&plane, &token).await;
    let [laptop, phone] = [id_of(&plane, "laptop").await, id_of(&plane, "phone").await];
    // An answer with a window of its own is kept; a merge makes it another one.
    let start = recent_minute_ns() - 60 * SECOND;
    let (from, to) = (rfc3339(start), rfc3339(start + 600 * SECOND));
    let ask = format!(
        "/api/v1/flows/top?by=port&from={from}&to={to}&filter={}",
        encoded(&format!("src_device = {laptop}"))
    );
    assert_eq!(plane.json(&ask).await["total"]["flows"], 2);
    let path = format!("/api/v1/devices/{laptop}/merge");
    let (status, merged) = plane.call(Method::POST, &path, ADMIN_TOKEN, &json!({"other": phone})).await;
    assert_eq!(status, 200, "{merged}");
    assert_eq!(plane.json(&ask).await["total"]["flows"], 4);
    assert_eq!(ports(&plane, &format!("src_device = {laptop}")).await, [11, 21, 31, 41]);
    let (status, _) = plane.erase(&format!("/api/v1/devices/{laptop}?erase=true"), ADMIN_TOKEN).await;
    assert_eq!(status, 202);
    let ends = async |plane: &Plane<'_>| {
        let page = plane.json("/api/v1/flows").await;
        let items = page["items"].as_array().expect("items").clone();
        items.iter().filter(|item| item["dst_device"] == "EPSON").count()
            + items.iter().filter(|item| item["src_device"] == "EPSON").count() * 100
            + items.iter().filter(|item| item["src_device_id"] == laptop).count() * 10_000
    };
    assert_eq!(ends(&plane).await, 404, "before the job has hidden its address");
    plane.all_erased().await;
    assert_eq!(ends(&plane).await, 404);
}

/// A2, A8: what a filter by devices may cost is bounded, and the answer says what to do.
#[tokio::test(flavor = "multi_thread")]
async fn a8_a_filter_by_too_many_addresses_is_refused_with_its_name() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    plane.store(&token, &epoch(1, vec![called(CARD, "busy", SHARED)], Vec::new())).await;
    let id = id_of(&plane, "busy").await;
    plane.sql(&format!(
        "INSERT INTO device_fact (device_id, sensor_id, kind, source, value, address, first_seen, last_seen)
         SELECT {id}, sensor_id, 'address', '', host('10.1.0.0'::inet + n), '10.1.0.0'::inet + n, now(), now()
         FROM sensor, generate_series(1, 2000) AS n"
    ));
    let path = format!("/api/v1/flows?filter={}", encoded("device = busy"));
    let response = plane.get(&path).await;
    let (status, problem) = (response.status(), response.json::<Value>().await.expect("a problem"));
    assert_eq!((status.as_u16(), &problem["errors"][0]["field"]), (400, &json!("filter")), "{problem}");
    plane.sql("DELETE FROM device_fact WHERE address = '10.1.0.1'");
    assert_eq!(plane.get(&path).await.status(), 200);
}

/// S4, A8: a ranking of devices adds up what each had, from rows and from rollups, and no more than that.
#[tokio::test(flavor = "multi_thread")]
async fn s4_devices_are_ranked_by_what_their_addresses_were_at_the_time() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    two_after_each_other(&plane, &token).await;
    let ranked = async |by: &str| {
        let top = plane.json(&format!("/api/v1/flows/top?by={by}&metric=flows")).await;
        let items = top["items"].as_array().expect("items").iter();
        let mut items: Vec<_> =
            items.map(|it| (it["device"].as_str().map(str::to_owned), it["flows"].as_i64())).collect();
        items.sort();
        (top["exact"] == true, items, top["other"]["flows"].as_i64())
    };
    let of = |items: &[(&str, i64)]| -> Vec<_> {
        items.iter().map(|(name, flows)| (Some((*name).to_owned()), Some(*flows))).collect()
    };
    let all = [("Ann's laptop", 2), ("EPSON", 4), ("bobs-phone", 2)];
    assert_eq!(ranked("src_device").await, (true, of(&all), Some(4)));
    assert_eq!(ranked("dst_device").await, (true, of(&all), Some(4)));
    let compared = plane.json("/api/v1/flows/top?by=src_device&compare=previous").await;
    assert_eq!(compared["items"][0]["previous"]["flows"], 0, "{compared}");
    // As if there were more flows than are counted one by one. In that minute the shared address changed hands.
    for table in ["rollup_1m", "rollup_1h"] {
        plane.sql(&format!("UPDATE {table} SET flows = flows + 1000000 WHERE dimension = 5"));
    }
    assert_eq!(ranked("src_device").await, (false, of(&[("EPSON", 4)]), Some(1_000_008)));
    let compared = plane.json("/api/v1/flows/top?by=dst_device&compare=previous").await;
    assert_eq!(
        (&compared["items"][0]["device"], &compared["items"][0]["previous"]["flows"]),
        (&json!("EPSON"), &json!(0))
    );
}
