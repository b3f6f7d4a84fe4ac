//! `/api/openapi.json`, and the same as a page to read, which needs nothing from the internet.

use std::fmt::Write as _;

use axum::extract::State;
use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use serde_json::Value;

use super::params::{NoParams, Query};
use super::{AppState, document};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
    code,pre{font:14px/1.4 ui-monospace,monospace}pre{overflow:auto;padding:.75rem;border:1px solid #8886;\
    border-radius:.4rem}table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;\
    padding:.3rem .6rem .3rem 0;border-bottom:1px solid #8884}section{border-top:2px solid #8888;margin-top:2rem}\
    h2 code{font-size:1.05rem}:root{color-scheme:light dark}";

/// The OpenAPI document
#[utoipa::path(
    get,
    path = "/api/openapi.json",
    tag = "documentation",
    responses(
        (status = 200, body = Object, description = "OpenAPI 3.1", example = json!({
            "openapi": "3.1.0", "info": {"title": "Weir control plane", "version": "0.1.0"}, "paths": {}
        })),
    )
)]
pub async fn openapi_json(State(_): State<AppState>, _: Query<NoParams>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document().to_json().unwrap_or_default()).into_response()
}

/// The documentation as a page
///
/// A browser asks for a name and a password: any name, and as the password the admin token or an API token.
#[utoipa::path(
    get,
    path = "/api/docs",
    tag = "documentation",
    responses(
        (status = 200, body = String, content_type = "text/html", description = "The page"),
    )
)]
pub async fn page(State(_): State<AppState>, _: Query<NoParams>) -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    let document = serde_json::to_value(document()).unwrap_or_default();
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(render(&document))).into_response()
}

/// Every operation with its parameters, body and answers. `write!` to a String cannot fail.
fn render(document: &Value) -> String {
    let text = |value: &Value| escape(value.as_str().unwrap_or_default());
    let mut page = String::with_capacity(64 << 10);
    let (title, version) = (text(&document["info"]["title"]), text(&document["info"]["version"]));
    let _ = write!(
        page,
        "<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>\
         <h1>{title} {version}</h1><p>{}</p><p>The same for programs: <a href=openapi.json>openapi.json</a></p>",
        text(&document["info"]["description"]),
    );
    for (path, operations) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in operations.as_object().into_iter().flatten() {
            let _ = write!(
                page,
                "<section><h2><code>{} {}</code></h2><p><strong>{}</strong></p><p>{}</p><p>Credential: {}</p>",
                escape(&method.to_uppercase()),
                escape(path),
                text(&operation["summary"]),
                text(&operation["description"]),
                credential(operation),
            );
            parameters(&mut page, operation);
            responses(&mut page, operation, document);
            page.push_str("</section>");
        }
    }
    page.push_str("</html>");
    page
}

fn credential(operation: &Value) -> String {
    let names = operation["security"].as_array().into_iter().flatten();
    let names: Vec<String> =
        names.filter_map(Value::as_object).flat_map(|scheme| scheme.keys().cloned()).collect();
    if names.is_empty() { "none, this route is open".to_owned() } else { escape(&names.join(" or ")) }
}

fn parameters(page: &mut String, operation: &Value) {
    let Some(parameters) = operation["parameters"].as_array() else { return };
    page.push_str("<h3>Parameters</h3><table><tr><th>Name<th>In<th>Example<th>Meaning</tr>");
    for parameter in parameters {
        let text = |key: &str| escape(parameter[key].as_str().unwrap_or_default());
        let example = match &parameter["example"] {
            Value::Null => String::new(),
            Value::String(example) => escape(example),
            other => escape(&other.to_string()),
        };
        let _ = write!(
            page,
            "<tr><td><code>{}</code><td>{}<td><code>{example}</code><td>{}</tr>",
            text("name"),
            text("in"),
            text("description"),
        );
    }
    page.push_str("</table>");
}

fn responses(page: &mut String, operation: &Value, document: &Value) {
    page.push_str("<h3>Answers</h3><table>");
    for (status, response) in operation["responses"].as_object().into_iter().flatten() {
        let description = escape(response["description"].as_str().unwrap_or_default());
        let _ = write!(page, "<tr><td><code>{}</code><td>{description}</tr>", escape(status));
    }
    page.push_str("</table>");
    let content = operation["responses"]["200"]["content"].as_object();
    if let Some(media) = content.and_then(|content| content.values().next())
        && let Some(example) = example(media, document)
    {
        let example = serde_json::to_string_pretty(&example).unwrap_or_default();
        let _ = write!(page, "<pre>{}</pre>", escape(&example));
    }
}

/// That of an answer, or of its schema.
fn example<'a>(media: &'a Value, document: &'a Value) -> Option<&'a Value> {
    let schema = &media["schema"];
    let name = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next());
    let named = name.map(|name| &document["components"]["schemas"][name]);
    [Some(media), Some(schema), named].into_iter().flatten().find_map(|place| place.get("example"))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
