//! U1: machines' tokens: shown once, scoped, never more than their owner, void when revoked.

use reqwest::Method;
use serde_json::{Value, json};
use weir_control_plane::auth::Role;

use crate::people::PASSWORD;
use crate::support::{ADMIN_TOKEN, Plane};

const NULL: &Value = &Value::Null;

#[tokio::test(flavor = "multi_thread")]
async fn u1_a_token_is_shown_once_and_stored_as_its_hash() {
    let plane = Plane::start().await;
    plane.user("ann", Role::Operator).await;
    let ann = plane.log_in("ann").await;
    let body = json!({"name": "grafana", "role": "viewer", "scopes": ["sensors", "flows", "flows"], "expires_in_days": 90});
    let (status, made) = plane.call(Method::POST, "/api/v1/tokens", &ann.access, &body).await;
    assert_eq!(status, 200, "{made}");
    let secret = made["secret"].as_str().expect("a secret");
    assert!(secret.starts_with("weir_a_") && secret.len() == 50, "{secret}");
    assert_eq!((made["user"].as_str(), made["state"].as_str()), (Some("ann"), Some("active")));
    assert_eq!(made["scopes"], json!(["flows", "sensors"]));
    assert_eq!(plane.status_as(secret).await, 200);
    let (_, list) = plane.call(Method::GET, "/api/v1/tokens", &ann.access, NULL).await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    let stored = plane.sql("SELECT api_token::text FROM api_token")
        + &plane.sql("SELECT string_agg(audit::text, '') FROM audit");
    assert!(!list.to_string().contains(secret) && !stored.contains(secret));
}

#[tokio::test(flavor = "multi_thread")]
async fn u1_a_token_opens_its_scopes_and_never_more_than_its_owner_may() {
    let plane = Plane::start().await;
    plane.user("ada", Role::Admin).await;
    plane.user("bea", Role::Admin).await;
    let ada = plane.log_in("ada").await;
    let (token, _) = plane.machine(&ada.access, "admin", &["users"]).await;
    let get = async |path: &str| plane.call(Method::GET, path, &token, NULL).await;
    assert_eq!(get("/api/v1/users").await.0, 200);
    let (status, problem) = get("/api/v1/flows").await;
    assert_eq!((status, problem["category"].as_str()), (403, Some("authorization")));
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("flows")), "{problem}");
    assert_eq!(get("/api/v1/audit").await.0, 403);
    assert_eq!(get("/api/v1/tokens").await.0, 403, "machines make no credentials");
    // The owner is an admin no more, then locked out, then gone.
    let change =
        async |body: &Value| plane.call(Method::PATCH, "/api/v1/users/ada", ADMIN_TOKEN, body).await.0;
    assert_eq!(change(&json!({"role": "viewer"})).await, 200);
    assert_eq!(get("/api/v1/users").await.0, 403);
    assert_eq!(change(&json!({"role": "admin", "disabled": true})).await, 200);
    assert_eq!(get("/api/v1/users").await.0, 401);
    assert_eq!(change(&json!({"disabled": false})).await, 200);
    assert_eq!(get("/api/v1/users").await.0, 200);
    let (_, removed) = plane.erase("/api/v1/users/ada", ADMIN_TOKEN).await;
    assert_eq!(
        (&removed["places"][1]["name"], &removed["places"][1]["erased"]),
        (&json!("tokens"), &json!(1))
    );
    assert_eq!(get("/api/v1/users").await.0, 401);
    assert_eq!(plane.count("api_token"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn u1_people_revoke_their_own_tokens_and_admins_everybodys() {
    let plane = Plane::start().await;
    plane.user("ann", Role::Viewer).await;
    plane.user("bob", Role::Operator).await;
    let (ann, bob) = (plane.log_in("ann").await, plane.log_in("bob").await);
    let (first, one) = plane.machine(&ann.access, "viewer", &["flows"]).await;
    let (second, two) = plane.machine(&ann.access, "viewer", &["flows"]).await;
    plane.machine(ADMIN_TOKEN, "viewer", &["flows"]).await;
    let list = async |token: &str| {
        let (_, page) = plane.call(Method::GET, "/api/v1/tokens", token, NULL).await;
        page["items"].as_array().map(Vec::len)
    };
    assert_eq!(
        (list(&ann.access).await, list(&bob.access).await, list(ADMIN_TOKEN).await),
        (Some(2), Some(0), Some(3))
    );
    let revoke = async |token: &str, id: i64| {
        plane.call(Method::DELETE, &format!("/api/v1/tokens/{id}"), token, NULL).await
    };
    assert_eq!(revoke(&bob.access, one).await.0, 404);
    assert_eq!(plane.status_as(&first).await, 200);
    let (status, token) = revoke(&ann.access, one).await;
    assert_eq!((status, token["state"].as_str()), (200, Some("revoked")));
    let again = revoke(&ann.access, one).await.1;
    assert_eq!(again["revoked_at"], token["revoked_at"], "the first time stays");
    assert_eq!(revoke(ADMIN_TOKEN, two).await.0, 200);
    assert_eq!((plane.status_as(&first).await, plane.status_as(&second).await), (401, 401));
    let (_, problem) = plane.call(Method::GET, "/api/v1/flows", &first, NULL).await;
    assert_eq!(problem["type"], "urn:weir:problem:token-revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_a_token_that_cannot_be_is_refused_with_its_field() {
    let plane = Plane::start().await;
    plane.user("ann", Role::Operator).await;
    let ann = plane.log_in("ann").await;
    let good = json!({"name": "robot", "role": "viewer", "scopes": ["flows"]});
    for (field, value) in [
        ("name", json!("")),
        ("name", json!("a b")),
        ("name", json!(7)),
        ("role", json!("admin")),
        ("role", json!("root")),
        ("scopes", json!([])),
        ("scopes[0]", json!(["everything"])),
        ("expires_in_days", json!(0)),
        ("expires_in_days", json!(4_000)),
        ("colour", json!("blue")),
    ] {
        let mut body = good.clone();
        body[field.trim_end_matches("[0]")] = value;
        let (status, problem) = plane.call(Method::POST, "/api/v1/tokens", &ann.access, &body).await;
        assert_eq!((status, problem["errors"][0]["field"].as_str()), (400, Some(field)), "{body}: {problem}");
    }
    let text = plane
        .request(Method::POST, "/api/v1/tokens", &ann.access)
        .body("{}")
        .send()
        .await
        .expect("an answer");
    assert_eq!(text.status(), 415);
    let long = json!({"name": "x".repeat(20_000)});
    assert_eq!(plane.call(Method::POST, "/api/v1/tokens", &ann.access, &long).await.0, 413);
    assert_eq!(plane.count("api_token"), 0);
    assert!(plane.try_log_in("ann", PASSWORD).await.status().is_success());
}
