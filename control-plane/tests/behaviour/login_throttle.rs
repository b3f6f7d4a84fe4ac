//! U3: failed logins wait longer and longer, per account and address, on all instances.

use futures_util::future::join_all;
use reqwest::header::RETRY_AFTER;
use serde_json::json;
use weir_control_plane::auth::Role;
use weir_control_plane::server;

use crate::people::PASSWORD;
use crate::support::Plane;

/// Failures and the wait after the last one, of the row of an account (0), an unknown name (1), an address (2).
fn row(plane: &Plane<'_>, kind: u8) -> String {
    plane.sql(&format!(
        "SELECT failures, extract(epoch FROM greatest(blocked_until, last_at) - last_at)::integer FROM login_throttle WHERE kind = {kind}"
    ))
}

/// The waits are over, the failures stay.
fn wait(plane: &Plane<'_>) {
    plane.sql("UPDATE login_throttle SET blocked_until = now()");
}

#[tokio::test(flavor = "multi_thread")]
async fn u3_the_wait_doubles_from_the_fifth_failure_to_a_quarter_of_an_hour_for_known_and_unknown_names() {
    let plane = Plane::start().await;
    plane.user("ann", Role::Viewer).await;
    let waits = [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900];
    for (name, kind) in [("ann", 0), ("nobody", 1)] {
        for (before, seconds) in waits.iter().enumerate() {
            wait(&plane);
            assert_eq!(plane.try_log_in(name, "a wrong password").await.status(), 401, "{name} {before}");
            assert_eq!(row(&plane, kind), format!("{}|{seconds}", before + 1), "{name}");
        }
    }
    assert_eq!(plane.audited().await, ["user.create", "user.locked_out"]);
    // Who stays away for an hour begins anew, and a success forgives.
    wait(&plane);
    plane.sql("UPDATE login_throttle SET last_at = now() - interval '61 minutes'");
    assert_eq!(plane.try_log_in("nobody", "a wrong password").await.status(), 401);
    assert_eq!(row(&plane, 1), "1|0");
    assert_eq!(plane.try_log_in("ann", PASSWORD).await.status(), 200);
    assert_eq!(row(&plane, 0), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn u3_who_is_locked_out_waits_on_every_instance_even_with_the_right_password() {
    let mut plane = Plane::start().await;
    plane.user("ann", Role::Viewer).await;
    plane.user("bob", Role::Viewer).await;
    let other = server::start(&plane.config).await.expect("a second instance");
    let session = plane.log_in("ann").await;
    plane.sql("INSERT INTO login_throttle VALUES (0, 1, 14, now(), now())");
    // Thirty guesses at once get one look, wherever they arrive.
    let guesses = (0..30).map(|i| {
        let there = format!("http://{}/api/v1/auth/login", other.address);
        let url = if i % 2 == 0 { plane.url("/api/v1/auth/login") } else { there };
        plane.http.post(url).json(&json!({"name": "ann", "password": "a wrong password"})).send()
    });
    let answers: Vec<_> =
        join_all(guesses).await.into_iter().map(|answer| answer.expect("an answer")).collect();
    let with = |status: u16| answers.iter().filter(|answer| answer.status() == status).count();
    assert_eq!((with(401), with(429)), (1, 29));
    let blocked = plane.try_log_in("ann", PASSWORD).await;
    assert_eq!(blocked.status(), 429);
    let seconds: u32 = blocked.headers()[RETRY_AFTER].to_str().expect("text").parse().expect("a number");
    assert!((1..=900).contains(&seconds), "{seconds}");
    let problem: serde_json::Value = blocked.json().await.expect("JSON");
    assert_eq!(
        (problem["category"].as_str(), problem["type"].as_str()),
        (Some("rate_limit"), Some("urn:weir:problem:too-many-attempts"))
    );
    assert_eq!(plane.status_as(&session.access).await, 200, "who is logged in goes on");
    assert_eq!(plane.try_log_in("bob", PASSWORD).await.status(), 200, "others log in");
    let count = |outcome: &str| {
        let of = |metrics: &weir_control_plane::telemetry::Metrics| {
            metrics.logins.with_label_values(&[outcome]).get()
        };
        of(&plane.state().metrics) + of(&other.state.metrics)
    };
    assert_eq!((count("granted"), count("wrong"), count("blocked_account")), (2, 1, 30));
    other.stop().await;
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn u3_an_address_that_tries_many_names_waits_and_fills_no_table() {
    let plane = Plane::start_with(|config| {
        config.api.trusted_proxies = vec![std::net::Ipv4Addr::LOCALHOST.into()];
    })
    .await;
    plane.user("ann", Role::Viewer).await;
    let from = async |address: &str, name: &str, password: &str| {
        let request = plane.http.post(plane.url("/api/v1/auth/login")).header("x-forwarded-for", address);
        let request = request.json(&json!({"name": name, "password": password}));
        request.send().await.expect("an answer").status().as_u16()
    };
    for i in 0..20 {
        assert_eq!(from("203.0.113.9", &format!("name-{i}"), "a wrong password").await, 401, "{i}");
    }
    assert_eq!(row(&plane, 2), "20|1");
    plane.sql("UPDATE login_throttle SET blocked_until = now() + interval '1 hour' WHERE kind = 2");
    assert_eq!(from("203.0.113.9", "ann", PASSWORD).await, 429);
    assert_eq!(from("203.0.113.10", "ann", PASSWORD).await, 200);
    // A refused attempt counts for nobody.
    assert_eq!(plane.sql("SELECT count(*) FROM login_throttle WHERE kind = 0"), "0");
    assert_eq!(
        plane.sql("SELECT bool_and(bucket BETWEEN 0 AND 65535) FROM login_throttle WHERE kind = 1"),
        "t"
    );
    let names = plane.sql("SELECT string_agg(t::text, ' ') FROM login_throttle AS t");
    assert!(!names.contains("name-") && !names.contains("203.0"), "{names}");
}
