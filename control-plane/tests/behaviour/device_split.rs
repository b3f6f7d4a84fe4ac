//! S4, U9, I1, I3: a merge of devices is undone, with what came since, whoever does what meanwhile.

use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};
use weir_wire::{Batch, Device};

use crate::devices::{ANOTHER, CARD, MADE_UP, device, items, named, say, with_address};
use crate::support::{ADMIN_TOKEN, Plane, SECOND, batch, recent_minute_ns};

const OTHER_CARD: (&str, &str) = ("mac", "b0:c5:54:00:00:01");

fn epoch(number: u64, devices: Vec<Device>) -> Batch {
    Batch { devices, ..batch(1, number, recent_minute_ns() + number as i64 * 5 * SECOND, Vec::new()) }
}

async fn id_of(plane: &Plane<'_>, key: &str) -> Value {
    let found = items(plane, "").await;
    let has = |it: &&Value| it["keys"].as_array().expect("keys").iter().any(|it| it["value"] == key);
    found.iter().find(has).expect("a device with the key")["id"].clone()
}

async fn merge(plane: &Plane<'_>, id: &Value, other: &Value) -> u16 {
    let path = format!("/api/v1/devices/{id}/merge");
    plane.call(Method::POST, &path, ADMIN_TOKEN, &json!({"other": other})).await.0
}

async fn split(plane: &Plane<'_>, id: &Value, merge: &Value) -> (u16, Value) {
    let path = format!("/api/v1/devices/{id}/split");
    plane.call(Method::POST, &path, ADMIN_TOKEN, &json!({"merge": merge})).await
}

async fn merges(plane: &Plane<'_>, id: &Value) -> Vec<Value> {
    plane.json(&format!("/api/v1/devices/{id}")).await["merges"].as_array().expect("merges").clone()
}

/// All that is stored of devices, to compare.
fn contents(plane: &Plane<'_>) -> String {
    ["device", "device_key", "device_fact", "device_former", "device_merge", "device_merge_fact"]
        .map(|table| {
            plane.sql(&format!(
                "SELECT '{table}', string_agg(t::text, E'\\n' ORDER BY t::text) FROM {table} AS t"
            ))
        })
        .join("\n")
}

/// Two of one site: a laptop by its cable and by its radio.
async fn two(plane: &Plane<'_>) -> (String, Value, Value) {
    let token = plane.sensor("edge-1").await;
    let wired = Device { names: named(&[], "mdns", "laptop").names, ..with_address(&[CARD], [10, 0, 0, 5]) };
    let radio =
        Device { names: named(&[], "mdns", "laptop").names, ..with_address(&[OTHER_CARD], [10, 0, 0, 6]) };
    plane.store(&token, &epoch(1, vec![wired, device(&[ANOTHER])])).await;
    plane.store(&token, &epoch(2, vec![radio])).await;
    let (one, other) = (id_of(plane, CARD.1).await, id_of(plane, OTHER_CARD.1).await);
    (token, one, other)
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_a_merge_that_is_undone_leaves_everything_as_it_was() {
    let plane = Plane::start().await;
    let (_, one, other) = two(&plane).await;
    let third = id_of(&plane, ANOTHER.1).await;
    assert_eq!(say(&plane, &one, &json!({"owner": "ann"})).await.0, 200);
    assert_eq!(say(&plane, &other, &json!({"name": "radio", "owner": "bob", "notes": "x"})).await.0, 200);
    let before = contents(&plane);
    assert_eq!(merge(&plane, &other, &third).await, 200);
    let between = contents(&plane);
    assert_eq!(merge(&plane, &one, &other).await, 200);
    assert_eq!(items(&plane, "").await.len(), 1);
    // The third one's merge is the other's, which is no more.
    let [last] = &merges(&plane, &one).await[..] else { panic!("one merge") };
    assert_eq!(last["other"], other);
    let (status, both) = split(&plane, &one, &last["id"]).await;
    assert_eq!(status, 200, "{both}");
    assert_eq!(
        (&both["device"]["id"], &both["device"]["owner"], &both["device"]["notes"], &both["device"]["name"]),
        (&one, &json!("ann"), &json!(null), &json!("laptop"))
    );
    assert_eq!(
        (&both["other"]["id"], &both["other"]["name"], &both["other"]["owner"], &both["other"]["notes"]),
        (&other, &json!("radio"), &json!("bob"), &json!("x"))
    );
    assert_eq!(contents(&plane), between);
    let [first] = &merges(&plane, &other).await[..] else { panic!("it is back with its own") };
    assert_eq!(split(&plane, &other, &first["id"]).await.0, 200);
    assert_eq!(contents(&plane), before);
    // Whoever follows is told, and the log has both.
    let told = "SELECT count(*) FROM (SELECT kind FROM event WHERE topic = 'devices' UNION ALL
                SELECT kind FROM event_pending WHERE topic = 'devices') AS told WHERE kind = 'device.split'";
    assert_eq!(plane.sql(told), "2");
    let log = plane.json("/api/v1/audit?action=device.split").await;
    let row = &log["items"][1];
    assert_eq!((&row["subject_id"], &row["after"][1]["id"]), (&json!(one.to_string()), &other), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_what_came_since_is_whose_its_keys_say() {
    let plane = Plane::start().await;
    let (token, one, other) = two(&plane).await;
    assert_eq!(merge(&plane, &one, &other).await, 200);
    // Of the other: its key again, and its address; of neither: a key and an address that nobody had.
    plane.store(&token, &epoch(3, vec![with_address(&[OTHER_CARD], [10, 0, 0, 6])])).await;
    plane.store(&token, &epoch(4, vec![with_address(&[CARD, MADE_UP], [10, 0, 0, 7])])).await;
    let id = merges(&plane, &one).await[0]["id"].clone();
    let (status, both) = split(&plane, &one, &id).await;
    assert_eq!(status, 200, "{both}");
    assert_eq!(both["other"]["keys"], json!([{"kind": "mac", "value": OTHER_CARD.1}]));
    assert_eq!(both["other"]["addresses"], json!(["10.0.0.6"]));
    assert_eq!(both["device"]["addresses"], json!(["10.0.0.7", "10.0.0.5"]));
    let seen = |id: &Value| {
        plane.sql(&format!(
            "SELECT round(extract(epoch FROM last_seen - (SELECT min(window_start) FROM batch))) FROM device WHERE device_id = {id}"
        ))
    };
    assert_eq!(
        (seen(&one), seen(&other)),
        ("16".to_owned(), "11".to_owned()),
        "seconds after the first epoch"
    );
    // What sensors tell from now on goes to each.
    plane.store(&token, &epoch(5, vec![device(&[OTHER_CARD]), device(&[CARD])])).await;
    assert_eq!(items(&plane, "").await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_what_cannot_be_undone_is_refused_and_changes_nothing() {
    let plane = Plane::start().await;
    let (_, one, other) = two(&plane).await;
    let third = id_of(&plane, ANOTHER.1).await;
    assert_eq!(say(&plane, &other, &json!({"name": "radio"})).await.0, 200);
    assert_eq!(merge(&plane, &one, &other).await, 200);
    assert_eq!(merge(&plane, &one, &third).await, 200);
    let both = merges(&plane, &one).await;
    let [last, first] = &both[..] else { panic!("two merges: {both:?}") };
    assert_eq!((&last["other"], &first["other"]), (&third, &other));
    let before = contents(&plane);
    let (status, problem) = split(&plane, &one, &first["id"]).await;
    assert_eq!((status, &problem["type"]), (409, &json!("urn:weir:problem:later-merge")), "{problem}");
    assert_eq!(split(&plane, &one, &json!(4711)).await.0, 404);
    assert_eq!(split(&plane, &json!(4711), &last["id"]).await.0, 404);
    for wrong in [json!(0), json!(-1), json!("x"), json!(null)] {
        assert_eq!(split(&plane, &one, &wrong).await.0, 400, "{wrong}");
    }
    assert_eq!(contents(&plane), before);
    assert_eq!(split(&plane, &one, &last["id"]).await.0, 200);
    assert_eq!(split(&plane, &one, &last["id"]).await.0, 404, "once");
    // Somebody else has the name by now.
    assert_eq!(say(&plane, &one, &json!({"name": "laptop"})).await.0, 200);
    assert_eq!(say(&plane, &third, &json!({"name": "Radio"})).await.0, 200);
    let before = contents(&plane);
    let (status, problem) = split(&plane, &one, &first["id"]).await;
    assert_eq!((status, &problem["type"]), (409, &json!("urn:weir:problem:name-taken")), "{problem}");
    assert_eq!(contents(&plane), before);
}

/// I3: whoever is first wins, and nothing is in two devices or in none.
#[tokio::test(flavor = "multi_thread")]
async fn i3_merges_splits_and_batches_at_once_lose_nothing() {
    let plane = Plane::start().await;
    let (token, one, other) = two(&plane).await;
    let told = async {
        for number in 10..30 {
            let seen = vec![with_address(&[CARD], [10, 0, 0, 5]), with_address(&[OTHER_CARD], [10, 0, 0, 6])];
            plane.store(&token, &epoch(number, seen)).await;
        }
    };
    let work = async || {
        for _ in 0..8 {
            let status = merge(&plane, &one, &other).await;
            assert!(matches!(status, 200 | 404), "{status}");
            for it in merges(&plane, &one).await {
                let (status, body) = split(&plane, &one, &it["id"]).await;
                assert!(matches!(status, 200 | 404), "{body}");
            }
        }
    };
    tokio::join!(told, work(), work());
    for it in merges(&plane, &one).await {
        assert_eq!(split(&plane, &one, &it["id"]).await.0, 200);
    }
    let keys =
        "SELECT string_agg(value || ' ' || device_id, ',' ORDER BY value) FROM device_key WHERE kind = 'mac'";
    assert_eq!(plane.sql(keys), format!("{} {other},{} {one}", OTHER_CARD.1, CARD.1));
    let addresses = "SELECT string_agg(value || ' ' || device_id, ',' ORDER BY value) FROM device_fact WHERE kind = 'address'";
    assert_eq!(plane.sql(addresses), format!("10.0.0.5 {one},10.0.0.6 {other}"));
    assert_eq!(plane.count("device_merge_fact"), 0);
}

/// U5, I8: what is kept of a merge goes with either device, with the sensor that told it, and with its time.
#[tokio::test(flavor = "multi_thread")]
async fn u5_what_is_kept_of_a_merge_goes_with_what_it_is_about() {
    let plane = Plane::start().await;
    let (_, one, other) = two(&plane).await;
    assert_eq!(say(&plane, &other, &json!({"name": "unmistakable"})).await.0, 200);
    assert_eq!(merge(&plane, &one, &other).await, 200);
    let id = merges(&plane, &one).await[0]["id"].clone();
    assert_eq!(split(&plane, &one, &id).await.0, 200);
    // It was a part of the first one for a while: the log of that one says so.
    let (status, _) = plane.erase(&format!("/api/v1/devices/{other}?erase=true"), ADMIN_TOKEN).await;
    assert_eq!(status, 202);
    plane.all_erased().await;
    for text in [OTHER_CARD.1, "unmistakable"] {
        assert_eq!(plane.traces(text), Vec::<String>::new(), "{text}");
    }
    // The survivor goes, and with it what the merge kept.
    let third = id_of(&plane, ANOTHER.1).await;
    assert_eq!(merge(&plane, &one, &third).await, 200);
    let (status, _) = plane.erase(&format!("/api/v1/devices/{one}?erase=true"), ADMIN_TOKEN).await;
    assert_eq!(status, 202);
    plane.all_erased().await;
    assert_eq!((plane.traces(ANOTHER.1), plane.count("device_merge")), (Vec::new(), 0));
    // A sensor that is erased takes what it told.
    let token = plane.sensor("edge-3").await;
    plane.store(&token, &epoch(1, vec![device(&[CARD]), device(&[ANOTHER])])).await;
    let (one, other) = (id_of(&plane, CARD.1).await, id_of(&plane, ANOTHER.1).await);
    assert_eq!(merge(&plane, &one, &other).await, 200);
    assert_eq!(plane.erase("/api/v1/sensors/edge-3", ADMIN_TOKEN).await.0, 202);
    plane.all_erased().await;
    assert_eq!((plane.count("device_merge"), plane.count("device_merge_fact")), (0, 0));
    // And time does.
    plane.sql("INSERT INTO device_merge (device_id, other_id, formers, filled) VALUES (1, 2, '{}', '{}')");
    assert!(plane.jobs().round(Timestamp::now()).await.expect("the round runs"));
    assert_eq!(plane.count("device_merge"), 0, "of a device that is no more");
}
