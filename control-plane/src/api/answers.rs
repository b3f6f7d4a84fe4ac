//! Answers that were worked out, kept until what they are made of changes.
//!
//! For questions whose window is given whole: its [`version`] is asked for first, which is cheap. The `ETag`
//! is made of the question and the version, so a caller who has the answer learns it by a 304 without
//! anything being added up; a kept answer of the same version is given as it was. Every caller whom a route
//! admits sees the same flows, so the route stands for what the caller may see. Each instance keeps its own.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use lru::LruCache;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use utoipa::IntoParams;

use super::{ApiError, AppState};
use crate::expression::Comparison;
use crate::store::filter::{Filter, Held};
use crate::store::version::version;

/// Bounds the keys, which bodies do not count.
const MAX_ANSWERS: NonZeroUsize = NonZeroUsize::new(10_000).expect("it is not zero");
/// An answer may take this part of the whole.
const SHARE: usize = 8;

/// Question and version.
type Tag = [u8; 32];

/// The kept answers; cheap to clone.
#[derive(Clone)]
pub struct Answers {
    kept: Arc<Mutex<Kept>>,
    capacity: usize,
}

struct Kept {
    bodies: LruCache<Tag, Bytes>,
    bytes: usize,
}

impl Answers {
    /// At most `capacity` bytes of bodies; 0 keeps none.
    pub fn new(capacity: usize) -> Self {
        let kept = Kept { bodies: LruCache::new(MAX_ANSWERS), bytes: 0 };
        Self { kept: Arc::new(Mutex::new(kept)), capacity }
    }

    fn get(&self, tag: &Tag) -> Option<Bytes> {
        // A panic elsewhere leaves whole answers.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).bodies.get(tag).cloned()
    }

    fn keep(&self, tag: Tag, body: Bytes) {
        if body.len() > self.capacity / SHARE {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += body.len();
        if let Some((_, before)) = kept.bodies.push(tag, body) {
            kept.bytes -= before.len();
        }
        while kept.bytes > self.capacity {
            let Some((_, oldest)) = kept.bodies.pop_lru() else { break };
            kept.bytes -= oldest.len();
        }
    }
}

/// What a caller has already.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "for the document: the handler reads the header itself")]
pub struct IfNoneMatch {
    /// `ETag` of an answer that the caller has; 304 without a body if it still holds
    #[param(rename = "if-none-match", example = "\"Zm9yIGV4YW1wbGUgb25seSwgbm90IGEgcmVhbCBvbmU\"")]
    if_none_match: Option<String>,
}

/// A question that may have been asked before.
pub struct Question<'a> {
    pub route: &'static str,
    /// As `Query` gives them: in a fixed order.
    pub given: &'a [(String, String)],
    /// Of all that is in the answer: what it is set against, and steps that reach out of the window.
    pub filter: &'a Filter,
    pub headers: &'a HeaderMap,
}

impl Question<'_> {
    /// Whether the same parameters are the same window another time.
    fn is_whole(&self) -> bool {
        ["from", "to"].iter().all(|name| self.given.iter().any(|(given, _)| given == name))
    }

    fn tag(&self, version: &[u8]) -> Tag {
        let mut hash = Sha256::new();
        let edition = self.filter.naming.edition();
        let parts = self.given.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
        for part in [self.route.as_bytes(), version, &edition].into_iter().chain(parts) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        // What devices had is no part of the flows' version.
        if let Some(expression) = &self.filter.expression {
            expression.expression().each(&mut |test| {
                if let Comparison::Held(held) = &test.comparison {
                    for Held { sensor_id, address, from_ns, until_ns } in held {
                        hash.update(sensor_id.to_be_bytes());
                        hash.update(address.to_string());
                        hash.update([from_ns.to_be_bytes(), until_ns.to_be_bytes()].concat());
                    }
                }
            });
        }
        hash.finalize().into()
    }
}

/// The answer: none if the caller has it, a kept one if there is one, or what `work_out` gives.
pub async fn answer<T: Serialize>(
    state: &AppState,
    question: Question<'_>,
    work_out: impl Future<Output = Result<T, ApiError>>,
) -> Result<Response, ApiError> {
    let version = if question.is_whole() {
        version(&state.pool, question.filter, state.retention.minutes_since(Timestamp::now())).await?
    } else {
        None
    };
    let Some(version) = version else {
        return Ok(axum::Json(work_out.await?).into_response());
    };
    let tag = question.tag(&version);
    let etag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(tag));
    let count = |outcome| state.metrics.kept_answers.with_label_values(&[outcome]).inc();
    let mut response = if has(question.headers, &etag) {
        count("not_modified");
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let body = if let Some(body) = state.answers.get(&tag) {
            count("hit");
            body
        } else {
            count("miss");
            let body = serde_json::to_vec(&work_out.await?).map_err(|error| {
                let mut problem = ApiError::from_status(StatusCode::INTERNAL_SERVER_ERROR);
                problem.internal = Some(error.to_string());
                problem
            })?;
            let body = Bytes::from(body);
            state.answers.keep(tag, body.clone());
            body
        };
        ([(header::CONTENT_TYPE, "application/json")], body).into_response()
    };
    let headers = response.headers_mut();
    if let Ok(etag) = HeaderValue::try_from(etag) {
        headers.insert(header::ETAG, etag);
    }
    // A browser may keep it, and asks each time whether it still holds.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    Ok(response)
}

/// RFC 9110, 13.1.2: a list of tags, weak or not, or `*`.
fn has(headers: &HeaderMap, etag: &str) -> bool {
    let lists = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|given| {
        let given = given.trim();
        given == "*" || given.strip_prefix("W/").unwrap_or(given) == etag
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A8: memory is bounded, and what was used last stays longest.
    #[test]
    fn a8_kept_answers_are_bounded_and_the_oldest_go_first() {
        let answers = Answers::new(1_000);
        let bytes = |answers: &Answers| answers.kept.lock().expect("nobody panicked").bytes;
        answers.keep([0; 32], Bytes::from(vec![0; 126]));
        assert_eq!(bytes(&answers), 0, "an eighth of the room at most");
        for number in 1..=8 {
            answers.keep([number; 32], Bytes::from(vec![number; 125]));
        }
        assert_eq!(bytes(&answers), 1_000);
        assert!(answers.get(&[1; 32]).is_some());
        answers.keep([9; 32], Bytes::from(vec![9; 125]));
        answers.keep([9; 32], Bytes::from(vec![9; 100]));
        assert_eq!(bytes(&answers), 975);
        assert!(answers.get(&[2; 32]).is_none(), "asked for longest ago");
        assert!(answers.get(&[1; 32]).is_some());
        Answers::new(0).keep([1; 32], Bytes::from_static(b"{}"));
    }

    #[test]
    fn tags_are_compared_as_rfc_9110_has_it() {
        let ask = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, value.parse().expect("a value"));
            has(&headers, "\"a\"")
        };
        assert!(ask("\"a\"") && ask("W/\"a\"") && ask("\"b\", \"a\"") && ask("*"));
        assert!(!ask("\"b\"") && !ask("a") && !ask(""));
    }
}
