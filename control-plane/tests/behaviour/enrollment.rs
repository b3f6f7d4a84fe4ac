//! U4: a sensor comes in with a token that works once.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{ADMIN_TOKEN, Plane, batch, mixed_flows, recent_minute_ns};

/// Makes an enrolment; gives its token and its id.
async fn enrollment(plane: &Plane<'_>, body: &Value) -> (String, i64) {
    let (status, made) = plane.call(Method::POST, "/api/v1/enrollments", ADMIN_TOKEN, body).await;
    assert_eq!((status, made["state"].as_str()), (200, Some("open")), "{made}");
    (made["token"].as_str().expect("a token").to_owned(), made["id"].as_i64().expect("an id"))
}

/// What a sensor does, who has no other credential.
async fn enroll(plane: &Plane<'_>, token: &str, name: Option<&str>) -> (u16, Value) {
    let body = json!({"token": token, "name": name});
    let response = plane.http.post(plane.url("/api/v1/enroll")).json(&body).send().await.expect("an answer");
    (response.status().as_u16(), response.json().await.expect("JSON"))
}

#[tokio::test(flavor = "multi_thread")]
async fn u4_a_token_makes_one_sensor_that_can_send() {
    let plane = Plane::start().await;
    let preset = json!({"name": "edge-7", "site": "ams", "group": "edge", "labels": {"env": "prod"}});
    let (token, id) = enrollment(&plane, &preset).await;
    let (status, enrolled) = enroll(&plane, &token, None).await;
    assert_eq!((status, enrolled["name"].as_str()), (200, Some("edge-7")), "{enrolled}");
    let own = enrolled["token"].as_str().expect("a credential");
    plane.store(own, &batch(1, 0, recent_minute_ns(), mixed_flows())).await;

    let sensor = plane.json("/api/v1/sensors/edge-7").await;
    assert_eq!(sensor["site"], "ams");
    assert_eq!(sensor["group"], "edge");
    assert_eq!(sensor["labels"], json!({"env": "prod"}));

    let (status, problem) = enroll(&plane, &token, None).await;
    assert_eq!((status, problem["type"].as_str()), (409, Some("urn:weir:problem:enrollment-used")));
    assert_eq!(plane.count("sensor"), 1);
    let listed = &plane.json("/api/v1/enrollments").await["items"][0];
    assert_eq!(listed["state"], "used");
    assert_eq!((listed["id"].as_i64(), &listed["sensor_id"]), (Some(id), &enrolled["sensor_id"]));
    assert!(listed.get("token").is_none());
    let audited = plane.json("/api/v1/audit?action=sensor.enroll").await;
    assert_eq!(audited["items"][0]["actor"], "edge-7", "{audited}");
    assert!(!plane.sql("SELECT string_agg(e::text, ' ') FROM enrollment e").contains(&token));
}

#[tokio::test(flavor = "multi_thread")]
async fn u4_of_many_that_race_with_one_token_one_comes_in() {
    let plane = Plane::start().await;
    let (token, _) = enrollment(&plane, &json!({})).await;
    let names: Vec<String> = (0..12).map(|number| format!("racer-{number}")).collect();
    let racers = names.iter().map(|name| enroll(&plane, &token, Some(name)));
    let answers = futures_util::future::join_all(racers).await;
    let mut statuses: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [vec![200], vec![409; 11]].concat(), "{answers:?}");
    assert_eq!((plane.count("sensor"), plane.count("sensor_credential")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn u4_what_is_refused_leaves_the_token_as_it_was() {
    let plane = Plane::start().await;
    plane.sensor("edge-1").await;
    let (free, _) = enrollment(&plane, &json!({})).await;
    let (named, _) = enrollment(&plane, &json!({"name": "edge-2"})).await;
    let kind = |(status, problem): (u16, Value)| {
        (status, problem["type"].as_str().unwrap_or("-")["urn:weir:problem:".len()..].to_owned())
    };
    let is =
        |found: (u16, Value), status: u16, slug: &str| assert_eq!(kind(found), (status, slug.to_owned()));
    is(enroll(&plane, &free, None).await, 400, "invalid-parameters");
    is(enroll(&plane, &free, Some("a b")).await, 400, "invalid-parameters");
    is(enroll(&plane, &free, Some("edge-1")).await, 409, "name-taken");
    is(enroll(&plane, &named, Some("edge-3")).await, 400, "invalid-parameters");
    is(enroll(&plane, "weir_e_nothing", Some("edge-3")).await, 401, "invalid-token");
    is(enroll(&plane, &format!("weir_e_{}", "A".repeat(43)), Some("edge-3")).await, 401, "invalid-token");
    assert_eq!(plane.count("sensor"), 1);
    assert_eq!(enroll(&plane, &free, Some("edge-3")).await.0, 200);
    assert_eq!(enroll(&plane, &named, Some("edge-2")).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn u4_a_token_that_is_over_or_revoked_enrols_nobody() {
    let plane = Plane::start().await;
    let (expired, id) = enrollment(&plane, &json!({})).await;
    plane.sql(&format!("UPDATE enrollment SET expires_at = now() WHERE enrollment_id = {id}"));
    let (status, problem) = enroll(&plane, &expired, Some("edge-1")).await;
    assert_eq!((status, problem["type"].as_str()), (401, Some("urn:weir:problem:token-expired")));

    let (revoked, id) = enrollment(&plane, &json!({"expires_in_hours": 1})).await;
    let path = format!("/api/v1/enrollments/{id}");
    let (status, shown) = plane.call(Method::DELETE, &path, ADMIN_TOKEN, &Value::Null).await;
    assert_eq!((status, shown["state"].as_str()), (200, Some("revoked")), "{shown}");
    let (status, problem) = enroll(&plane, &revoked, Some("edge-1")).await;
    assert_eq!((status, problem["type"].as_str()), (401, Some("urn:weir:problem:token-revoked")));
    assert_eq!(plane.count("sensor"), 0);
    for (body, field) in [
        (json!({"expires_in_hours": 0}), "expires_in_hours"),
        (json!({"name": "7"}), "name"),
        (json!({"site": "a b"}), "site"),
        (json!({"labels": {"env": "a,b"}}), "labels"),
        (json!({"labels": {"-": "a"}}), "labels"),
    ] {
        let (status, problem) = plane.call(Method::POST, "/api/v1/enrollments", ADMIN_TOKEN, &body).await;
        assert_eq!((status, problem["errors"][0]["field"].as_str()), (400, Some(field)), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn u3_who_guesses_tokens_is_slowed_by_address() {
    let plane = Plane::start_with(|config| {
        config.limits.write = weir_control_plane::config::Rate { per_minute: 1, burst: 3 };
    })
    .await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(enroll(&plane, "weir_e_guess", Some("edge-1")).await.0);
    }
    assert_eq!(statuses, [401, 401, 401, 429]);
}
