//! The API, typed: [`route`] says what can be asked, [`shapes`] what comes back, [`error`] why nothing did.

pub mod error;
pub mod route;
pub mod shapes;
mod trust;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use error::{ClientError, Refused};
use route::Route;
use shapes::{Page, Problem};
use weir_pin::Pinned;

/// Items of a page.
const PAGE: u64 = 1_000;
/// Bytes of an answer that is no file.
const MAX_ANSWER: usize = 64 << 20;
const CONNECT: Duration = Duration::from_secs(10);
/// Longer than the server lets a question take.
const ANSWER: Duration = Duration::from_secs(90);

/// Where and how to ask.
#[derive(Clone, Debug, Default)]
pub struct Server {
    pub url: String,
    pub ca_file: Option<PathBuf>,
    pub fingerprint: Option<String>,
}

/// A client of one server; without a credential until [`Client::authorize`].
pub struct Client {
    base: Url,
    http: reqwest::Client,
    pinned: Option<Arc<Pinned>>,
    token: Option<SecretString>,
}

/// Parameters by their names.
pub type Query = Vec<(&'static str, String)>;

impl Client {
    pub fn new(server: &Server) -> Result<Self, ClientError> {
        let wrong = || ClientError::Url(server.url.clone());
        let mut base = Url::parse(&server.url).map_err(|_| wrong())?;
        let plain = matches!(base.scheme(), "http" | "https")
            && base.has_host()
            && base.username().is_empty()
            && base.password().is_none();
        if !plain {
            return Err(wrong());
        }
        base.set_query(None);
        base.set_fragment(None);
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            // Between two parts of a body: a stream says something every quarter of a minute.
            .read_timeout(ANSWER)
            // A credential follows no redirect.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("weirctl/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &server.ca_file {
            http = trust::authorities(http, path)?;
        }
        let mut pinned = None;
        if let Some(fingerprint) = &server.fingerprint {
            let (client, known) = trust::pinned(http, fingerprint)?;
            (http, pinned) = (client, Some(known));
        }
        let http = http.build().map_err(|error| ClientError::Usage(error.to_string()))?;
        Ok(Self { base, http, pinned, token: None })
    }

    pub fn authorize(&mut self, token: SecretString) {
        self.token = Some(token);
    }

    /// Asks; `place` is what stands in the path's braces.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        route: Route,
        place: &str,
        query: &Query,
        body: Option<&Value>,
    ) -> Result<T, ClientError> {
        let request = self.request(route, place, query)?.timeout(ANSWER);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        let mut response = self.send(request).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk(&mut response).await? {
            if bytes.len() + chunk.len() > MAX_ANSWER {
                return Err(self.unexpected("the answer has no end"));
            }
            bytes.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&bytes).map_err(|error| self.unexpected(error))
    }

    /// Asks for page after page, and gives each item away as it comes, `limit` at most.
    pub async fn pages<T: DeserializeOwned>(
        &self,
        (route, place): (Route, &str),
        mut query: Query,
        limit: Option<u64>,
        mut take: impl FnMut(T) -> Result<(), ClientError>,
    ) -> Result<Option<i64>, ClientError> {
        let mut left = limit.unwrap_or(u64::MAX);
        loop {
            query.retain(|(name, _)| *name != "limit");
            query.push(("limit", left.min(PAGE).to_string()));
            let page: Page<T> = self.ask(route, place, &query, None).await?;
            for item in page.items {
                if left == 0 {
                    break;
                }
                left -= 1;
                take(item)?;
            }
            let Some(continuation) = page.continuation.filter(|_| page.has_more && left > 0) else {
                return Ok(page.cursor);
            };
            query.retain(|(name, _)| *name != "continuation");
            query.push(("continuation", continuation));
        }
    }

    /// A body that is read as it comes.
    pub async fn open(&self, route: Route, query: &Query) -> Result<Response, ClientError> {
        self.send(self.request(route, "", query)?).await
    }

    /// The next part of a body.
    pub async fn chunk(&self, response: &mut Response) -> Result<Option<Vec<u8>>, ClientError> {
        let chunk = response.chunk().await.map_err(|error| self.unreachable(&error))?;
        Ok(chunk.map(|chunk| chunk.to_vec()))
    }

    fn request(&self, route: Route, place: &str, query: &Query) -> Result<RequestBuilder, ClientError> {
        debug_assert!(query.iter().all(|(name, _)| route.parameters.contains(name)), "{route:?} {query:?}");
        let mut url = self.base.clone();
        let wrong = || ClientError::Url(self.base.to_string());
        {
            let mut segments = url.path_segments_mut().map_err(|()| wrong())?;
            segments.pop_if_empty();
            for segment in route.path.split('/').filter(|segment| !segment.is_empty()) {
                segments.push(if segment.starts_with('{') { place } else { segment });
            }
        }
        let text: String = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(query.iter().map(|(name, value)| (*name, value.as_str())))
            .finish();
        url.set_query(Some(text.as_str()).filter(|text| !text.is_empty()));
        let method = match route.method {
            "post" => Method::POST,
            "put" => Method::PUT,
            "patch" => Method::PATCH,
            "delete" => Method::DELETE,
            _ => Method::GET,
        };
        let request = self.http.request(method, url);
        Ok(match &self.token {
            Some(token) => request.bearer_auth(token.expose_secret()),
            None => request,
        })
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let stranger = ClientError::Stranger { url: self.base.to_string(), status: status.as_u16() };
        let is_problem = response
            .headers()
            .get("content-type")
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/problem+json"));
        if !is_problem || response.content_length().is_none_or(|length| length > 1 << 20) {
            return Err(stranger);
        }
        let problem: Problem = response.json().await.map_err(|_| stranger)?;
        Err(ClientError::Refused(Refused(Box::new(problem))))
    }

    fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        if let Some(shown) = self.pinned.as_ref().and_then(|pinned| pinned.other()) {
            return ClientError::Fingerprint(shown.to_string());
        }
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            text = inner.to_string();
            source = inner.source();
        }
        ClientError::Unreachable { url: self.base.to_string(), error: text }
    }

    fn unexpected(&self, error: impl std::fmt::Display) -> ClientError {
        ClientError::Unexpected { url: self.base.to_string(), error: error.to_string() }
    }
}
