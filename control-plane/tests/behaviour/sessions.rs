//! U1, U5, U6: logging in, going on, logging out; what ends a session ends it on every instance.

use reqwest::Method;
use serde_json::{Value, json};
use weir_control_plane::auth::Role;
use weir_control_plane::server::{self, Server};

use crate::people::{PASSWORD, Tokens, read};
use crate::support::{ADMIN_TOKEN, Plane, eventually};

/// Another instance on the same database.
async fn second(plane: &Plane<'_>) -> Server {
    server::start(&plane.config).await.expect("a second instance starts")
}

async fn status_at(plane: &Plane<'_>, other: &Server, token: &str) -> u16 {
    let url = format!("http://{}/api/v1/flows", other.address);
    plane.http.get(url).bearer_auth(token).send().await.expect("an answer").status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn u1_a_login_gives_tokens_that_work_and_nothing_secret_is_stored() {
    let plane = Plane::start().await;
    plane.user("ann", Role::Operator).await;
    let response = plane.try_log_in("Ann", PASSWORD).await;
    assert_eq!(response.headers()["cache-control"], "no-store");
    let (status, body) = read(response).await;
    assert_eq!((status, body["role"].as_str(), body["name"].as_str()), (200, Some("operator"), Some("ann")));
    assert_eq!(body["expires_in_s"], 300);
    let tokens = Tokens::of(&body);
    let (_, me) = plane.call(Method::GET, "/api/v1/auth/me", &tokens.access, &Value::Null).await;
    assert_eq!((me["name"].as_str(), me["session_id"].as_str()), (Some("ann"), Some(&*tokens.session)));

    let (status, next) = plane.refresh(&tokens.refresh).await;
    assert_eq!(status, 200, "{next}");
    let next = Tokens::of(&next);
    assert_eq!(next.session, tokens.session, "the same session goes on");
    assert_ne!(next.refresh, tokens.refresh);
    assert_eq!(plane.status_as(&next.access).await, 200);
    assert_eq!(plane.status_as(&tokens.access).await, 200, "until it ends by itself");

    let tables = plane.sql(
        "SELECT string_agg(t::text, ' ') FROM (SELECT account::text AS t FROM account UNION ALL SELECT session::text
         FROM session UNION ALL SELECT refresh_token::text FROM refresh_token UNION ALL SELECT audit::text FROM audit) AS t",
    );
    for secret in [PASSWORD, &tokens.refresh, &next.refresh, &tokens.access] {
        assert!(!tables.contains(secret), "{secret} in {tables}");
    }
    assert!(tables.contains("$argon2id$v=19$m=19456,t=2,p=1$"), "{tables}");
}

#[tokio::test(flavor = "multi_thread")]
async fn u1_an_unknown_name_a_wrong_password_and_a_disabled_user_get_one_answer() {
    let plane = Plane::start().await;
    plane.user("ann", Role::Viewer).await;
    plane.user("off", Role::Viewer).await;
    let body = json!({"disabled": true});
    assert_eq!(plane.call(Method::PATCH, "/api/v1/users/off", ADMIN_TOKEN, &body).await.0, 200);
    let mut answers = Vec::new();
    for (name, password) in [
        ("ann", "not the password"),
        ("nobody", PASSWORD),
        ("off", PASSWORD),
        ("no name at all!", PASSWORD),
        ("ann'--", PASSWORD),
        ("", ""),
    ] {
        let (status, mut problem) = read(plane.try_log_in(name, password).await).await;
        problem.as_object_mut().expect("a problem").remove("request_id");
        answers.push((status, problem));
    }
    assert_eq!(answers[0].0, 401);
    assert_eq!(answers[0].1["type"], "urn:weir:problem:wrong-credentials");
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn u1_a_refresh_token_that_comes_twice_ends_the_whole_family() {
    let plane = Plane::start().await;
    plane.user("ann", Role::Viewer).await;
    let (first, bystander) = (plane.log_in("ann").await, plane.log_in("ann").await);
    let second = Tokens::of(&plane.refresh(&first.refresh).await.1);
    let (status, problem) = plane.refresh(&first.refresh).await;
    assert_eq!((status, problem["type"].as_str()), (401, Some("urn:weir:problem:invalid-refresh-token")));
    assert_eq!(plane.refresh(&second.refresh).await.0, 401, "the thief's or the owner's, it is over");
    for token in [&first.access, &second.access] {
        assert_eq!(plane.status_as(token).await, 401);
    }
    assert_eq!(plane.status_as(&bystander.access).await, 200, "another login is another family");
    assert_eq!(plane.state().metrics.refresh_tokens_reused.get(), 1);
    assert_eq!(plane.audited().await.last().map(String::as_str), Some("session.refresh_token_reused"));
}

#[tokio::test(flavor = "multi_thread")]
async fn u1_of_many_refreshes_at_once_one_wins_and_the_family_ends() {
    let plane = Plane::start().await;
    plane.user("ann", Role::Viewer).await;
    let tokens = plane.log_in("ann").await;
    let attempts = (0..8).map(|_| plane.refresh(&tokens.refresh));
    let answers = futures_util::future::join_all(attempts).await;
    assert_eq!(answers.iter().filter(|(status, _)| *status == 200).count(), 1, "{answers:?}");
    let (_, won) = answers.into_iter().find(|(status, _)| *status == 200).expect("one won");
    assert_eq!(plane.refresh(&Tokens::of(&won).refresh).await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn u1_a_refresh_token_or_a_session_whose_time_is_over_is_refused() {
    let plane = Plane::start().await;
    plane.user("ann", Role::Viewer).await;
    let (idle, long) = (plane.log_in("ann").await, plane.log_in("ann").await);
    let session = &idle.session;
    plane.sql(&format!("UPDATE refresh_token SET expires_at = now() WHERE session_id = '{session}'"));
    assert_eq!(plane.refresh(&idle.refresh).await.0, 401);
    plane.sql(&format!("UPDATE session SET expires_at = now() WHERE session_id = '{}'", long.session));
    assert_eq!(plane.refresh(&long.refresh).await.0, 401);
    assert_eq!(plane.status_as(&long.access).await, 401);
    for nonsense in ["", "weir_r_", "weir_r_short", &idle.access, ADMIN_TOKEN] {
        assert_eq!(plane.refresh(nonsense).await.0, 401, "{nonsense}");
    }
}

/// A way to end a session: the method, the path, and whether its owner does it.
type End = fn(&Tokens) -> (Method, String, bool);

#[tokio::test(flavor = "multi_thread")]
async fn u1_what_ends_a_session_ends_it_on_the_other_instance_too() {
    let mut plane = Plane::start().await;
    let other = second(&plane).await;
    plane.user("ann", Role::Viewer).await;
    let ends: [End; 4] = [
        |_| (Method::POST, "/api/v1/auth/logout".to_owned(), true),
        |tokens| (Method::DELETE, format!("/api/v1/sessions/{}", tokens.session), true),
        |tokens| (Method::DELETE, format!("/api/v1/sessions/{}", tokens.session), false),
        |_| (Method::DELETE, "/api/v1/users/ann/sessions".to_owned(), false),
    ];
    for end in ends {
        let tokens = plane.log_in("ann").await;
        assert_eq!(status_at(&plane, &other, &tokens.access).await, 200);
        let (method, path, herself) = end(&tokens);
        let by = if herself { tokens.access.as_str() } else { ADMIN_TOKEN };
        let (status, answer) = plane.call(method, &path, by, &Value::Null).await;
        assert_eq!((status, answer["sessions_ended"].as_u64()), (200, Some(1)), "{path}: {answer}");
        assert_eq!(plane.status_as(&tokens.access).await, 401, "at once where it was ended: {path}");
        eventually("the other instance knows", || async {
            status_at(&plane, &other, &tokens.access).await == 401
        })
        .await;
        assert_eq!(plane.refresh(&tokens.refresh).await.0, 401, "{path}");
    }
    // U5: and so does the end of the user.
    let tokens = plane.log_in("ann").await;
    assert_eq!(status_at(&plane, &other, &tokens.access).await, 200);
    assert_eq!(plane.erase("/api/v1/users/ann", ADMIN_TOKEN).await.0, 202);
    assert_eq!(plane.status_as(&tokens.access).await, 401);
    eventually("the other instance knows", || async {
        status_at(&plane, &other, &tokens.access).await == 401
    })
    .await;
    assert_eq!(plane.refresh(&tokens.refresh).await.0, 401);
    other.stop().await;
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn u2_a_role_and_a_disabling_hold_for_sessions_that_are_open() {
    let plane = Plane::start().await;
    plane.user("ann", Role::Viewer).await;
    let tokens = plane.log_in("ann").await;
    let users = async || plane.call(Method::GET, "/api/v1/users", &tokens.access, &Value::Null).await.0;
    assert_eq!(users().await, 403);
    let change = async |body: Value| plane.call(Method::PATCH, "/api/v1/users/ann", ADMIN_TOKEN, &body).await;
    plane.user("ada", Role::Admin).await;
    change(json!({"role": "admin"})).await;
    assert_eq!(users().await, 200);
    change(json!({"role": "viewer"})).await;
    assert_eq!(users().await, 403);
    let (status, user) = change(json!({"disabled": true})).await;
    assert_eq!((status, user["state"].as_str()), (200, Some("disabled")));
    assert_eq!(users().await, 401);
    change(json!({"disabled": false})).await;
    assert_eq!(users().await, 401, "the session does not come back");
    assert_eq!(plane.try_log_in("ann", PASSWORD).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn u1_a_new_password_ends_the_other_sessions() {
    let plane = Plane::start().await;
    plane.user("ann", Role::Viewer).await;
    let (here, there) = (plane.log_in("ann").await, plane.log_in("ann").await);
    let change = async |current: &str, new: &str| {
        let body = json!({"current_password": current, "new_password": new});
        plane.call(Method::POST, "/api/v1/auth/password", &here.access, &body).await
    };
    let (status, problem) = change("wrong horse battery", "staple under the moon").await;
    assert_eq!((status, problem["errors"][0]["field"].as_str()), (400, Some("current_password")));
    for weak in ["short", "aaaaaaaaaaaaaaaa", &"long".repeat(100)] {
        let (status, problem) = change(PASSWORD, weak).await;
        assert_eq!((status, problem["errors"][0]["field"].as_str()), (400, Some("new_password")), "{weak}");
        assert!(!problem.to_string().contains(weak));
    }
    let (status, body) = change(PASSWORD, "staple under the moon").await;
    assert_eq!((status, body["sessions_ended"].as_u64()), (200, Some(1)), "{body}");
    assert_eq!(plane.status_as(&here.access).await, 200);
    assert_eq!(plane.status_as(&there.access).await, 401);
    assert_eq!(plane.try_log_in("ann", PASSWORD).await.status(), 401);
    assert_eq!(plane.try_log_in("ann", "staple under the moon").await.status(), 200);
    let body = json!({"password": "set by the admin"});
    assert_eq!(plane.call(Method::PATCH, "/api/v1/users/ann", ADMIN_TOKEN, &body).await.0, 200);
    assert_eq!(plane.status_as(&here.access).await, 401, "an admin's change ends all");
}

#[tokio::test(flavor = "multi_thread")]
async fn u1_people_see_and_end_their_own_sessions_and_admins_everybodys() {
    let plane = Plane::start().await;
    plane.user("ann", Role::Viewer).await;
    plane.user("bob", Role::Operator).await;
    let (ann, other, bob) = (plane.log_in("ann").await, plane.log_in("ann").await, plane.log_in("bob").await);
    let list = async |token: &str, query: &str| {
        let (status, page) =
            plane.call(Method::GET, &format!("/api/v1/sessions{query}"), token, &Value::Null).await;
        let names = page["items"].as_array().cloned().unwrap_or_default();
        let names: Vec<String> =
            names.iter().map(|item| item["user"].as_str().expect("a name").to_owned()).collect();
        (status, names, page)
    };
    let (status, names, page) = list(&ann.access, "").await;
    assert_eq!((status, names.len()), (200, 2));
    let current: Vec<&Value> =
        page["items"].as_array().expect("items").iter().filter(|item| item["current"] == true).collect();
    assert_eq!(current.len(), 1);
    assert_eq!(current[0]["id"], ann.session);
    assert_eq!(current[0]["address"], "127.0.0.1");
    assert_eq!(list(&ann.access, "?user=ann").await.1.len(), 2);
    assert_eq!(list(&ann.access, "?user=bob").await.0, 400);
    assert_eq!(list(ADMIN_TOKEN, "").await.1.len(), 3);
    assert_eq!(list(ADMIN_TOKEN, "?user=bob").await.1, ["bob"]);
    assert_eq!(list(ADMIN_TOKEN, "?user=nobody").await.0, 404);

    let mut pages = Vec::new();
    let mut query = "?limit=2".to_owned();
    loop {
        let (_, _, page) = list(ADMIN_TOKEN, &query).await;
        pages.extend(page["items"].as_array().expect("items").iter().map(|item| item["id"].to_string()));
        let Some(token) = page["continuation"].as_str() else { break };
        assert_eq!(list(ADMIN_TOKEN, &format!("?user=bob&continuation={token}")).await.0, 400);
        query = format!("?limit=2&continuation={token}");
    }
    pages.dedup();
    assert_eq!(pages.len(), 3);

    let end = async |token: &str, session: &str| {
        plane.call(Method::DELETE, &format!("/api/v1/sessions/{session}"), token, &Value::Null).await.0
    };
    assert_eq!(end(&bob.access, &ann.session).await, 404, "an operator does not end another's");
    assert_eq!(plane.status_as(&ann.access).await, 200);
    assert_eq!(end(&ann.access, "nonsense").await, 400);
    let (_, body) = plane.call(Method::DELETE, "/api/v1/sessions", &ann.access, &Value::Null).await;
    assert_eq!(body["sessions_ended"], 1);
    assert_eq!((plane.status_as(&ann.access).await, plane.status_as(&other.access).await), (200, 401));
}

/// U6: seen, without a write for each request.
#[tokio::test(flavor = "multi_thread")]
async fn u6_last_activity_is_written_for_many_requests_at_once() {
    let plane = Plane::start().await;
    plane.user("ann", Role::Viewer).await;
    let tokens = plane.log_in("ann").await;
    let (robot, _) = plane.machine(ADMIN_TOKEN, "viewer", &["flows"]).await;
    assert_eq!(plane.sql("SELECT count(*) FROM account WHERE last_active_at IS NOT NULL"), "0");
    for _ in 0..20 {
        assert_eq!(plane.status_as(&tokens.access).await, 200);
        assert_eq!(plane.status_as(&robot).await, 200);
    }
    plane.state().auth.activity.write(plane.pool()).await.expect("written");
    let seen = plane.sql(
        "SELECT (SELECT count(*) FROM account WHERE last_active_at > created_at),
                (SELECT count(*) FROM session WHERE last_active_at > created_at),
                (SELECT count(*) FROM api_token WHERE last_used_at > created_at)",
    );
    assert_eq!(seen, "1|1|1");
}

/// U7: keys rotate; the old one verifies until its tokens have ended; a leaked one is gone at once.
#[tokio::test(flavor = "multi_thread")]
async fn u1_signing_keys_rotate_without_ending_a_token() {
    let mut plane = Plane::start().await;
    plane.user("ann", Role::Viewer).await;
    let other = second(&plane).await;
    let before = plane.log_in("ann").await;
    let keys = &plane.state().auth.keys;
    let kids = async || {
        let url = plane.url("/.well-known/jwks.json");
        let (_, set) = read(plane.http.get(url).send().await.expect("an answer")).await;
        let keys = set["keys"].as_array().expect("keys").clone();
        assert!(keys.iter().all(|key| key["crv"] == "Ed25519" && key.get("d").is_none()));
        keys.len()
    };
    assert_eq!(kids().await, 1);
    keys.refresh(plane.pool(), true).await.expect("a new key");
    assert_eq!(kids().await, 2);
    let old = keys.signing().expect("a key").kid.clone();
    plane.sql(
        "UPDATE signing_key SET signs_from = CASE WHEN signs_from > now() THEN now() - interval '1 second'
                                                  ELSE now() - interval '1 hour' END",
    );
    keys.refresh(plane.pool(), false).await.expect("read");
    assert_ne!(keys.signing().expect("a key").kid, old, "its time has come");
    let after = plane.log_in("ann").await;
    eventually("an instance that has not read the new key asks for it", || async {
        status_at(&plane, &other, &after.access).await == 200
    })
    .await;
    assert_eq!(plane.status_as(&before.access).await, 200);

    plane.sql("UPDATE signing_key SET signs_from = signs_from - interval '1 hour'");
    keys.refresh(plane.pool(), false).await.expect("read");
    assert_eq!(kids().await, 1, "the tokens of the old key have ended");
    assert_eq!(plane.status_as(&before.access).await, 401);
    assert_eq!(plane.status_as(&after.access).await, 200);

    weir_control_plane::store::signing::forget_all(plane.pool()).await.expect("deleted");
    keys.refresh(plane.pool(), false).await.expect("read");
    assert_eq!(plane.status_as(&after.access).await, 401);
    let (status, next) = plane.refresh(&after.refresh).await;
    assert_eq!(status, 200, "the session goes on");
    assert_eq!(plane.status_as(&Tokens::of(&next).access).await, 200);
    other.stop().await;
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_has_fifty_sessions_at_most_and_old_ones_are_swept() {
    let plane = Plane::start().await;
    let id = plane.user("ann", Role::Viewer).await;
    plane.sql(&format!(
        "INSERT INTO session (session_id, user_id, expires_at, last_active_at, address, user_agent)
         SELECT gen_random_uuid(), {id}, now() + interval '1 day', now() - make_interval(mins => n), '', ''
         FROM generate_series(1, 60) AS n"
    ));
    let tokens = plane.log_in("ann").await;
    let alive = "SELECT count(*) FROM session WHERE ended_at IS NULL";
    assert_eq!(plane.sql(alive), "50");
    assert_eq!(plane.status_as(&tokens.access).await, 200);
    plane.sql(
        "UPDATE session SET expires_at = now() - interval '2 days', last_active_at = now() WHERE address = '';
         INSERT INTO login_throttle VALUES (2, 7, 3, now() - interval '2 days', now())",
    );
    weir_control_plane::store::sessions::sweep(plane.pool()).await.expect("swept");
    assert_eq!((plane.count("session"), plane.count("login_throttle")), (1, 1));
    assert_eq!(plane.refresh(&tokens.refresh).await.0, 200);
}
