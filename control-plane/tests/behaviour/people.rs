//! People and machines for the tests of identity.

use std::time::{Duration, SystemTime};

use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use uuid::Uuid;
use weir_control_plane::auth::{Claims, EraseToken, Role};
use weir_control_plane::store::audit::Author;
use weir_control_plane::store::erasure::{self, Confirmation, Kind, Subject};
use weir_control_plane::store::{Class, Reference, users};

use crate::support::{ADMIN_TOKEN, Plane, eventually};

pub const PASSWORD: &str = "correct horse battery";

/// The answer to a login.
#[derive(Clone, Debug)]
pub struct Tokens {
    pub access: String,
    pub refresh: String,
    pub session: String,
}

impl Tokens {
    pub fn of(body: &Value) -> Self {
        let text = |key: &str| body[key].as_str().unwrap_or_else(|| panic!("{key} in {body}")).to_owned();
        Self { access: text("access_token"), refresh: text("refresh_token"), session: text("session_id") }
    }
}

impl Plane<'_> {
    /// Adds a user whose password is [`PASSWORD`].
    pub async fn user(&self, name: &str, role: Role) -> i32 {
        let hash = self.state().auth.passwords.hash(PASSWORD.to_owned().into()).await.expect("hashed");
        let user = users::add(self.pool(), &Author::command_line(), name, role, &hash).await;
        user.expect("the user is added").user_id
    }

    /// A user with a session, made without the work of a login; gives the access token and the user's id.
    pub async fn quick_session(&self, password_hash: &str, number: u64, lasts: Duration) -> (String, i32) {
        let author = Author::command_line();
        let name = format!("user-{number}");
        let user = users::add(self.pool(), &author, &name, Role::Viewer, password_hash).await;
        let user_id = user.expect("the user is added").user_id;
        let session_id = Uuid::new_v4();
        let lease = self.pool().lease(Class::Admin, "test").await.expect("a connection");
        let insert = format!(
            "INSERT INTO session (session_id, user_id, expires_at, address, user_agent)
             VALUES ('{session_id}', {user_id}, now() + interval '1 day', '127.0.0.1', 'test')"
        );
        lease.client().batch_execute(&insert).await.expect("a session");
        lease.finish(Ok(())).await.expect("the connection is given back");
        let key = self.state().auth.keys.signing().expect("a key");
        let claims = Claims::new(user_id, session_id, lasts, SystemTime::now());
        (claims.sign(&key).expect("it signs"), user_id)
    }

    pub async fn try_log_in(&self, name: &str, password: &str) -> Response {
        let request = self.http.post(self.url("/api/v1/auth/login"));
        request.json(&json!({"name": name, "password": password})).send().await.expect("an answer")
    }

    pub async fn log_in(&self, name: &str) -> Tokens {
        let response = self.try_log_in(name, PASSWORD).await;
        let status = response.status();
        let body: Value = response.json().await.expect("JSON");
        assert_eq!(status, 200, "{body}");
        Tokens::of(&body)
    }

    pub async fn refresh(&self, token: &str) -> (u16, Value) {
        let request = self.http.post(self.url("/api/v1/auth/refresh"));
        read(request.json(&json!({"refresh_token": token})).send().await.expect("an answer")).await
    }

    /// Status and body of a request with a JSON body.
    pub async fn call(&self, method: Method, path: &str, token: &str, body: &Value) -> (u16, Value) {
        let request: RequestBuilder = self.request(method, path, token);
        let request = if body.is_null() { request } else { request.json(body) };
        read(request.send().await.expect("an answer")).await
    }

    /// Both steps of an erasure; gives the second answer, or the first one if it refuses.
    pub async fn erase(&self, path: &str, token: &str) -> (u16, Value) {
        let (status, plan) = self.call(Method::DELETE, path, token, &Value::Null).await;
        let Some(confirmation) = plan["confirmation"].as_str() else { return (status, plan) };
        assert_eq!(status, 200, "{plan}");
        let and = if path.contains('?') { '&' } else { '?' };
        self.call(Method::DELETE, &format!("{path}{and}confirmation={confirmation}"), token, &Value::Null)
            .await
    }

    /// Both steps without the server, so that nothing is erased before a round of jobs.
    pub async fn begin_erasure(&self, kind: Kind, name: &str) -> i32 {
        let name = || Reference::Name(name.to_owned());
        let subject = match kind {
            Kind::User => Subject::User(name()),
            Kind::Sensor => Subject::Sensor(name()),
            Kind::Device => panic!("devices are not erased by name"),
        };
        let (author, token) = (Author::command_line(), EraseToken::generate().expect("a token"));
        erasure::plan(self.pool(), &author, &subject, &token.sha256()).await.expect("it is planned");
        let confirmation = Confirmation { token_sha256: &token.sha256() };
        let begun = erasure::begin(self.pool(), &author, &subject, confirmation).await;
        begun.expect("it is begun").erasure.erasure_id
    }

    /// Waits for the end of every erasure.
    pub async fn all_erased(&self) {
        eventually("nothing is left to erase", || async { self.count("erasure WHERE done_at IS NULL") == 0 })
            .await;
    }

    /// What the receipt says went from a place.
    pub fn erased(&self, erasure_id: i64, place: &str) -> i64 {
        let sql =
            format!("SELECT erased FROM erasure_place WHERE erasure_id = {erasure_id} AND place = '{place}'");
        self.sql(&sql).parse().expect("a count")
    }

    /// Makes an API token as the admin; gives its secret and its id.
    pub async fn machine(&self, token: &str, role: &str, scopes: &[&str]) -> (String, i64) {
        let body = json!({"name": "robot", "role": role, "scopes": scopes});
        let (status, made) = self.call(Method::POST, "/api/v1/tokens", token, &body).await;
        assert_eq!(status, 200, "{made}");
        (made["secret"].as_str().expect("a secret").to_owned(), made["id"].as_i64().expect("an id"))
    }

    /// The status of a question that any viewer may ask.
    pub async fn status_as(&self, token: &str) -> u16 {
        self.request(Method::GET, "/api/v1/flows", token).send().await.expect("an answer").status().as_u16()
    }

    /// Actions of the audit log, oldest first.
    pub async fn audited(&self) -> Vec<String> {
        let (status, page) =
            self.call(Method::GET, "/api/v1/audit?limit=1000", ADMIN_TOKEN, &Value::Null).await;
        assert_eq!(status, 200, "{page}");
        let items = page["items"].as_array().expect("items");
        items.iter().rev().map(|item| item["action"].as_str().expect("an action").to_owned()).collect()
    }
}

/// Status and JSON of an answer.
pub async fn read(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    (status, response.json().await.expect("JSON"))
}
