//! A small blocking HTTP client for tests, benches and the demo: plain HTTP to a server of our own.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::netns::enter;
use crate::{Error, Result};

/// Longer than any answer of a healthy server on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A server and the credential to speak to it with.
#[derive(Clone, Debug)]
pub struct Client {
    agent: ureq::Agent,
    base: String,
    bearer: Option<String>,
    namespace: Option<PathBuf>,
}

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Client {
    /// `base` is `http://HOST:PORT`, without a slash at its end.
    #[must_use]
    pub fn new(base: &str, bearer: Option<&str>) -> Self {
        let config =
            ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(TIMEOUT)).build();
        Self {
            agent: config.into(),
            base: base.to_owned(),
            bearer: bearer.map(str::to_owned),
            namespace: None,
        }
    }

    /// Speaks from inside the network namespace at this path.
    #[must_use]
    pub fn inside(mut self, namespace: Option<PathBuf>) -> Self {
        self.namespace = namespace;
        self
    }

    /// GET, whatever the status of the answer.
    pub fn get(&self, path: &str) -> Result<Answer> {
        self.here(|| {
            let url = format!("{}{path}", self.base);
            answer("GET", &url, self.authorize(self.agent.get(&url)).call())
        })
    }

    /// POST with these headers, whatever the status of the answer.
    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer> {
        self.here(|| {
            let url = format!("{}{path}", self.base);
            let mut request = self.authorize(self.agent.post(&url));
            for &(name, value) in headers {
                request = request.header(name, value);
            }
            answer("POST", &url, request.send(body))
        })
    }

    /// PUT of JSON, whatever the status of the answer.
    pub fn put(&self, path: &str, body: &Value) -> Result<Answer> {
        self.here(|| {
            let url = format!("{}{path}", self.base);
            let request = self.authorize(self.agent.put(&url)).header("content-type", "application/json");
            answer("PUT", &url, request.send(body.to_string().as_bytes()))
        })
    }

    fn authorize<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.bearer {
            Some(bearer) => request.header("authorization", format!("Bearer {bearer}")),
            None => request,
        }
    }

    /// Inside the client's namespace.
    fn here<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        match &self.namespace {
            Some(namespace) => enter(namespace, f)?,
            None => f(),
        }
    }

    /// GET that must be answered with 200 and JSON.
    pub fn json(&self, path: &str) -> Result<Value> {
        let answer = self.get(path)?;
        let what = || format!("GET {}{path}", self.base);
        if answer.status != 200 {
            return Err(Error::malformed(what(), format!("status {}: {}", answer.status, answer.body)));
        }
        serde_json::from_str(&answer.body).map_err(|error| Error::malformed(what(), error.to_string()))
    }

    /// Whether GET of this path is answered with 200.
    #[must_use]
    pub fn is_ok(&self, path: &str) -> bool {
        self.get(path).is_ok_and(|answer| answer.status == 200)
    }
}

fn answer(
    method: &str,
    url: &str,
    response: std::result::Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<Answer> {
    let failed = |error: ureq::Error| Error::malformed(format!("{method} {url}"), error.to_string());
    let mut response = response.map_err(failed)?;
    let body = response.body_mut().read_to_string().map_err(failed)?;
    Ok(Answer { status: response.status().as_u16(), body })
}
