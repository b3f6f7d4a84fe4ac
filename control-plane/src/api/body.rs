//! JSON bodies: bounded, typed, and every fault named by its field, without repeating a secret.

use axum::body::to_bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use serde::de::DeserializeOwned;

use super::error::Category;
use super::{ApiError, AppState};

/// The largest that any of our bodies needs is a tenth of this.
const MAX_BODY: usize = 16 << 10;
/// Longest message of the parser that is passed on.
const MAX_MESSAGE: usize = 160;

/// A JSON body of this type.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<AppState> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &AppState) -> Result<Self, ApiError> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            return Err(ApiError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Category::Validation,
                "unsupported-media-type",
                "The body has another type",
                "send Content-Type: application/json",
            ));
        }
        let bytes = to_bytes(request.into_body(), MAX_BODY).await.map_err(|_| {
            let mut error = ApiError::from_status(StatusCode::PAYLOAD_TOO_LARGE);
            error.detail = format!("a body here has at most {MAX_BODY} bytes, and arrives whole");
            error
        })?;
        parse(&bytes).map(Self)
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // serde reads a struct from an array of its fields, too; the document promises objects.
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if first.is_some_and(|first| *first != b'{') {
        return Err(ApiError::parameter("body", "is not a JSON object"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        let inner = error.inner();
        // The parser quotes what it found, and what it found may be a password.
        let secret = ["password", "token"].iter().any(|word| field.contains(word));
        let message = if secret && !inner.to_string().starts_with("unknown field") {
            "is not a text".to_owned()
        } else {
            inner.to_string().chars().filter(|char| !char.is_control()).take(MAX_MESSAGE).collect()
        };
        ApiError::parameter(if field == "." { "body".to_owned() } else { field }, message)
    })?;
    json.end().map_err(|_| ApiError::parameter("body", "there is more after the JSON value"))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        name: String,
        #[allow(dead_code)]
        password: Option<String>,
    }

    /// A2: a fault names its field; a password is not repeated.
    #[test]
    fn a2_faults_name_their_field_and_keep_secrets() {
        let fault = |text: &str| parse::<Sample>(text.as_bytes()).expect_err(text).errors[0].clone();
        assert_eq!(parse::<Sample>(br#"{"name":"a"}"#).expect("valid").name, "a");
        assert_eq!(fault(r#"{"name":1}"#).field, "name");
        assert_eq!(fault(r#"{"name":"a","nane":1}"#).field, "nane");
        for no_object in [r#"["a",null]"#, "[1,2", "null", "7", r#""a""#] {
            assert_eq!(fault(no_object).message, "is not a JSON object", "{no_object}");
        }
        assert_eq!(fault("").field, "body");
        assert_eq!(fault(r#"{"name":"a"} x"#).field, "body");
        let secret = fault(r#"{"name":"a","password":123454321}"#);
        assert_eq!((secret.field.as_str(), secret.message.as_str()), ("password", "is not a text"));
    }
}
