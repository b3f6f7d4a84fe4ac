//! I1: every change of identity is whole or not at all, whichever of its statements fails.

use reqwest::Method;
use serde_json::{Value, json};
use weir_control_plane::auth::{Role, SetupToken};
use weir_control_plane::store::users;

use crate::people::PASSWORD;
use crate::support::{ADMIN_TOKEN, Plane};

const TABLES: &[&str] = &[
    "account",
    "session",
    "refresh_token",
    "api_token",
    "setup_link",
    "sensor",
    "audit",
    "erasure",
    "erasure_place",
    "erasure_confirmation",
];

/// Everything but what failed logins leave, which are counted before and on purpose, and when somebody was
/// last seen, which is written by itself.
fn contents(plane: &Plane<'_>) -> String {
    let table = |table: &&str| {
        plane.sql(&format!(
            "SELECT '{table}', count(*), coalesce(string_agg(line, '/' ORDER BY line), '')
             FROM (SELECT (to_jsonb(t) - 'last_active_at' - 'last_used_at')::text AS line FROM {table} AS t) AS lines"
        ))
    };
    TABLES.iter().map(table).collect::<Vec<_>>().join("\n")
}

/// A request that must succeed once nothing fails any more.
struct Change {
    method: Method,
    path: String,
    token: String,
    body: Value,
    /// Statements of its transaction.
    steps: &'static [(&'static str, &'static str)],
}

async fn walk(plane: &Plane<'_>, change: &Change) {
    let before = contents(plane);
    for (table, operation) in change.steps {
        // Failed logins would wait after a few of these rounds.
        plane.sql("UPDATE login_throttle SET failures = 0, blocked_until = now()");
        plane.arm(table, operation);
        let (status, problem) =
            plane.call(change.method.clone(), &change.path, &change.token, &change.body).await;
        let what = format!("{} {}: {operation} {table}", change.method, change.path);
        assert_eq!((status, problem["category"].as_str()), (500, Some("database")), "{what}: {problem}");
        plane.disarm();
        assert_eq!(contents(plane), before, "{what} left something behind");
    }
    let (status, answer) = plane.call(change.method.clone(), &change.path, &change.token, &change.body).await;
    assert!([200, 202].contains(&status), "{} {}: {status} {answer}", change.method, change.path);
    assert_ne!(contents(plane), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_a_failure_at_any_statement_leaves_identity_as_it_was() {
    let plane = Plane::start().await;
    let setup = SetupToken::generate().expect("a token");
    users::add_setup_link(plane.pool(), &setup.sha256(), 24).await.expect("a link");
    let change = |method: Method, path: &str, token: &str, body: Value, steps| Change {
        method,
        path: path.to_owned(),
        token: token.to_owned(),
        body,
        steps,
    };
    let first = json!({"setup_token": setup.expose(), "name": "ada", "password": PASSWORD});
    let steps = &[("setup_link", "DELETE"), ("account", "INSERT"), ("audit", "INSERT")];
    walk(&plane, &change(Method::POST, "/api/v1/auth/setup", "", first, steps)).await;

    let bob = json!({"name": "bob", "role": "viewer", "password": PASSWORD});
    let steps = &[("account", "INSERT"), ("audit", "INSERT")];
    walk(&plane, &change(Method::POST, "/api/v1/users", ADMIN_TOKEN, bob, steps)).await;

    let login = json!({"name": "bob", "password": PASSWORD});
    let steps = &[
        ("login_throttle", "UPDATE"),
        ("login_throttle", "DELETE"),
        ("session", "UPDATE"),
        ("session", "INSERT"),
        ("refresh_token", "INSERT"),
        ("audit", "INSERT"),
    ];
    // The first step strikes as the attempt is counted, which is a transaction of its own.
    walk(&plane, &change(Method::POST, "/api/v1/auth/login", "", login, steps)).await;
    let tokens = plane.log_in("bob").await;

    let refresh = json!({"refresh_token": tokens.refresh});
    let steps = &[("refresh_token", "UPDATE"), ("session", "UPDATE"), ("refresh_token", "INSERT")];
    walk(&plane, &change(Method::POST, "/api/v1/auth/refresh", "", refresh.clone(), steps)).await;

    let password = json!({"current_password": PASSWORD, "new_password": "staple under the moon"});
    let steps = &[("account", "UPDATE"), ("session", "UPDATE"), ("audit", "INSERT")];
    walk(&plane, &change(Method::POST, "/api/v1/auth/password", &tokens.access, password, steps)).await;

    let token = json!({"name": "robot", "role": "viewer", "scopes": ["flows"]});
    let steps = &[("api_token", "INSERT"), ("audit", "INSERT")];
    walk(&plane, &change(Method::POST, "/api/v1/tokens", &tokens.access, token, steps)).await;
    let steps = &[("api_token", "UPDATE"), ("audit", "INSERT")];
    // Numbers that were rolled back are not given again.
    let path = format!("/api/v1/tokens/{}", plane.sql("SELECT api_token_id FROM api_token"));
    walk(&plane, &change(Method::DELETE, &path, &tokens.access, Value::Null, steps)).await;

    let steps = &[("session", "UPDATE"), ("audit", "INSERT")];
    walk(&plane, &change(Method::DELETE, "/api/v1/sessions", &tokens.access, Value::Null, steps)).await;
    walk(&plane, &change(Method::POST, "/api/v1/auth/logout", &tokens.access, Value::Null, steps)).await;

    let update = json!({"role": "operator", "disabled": true, "password": "set by the admin"});
    let steps = &[("account", "UPDATE"), ("session", "UPDATE"), ("audit", "INSERT")];
    walk(&plane, &change(Method::PATCH, "/api/v1/users/bob", ADMIN_TOKEN, update, steps)).await;

    // A confirmation is used up by what succeeds only.
    let confirmed = async |path: &str| {
        let (_, plan) = plane.call(Method::DELETE, path, ADMIN_TOKEN, &Value::Null).await;
        format!("{path}?confirmation={}", plan["confirmation"].as_str().expect("a confirmation"))
    };
    let steps = &[
        ("erasure_confirmation", "DELETE"),
        ("erasure", "INSERT"),
        ("session", "DELETE"),
        ("refresh_token", "DELETE"),
        ("erasure_place", "INSERT"),
        ("api_token", "DELETE"),
        ("login_throttle", "DELETE"),
        ("account", "DELETE"),
        ("job", "UPDATE"),
        ("audit", "INSERT"),
        ("event_pending", "INSERT"),
    ];
    let path = confirmed("/api/v1/users/bob").await;
    walk(&plane, &change(Method::DELETE, &path, ADMIN_TOKEN, Value::Null, steps)).await;
    plane.all_erased().await;

    plane.sensor("edge-1").await;
    let steps = &[
        ("erasure_confirmation", "DELETE"),
        ("erasure", "INSERT"),
        ("erasure_place", "INSERT"),
        ("sensor", "UPDATE"),
        ("alert_rule", "UPDATE"),
        ("job", "UPDATE"),
        ("audit", "INSERT"),
        ("event_pending", "INSERT"),
    ];
    let path = confirmed("/api/v1/sensors/edge-1").await;
    walk(&plane, &change(Method::DELETE, &path, ADMIN_TOKEN, Value::Null, steps)).await;
}

/// The end of a stolen family is a change too, though its answer is a refusal.
#[tokio::test(flavor = "multi_thread")]
async fn i1_a_reused_refresh_token_ends_its_session_and_is_audited_or_neither() {
    let plane = Plane::start().await;
    plane.user("ann", Role::Viewer).await;
    let tokens = plane.log_in("ann").await;
    assert_eq!(plane.refresh(&tokens.refresh).await.0, 200);
    let before = contents(&plane);
    for (table, operation) in [("session", "UPDATE"), ("audit", "INSERT")] {
        plane.arm(table, operation);
        assert_eq!(plane.refresh(&tokens.refresh).await.0, 500);
        plane.disarm();
        assert_eq!(contents(&plane), before, "{table}");
    }
    assert_eq!(plane.refresh(&tokens.refresh).await.0, 401);
    assert_ne!(contents(&plane), before);
}
