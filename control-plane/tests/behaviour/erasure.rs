//! U5, I5: what is erased is confirmed first, by who asked for what was said; afterwards no column of the database
//! names it, and a receipt says what went.

use reqwest::Method;
use serde_json::{Value, json};
use weir_control_plane::auth::Role;
use weir_control_plane::store::erasure::Kind;
use weir_wire::{Batch, Flow, NameSource, Severity};

use crate::people::PASSWORD;
use crate::support::{ADMIN_TOKEN, Plane, batch, detection, eventually, flow, recent_minute_ns};

const NULL: &Value = &Value::Null;

impl Plane<'_> {
    /// Tables with a row that has the text in some column, whatever its type; bytes are looked into as well.
    pub fn traces(&self, text: &str) -> Vec<String> {
        let tables = self.sql(
            "SELECT string_agg(format('%I', relname), ',' ORDER BY relname) FROM pg_class
             WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace",
        );
        let hex: String = text.bytes().flat_map(|byte| [byte >> 4, byte & 15]).map(digit).collect();
        let found = |table: &&str| {
            let sql = format!(
                "SELECT count(*) FROM {table} AS it WHERE strpos(it::text, '{text}') > 0 OR strpos(it::text, '{hex}') > 0"
            );
            self.sql(&sql) != "0"
        };
        tables.split(',').filter(found).map(str::to_owned).collect()
    }
}

fn digit(number: u8) -> char {
    char::from_digit(number.into(), 16).expect("below 16")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is a text"))
}

#[tokio::test(flavor = "multi_thread")]
async fn u5_an_erasure_is_confirmed_once_by_who_asked_and_for_what_was_said() {
    let plane = Plane::start().await;
    for (name, role) in [("ada", Role::Admin), ("bob", Role::Viewer), ("eve", Role::Viewer)] {
        plane.user(name, role).await;
    }
    let ada = plane.log_in("ada").await.access;
    plane.log_in("bob").await;
    let call = async |path: &str, token: &str| plane.call(Method::DELETE, path, token, NULL).await;
    let bob = "/api/v1/users/bob";

    let (status, first) = call(bob, &ada).await;
    assert_eq!((status, &first["kind"], &first["name"]), (200, &json!("user"), &json!("bob")));
    assert_eq!(first["places"][0], json!({"name": "sessions", "count": 1}));
    assert_eq!(plane.count("account") + plane.count("session"), 5, "nothing changed");
    let (_, second) = call(bob, &ada).await;
    let with = |path: &str, plan: &Value| format!("{path}?confirmation={}", text(&plan["confirmation"]));
    let void = json!("urn:weir:problem:confirmation-void");
    for (path, token, why) in [
        (with(bob, &first), ada.as_str(), "a later one was given"),
        (with(bob, &second), ADMIN_TOKEN, "another caller"),
        (with("/api/v1/users/eve", &second), ada.as_str(), "another user"),
    ] {
        let (status, problem) = call(&path, token).await;
        assert_eq!((status, &problem["type"]), (409, &void), "{why}: {problem}");
    }
    for nonsense in ["", "yes", "weir_x_short"] {
        let (status, problem) = call(&format!("{bob}?confirmation={nonsense}"), &ada).await;
        assert_eq!((status, &problem["errors"][0]["field"]), (400, &json!("confirmation")), "{nonsense}");
    }
    plane.sql("UPDATE erasure_confirmation SET expires_at = now()");
    assert_eq!(call(&with(bob, &second), &ada).await.0, 409, "its time is over");

    let (_, plan) = call(bob, &ada).await;
    let path = with(bob, &plan);
    let both = futures_util::future::join_all([call(&path, &ada), call(&path, &ada)]).await;
    let mut statuses: Vec<u16> = both.iter().map(|(status, _)| *status).collect();
    statuses.sort_unstable();
    assert!([[202, 404], [202, 409]].contains(&[statuses[0], statuses[1]]), "{both:?}");
    plane.all_erased().await;
    assert_eq!(call(&path, &ada).await.0, 404);

    let receipts = plane.json("/api/v1/erasures").await;
    let receipt = &receipts["items"][0];
    assert_eq!(
        (&receipt["kind"], &receipt["subject_id"], &receipt["state"], &receipt["requested_by"]),
        (&json!("user"), &json!(2), &json!("done"), &json!("user:1"))
    );
    assert_eq!(receipt["places"][0], json!({"name": "sessions", "announced": 1, "erased": 1, "done": true}));
    assert_eq!(plane.json(&format!("/api/v1/erasures/{}", receipt["id"])).await, *receipt);
    assert_eq!(plane.get("/api/v1/erasures/77").await.status(), 404);
    assert!(!receipts.to_string().contains("bob"), "{receipts}");
}

/// Does everything that leaves a name somewhere.
async fn leave_traces(plane: &Plane<'_>, name: &str) {
    let login = plane.http.post(plane.url("/api/v1/auth/login"));
    let login =
        login.header("user-agent", format!("laptop of {name}")).header("x-forwarded-for", "203.0.113.77");
    let answer = login.json(&json!({"name": name, "password": PASSWORD})).send().await.expect("an answer");
    let tokens: Value = answer.json().await.expect("JSON");
    let access = text(&tokens["access_token"]).to_owned();
    let (machine, _) = plane.machine(&access, "admin", &["sensors", "users", "alerts", "detections"]).await;
    let matchers = json!([{"label": "severity", "value": "info"}]);
    let ends_at = crate::alerts::seconds_from_now(3_600).to_string();
    let silence = json!({"matchers": matchers, "ends_at": ends_at, "comment": "night"});
    for (method, path, body) in [
        (Method::POST, "/api/v1/enrollments", json!({})),
        (Method::POST, "/api/v1/alerts/silences", silence),
        (Method::POST, "/api/v1/detections/1/acknowledge", Value::Null),
        (Method::PATCH, "/api/v1/users/ada", json!({"role": "admin"})),
    ] {
        for token in [&access, &machine] {
            let (status, answer) = plane.call(method.clone(), path, token, &body).await;
            assert_eq!(status, 200, "{path}: {answer}");
        }
    }
    // Of what they made, others make use.
    let (_, made) =
        plane.call(Method::POST, "/api/v1/enrollments", &access, &json!({"name": "edge-9"})).await;
    let enroll = json!({"token": made["token"], "name": "edge-9"});
    let (status, enrolled) = plane.call(Method::POST, "/api/v1/enroll", "", &enroll).await;
    assert_eq!(status, 200, "{enrolled}");
    // Others change them, and somebody fails to be them.
    let (status, _) = plane
        .call(Method::PATCH, &format!("/api/v1/users/{name}"), ADMIN_TOKEN, &json!({"role": "admin"}))
        .await;
    assert_eq!(status, 200);
    for _ in 0..6 {
        plane.try_log_in(name, "not the password").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn u5_no_column_of_the_database_names_an_erased_user() {
    let plane = Plane::start_with(|config| {
        config.api.trusted_proxies = vec![std::net::Ipv4Addr::LOCALHOST.into()];
    })
    .await;
    let token = plane.sensor("edge-1").await;
    let found = vec![detection("port_scan", "10.0.0.66", Severity::Low, 1)];
    plane.store(&token, &Batch { detections: found, ..batch(1, 0, recent_minute_ns(), vec![]) }).await;
    plane.user("ada", Role::Admin).await;
    let name = "zoe.unmistakable@example.org";
    let user_id = plane.user(name, Role::Admin).await;
    leave_traces(&plane, name).await;
    let before = plane.traces(name);
    for table in ["account", "alert_silence", "audit", "detection", "enrollment", "session"] {
        assert!(before.contains(&table.to_owned()), "{table} has no trace that could go: {before:?}");
    }
    let rows = plane.count("audit");

    assert_eq!(plane.erase(&format!("/api/v1/users/{name}"), ADMIN_TOKEN).await.0, 202);
    plane.all_erased().await;
    for gone in [name, "unmistakable", "203.0.113.77"] {
        assert_eq!(plane.traces(gone), Vec::<String>::new(), "{gone}");
    }
    // Who did what is still told, by number.
    assert_eq!(plane.count("audit"), rows + 1);
    let alias = format!("erased user {user_id}");
    assert!(plane.count(&format!("audit WHERE actor_name = '{alias}' AND action = 'user.update'")) >= 1);
    assert_eq!(plane.sql("SELECT DISTINCT author FROM alert_silence ORDER BY 1 LIMIT 1"), alias);
    eventually("all events have their cursors", || async { plane.count("event_pending") == 0 }).await;
    assert_eq!(
        plane.sql("SELECT max(cursor) - min(cursor) + 1 = count(*) FROM event"),
        "t",
        "cursors are dense"
    );
    // The name is free, and nothing of the old one is the new one's.
    plane.user(name, Role::Viewer).await;
    plane.log_in(name).await;
    assert_eq!(plane.count(&format!("audit WHERE actor_name = '{name}'")), 1);
}

/// Flows with the names of two domains.
fn named(generation: u8, names: [&str; 2]) -> Batch {
    let with = |port: u32, name: u32| Flow {
        name,
        name_source: NameSource::Tls as i32,
        ..flow([10, 0, 0, 1], [192, 0, 2, 80], port, 9)
    };
    let flows = vec![with(1, 1), with(2, 2)];
    Batch {
        names: names.map(str::to_owned).to_vec(),
        detections: vec![detection("port_scan", "10.0.0.66", Severity::Low, 1)],
        ..batch(generation, 0, recent_minute_ns(), flows)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn u5_no_column_of_the_database_names_an_erased_sensor_nor_what_only_it_saw() {
    let plane = Plane::start().await;
    let body = json!({"name": "edge-unmistakable", "site": "attic", "labels": {"owner": "zoe-example"}});
    let (_, made) = plane.call(Method::POST, "/api/v1/enrollments", ADMIN_TOKEN, &body).await;
    let enroll = json!({"token": made["token"]});
    let (status, enrolled) = plane.call(Method::POST, "/api/v1/enroll", "", &enroll).await;
    assert_eq!(status, 200, "{enrolled}");
    let (gone, stays) = (text(&enrolled["token"]).to_owned(), plane.sensor("edge-2").await);
    plane.store(&gone, &named(1, ["only.unmistakable.example", "both.example"])).await;
    plane.store(&stays, &named(1, ["both.example", "other.example"])).await;
    for (path, body) in [
        ("/api/v1/detections/1/dismiss", json!({"reason": "zoe-example scans"})),
        ("/api/v1/sensors/edge-unmistakable/revoke", Value::Null),
    ] {
        let (status, answer) = plane.call(Method::POST, path, ADMIN_TOKEN, &body).await;
        assert_eq!(status, 200, "{path}: {answer}");
    }
    // As the jobs of alerts write them.
    let labels = r#"{"rule":"quiet","sensor":"edge-unmistakable","severity":"info"}"#;
    plane.sql(&format!(
        "INSERT INTO alert (rule, severity, summary, labels, group_key, state, value, firing_at)
         VALUES ('quiet', 'info', 'no batches', '{labels}', 'edge-unmistakable', 'firing', 1, now());
         INSERT INTO alert_receiver (name, target, repeat_s) VALUES ('hook', '{{}}', 60);
         INSERT INTO alert_delivery (receiver_id, rule, status, alerts)
         VALUES (1, 'quiet', 'firing', '[{{\"labels\":{labels},\"group\":\"edge-unmistakable\"}}]');
         INSERT INTO event_pending (topic, kind, body) VALUES ('alerts', 'alert.firing', '{{\"labels\":{labels}}}')"
    ));
    let before = plane.traces("edge-unmistakable");
    for table in ["alert", "alert_delivery", "audit", "enrollment", "sensor"] {
        assert!(before.contains(&table.to_owned()), "{table} has no trace that could go: {before:?}");
    }

    let (status, begun) = plane.erase("/api/v1/sensors/edge-unmistakable", ADMIN_TOKEN).await;
    assert_eq!(status, 202, "{begun}");
    plane.all_erased().await;
    for gone in ["unmistakable", "zoe-example", "attic"] {
        assert_eq!(plane.traces(gone), Vec::<String>::new(), "{gone}");
    }
    assert_eq!(
        plane.sql("SELECT string_agg(name, ',' ORDER BY name) FROM domain"),
        "both.example,other.example"
    );
    let id = begun["id"].as_i64().expect("an id");
    assert_eq!(
        ["domains", "flows", "detections", "alerts"].map(|place| plane.erased(id, place)),
        [1, 2, 1, 1]
    );
    // Whatever has a sensor's number has another one's, but for what answers it and what tells of it.
    let tables = plane.sql(
        "SELECT string_agg(DISTINCT relname, ',') FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
         WHERE attname = 'sensor_id' AND relkind IN ('r', 'p') AND NOT relispartition
           AND relname NOT IN ('sensor_credential', 'enrollment')",
    );
    for table in tables.split(',') {
        assert_eq!(plane.count(&format!("{table} WHERE sensor_id = 1")), 0, "{table}");
    }
    // A batch that was resolved before the erasure is stored with names that are there.
    plane.store(&stays, &named(2, ["only.unmistakable.example", "both.example"])).await;
    let nameless =
        "flow LEFT JOIN domain USING (domain_id) WHERE domain_id IS NOT NULL AND domain.name IS NULL";
    assert_eq!(plane.count(nameless), 0);
    let (status, problem) = plane.post(&gone, &named(3, ["a.example", "b.example"])).await;
    assert_eq!((status, &problem["type"]), (410, &json!("urn:weir:problem:sensor-gone")));
}

/// What a user who is being erased says in a transaction that is under way is not said: neither change nor row.
#[tokio::test(flavor = "multi_thread")]
async fn u5_a_change_by_somebody_who_is_gone_is_not_made() {
    let plane = Plane::start().await;
    let bob = plane.user("bob", Role::Operator).await;
    let author = weir_control_plane::store::audit::Author {
        kind: "user",
        id: Some(bob.to_string()),
        name: "bob".to_owned(),
        ..Default::default()
    };
    plane.sensor("edge-1").await;
    plane.begin_erasure(Kind::User, "bob").await;
    let sensor = weir_control_plane::store::Reference::Id(1);
    let late = weir_control_plane::store::sensors::revoke(plane.pool(), &author, &sensor).await;
    assert!(matches!(late, Err(weir_control_plane::store::StoreError::Erased)), "{late:?}");
    assert_eq!(plane.json("/api/v1/sensors/1").await["state"], "new");
}
