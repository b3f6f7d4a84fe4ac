//! U2: every route against every kind of caller, in one table. A route of the document without a row
//! fails, and so does a row without a route.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;
use weir_control_plane::auth::{Claims, Role};

use crate::support::{ADMIN_TOKEN, Plane};

/// What the door says: pass (whatever the handler makes of an empty request), or the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Pass,
    Refuse(u16),
}

use Door::{Pass, Refuse};

const NO: Door = Refuse(401);
const FORBIDDEN: Door = Refuse(403);

/// The callers whose answers differ from route to route, in the order of a row's columns. All others
/// ([`VOID`]) are strangers on every route that is not open.
const CALLERS: [&str; 8] = [
    "viewer",
    "operator",
    "admin",
    "admin token",
    "machine (viewer, flows)",
    "machine (admin, all scopes)",
    "sensor",
    "nobody",
];

type Row = (&'static str, [Door; 8]);

const OPEN: [Door; 8] = [Pass; 8];
const SENSORS_ONLY: [Door; 8] = [NO, NO, NO, NO, NO, NO, Pass, NO];
const FLOWS: [Door; 8] = [Pass, Pass, Pass, Pass, Pass, Pass, NO, NO];
const READ: [Door; 8] = [Pass, Pass, Pass, Pass, FORBIDDEN, Pass, NO, NO];
const OWN: [Door; 8] = [Pass, Pass, Pass, Pass, FORBIDDEN, FORBIDDEN, NO, NO];
const SESSION: [Door; 8] = [Pass, Pass, Pass, FORBIDDEN, FORBIDDEN, FORBIDDEN, NO, NO];
const OPERATORS: [Door; 8] = [FORBIDDEN, Pass, Pass, Pass, FORBIDDEN, Pass, NO, NO];
const ADMINS: [Door; 8] = [FORBIDDEN, FORBIDDEN, Pass, Pass, FORBIDDEN, Pass, NO, NO];

const TABLE: &[Row] = &[
    ("get /healthz", OPEN),
    ("get /readyz", OPEN),
    ("get /metrics", OPEN),
    ("get /.well-known/jwks.json", OPEN),
    ("post /api/v1/auth/login", OPEN),
    ("post /api/v1/auth/refresh", OPEN),
    ("post /api/v1/auth/setup", OPEN),
    ("post /api/v1/auth/logout", SESSION),
    ("post /api/v1/auth/password", SESSION),
    ("get /api/v1/auth/me", OWN),
    ("get /api/v1/sessions", OWN),
    ("delete /api/v1/sessions", SESSION),
    ("delete /api/v1/sessions/{session}", OWN),
    ("get /api/v1/tokens", OWN),
    ("post /api/v1/tokens", OWN),
    ("delete /api/v1/tokens/{token}", OWN),
    ("get /api/v1/users", ADMINS),
    ("post /api/v1/users", ADMINS),
    ("get /api/v1/users/{user}", ADMINS),
    ("patch /api/v1/users/{user}", ADMINS),
    ("delete /api/v1/users/{user}", ADMINS),
    ("delete /api/v1/users/{user}/sessions", ADMINS),
    ("get /api/v1/audit", ADMINS),
    ("get /api/v1/audit/export", ADMINS),
    ("get /api/v1/flows", FLOWS),
    ("get /api/v1/flows/export", FLOWS),
    ("get /api/v1/flows/filter", FLOWS),
    ("get /api/v1/flows/top", FLOWS),
    ("get /api/v1/flows/timeseries", FLOWS),
    ("get /api/v1/domains", FLOWS),
    // Any scope will do; topics ask for theirs.
    ("get /api/v1/events", FLOWS),
    ("get /api/v1/events/stream", FLOWS),
    ("get /api/v1/stream", FLOWS),
    ("post /api/v1/stream/tickets", FLOWS),
    ("get /api/v1/sensors", READ),
    ("get /api/v1/sensors/{id}", READ),
    ("get /api/v1/sensors/{id}/ledger", READ),
    ("delete /api/v1/sensors/{id}", OPERATORS),
    ("get /api/v1/alerts", READ),
    ("get /api/v1/alerts/rules", READ),
    ("post /api/v1/alerts/rules", OPERATORS),
    ("get /api/v1/alerts/rules/{rule}", READ),
    ("patch /api/v1/alerts/rules/{rule}", OPERATORS),
    ("delete /api/v1/alerts/rules/{rule}", OPERATORS),
    ("get /api/v1/alerts/silences", READ),
    ("post /api/v1/alerts/silences", OPERATORS),
    ("patch /api/v1/alerts/silences/{silence}", OPERATORS),
    ("delete /api/v1/alerts/silences/{silence}", OPERATORS),
    ("get /api/v1/alerts/receivers", OPERATORS),
    ("post /api/v1/alerts/receivers", ADMINS),
    ("patch /api/v1/alerts/receivers/{receiver}", ADMINS),
    ("delete /api/v1/alerts/receivers/{receiver}", ADMINS),
    ("get /api/v1/alerts/deliveries", OPERATORS),
    ("get /api/v1/jobs", OPERATORS),
    ("get /api/v1/jobs/{job}/runs", OPERATORS),
    ("post /api/v1/jobs/{job}/runs", OPERATORS),
    ("get /api/v1/erasures", OPERATORS),
    ("get /api/v1/erasures/{erasure}", OPERATORS),
    ("patch /api/v1/sensors/{id}", OPERATORS),
    ("get /api/v1/sensors/{id}/configuration", READ),
    ("put /api/v1/sensors/{id}/configuration", OPERATORS),
    ("get /api/v1/sensors/{id}/configuration/versions", READ),
    ("post /api/v1/sensors/{id}/configuration/rollback", OPERATORS),
    ("get /api/v1/sensor-groups/{group}/configuration", READ),
    ("put /api/v1/sensor-groups/{group}/configuration", OPERATORS),
    ("get /api/v1/sensor-groups/{group}/configuration/versions", READ),
    ("post /api/v1/sensor-groups/{group}/configuration/rollback", OPERATORS),
    ("post /api/v1/sensors/{id}/revoke", OPERATORS),
    ("get /api/v1/sensors/{id}/credentials", READ),
    ("post /api/v1/sensors/{id}/credentials", OPERATORS),
    ("delete /api/v1/sensors/{id}/credentials/{credential}", OPERATORS),
    ("get /api/v1/enrollments", READ),
    ("post /api/v1/enrollments", OPERATORS),
    ("delete /api/v1/enrollments/{enrollment}", OPERATORS),
    ("post /api/v1/enroll", OPEN),
    ("post /api/v1/sensor/credentials", SENSORS_ONLY),
    ("post /api/v1/sensor/certificate", SENSORS_ONLY),
    ("post /api/v1/sensor/heartbeat", SENSORS_ONLY),
    ("get /api/v1/detections", READ),
    ("get /api/v1/detections/{detection}", READ),
    ("post /api/v1/detections/{detection}/acknowledge", OPERATORS),
    ("post /api/v1/detections/{detection}/dismiss", OPERATORS),
    ("post /api/v1/detections/{detection}/reopen", OPERATORS),
    ("get /api/v1/search", FLOWS),
    ("get /api/v1/devices", FLOWS),
    ("get /api/v1/devices/{device}", FLOWS),
    ("patch /api/v1/devices/{device}", OPERATORS),
    ("post /api/v1/devices/{device}/merge", OPERATORS),
    ("post /api/v1/devices/{device}/split", OPERATORS),
    ("delete /api/v1/devices/{device}", OPERATORS),
    ("get /api/v1/networks", FLOWS),
    ("get /api/v1/networks/{network}", FLOWS),
    ("post /api/v1/networks", OPERATORS),
    ("patch /api/v1/networks/{network}", OPERATORS),
    ("delete /api/v1/networks/{network}", OPERATORS),
    ("post /api/v1/ingest", SENSORS_ONLY),
    ("get /api/openapi.json", READ),
    ("get /api/docs", READ),
];

/// The routes of the document, as the table writes them.
pub fn documented() -> BTreeSet<String> {
    let document = serde_json::to_value(weir_control_plane::api::document()).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    let routes = paths.iter().flat_map(|(path, operations)| {
        let methods = operations.as_object().expect("operations").keys();
        methods.map(move |method| format!("{method} {path}"))
    });
    routes.collect()
}

#[test]
fn u2_every_route_has_its_row() {
    let rows: BTreeSet<String> = TABLE.iter().map(|(route, _)| (*route).to_owned()).collect();
    assert_eq!(rows.len(), TABLE.len(), "a route has two rows");
    assert_eq!(rows, documented());
}

/// A path that exists for nobody in particular.
fn concrete(path: &str) -> String {
    path.replace("{id}", "edge-77")
        .replace("{group}", "edge")
        .replace("{user}", "77")
        .replace("{token}", "77")
        .replace("{job}", "none")
        .replace("{credential}", "77")
        .replace("{enrollment}", "77")
        .replace("{detection}", "77")
        .replace("{device}", "77")
        .replace("{network}", "77")
        .replace("{rule}", "77")
        .replace("{erasure}", "77")
        .replace("{silence}", "77")
        .replace("{receiver}", "77")
        .replace("{session}", &Uuid::from_u128(7).to_string())
}

async fn door(plane: &Plane<'_>, route: &str, credential: Option<&str>) -> (Door, Value) {
    let (method, path) = route.split_once(' ').expect("a method and a path");
    let method = Method::from_bytes(method.to_uppercase().as_bytes()).expect("a method");
    let mut request = plane.http.request(method, plane.url(&concrete(path)));
    if let Some(credential) = credential {
        request = request.header("authorization", credential);
    }
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    if status != 401 && status != 403 {
        assert!(status < 500, "{route}: {status}");
        return (Pass, Value::Null);
    }
    assert!(response.headers().contains_key("www-authenticate"), "{route}: {status}");
    (Refuse(status), response.json().await.expect("a problem"))
}

#[tokio::test(flavor = "multi_thread")]
async fn u2_every_route_answers_every_caller_as_the_table_says() {
    let plane = Plane::start().await;
    let mut credentials: Vec<Option<String>> = Vec::new();
    for (name, role) in [("vera", Role::Viewer), ("otto", Role::Operator), ("ada", Role::Admin)] {
        plane.user(name, role).await;
    }
    let bearer = |token: &str| Some(format!("Bearer {token}"));
    let (narrow, _) = plane.machine(ADMIN_TOKEN, "viewer", &["flows"]).await;
    let all = ["flows", "sensors", "detections", "users", "audit", "alerts", "operations", "documentation"];
    let (wide, _) = plane.machine(ADMIN_TOKEN, "admin", &all).await;
    // Those of the users come with their first row.
    credentials.extend([None, None, None, bearer(ADMIN_TOKEN), bearer(&narrow), bearer(&wide)]);
    credentials.push(bearer(&plane.sensor("edge-1").await));
    credentials.push(None);
    assert_eq!(credentials.len(), CALLERS.len());

    for (route, row) in TABLE {
        for (at, expected) in row.iter().enumerate() {
            let caller = CALLERS[at];
            // Some routes end the session that they are called with: after a change each has a new one.
            let user = ["vera", "otto", "ada"].get(at);
            if let (Some(user), None) = (user, &credentials[at]) {
                credentials[at] = bearer(&plane.log_in(user).await.access);
            }
            let credential = credentials[at].clone();
            if user.is_some() && *expected == Pass && !route.starts_with("get ") {
                credentials[at] = None;
            }
            let (found, problem) = door(&plane, route, credential.as_deref()).await;
            assert_eq!(found, *expected, "{route} for {caller}: {problem}");
            let category = match found {
                Pass => continue,
                Refuse(403) => "authorization",
                Refuse(_) => "authentication",
            };
            assert_eq!(problem["category"], category, "{route} for {caller}: {problem}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn u2_a_credential_that_is_over_or_meant_for_others_opens_no_route() {
    let plane = Plane::start().await;
    let user = plane.user("ada", Role::Admin).await;
    let all = ["flows", "sensors", "detections", "users", "audit", "alerts", "operations", "documentation"];
    let live = plane.log_in("ada").await;

    let (revoked, id) = plane.machine(ADMIN_TOKEN, "admin", &all).await;
    plane.call(Method::DELETE, &format!("/api/v1/tokens/{id}"), ADMIN_TOKEN, &Value::Null).await;
    let (expired, id) = plane.machine(ADMIN_TOKEN, "admin", &all).await;
    plane.sql(&format!("UPDATE api_token SET expires_at = now() WHERE api_token_id = {id}"));
    let ended = plane.log_in("ada").await;
    plane.call(Method::POST, "/api/v1/auth/logout", &ended.access, &Value::Null).await;

    let session: Uuid = live.session.parse().expect("an id");
    let auth = &plane.state().auth;
    let key = auth.keys.signing().expect("a key");
    let (lasts, now) = (Duration::from_mins(5), SystemTime::now());
    let sign = |claims: &Claims| claims.sign(&key).expect("it signs");
    let claims = Claims::new(user, session, lasts, now);
    assert_eq!(plane.status_as(&sign(&claims)).await, 200, "the claims are right but for what is changed");
    let audience = sign(&Claims { aud: "weir-sensor".to_owned(), ..claims.clone() });
    let issuer = sign(&Claims { iss: "another".to_owned(), ..claims.clone() });
    let subject = sign(&Claims { sub: "77".to_owned(), ..claims.clone() });
    let nowhere = sign(&Claims { sid: Uuid::from_u128(7), ..claims.clone() });
    let late = sign(&Claims::new(user, session, lasts, now - Duration::from_secs(301)));
    let (unsigned, _) = live.access.rsplit_once('.').expect("three parts");
    let void = [
        ("an empty token", "Bearer ".to_owned()),
        ("a revoked token", format!("Bearer {revoked}")),
        ("an expired token", format!("Bearer {expired}")),
        ("a session that ended", format!("Bearer {}", ended.access)),
        ("an expired access token", format!("Bearer {late}")),
        ("another audience", format!("Bearer {audience}")),
        ("another issuer", format!("Bearer {issuer}")),
        ("another user's session", format!("Bearer {subject}")),
        ("a session that never was", format!("Bearer {nowhere}")),
        ("an unsigned token", format!("Bearer {unsigned}.")),
        ("a refresh token", format!("Bearer {}", live.refresh)),
        ("a longer admin token", format!("Bearer {ADMIN_TOKEN}x")),
        ("another scheme", format!("Token {ADMIN_TOKEN}")),
        ("an unknown API token", format!("Bearer weir_a_{}", "A".repeat(43))),
        ("an unknown sensor's token", format!("Bearer weir_s_{}", "A".repeat(43))),
    ];
    for (route, row) in TABLE {
        for (what, credential) in &void {
            let expected = if *row == OPEN { Pass } else { NO };
            let (found, problem) = door(&plane, route, Some(credential)).await;
            assert_eq!(found, expected, "{route} for {what}: {problem}");
        }
    }
    let refused = plane.call(Method::GET, "/api/v1/flows", &late, &json!(null)).await.1;
    assert_eq!(refused["type"], "urn:weir:problem:token-expired");
}
