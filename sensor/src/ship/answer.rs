//! What an answer of the control plane, or none, means for a batch.

use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

/// A longer Retry-After is taken for a mistake: nothing should stop a sensor for longer.
const MAX_RETRY_AFTER: Duration = Duration::from_mins(10);

/// What came of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The batch is stored, now or by an earlier attempt.
    Delivered { duplicate: bool },
    /// The control plane will never take this batch.
    Refused { status: u16, detail: String },
    /// Another attempt may succeed; not before `after`, if the control plane said so.
    Again { trouble: Trouble, after: Option<Duration>, detail: String },
}

/// Why an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    Connection,
    Timeout,
    /// 5xx.
    Server,
    /// 408, 425, 429.
    Throttled,
    /// 401, 403, 407: the credential, not the batch.
    Credential,
    /// 401 that says so, or 410: this sensor was revoked or deleted. Only a new enrolment ends it.
    Revoked,
    /// 3xx, 404, 405: something else answers at this address.
    Address,
}

impl Trouble {
    /// The label of the metric.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Timeout => "timeout",
            Self::Server => "server",
            Self::Throttled => "throttled",
            Self::Credential => "credential",
            Self::Revoked => "revoked",
            Self::Address => "address",
        }
    }

    /// Whether only an operator can end it.
    #[must_use]
    pub fn is_misconfiguration(self) -> bool {
        matches!(self, Self::Credential | Self::Revoked | Self::Address)
    }
}

/// Problem types by which the control plane says that this sensor is no longer one of its own.
const REVOKED: [&str; 2] = ["urn:weir:problem:sensor-revoked", "urn:weir:problem:sensor-gone"];

/// What an answer's body says.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    /// `type` of a problem document.
    pub(super) problem: String,
    pub(super) detail: String,
    /// `status` of an acknowledgement is `duplicate`.
    pub(super) duplicate: bool,
}

impl Answer {
    /// Why the batch was not stored, in a word.
    pub(super) fn failure(&self) -> Option<&'static str> {
        match self {
            Self::Delivered { .. } => None,
            Self::Refused { .. } => Some("refused"),
            Self::Again { trouble, .. } => Some(trouble.label()),
        }
    }

    /// By status, headers and body.
    pub(super) fn new(status: StatusCode, headers: &HeaderMap, said: Said) -> Self {
        let Said { problem, detail, duplicate } = said;
        let again = |trouble| Self::Again { trouble, after: retry_after(headers), detail: detail.clone() };
        match status.as_u16() {
            200..=299 => Self::Delivered { duplicate },
            410 => again(Trouble::Revoked),
            401 | 403 if REVOKED.contains(&problem.as_str()) => again(Trouble::Revoked),
            401 | 403 | 407 => again(Trouble::Credential),
            300..=399 | 404 | 405 => again(Trouble::Address),
            408 | 425 | 429 => again(Trouble::Throttled),
            status @ 400..=499 => Self::Refused { status, detail },
            _ => again(Trouble::Server),
        }
    }
}

/// Retry-After as seconds or as a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => date(text)?.duration_since(SystemTime::now()).unwrap_or_default(),
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// A date as HTTP writes it, which is a date as mail writes it.
pub(super) fn date(text: &str) -> Option<SystemTime> {
    let timestamp = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(timestamp.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    fn answer(status: u16, retry_after: Option<&str>) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from_str(value).expect("a header"));
        }
        Answer::new(StatusCode::from_u16(status).expect("a status"), &headers, Said::default())
    }

    fn after(status: u16, retry_after: Option<&str>) -> Option<Duration> {
        match answer(status, retry_after) {
            Answer::Again { after, .. } => after,
            other => panic!("{status}: {other:?}"),
        }
    }

    #[test]
    fn statuses_are_told_apart() {
        let trouble = |status| match answer(status, None) {
            Answer::Again { trouble, .. } => trouble,
            other => panic!("{status}: {other:?}"),
        };
        assert!(
            [200, 201, 202, 204]
                .iter()
                .all(|&status| answer(status, None) == Answer::Delivered { duplicate: false })
        );
        for status in [400, 406, 409, 411, 413, 415, 422, 431, 451] {
            assert!(matches!(answer(status, None), Answer::Refused { .. }), "{status}");
        }
        assert!([408, 425, 429].iter().all(|&status| trouble(status) == Trouble::Throttled));
        assert!([401, 403, 407].iter().all(|&status| trouble(status) == Trouble::Credential));
        assert_eq!(trouble(410), Trouble::Revoked);
        let said = |problem: &str| Said { problem: problem.to_owned(), ..Said::default() };
        for (problem, expected) in [
            ("urn:weir:problem:sensor-revoked", Trouble::Revoked),
            ("urn:weir:problem:sensor-gone", Trouble::Revoked),
            ("urn:weir:problem:invalid-token", Trouble::Credential),
        ] {
            match Answer::new(StatusCode::UNAUTHORIZED, &HeaderMap::new(), said(problem)) {
                Answer::Again { trouble, .. } => assert_eq!(trouble, expected, "{problem}"),
                other => panic!("{problem}: {other:?}"),
            }
        }
        assert!([301, 302, 307, 404, 405].iter().all(|&status| trouble(status) == Trouble::Address));
        assert!([500, 502, 503, 504, 599].iter().all(|&status| trouble(status) == Trouble::Server));
    }

    #[test]
    fn retry_after_is_honoured_within_reason() {
        assert_eq!(after(503, None), None);
        assert_eq!(after(503, Some("7")), Some(Duration::from_secs(7)));
        assert_eq!(after(429, Some("999999999")), Some(MAX_RETRY_AFTER));
        assert_eq!(after(503, Some("soon")), None);
        assert_eq!(after(503, Some("-5")), None);
        assert_eq!(after(503, Some("Wed, 21 Oct 2015 07:28:00 GMT")), Some(Duration::ZERO));
        assert_eq!(after(503, Some("Wed, 21 Oct 2150 07:28:00 GMT")), Some(MAX_RETRY_AFTER));
    }
}
