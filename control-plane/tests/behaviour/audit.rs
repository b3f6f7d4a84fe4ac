//! U9: every change is in the log, with who, what and from where; nobody alters it; admins read it.

use reqwest::Method;
use serde_json::{Value, json};
use weir_control_plane::auth::Role;

use crate::people::PASSWORD;
use crate::support::{ADMIN_TOKEN, Plane};

const NULL: &Value = &Value::Null;

async fn page(plane: &Plane<'_>, query: &str) -> Value {
    let (status, page) = plane.call(Method::GET, &format!("/api/v1/audit{query}"), ADMIN_TOKEN, NULL).await;
    assert_eq!(status, 200, "{query}: {page}");
    page
}

#[tokio::test(flavor = "multi_thread")]
async fn u9_a_change_says_who_what_before_and_after_and_from_where() {
    let plane = Plane::start().await;
    plane.user("ada", Role::Admin).await;
    plane.user("bob", Role::Viewer).await;
    let ada = plane.log_in("ada").await;
    let request =
        plane.request(Method::PATCH, "/api/v1/users/bob", &ada.access).header("x-request-id", "change-7");
    let body = json!({"role": "operator", "password": "set by the admin"});
    assert_eq!(request.json(&body).send().await.expect("an answer").status(), 200);
    let page = page(&plane, "?action=user.update").await;
    let entry = &page["items"][0];
    let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        ["actor_kind", "actor_id", "actor", "subject_kind", "subject_id", "subject", "address", "request_id"]
            .map(text),
        ["user", "1", "ada", "user", "2", "bob", "127.0.0.1", "change-7"].map(str::to_owned)
    );
    assert_eq!(entry["before"], json!({"role": "viewer", "disabled": false}));
    assert_eq!(entry["after"], json!({"role": "operator", "disabled": false, "password": "changed"}));
    let everything = plane.sql("SELECT string_agg(audit::text, ' ') FROM audit");
    for secret in [PASSWORD, "set by the admin", "$argon2", &ada.refresh, &ada.access] {
        assert!(!everything.contains(secret), "{secret}");
    }
    // The actor goes, the row stays, and names them by number.
    plane.user("eve", Role::Admin).await;
    assert_eq!(plane.erase("/api/v1/users/ada", ADMIN_TOKEN).await.0, 202);
    plane.all_erased().await;
    let rows = async |query| self::page(&plane, query).await["items"].as_array().map(Vec::len);
    assert_eq!(rows("?actor=ada").await, Some(0));
    assert_eq!(rows("?actor=erased%20user%201&action=user.update").await, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn u9_what_happens_to_sensors_is_in_the_log_too() {
    let plane = Plane::start().await;
    plane.user("otto", Role::Operator).await;
    let otto = plane.log_in("otto").await;
    plane.sensor("edge-1").await;
    assert_eq!(plane.erase("/api/v1/sensors/edge-1", &otto.access).await.0, 202);
    plane.all_erased().await;
    let page = page(&plane, "?subject_kind=sensor&subject=erased%20sensor%201").await;
    let rows = page["items"].as_array().expect("items").iter();
    let rows: Vec<String> = rows
        .map(|row| format!("{} {} {}", row["actor_kind"], row["actor"], row["action"]).replace('"', ""))
        .collect();
    assert_eq!(rows, ["user otto sensor.remove", "command_line weir-control-plane sensor.create"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn u9_the_database_refuses_to_alter_the_log() {
    let plane = Plane::start().await;
    plane.user("ada", Role::Admin).await;
    for statement in ["UPDATE audit SET actor_name = 'eve'", "DELETE FROM audit", "TRUNCATE audit"] {
        let error = plane.postgres.sql(&plane.database, statement).expect_err(statement).to_string();
        assert!(error.contains("append-only"), "{error}");
    }
    assert_eq!(plane.count("audit"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a3_pages_and_the_export_hold_every_row_once_while_rows_are_added() {
    let plane = Plane::start().await;
    let add = |from: u32, to: u32| {
        plane.sql(&format!(
            "INSERT INTO audit (actor_kind, actor_name, action, subject_kind, subject_name)
             SELECT 'user', 'ann', 'test.row', 'test', 'row-' || n FROM generate_series({from}, {to}) AS n"
        ));
    };
    add(1, 2_500);
    let mut rows = Vec::new();
    let mut query = "?limit=1000&action=test.row".to_owned();
    loop {
        let page = page(&plane, &query).await;
        rows.extend(
            page["items"]
                .as_array()
                .expect("items")
                .iter()
                .map(|row| row["subject"].as_str().expect("text").to_owned()),
        );
        add(9_000, 9_009);
        let Some(token) = page["continuation"].as_str() else {
            assert_eq!(page["has_more"], false);
            break;
        };
        query = format!("?limit=1000&action=test.row&continuation={token}");
        let other = format!("/api/v1/audit?action=other&continuation={token}");
        assert_eq!(
            plane.call(Method::GET, &other, ADMIN_TOKEN, NULL).await.0,
            400,
            "a token belongs to its question"
        );
    }
    let expected: Vec<String> = (1..=2_500).rev().map(|n| format!("row-{n}")).collect();
    assert_eq!(rows, expected);

    let export = plane.get("/api/v1/audit/export?action=test.row").await;
    assert_eq!(export.headers()["content-type"], "application/x-ndjson");
    let text = export.text().await.expect("text");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 2_530);
    let first = page(&plane, "?limit=1&action=test.row").await;
    assert_eq!(lines[0], first["items"][0], "a line is as in the list");
    assert_eq!(plane.get("/api/v1/audit/export?subject=nothing").await.text().await.expect("text"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_filters_choose_rows_and_bad_ones_are_named() {
    let plane = Plane::start().await;
    plane.user("ann", Role::Viewer).await;
    plane.user("bob", Role::Viewer).await;
    plane.log_in("ann").await;
    let count = async |query: &str| page(&plane, query).await["items"].as_array().map(Vec::len);
    assert_eq!(count("").await, Some(3));
    assert_eq!(count("?actor=ann").await, Some(1));
    assert_eq!(count("?subject=bob").await, Some(1));
    assert_eq!(count("?subject=2&subject_kind=user").await, Some(1));
    assert_eq!(count("?from=2020-01-01T00:00:00Z&to=2021-01-01T00:00:00Z").await, Some(0));
    for (field, query) in [
        ("limit", "limit=0"),
        ("from", "from=yesterday"),
        ("to", "to=9999-12-31T23:59:59Z"),
        ("actor", "actor="),
        ("actor", "actor=a%00b"),
        ("continuation", "continuation=AAAA"),
        ("colour", "colour=blue"),
    ] {
        let (status, problem) =
            plane.call(Method::GET, &format!("/api/v1/audit?{query}"), ADMIN_TOKEN, NULL).await;
        assert_eq!(
            (status, problem["errors"][0]["field"].as_str()),
            (400, Some(field)),
            "{query}: {problem}"
        );
    }
}
