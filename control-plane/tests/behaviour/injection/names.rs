//! Names of what people make: hostile ones make nothing.

use reqwest::Method;
use serde_json::json;

use super::HOSTILE;
use crate::support::{ADMIN_TOKEN, Plane};

#[tokio::test(flavor = "multi_thread")]
async fn a2_names_that_are_none_make_nothing() {
    let plane = Plane::start().await;
    for name in HOSTILE {
        for (path, body) in [
            ("/api/v1/users", json!({"name": name, "role": "viewer", "password": "correct horse battery"})),
            ("/api/v1/tokens", json!({"name": name, "role": "viewer", "scopes": ["flows"]})),
        ] {
            let (status, problem) = plane.call(Method::POST, path, ADMIN_TOKEN, &body).await;
            assert_eq!((status, problem["errors"][0]["field"].as_str()), (400, Some("name")), "{name:?}");
        }
        let body = json!({"name": name, "password": name});
        let login = plane.http.post(plane.url("/api/v1/auth/login")).json(&body).send().await;
        let status = login.expect("an answer").status().as_u16();
        assert!(matches!(status, 400 | 401 | 429), "{name:?}: {status}");
    }
    assert_eq!((plane.count("account"), plane.count("api_token")), (0, 0));
}
