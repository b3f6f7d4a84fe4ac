//! I5, U5: erasures against what is in flight, and against the end of the instance that does the work.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};
use weir_control_plane::auth::Role;
use weir_control_plane::config::Rate;
use weir_control_plane::server;
use weir_control_plane::store::erasure::Kind;
use weir_testbed::weir::{ControlPlane, Place};

use crate::people::PASSWORD;
use crate::support::{ADMIN_TOKEN, Plane, batch, eventually, mixed_flows, recent_minute_ns, rounds};

/// Changes one thing after the other until the credential is worth nothing.
async fn work_until_gone(plane: &Plane<'_>, access: &str) -> u32 {
    for done in 0..1_000 {
        let name = json!({"name": format!("robot-{done}"), "role": "viewer", "scopes": ["flows"]});
        let (status, body) = plane.call(Method::POST, "/api/v1/tokens", access, &name).await;
        match status {
            200 | 503 => {}
            // The account was gone, but not yet what was remembered of the session.
            401 | 404 => return done,
            _ => panic!("{status} {body}"),
        }
    }
    panic!("1,000 changes after their end the user still makes some");
}

/// U5: whoever is erased while they work, on three connections and with a stream open, leaves no row.
#[tokio::test(flavor = "multi_thread")]
async fn u5_a_user_erased_mid_work_leaves_no_trace() {
    let plane =
        Plane::start_with(|config| config.limits.write = Rate { per_minute: 6_000_000, burst: 1_000_000 })
            .await;
    let rounds = rounds(50);
    let hash = plane.state().auth.passwords.hash(PASSWORD.to_owned().into()).await.expect("hashed");
    for round in 0..rounds {
        let (access, user_id) = plane.quick_session(&hash, round, Duration::from_mins(5)).await;
        let end = async {
            tokio::time::sleep(Duration::from_millis(round * 7 % 40)).await;
            let (status, body) = plane.erase(&format!("/api/v1/users/{user_id}"), ADMIN_TOKEN).await;
            assert_eq!(status, 202, "{body}");
        };
        let follow = async {
            let request = plane.request(Method::GET, "/api/v1/events/stream", &access).send();
            // It ends with the user; if they were faster, it never began.
            let _ = request.await.expect("an answer").bytes().await;
        };
        let work = futures_util::future::join_all([(); 3].map(|()| work_until_gone(&plane, &access)));
        tokio::join!(end, work, follow);
    }
    plane.all_erased().await;
    assert_eq!(plane.traces("user-"), Vec::<String>::new());
    assert_eq!((plane.count("account"), plane.count("session"), plane.count("api_token")), (0, 0, 0));
    assert_eq!(plane.count("erasure WHERE kind = 'user'"), rounds);
    eventually("nobody follows any more", || async { plane.streams() == 0 }).await;
}

/// The instance that erases is killed in the middle of a step; another one goes on, and counts nothing twice.
#[tokio::test(flavor = "multi_thread")]
async fn u5_an_erasure_outlives_the_instance_that_does_it() {
    let plane = Plane::start_with(|config| config.jobs.lease_s = 1).await;
    let token = plane.sensor("edge-1").await;
    for epoch in 0..5 {
        plane.store(&token, &batch(1, epoch, recent_minute_ns(), mixed_flows())).await;
    }
    // The flows are gone by then, the rest is not.
    plane.sql(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(600); RETURN NULL; END $$;
         CREATE TRIGGER slow AFTER DELETE ON batch FOR EACH STATEMENT EXECUTE FUNCTION slow()",
    );
    let id = plane.begin_erasure(Kind::Sensor, "edge-1").await;
    let program = PathBuf::from(env!("CARGO_BIN_EXE_weir-control-plane"));
    let url = plane.postgres.database_url(&plane.database);
    let doomed = tokio::task::spawn_blocking(move || ControlPlane::start(program, &url, Place::here()));
    let doomed = doomed.await.expect("it is waited for").expect("it starts");
    plane.sleeper().await;
    let progress = plane.json(&format!("/api/v1/erasures/{id}")).await;
    assert_eq!((&progress["state"], &progress["places"][0]["erased"]), (&json!("running"), &json!(5 * 41)));
    doomed.kill().expect("it is killed");
    plane.end_sleepers();
    plane.sql("DROP FUNCTION slow() CASCADE");
    // Its lease is longer than a test: as if it were over.
    eventually("another instance has the job", || async {
        plane.sql("UPDATE job SET held_until = now() WHERE held_until IS NOT NULL");
        let _ = plane.jobs().round(Timestamp::now()).await;
        plane.count("erasure WHERE done_at IS NULL") == 0
    })
    .await;
    let receipt = plane.json(&format!("/api/v1/erasures/{id}")).await;
    let erased = |name: &str| {
        let places = receipt["places"].as_array().expect("places");
        places.iter().find(|place| place["name"] == name).map_or(Value::Null, |place| place["erased"].clone())
    };
    assert_eq!(["flows", "batches"].map(erased), [json!(5 * 41), json!(5)]);
    assert_eq!((plane.count("flow"), plane.count("batch"), plane.count("sensor")), (0, 0, 0));
}

/// Two instances, each with erasures that were begun on it: each is done once.
#[tokio::test(flavor = "multi_thread")]
async fn u5_two_instances_erase_each_subject_once() {
    let mut plane = Plane::start().await;
    let other = server::start(&plane.config).await.expect("a second instance starts");
    for number in 0..20 {
        plane.user(&format!("viewer-{number}"), Role::Viewer).await;
    }
    let base = [plane.url(""), format!("http://{}", other.address)];
    let erase = |number: usize| {
        let (http, first, second) = (&plane.http, &base[number % 2], &base[number / 2 % 2]);
        async move {
            let url = format!("{first}/api/v1/users/viewer-{number}");
            let plan = http.delete(&url).bearer_auth(ADMIN_TOKEN).send().await.expect("an answer");
            let plan: Value = plan.json().await.expect("JSON");
            let confirmation = plan["confirmation"].as_str().expect("a confirmation").to_owned();
            // Every second time the other instance has the second step.
            let url = format!("{second}/api/v1/users/viewer-{number}?confirmation={confirmation}");
            let done = http.delete(url).bearer_auth(ADMIN_TOKEN).send().await.expect("an answer");
            assert_eq!(done.status(), 202);
        }
    };
    futures_util::future::join_all((0..20).map(erase)).await;
    plane.all_erased().await;
    assert_eq!(plane.traces("viewer-"), Vec::<String>::new());
    let twice = "SELECT count(*) FROM erasure_place WHERE place = 'account' AND erased <> 1";
    assert_eq!((plane.count("erasure WHERE done_at IS NOT NULL"), plane.sql(twice)), (20, "0".to_owned()));
    other.stop().await;
    plane.stop().await;
}
