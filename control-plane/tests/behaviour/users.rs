//! U2, U5: accounts: made, changed and removed by admins; somebody can always log in as one.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use weir_control_plane::auth::{Role, SetupToken};
use weir_control_plane::store::users;

use crate::people::{PASSWORD, read};
use crate::support::{ADMIN_TOKEN, Plane};

const NULL: &Value = &Value::Null;

#[tokio::test(flavor = "multi_thread")]
async fn u2_admins_add_change_list_and_remove_users() {
    let plane = Plane::start().await;
    plane.user("ada", Role::Admin).await;
    let ada = plane.log_in("ada").await;
    let call =
        async |method: Method, path: &str, body: &Value| plane.call(method, path, &ada.access, body).await;
    let bob = json!({"name": "Bob@example.org", "role": "viewer", "password": PASSWORD});
    let (status, user) = call(Method::POST, "/api/v1/users", &bob).await;
    assert_eq!(
        (status, user["name"].as_str(), user["role"].as_str()),
        (200, Some("bob@example.org"), Some("viewer"))
    );
    let (status, problem) = call(Method::POST, "/api/v1/users", &bob).await;
    assert_eq!((status, problem["category"].as_str()), (409, Some("conflict")));
    for (field, value) in [
        ("name", json!("")),
        ("name", json!("12")),
        ("name", json!("a b")),
        ("name", json!("аnn")),
        ("role", json!("root")),
        ("password", json!("short")),
        ("password", json!("bob2@example.org")),
        ("password", json!(123_456_789_012_i64)),
        ("is_admin", json!(true)),
    ] {
        let mut body = json!({"name": "bob2@example.org", "role": "viewer", "password": PASSWORD});
        body[field] = value;
        let (status, problem) = call(Method::POST, "/api/v1/users", &body).await;
        assert_eq!((status, problem["errors"][0]["field"].as_str()), (400, Some(field)), "{body}: {problem}");
    }
    let id = user["id"].as_i64().expect("an id");
    assert_eq!(call(Method::GET, &format!("/api/v1/users/{id}"), NULL).await.1["name"], "bob@example.org");
    let (_, page) = call(Method::GET, "/api/v1/users?limit=1", NULL).await;
    assert_eq!((page["items"][0]["name"].as_str(), page["has_more"].as_bool()), (Some("ada"), Some(true)));
    let token = page["continuation"].as_str().expect("a token");
    let (_, page) = call(Method::GET, &format!("/api/v1/users?limit=1&continuation={token}"), NULL).await;
    assert_eq!((page["items"][0]["id"].as_i64(), page["has_more"].as_bool()), (Some(id), Some(false)));
    assert_eq!(call(Method::GET, &format!("/api/v1/tokens?continuation={token}"), NULL).await.0, 400);

    let bob = plane.log_in("bob@example.org").await;
    let (status, user) =
        call(Method::PATCH, "/api/v1/users/bob@example.org", &json!({"role": "operator"})).await;
    assert_eq!((status, user["role"].as_str()), (200, Some("operator")));
    let (status, gone) = plane.erase("/api/v1/users/bob@example.org", &ada.access).await;
    assert_eq!((status, gone["places"][0]["erased"].as_u64()), (202, Some(1)), "{gone}");
    assert_eq!(plane.status_as(&bob.access).await, 401);
    assert_eq!(plane.try_log_in("bob@example.org", PASSWORD).await.status(), 401);
    for method in [Method::GET, Method::DELETE] {
        assert_eq!(call(method, "/api/v1/users/bob@example.org", NULL).await.0, 404);
    }
    assert_eq!(call(Method::GET, "/api/v1/users/Not%20A%20Name", NULL).await.0, 400);
    assert_eq!(
        plane.audited().await,
        ["user.create", "session.open", "user.create", "session.open", "user.update", "user.remove"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn u2_the_last_admin_stays_even_when_two_go_at_once() {
    let plane = Plane::start().await;
    plane.user("ada", Role::Admin).await;
    let (status, problem) = plane.erase("/api/v1/users/ada", ADMIN_TOKEN).await;
    assert_eq!((status, problem["type"].as_str()), (409, Some("urn:weir:problem:last-admin")), "{problem}");
    for (method, body) in
        [(Method::PATCH, json!({"role": "operator"})), (Method::PATCH, json!({"disabled": true}))]
    {
        let (status, problem) = plane.call(method, "/api/v1/users/ada", ADMIN_TOKEN, &body).await;
        assert_eq!((status, problem["type"].as_str()), (409, Some("urn:weir:problem:last-admin")), "{body}");
    }
    for round in 0..10 {
        let name = format!("admin-{round}");
        plane.user(&name, Role::Admin).await;
        let path = format!("/api/v1/users/{name}");
        let body = json!({"role": "viewer"});
        let both =
            ["/api/v1/users/ada", &path].map(|path| plane.call(Method::PATCH, path, ADMIN_TOKEN, &body));
        let mut statuses: Vec<u16> = join_all(both).await.into_iter().map(|(status, _)| status).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409]);
        assert_eq!(plane.sql("SELECT count(*) FROM account WHERE role = 'admin'"), "1");
        plane.sql("UPDATE account SET role = CASE name WHEN 'ada' THEN 'admin' ELSE 'viewer' END");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn u2_a_set_up_link_makes_the_first_admin_once() {
    let plane = Plane::start().await;
    let link = async |hours: i32| {
        let token = SetupToken::generate().expect("a token");
        let added = users::add_setup_link(plane.pool(), &token.sha256(), hours).await.expect("asked");
        (token.expose().to_owned(), added)
    };
    let set_up = async |token: &str, name: &str, password: &str| {
        let body = json!({"setup_token": token, "name": name, "password": password});
        read(plane.http.post(plane.url("/api/v1/auth/setup")).json(&body).send().await.expect("an answer"))
            .await
    };
    let (stale, _) = link(0).await;
    let (first, _) = link(24).await;
    let (second, added) = link(24).await;
    assert!(added);
    assert_eq!(set_up(&stale, "ada", PASSWORD).await.0, 401, "its time is over");
    assert_eq!(set_up(&first, "ada", "short").await.0, 400, "the link is not used up by a mistake");
    // Two at once: one admin.
    let both = join_all([set_up(&first, "ada", PASSWORD), set_up(&second, "eve", PASSWORD)]).await;
    let mut statuses: Vec<u16> = both.iter().map(|(status, _)| *status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 401], "{both:?}");
    assert_eq!(plane.sql("SELECT role FROM account"), "admin");
    assert_eq!(plane.count("setup_link"), 0);
    for token in [&first, &second, "weir_u_short", ADMIN_TOKEN] {
        assert_eq!(set_up(token, "mallory", PASSWORD).await.0, 401);
    }
    assert!(!link(24).await.1, "there is a user: no link is made");
}

#[tokio::test(flavor = "multi_thread")]
async fn u5_a_user_removed_while_logging_in_leaves_no_session() {
    let plane = Plane::start().await;
    for _ in 0..10 {
        plane.user("ann", Role::Viewer).await;
        let login = plane.try_log_in("ann", PASSWORD);
        let remove = plane.erase("/api/v1/users/ann", ADMIN_TOKEN);
        let (login, (status, _)) = tokio::join!(login, remove);
        assert_eq!(status, 202);
        assert!([200, 401].contains(&login.status().as_u16()), "{}", login.status());
        assert_eq!((plane.count("account"), plane.count("session"), plane.count("refresh_token")), (0, 0, 0));
        // Until then the name is taken.
        plane.all_erased().await;
    }
}
