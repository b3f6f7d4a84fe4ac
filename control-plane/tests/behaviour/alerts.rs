//! Alerts: what rules find, the states that follow from it, silences, and that every change is whole.

use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};
use weir_control_plane::store::alerts::samples::Breach;
use weir_control_plane::store::alerts::{rules, states};
use weir_control_plane::store::jobs;
use weir_wire::Severity;

use crate::support::{ADMIN_TOKEN, Plane, SECOND, batch, detection, flow, now_ns};

const NULL: &Value = &Value::Null;

pub fn seconds_from_now(seconds: i64) -> Timestamp {
    Timestamp::now().checked_add(SignedDuration::from_secs(seconds)).expect("in range")
}

impl Plane<'_> {
    pub async fn ok(&self, method: Method, path: &str, body: &Value) -> Value {
        let (status, answer) = self.call(method, path, ADMIN_TOKEN, body).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    pub async fn rule(&self, rule: Value) -> i64 {
        self.ok(Method::POST, "/api/v1/alerts/rules", &rule).await["id"].as_i64().expect("an id")
    }

    /// Looks at all rules as if it were so many seconds later.
    pub async fn look(&self, later_s: i64) {
        assert!(self.jobs().round(seconds_from_now(later_s)).await.expect("the round runs"));
    }

    /// `group/state` of the alerts of a rule, in order.
    pub fn states(&self, rule: i64) -> Vec<String> {
        let sql = format!("SELECT group_key || '/' || state FROM alert WHERE rule_id = {rule} ORDER BY 1");
        self.sql(&sql).lines().map(str::to_owned).collect()
    }
}

fn threshold(name: &str, condition: &Value) -> Value {
    let mut whole = json!({"kind": "threshold", "measure": "packets", "window_s": 600});
    for (key, value) in condition.as_object().expect("an object") {
        whole[key] = value.clone();
    }
    json!({"name": name, "condition": whole})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_is_pending_then_fires_then_is_resolved_one_for_each_group() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    // 30, 300 and 3,000 packets forth, and half of that back.
    let flows = [(1, 20), (2, 200), (3, 2_000)]
        .map(|(host, packets)| flow([10, 0, 0, host], [192, 0, 2, 1], 443, packets));
    plane.store(&token, &batch(1, 0, now_ns() - 20 * SECOND, flows.to_vec())).await;
    let mut rule = threshold("much", &json!({"filter": "dst_port = 443", "by": "src", "above": 299}));
    rule["for_s"] = json!(60);
    rule["severity"] = json!("critical");
    rule["labels"] = json!({"team": "network", "severity": "mine"});
    let id = plane.rule(rule).await;

    plane.look(0).await;
    assert_eq!(plane.states(id), ["10.0.0.2/pending", "10.0.0.3/pending"]);
    plane.look(0).await;
    assert_eq!(
        plane.states(id),
        ["10.0.0.2/pending", "10.0.0.3/pending"],
        "one for each group, however often"
    );
    // One of them has held for long enough.
    plane.sql("UPDATE alert SET pending_at = now() - interval '60 s' WHERE group_key = '10.0.0.3'");
    plane.look(0).await;
    assert_eq!(plane.states(id), ["10.0.0.2/pending", "10.0.0.3/firing"]);
    let (_, page) = plane.call(Method::GET, "/api/v1/alerts?state=firing", ADMIN_TOKEN, NULL).await;
    let alert = &page["items"][0];
    assert_eq!(page["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&alert["group"], &alert["value"], &alert["severity"], &alert["silenced"]),
        (&json!("10.0.0.3"), &json!(3_000.0), &json!("critical"), &json!(false))
    );
    let labels = json!({"rule": "much", "severity": "critical", "src": "10.0.0.3", "team": "network"});
    assert_eq!(alert["labels"], labels);
    // Its window is over: what was pending is forgotten, what fired is resolved.
    plane.look(1_200).await;
    assert_eq!(plane.states(id), ["10.0.0.3/resolved"]);
    // It may hold again, and that is another alert.
    plane.look(0).await;
    assert_eq!(plane.states(id), ["10.0.0.2/pending", "10.0.0.3/pending", "10.0.0.3/resolved"]);
    let count = async |query: &str| {
        plane.json(&format!("/api/v1/alerts{query}")).await["items"].as_array().map(Vec::len)
    };
    assert_eq!(count("").await, Some(2), "those that are open");
    assert_eq!(count("?state=resolved").await, Some(1));
    assert_eq!(count("?severity=info").await, Some(0));
    assert_eq!(count(&format!("?rule={id}&state=pending&limit=1")).await, Some(1));
    // Whoever follows is told in the same transaction.
    let told = "SELECT kind FROM (SELECT kind, topic, 1 AS at, cursor AS n FROM event
                UNION ALL SELECT kind, topic, 2, pending_id FROM event_pending) AS told
                WHERE topic = 'alerts' ORDER BY at, n";
    assert_eq!(plane.sql(told), "alert.firing\nalert.resolved");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_rule_finds_what_it_is_for() {
    let plane = Plane::start().await;
    let (quiet, busy) = (plane.sensor("quiet").await, plane.sensor("busy").await);
    let lone = |host, packets| vec![flow([10, 0, 0, host], [192, 0, 2, 1], 53, packets)];
    plane.store(&quiet, &batch(1, 0, now_ns() - 400 * SECOND, lone(1, 100))).await;
    plane.store(&busy, &batch(2, 0, now_ns() - 400 * SECOND, lone(2, 100))).await;
    let mut scanned = batch(2, 1, now_ns() - 20 * SECOND, lone(2, 1_000));
    scanned.detections = vec![
        detection("port_scan", "10.0.0.66", Severity::High, 20),
        detection("port_scan", "10.0.0.67", Severity::Medium, 20),
        detection("cleartext", "10.0.0.68", Severity::Low, 1),
    ];
    plane.store(&busy, &scanned).await;
    plane.sensor("never-seen").await;
    plane.sql("UPDATE sensor SET created_at = now() - interval '1 day' WHERE name = 'never-seen'");
    plane.silent("quiet", "1 hour").await;
    plane.sql(
        "UPDATE sensor_status SET last_seen_at = now() - interval '1 hour', spool_oldest_age_ms = 700000,
                clock_skew_ms = -90000 FROM sensor WHERE sensor.sensor_id = sensor_status.sensor_id AND name = 'quiet'",
    );
    plane.sql("UPDATE point_total SET overflow = 70 FROM sensor WHERE sensor.sensor_id = point_total.sensor_id AND name = 'busy'");
    let change = |bound: &str, value: f64| json!({"kind": "change", "measure": "packets", "by": "sensor", "window_s": 300, bound: value, "minimum": 10});
    let cases = [
        (json!({"kind": "threshold", "measure": "flows", "window_s": 600, "above": 2}), vec![""]),
        (json!({"kind": "threshold", "measure": "flows", "window_s": 600, "above": 3}), vec![]),
        (
            json!({"kind": "threshold", "measure": "flows", "window_s": 600, "filter": "port = 1", "below": 1}),
            vec![""],
        ),
        (
            json!({"kind": "threshold", "measure": "octets", "by": "sensor", "window_s": 600, "below": 90_000}),
            vec!["quiet"],
        ),
        (
            json!({"kind": "threshold", "measure": "packets", "by": "dst", "window_s": 600, "above": 1}),
            vec!["192.0.2.1"],
        ),
        (
            json!({"kind": "threshold", "measure": "packets", "by": "service", "window_s": 600, "above": 1}),
            vec!["6/53"],
        ),
        (
            json!({"kind": "threshold", "measure": "packets", "by": "protocol", "window_s": 600, "above": 1}),
            vec!["6"],
        ),
        (json!({"kind": "absence", "window_s": 300, "filter": "sensor = busy"}), vec![]),
        (json!({"kind": "absence", "window_s": 300, "filter": "sensor = quiet"}), vec![""]),
        (change("ratio_above", 9.9), vec!["busy"]),
        (change("ratio_above", 10.0), vec![]),
        (change("ratio_below", 0.5), vec!["quiet"]),
        (json!({"kind": "sensor_offline", "after_s": 600}), vec!["never-seen", "quiet"]),
        (json!({"kind": "spool", "oldest_above_s": 600}), vec!["quiet"]),
        (json!({"kind": "clock", "skew_above_ms": 60_000}), vec!["quiet"]),
        // Both points of both epochs say 70.
        (json!({"kind": "ledger_loss", "window_s": 600, "above_packets": 279}), vec!["busy"]),
        (json!({"kind": "ledger_loss", "window_s": 600, "above_packets": 280}), vec![]),
        (json!({"kind": "detections", "window_s": 600, "at_least": 3}), vec!["busy"]),
        (json!({"kind": "detections", "window_s": 600, "at_least": 4}), vec![]),
        (
            json!({"kind": "detections", "window_s": 600, "at_least": 2, "detection": "port_scan"}),
            vec!["busy"],
        ),
        (json!({"kind": "detections", "window_s": 600, "at_least": 1, "severity": "high"}), vec!["busy"]),
        (json!({"kind": "detections", "window_s": 600, "at_least": 2, "severity": "high"}), vec![]),
        (json!({"kind": "detections", "window_s": 10, "at_least": 1}), vec![]),
    ];
    let mut ids = Vec::new();
    for (number, (condition, _)) in cases.iter().enumerate() {
        ids.push(plane.rule(json!({"name": format!("rule-{number}"), "condition": condition})).await);
    }
    plane.look(0).await;
    for (id, (condition, groups)) in ids.into_iter().zip(cases) {
        let firing: Vec<String> = groups.iter().map(|group| format!("{group}/firing")).collect();
        assert_eq!(plane.states(id), firing, "{condition}");
        assert_eq!(
            plane.json(&format!("/api/v1/alerts/rules/{id}")).await["error"],
            Value::Null,
            "{condition}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_bounded_and_a_question_that_fails_is_shown_on_its_rule_alone() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let flows =
        (0..150).map(|host| flow([10, 0, 0, host], [192, 0, 2, 1], 443, 1 + u64::from(host))).collect();
    plane.store(&token, &batch(1, 0, now_ns() - 20 * SECOND, flows)).await;
    let many = plane.rule(threshold("many", &json!({"by": "src", "above": 0}))).await;
    let offline =
        plane.rule(json!({"name": "offline", "condition": {"kind": "sensor_offline", "after_s": 600}})).await;
    plane.look(0).await;
    let error = async |id: i64| plane.json(&format!("/api/v1/alerts/rules/{id}")).await["error"].clone();
    assert_eq!(plane.states(many).len(), 100);
    assert_eq!(plane.sql("SELECT min(value) FROM alert"), "76", "the largest");
    assert_eq!(error(many).await, json!("it holds for more than 100 groups; the worst are watched"));
    // Nothing is known: alerts stay as they are, and the other rule works.
    plane.sql("ALTER TABLE flow RENAME TO flow_away");
    plane.silent("edge-1", "1 hour").await;
    // The job of the partitions fails as well, and keeps no other from running.
    plane.jobs().round(seconds_from_now(0)).await.expect_err("a table is away");
    assert_eq!(plane.states(many).len(), 100);
    assert!(
        error(many).await.as_str().is_some_and(|text| text.contains("is missing")),
        "{}",
        error(many).await
    );
    assert_eq!(
        (error(offline).await, plane.states(offline)),
        (Value::Null, vec!["edge-1/firing".to_owned()])
    );
    assert!(plane.metrics().await.contains("weir_alert_rules_failing 1"));
    plane.sql("ALTER TABLE flow_away RENAME TO flow");
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_kept_changed_and_removed_and_their_alerts_end_with_them() {
    let plane = Plane::start().await;
    let absence = json!({"kind": "absence", "window_s": 60});
    let id = plane.rule(json!({"name": "silence", "condition": absence, "summary": "Nothing"})).await;
    let other = plane.rule(json!({"name": "other", "condition": absence})).await;
    let path = format!("/api/v1/alerts/rules/{id}");
    plane.look(0).await;
    assert_eq!(plane.states(id), ["/firing"]);
    let rule = plane.ok(Method::PATCH, &path, &json!({"severity": "info", "for_s": 30})).await;
    assert_eq!(
        (&rule["severity"], &rule["for_s"], &rule["summary"]),
        (&json!("info"), &json!(30), &json!("Nothing"))
    );
    assert_eq!(plane.states(id), ["/firing"], "it still watches for the same");
    plane.ok(Method::PATCH, &path, &json!({"enabled": false})).await;
    assert_eq!(plane.states(id), ["/resolved"]);
    plane.look(0).await;
    assert_eq!(plane.states(id), ["/resolved"], "a rule that is off finds nothing");
    plane.ok(Method::DELETE, &format!("/api/v1/alerts/rules/{other}"), NULL).await;
    assert_eq!(plane.sql("SELECT state, rule FROM alert WHERE rule_id IS NULL"), "resolved|other");
    for method in [Method::GET, Method::DELETE] {
        let gone = plane.call(method, &format!("/api/v1/alerts/rules/{other}"), ADMIN_TOKEN, NULL).await;
        assert_eq!(gone.0, 404);
    }
    for (field, value) in [
        ("name", json!("12")),
        ("condition.kind", json!({"kind": "weather"})),
        ("condition.filter", json!({"kind": "absence", "window_s": 60, "filter": "port = "})),
        ("for_s", json!(100_000)),
        ("severity", json!("bad")),
        ("labels", json!({"1x": "y"})),
        ("summary", json!("x".repeat(501))),
        ("receivers", json!([77])),
        ("colour", json!("blue")),
    ] {
        let mut rule = json!({"name": "new", "condition": absence});
        rule[field.split('.').next().expect("a field")] = value;
        let (status, problem) = plane.call(Method::POST, "/api/v1/alerts/rules", ADMIN_TOKEN, &rule).await;
        assert_eq!((status, problem["errors"][0]["field"].as_str()), (400, Some(field)), "{rule}: {problem}");
    }
    let again = json!({"name": "silence", "condition": absence});
    assert_eq!(plane.call(Method::POST, "/api/v1/alerts/rules", ADMIN_TOKEN, &again).await.0, 409);
    let audited = plane.audited().await;
    let (create, update) = ("alert_rule.create", "alert_rule.update");
    assert_eq!(audited, [create, create, update, update, "alert_rule.remove"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn silences_are_added_listed_and_ended() {
    let plane = Plane::start().await;
    let path = "/api/v1/alerts/silences";
    let matchers = json!([{"label": "sensor", "value": "edge-*"}]);
    let (begin, end) = (seconds_from_now(3_600).to_string(), seconds_from_now(7_200).to_string());
    let now = json!({"matchers": matchers, "ends_at": end, "comment": "known"});
    let later = json!({"kind": "maintenance", "matchers": matchers, "starts_at": begin, "ends_at": end, "comment": ""});
    let first = plane.ok(Method::POST, path, &now).await;
    let second = plane.ok(Method::POST, path, &later).await;
    assert_eq!((&first["active"], &first["kind"]), (&json!(true), &json!("silence")));
    assert_eq!((&second["active"], &second["kind"]), (&json!(false), &json!("maintenance")));
    for (field, body) in [
        ("ends_at", json!({"matchers": matchers, "ends_at": "2020-01-01T00:00:00Z", "comment": ""})),
        ("ends_at", json!({"matchers": matchers, "ends_at": "2400-01-01T00:00:00Z", "comment": ""})),
        ("ends_at", json!({"matchers": matchers, "ends_at": "soon", "comment": ""})),
        ("matchers", json!({"matchers": [], "ends_at": end, "comment": ""})),
        ("comment", json!({"matchers": matchers, "ends_at": end, "comment": "a\nb"})),
    ] {
        let (status, problem) = plane.call(Method::POST, path, ADMIN_TOKEN, &body).await;
        assert_eq!((status, problem["errors"][0]["field"].as_str()), (400, Some(field)), "{body}: {problem}");
    }
    let longer = json!({"ends_at": seconds_from_now(9_000).to_string(), "comment": "it takes longer"});
    let changed = plane.ok(Method::PATCH, &format!("{path}/{}", first["id"]), &longer).await;
    assert_eq!((&changed["comment"], &changed["active"]), (&json!("it takes longer"), &json!(true)));
    assert!(changed["ends_at"].as_str() > first["ends_at"].as_str(), "{changed}");
    let past = json!({"ends_at": "2020-01-01T00:00:00Z"});
    let over = plane.call(Method::PATCH, &format!("{path}/{}", first["id"]), ADMIN_TOKEN, &past).await;
    assert_eq!((over.0, &over.1["errors"][0]["field"]), (400, &json!("ends_at")));
    for silence in [&first, &second] {
        let path = format!("{path}/{}", silence["id"]);
        plane.ok(Method::DELETE, &path, NULL).await;
        assert_eq!(plane.call(Method::DELETE, &path, ADMIN_TOKEN, NULL).await.0, 404, "it is over");
        assert_eq!(plane.call(Method::PATCH, &path, ADMIN_TOKEN, &longer).await.0, 404, "it is over");
    }
    let count =
        async |query: &str| plane.json(&format!("{path}{query}")).await["items"].as_array().map(Vec::len);
    assert_eq!((count("").await, count("?ended=true").await), (Some(0), Some(1)));
    let (create, ended) = ("alert_silence.create", "alert_silence.end");
    assert_eq!(plane.audited().await, [create, create, "alert_silence.change", ended, ended]);
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_a_failure_at_any_statement_leaves_alerts_as_they_were() {
    let plane = Plane::start().await;
    let tables =
        ["alert", "alert_rule", "alert_route", "alert_receiver", "alert_silence", "audit", "event_pending"];
    let contents = || {
        tables.map(|table| {
            plane.sql(&format!(
                "SELECT coalesce(string_agg(t::text, '/' ORDER BY t::text), '') FROM {table} AS t"
            ))
        })
    };
    let walk = async |method: Method, path: &str, body: &Value, steps: &[(&str, &str)]| {
        let what = format!("{method} {path}");
        // Events that wait for their cursors are none of this.
        crate::support::eventually("events are numbered", || async { plane.count("event_pending") == 0 })
            .await;
        let before = contents();
        for (table, operation) in steps {
            plane.arm(table, operation);
            let (status, problem) = plane.call(method.clone(), path, ADMIN_TOKEN, body).await;
            plane.disarm();
            assert_eq!(
                (status, &problem["category"]),
                (500, &json!("database")),
                "{what} {operation} {table}: {problem}"
            );
            assert_eq!(contents(), before, "{what}: {operation} {table} left something behind");
        }
        plane.ok(method, path, body).await
    };
    let receiver = json!({"name": "hook", "target": {"kind": "webhook", "url": "http://192.0.2.1/"}});
    let steps = [("alert_receiver", "INSERT"), ("audit", "INSERT"), ("event_pending", "INSERT")];
    let receiver = walk(Method::POST, "/api/v1/alerts/receivers", &receiver, &steps).await["id"].clone();
    let rule =
        json!({"name": "absent", "condition": {"kind": "absence", "window_s": 60}, "receivers": [receiver]});
    let steps = [("alert_rule", "INSERT"), ("alert_route", "INSERT"), ("audit", "INSERT")];
    let rule = walk(Method::POST, "/api/v1/alerts/rules", &rule, &steps).await;
    let id = rule["id"].as_i64().expect("an id") as i32;

    // The states of one look.
    let kept = rules::get(plane.pool(), id).await.expect("asked").expect("it is there");
    let found = [Breach { group: String::new(), value: 0.0 }];
    let look = async |found: &[Breach]| states::apply(plane.pool(), None, &kept, Ok((found, None))).await;
    let round = async |found: &[Breach], steps: &[(&str, &str)]| {
        let before = contents();
        for (table, operation) in steps {
            plane.arm(table, operation);
            look(found).await.expect_err("injected");
            plane.disarm();
            assert_eq!(contents(), before, "{operation} {table}");
        }
        look(found).await.expect("applied")
    };
    let steps =
        [("alert_rule", "UPDATE"), ("alert", "DELETE"), ("alert", "INSERT"), ("event_pending", "INSERT")];
    assert_eq!(round(&found, &steps).await, states::Changes { fired: 1, resolved: 0 });
    let steps = [("alert_rule", "UPDATE"), ("alert", "UPDATE"), ("event_pending", "INSERT")];
    assert_eq!(round(&[], &steps).await, states::Changes { fired: 0, resolved: 1 });
    look(&found).await.expect("applied");
    // Whoever lost the job, or looked at the rule before it changed, writes nothing.
    let lost = jobs::Turn { name: "alert-rules", fence: 0, last_done_at: None, failures: 0 };
    let late = states::apply(plane.pool(), Some(&lost), &kept, Ok((&[], None))).await;
    assert_eq!(late.expect("asked"), states::Changes::default());

    let path = format!("/api/v1/alerts/rules/{id}");
    let steps = [
        ("alert", "UPDATE"),
        ("alert_rule", "UPDATE"),
        ("alert_route", "DELETE"),
        ("alert_route", "INSERT"),
        ("audit", "INSERT"),
    ];
    walk(Method::PATCH, &path, &json!({"enabled": false}), &steps).await;
    assert_eq!(look(&found).await.expect("asked"), states::Changes::default(), "it is another revision");
    let steps = [("alert_rule", "DELETE"), ("audit", "INSERT")];
    walk(Method::DELETE, &path, NULL, &steps).await;
    let silence = json!({"matchers": [{"label": "rule", "value": "*"}], "ends_at": seconds_from_now(60).to_string(), "comment": ""});
    let steps = [("alert_silence", "INSERT"), ("audit", "INSERT")];
    let silence = walk(Method::POST, "/api/v1/alerts/silences", &silence, &steps).await["id"].clone();
    let steps = [("alert_silence", "UPDATE"), ("audit", "INSERT")];
    walk(Method::DELETE, &format!("/api/v1/alerts/silences/{silence}"), NULL, &steps).await;
    let steps = [("alert_receiver", "DELETE"), ("audit", "INSERT")];
    walk(Method::DELETE, &format!("/api/v1/alerts/receivers/{receiver}"), NULL, &steps).await;
}
