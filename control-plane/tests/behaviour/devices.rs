//! Devices: one record at a site whatever order its facts come in, named by operators, forgotten with their sensor
//! (S4, I2, I3, I5, I6, U9, A2, A3).

use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};
use weir_control_plane::auth::Role;
use weir_wire::{Batch, Device, DeviceAddress, DeviceFact, DeviceReason, DeviceType, DropReason};

use crate::support::{ADMIN_TOKEN, Plane, SECOND, batch, notice, recent_minute_ns, rfc3339};

pub const CARD: (&str, &str) = ("mac", "b0:c5:54:25:5b:0e");
pub const MADE_UP: (&str, &str) = ("random_mac", "02:01:01:01:01:01");
pub const ANOTHER: (&str, &str) = ("random_mac", "06:02:02:02:02:02");
const DUID: (&str, &str) = ("duid", "00020000ab11aabbccdd");

/// A device that was seen in the first second of a window.
pub fn device(keys: &[(&str, &str)]) -> Device {
    let fact = |(source, value): &(&str, &str)| DeviceFact {
        source: (*source).to_owned(),
        value: (*value).to_owned(),
        first_ns: 0,
        last_ns: SECOND,
    };
    Device { keys: keys.iter().map(fact).collect(), last_ns: SECOND, ..Device::default() }
}

pub fn named(keys: &[(&str, &str)], source: &str, name: &str) -> Device {
    let fact = DeviceFact { source: source.to_owned(), value: name.to_owned(), first_ns: 0, last_ns: SECOND };
    Device { names: vec![fact], ..device(keys) }
}

pub fn with_address(keys: &[(&str, &str)], address: [u8; 4]) -> Device {
    let address = DeviceAddress { address: address.to_vec(), first_ns: 0, last_ns: SECOND };
    Device { addresses: vec![address], vendor: "D-Link International".to_owned(), ..device(keys) }
}

fn reason(rule: &str, of: DeviceType, weight: u32) -> DeviceReason {
    DeviceReason {
        rule: rule.to_owned(),
        device_type: of.into(),
        weight,
        detail: "_ipp._tcp".to_owned(),
        first_ns: 0,
        last_ns: SECOND,
    }
}

fn epoch(number: u64, devices: Vec<Device>) -> Batch {
    Batch { devices, ..batch(1, number, recent_minute_ns() + number as i64 * 5 * SECOND, Vec::new()) }
}

pub async fn items(plane: &Plane<'_>, query: &str) -> Vec<Value> {
    let page = plane.json(&format!("/api/v1/devices{query}")).await;
    page["items"].as_array().expect("items").clone()
}

pub async fn at_site(plane: &Plane<'_>, sensor: &str, site: &str) {
    let (status, body) = plane
        .call(Method::PATCH, &format!("/api/v1/sensors/{sensor}"), ADMIN_TOKEN, &json!({"site": site}))
        .await;
    assert_eq!(status, 200, "{body}");
}

pub async fn say(plane: &Plane<'_>, id: &Value, body: &Value) -> (u16, Value) {
    plane.call(Method::PATCH, &format!("/api/v1/devices/{id}"), ADMIN_TOKEN, body).await
}

/// What a page shows of each device, without ids and times.
fn gist(mut items: Vec<Value>) -> Vec<Value> {
    for item in &mut items {
        for field in ["id", "first_seen", "last_seen"] {
            item.as_object_mut().expect("an object").remove(field);
        }
    }
    items.sort_by_key(ToString::to_string);
    items
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_facts_make_one_device_in_any_order_and_any_number_of_times() {
    let told = [
        epoch(1, vec![with_address(&[MADE_UP], [10, 0, 0, 5])]),
        epoch(2, vec![named(&[ANOTHER], "mdns", "anns-phone"), device(&[CARD])]),
        epoch(
            3,
            vec![Device {
                reasons: vec![reason("mdns_ipp", DeviceType::Printer, 60)],
                ..device(&[ANOTHER, DUID])
            }],
        ),
        epoch(4, vec![named(&[MADE_UP, DUID], "dhcp", "Anns-Phone")]),
        epoch(
            5,
            vec![Device {
                reasons: vec![reason("dhcp_android", DeviceType::Phone, 50)],
                ..device(&[ANOTHER])
            }],
        ),
    ];
    let mut seen = Vec::new();
    for order in [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 3, 4, 1]] {
        let plane = Plane::start().await;
        let token = plane.sensor("edge-1").await;
        for at in order {
            plane.store(&token, &told[at]).await;
            let (status, body) = plane.post(&token, &told[at]).await;
            assert_eq!((status, body["status"].as_str()), (200, Some("duplicate")), "{body}");
        }
        let found = gist(items(&plane, "").await);
        assert_eq!(found.len(), 2, "{found:#?}");
        let phone = found.iter().find(|it| it["name"] == "Anns-Phone").expect("DHCP's name is the best");
        assert_eq!(
            (&phone["type"], &phone["type_by"], &phone["told_score"]),
            (&json!("printer"), &json!("evidence"), &json!(60))
        );
        assert_eq!(phone["keys"].as_array().map(Vec::len), Some(3));
        assert_eq!(
            (&phone["addresses"], &phone["vendor"]),
            (&json!(["10.0.0.5"]), &json!("D-Link International"))
        );
        seen.push(found);
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0], seen[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_sensors_of_a_site_see_one_device_and_those_of_another_see_theirs() {
    let plane = Plane::start().await;
    let [one, two, far] =
        [plane.sensor("ams-1").await, plane.sensor("ams-2").await, plane.sensor("far").await];
    at_site(&plane, "ams-1", "ams").await;
    at_site(&plane, "ams-2", "ams").await;
    plane.store(&one, &epoch(1, vec![named(&[CARD], "mdns", "cam")])).await;
    plane.store(&two, &epoch(1, vec![with_address(&[CARD, DUID], [10, 0, 0, 6])])).await;
    plane.store(&far, &epoch(1, vec![device(&[CARD])])).await;
    let here = items(&plane, "?site=ams").await;
    assert_eq!(here.len(), 1, "{here:?}");
    assert_eq!((&here[0]["site"], &here[0]["name"]), (&json!("ams"), &json!("cam")));
    assert_eq!(
        items(&plane, "?sensor=far").await[0]["site"],
        Value::Null,
        "a sensor without a site is one of its own"
    );
    let detail = plane.json(&format!("/api/v1/devices/{}", here[0]["id"])).await;
    let seen_by: Vec<_> = detail["facts"]
        .as_array()
        .expect("facts")
        .iter()
        .filter(|fact| fact["kind"] == "seen")
        .map(|fact| fact["source"].as_str().expect("a name"))
        .collect();
    assert_eq!(seen_by, ["ams-1", "ams-2"]);
    // New ones are told once each.
    let told =
        "SELECT count(*) FROM (SELECT topic, kind FROM event UNION ALL SELECT topic, kind FROM event_pending)
                AS all_events WHERE topic = 'devices' AND kind = 'device.new'";
    assert_eq!(plane.sql(told), "2");

    // A deleted sensor takes what it alone told with it, and no more.
    for sensor in ["ams-2", "far"] {
        let (status, begun) = plane.erase(&format!("/api/v1/sensors/{sensor}"), ADMIN_TOKEN).await;
        assert_eq!(status, 202, "{begun}");
    }
    plane.all_erased().await;
    let left = items(&plane, "").await;
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(
        (&left[0]["addresses"], &left[0]["keys"]),
        (&json!([]), &json!([{"kind": "mac", "value": CARD.1}]))
    );
    assert_eq!(plane.count("device_key"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn i3_sensors_that_tell_at_once_make_no_second_record() {
    let plane = Plane::start().await;
    let mut tokens = Vec::new();
    for sensor in ["a-1", "a-2", "a-3", "a-4"] {
        tokens.push(plane.sensor(sensor).await);
        at_site(&plane, sensor, "ams").await;
    }
    let all: Vec<_> = (0..40).map(|n| format!("02:00:00:00:00:{n:02x}")).collect();
    let tell = |number: u64| {
        let mut devices: Vec<_> = all.iter().map(|mac| device(&[("random_mac", mac)])).collect();
        if number % 2 == 1 {
            devices.reverse();
        }
        epoch(number, devices)
    };
    let epochs: Vec<_> = (0..3).map(tell).collect();
    let sent = tokens.iter().flat_map(|token| epochs.iter().map(move |epoch| (token, epoch)));
    futures_util::future::join_all(sent.map(|(token, epoch)| plane.store(token, epoch))).await;
    assert_eq!(plane.sql("SELECT count(*) FROM device"), "40");
    assert_eq!(plane.sql("SELECT count(*) FROM device_fact WHERE kind = 'seen'"), "160");
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_two_cards_stay_two_whatever_they_share() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let other = ("mac", "b0:c5:54:00:00:01");
    plane.store(&token, &epoch(1, vec![device(&[CARD, DUID])])).await;
    plane.store(&token, &epoch(2, vec![device(&[other, DUID])])).await;
    assert_eq!(items(&plane, "").await.len(), 2);
    plane.store(&token, &epoch(3, vec![device(&[other, MADE_UP]), device(&[CARD, ANOTHER])])).await;
    plane.store(&token, &epoch(4, vec![device(&[MADE_UP, ANOTHER])])).await;
    assert_eq!(items(&plane, "").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_says_is_final_and_in_the_audit_log() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    plane.user("otto", Role::Operator).await;
    let otto = plane.log_in("otto").await;
    let printer = || vec![reason("mdns_ipp", DeviceType::Printer, 60)];
    plane
        .store(&token, &epoch(1, vec![Device { reasons: printer(), ..device(&[CARD]) }, device(&[MADE_UP])]))
        .await;
    let found = items(&plane, "?type=printer").await;
    let id = found[0]["id"].clone();
    let said =
        json!({"name": "Front desk", "type": "camera", "owner": "facilities", "notes": "by the\ndoor"});
    let path = format!("/api/v1/devices/{id}");
    let (status, body) = plane.call(Method::PATCH, &path, &otto.access, &said).await;
    assert_eq!(
        (status, &body["name"], &body["type"], &body["type_by"]),
        (200, &json!("Front desk"), &json!("camera"), &json!("operator"))
    );
    // More evidence changes nothing of it, and a clear gives way to the evidence.
    plane
        .store(&token, &epoch(2, vec![Device { reasons: printer(), ..named(&[CARD], "dhcp", "EPSON") }]))
        .await;
    assert_eq!(items(&plane, "?type=camera&name=front%20d").await.len(), 1);
    assert_eq!(items(&plane, "?type=printer").await.len(), 0);
    let (_, body) = say(&plane, &id, &json!({"type": null})).await;
    assert_eq!((&body["type"], &body["notes"]), (&json!("printer"), &json!("by the\ndoor")));

    let other = items(&plane, "").await.into_iter().find(|it| it["id"] != id).expect("the other");
    let (status, problem) = say(&plane, &other["id"], &json!({"name": "front DESK"})).await;
    assert_eq!((status, &problem["type"]), (409, &json!("urn:weir:problem:name-taken")), "one name a site");
    for (body, field) in [
        (json!({"type": "toaster"}), "type"),
        (json!({"name": ""}), "name"),
        (json!({"name": "a\u{1b}[31m"}), "name"),
        (json!({"owner": "x".repeat(129)}), "owner"),
        (json!({"notes": "x".repeat(4_001)}), "notes"),
    ] {
        let (status, problem) = say(&plane, &id, &body).await;
        assert_eq!((status, &problem["errors"][0]["field"]), (400, &json!(field)), "{problem}");
    }
    assert_eq!(say(&plane, &json!(4711), &json!({"name": "x"})).await.0, 404);
    let log = plane.json("/api/v1/audit?subject_kind=device").await;
    let rows = log["items"].as_array().expect("items");
    let actions: Vec<_> = rows.iter().map(|row| (&row["action"], &row["actor_name"])).collect();
    assert_eq!(actions.len(), 2, "a refusal changes nothing: {rows:#?}");
    assert_eq!(rows[1]["after"]["name"], "Front desk");
    assert_eq!(rows[1]["before"]["name"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_says_that_two_are_one_and_it_stays_so() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let wireless = ("mac", "b0:c5:54:00:00:01");
    let laptop = || vec![with_address(&[CARD], [10, 0, 0, 5]), with_address(&[wireless], [10, 0, 0, 6])];
    plane.store(&token, &epoch(1, laptop())).await;
    let found = items(&plane, "").await;
    let [one, two] = &found[..] else { panic!("two cards: {found:?}") };
    assert_eq!(say(&plane, &two["id"], &json!({"name": "ann's", "owner": "ann"})).await.0, 200);
    let path = format!("/api/v1/devices/{}/merge", one["id"]);
    let (status, merged) = plane.call(Method::POST, &path, ADMIN_TOKEN, &json!({"other": two["id"]})).await;
    assert_eq!(status, 200, "{merged}");
    assert_eq!(
        (&merged["id"], &merged["name"], &merged["owner"]),
        (&one["id"], &json!("ann's"), &json!("ann"))
    );
    assert_eq!(merged["keys"].as_array().map(Vec::len), Some(2));
    // What sensors tell of either is this one's.
    plane.store(&token, &epoch(2, laptop())).await;
    let left = items(&plane, "").await;
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(items(&plane, "?address=10.0.0.6").await[0]["id"], one["id"]);
    assert_eq!(plane.get(&format!("/api/v1/devices/{}", two["id"])).await.status(), 404);
    let merge = |other: Value| {
        let path = path.clone();
        let plane = &plane;
        async move { plane.call(Method::POST, &path, ADMIN_TOKEN, &json!({"other": other})).await.0 }
    };
    assert_eq!(merge(two["id"].clone()).await, 404);
    assert_eq!(merge(one["id"].clone()).await, 400);
    let far = plane.sensor("far").await;
    plane.store(&far, &epoch(1, vec![device(&[MADE_UP])])).await;
    let far = items(&plane, "?sensor=far").await[0]["id"].clone();
    assert_eq!(merge(far).await, 409, "of another site");
    let log = plane.json("/api/v1/audit?action=device.merge").await;
    assert_eq!(log["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_a3_filters_and_pages_of_devices() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    at_site(&plane, "edge-1", "ams").await;
    let devices = (0..25_u8).map(|n| {
        let mac = format!("02:00:00:00:00:{n:02x}");
        Device {
            names: named(&[], "mdns", &format!("Host-{n}")).names,
            ..with_address(&[("random_mac", &mac)], [10, 0, n % 2, n])
        }
    });
    let batch = epoch(1, devices.collect());
    plane.store(&token, &batch).await;
    for (query, count) in [
        ("", 25),
        ("?site=ams", 25),
        ("?site=fra", 0),
        ("?sensor=edge-1", 25),
        ("?sensor=edge-9", 0),
        ("?name=HOST-1", 11),
        ("?name=host-*4", 3),
        ("?vendor=d-link", 25),
        ("?vendor=100%25", 0),
        ("?address=10.0.0.0/24", 13),
        ("?address=10.0.1.3", 1),
        ("?type=printer", 0),
    ] {
        assert_eq!(items(&plane, query).await.len(), count, "{query}");
    }
    let (before, after) =
        (rfc3339(batch.window_start_ns - SECOND), rfc3339(batch.window_start_ns + 60 * SECOND));
    assert_eq!(items(&plane, &format!("?from={before}&to={after}")).await.len(), 25);
    assert_eq!(items(&plane, &format!("?from={after}")).await.len(), 0);
    assert_eq!(items(&plane, &format!("?to={before}")).await.len(), 0);
    let (mut seen, mut path) = (Vec::new(), "/api/v1/devices?limit=10".to_owned());
    loop {
        let page = plane.json(&path).await;
        seen.extend(page["items"].as_array().expect("items").iter().map(|item| item["id"].as_i64()));
        let Some(token) = page["continuation"].as_str() else { break };
        path = format!("/api/v1/devices?limit=10&continuation={token}");
    }
    let mut sorted = seen.clone();
    sorted.sort_by(|a, b| b.cmp(a));
    sorted.dedup();
    assert_eq!((seen.len(), seen), (25, sorted));
    for query in [
        "?type=toaster",
        "?site=%21",
        "?address=10.0.0",
        "?name=",
        "?vendor=%00",
        "?limit=0",
        "?from=now",
        "?x=1",
    ] {
        assert_eq!(plane.get(&format!("/api/v1/devices{query}")).await.status(), 400, "{query}");
    }
    for id in ["0", "-1", "x", "99999999999999999999"] {
        assert_eq!(plane.get(&format!("/api/v1/devices/{id}")).await.status(), 400, "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i6_hostile_names_of_devices_are_stored_clean_and_impossible_ones_refused() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let hostile = named(&[CARD], "mdns", &("\u{1b}[2Jpc\0\u{202e}".to_owned() + &"x".repeat(10_000)));
    plane.store(&token, &epoch(1, vec![hostile])).await;
    let name = items(&plane, "").await[0]["name"].as_str().expect("a name").to_owned();
    assert!(name.starts_with("\u{fffd}[2Jpc\u{fffd}\u{fffd}xxx") && name.len() == 256, "{name:?}");
    let late = Device { last_ns: 2 * 3_600 * SECOND, ..device(&[CARD]) };
    let many = Device { keys: vec![device(&[CARD]).keys[0].clone(); 17], ..device(&[]) };
    for (number, wrong) in [
        vec![device(&[])],
        vec![device(&[CARD]), device(&[CARD])],
        vec![late],
        vec![many],
        vec![device(&[("Mac", "x")])],
    ]
    .into_iter()
    .enumerate()
    {
        let (status, body) = plane.post(&token, &epoch(10 + number as u64, wrong)).await;
        assert_eq!(
            (status, &body["type"]),
            (422, &json!("urn:weir:problem:invalid-batch")),
            "{number}: {body}"
        );
    }
    // What stands for a dropped batch tells of none, and none is needed.
    let (status, body) = plane.post(&token, &notice(epoch(3, Vec::new()), DropReason::SpoolBytes)).await;
    assert_eq!(status, 200, "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn i8_devices_that_nobody_saw_or_spoke_of_are_forgotten() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    plane.store(&token, &epoch(1, vec![device(&[CARD]), device(&[MADE_UP]), device(&[ANOTHER])])).await;
    let id = items(&plane, "").await[0]["id"].clone();
    assert_eq!(say(&plane, &id, &json!({"notes": "kept"})).await.0, 200);
    let next = items(&plane, "").await[1]["id"].clone();
    plane.sql(&format!(
        "UPDATE device SET last_seen = last_seen - interval '366 days' WHERE device_id <> {next}"
    ));
    assert!(plane.jobs().round(Timestamp::now()).await.expect("a round"));
    let left: Vec<_> = items(&plane, "").await.iter().map(|it| it["id"].clone()).collect();
    assert_eq!(left, [id, next]);
}
