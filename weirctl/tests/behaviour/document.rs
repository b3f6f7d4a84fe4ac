//! A1: the client and the document that the server serves do not drift apart.

use serde_json::{Map, Value};
use weirctl::client::route;
use weirctl::client::shapes::{self, Kind};

fn document() -> Value {
    serde_json::to_value(weir_control_plane::api::document()).expect("JSON")
}

/// The type of a property, and whether it may be null.
fn kind(document: &Value, property: &Value) -> (String, bool) {
    if let Some(name) = property["$ref"].as_str() {
        let name = name.rsplit('/').next().expect("a name");
        return kind(document, &document["components"]["schemas"][name]);
    }
    for choice in ["oneOf", "anyOf", "allOf"] {
        if let Some(choices) = property[choice].as_array() {
            let kinds: Vec<(String, bool)> = choices.iter().map(|choice| kind(document, choice)).collect();
            let null = kinds.iter().any(|(kind, null)| kind == "null" || *null);
            let first = kinds.into_iter().find(|(kind, _)| kind != "null").map(|(kind, _)| kind);
            return (first.unwrap_or_default(), null);
        }
    }
    match &property["type"] {
        Value::String(kind) => (kind.clone(), false),
        Value::Array(kinds) => {
            let null = kinds.iter().any(|kind| kind == "null");
            let kind = kinds.iter().find(|kind| *kind != "null").and_then(Value::as_str);
            (kind.unwrap_or_default().to_owned(), null)
        }
        _ => ("object".to_owned(), false),
    }
}

/// Properties of a schema, and the names of those that it always has; of all its parts, where it has parts.
fn properties(document: &Value, schema: &Value) -> (Map<String, Value>, Vec<Value>) {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().expect("a name");
        return properties(document, &document["components"]["schemas"][name]);
    }
    let mut all = schema["properties"].as_object().cloned().unwrap_or_default();
    let mut required = schema["required"].as_array().cloned().unwrap_or_default();
    for part in schema["allOf"].as_array().into_iter().flatten() {
        let (more, always) = properties(document, part);
        all.extend(more);
        required.extend(always);
    }
    (all, required)
}

#[test]
fn a1_every_field_that_is_shown_is_in_the_document_with_its_type() {
    let document = document();
    for shape in shapes::ALL {
        let (properties, required) = properties(&document, &document["components"]["schemas"][shape.schema]);
        assert!(!properties.is_empty(), "there is no schema {}", shape.schema);
        for (field, Kind { json, optional }) in shape.fields {
            let what = format!("{}.{field}", shape.schema);
            let property = properties.get(*field);
            let property = property.unwrap_or_else(|| panic!("{what} is not in the document"));
            let (kind, null) = kind(&document, property);
            assert_eq!(kind, *json, "{what}");
            let always = required.iter().any(|name| name == field) && !null;
            assert!(always || *optional, "{what} may be missing or null");
        }
    }
}

#[test]
fn a1_every_route_that_is_asked_is_in_the_document_with_its_parameters() {
    let document = document();
    for route in route::ALL {
        let what = format!("{} {}", route.method, route.path);
        let operation = &document["paths"][route.path][route.method];
        assert!(operation.is_object(), "there is no {what}");
        let known: Vec<&str> = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|parameter| parameter["in"] == "query")
            .filter_map(|parameter| parameter["name"].as_str())
            .collect();
        for parameter in route.parameters {
            assert!(known.contains(parameter), "{what} has no {parameter}");
        }
        let name = |schema: &Value| {
            schema["$ref"].as_str().and_then(|name| name.rsplit('/').next()).map(str::to_owned)
        };
        let json = |content: &Value| name(&content["content"]["application/json"]["schema"]);
        assert_eq!(json(&operation["requestBody"]), route.body.map(str::to_owned), "body of {what}");
        if let Some(answer) = route.answer {
            assert_eq!(json(&operation["responses"]["200"]).as_deref(), Some(answer), "answer of {what}");
        }
    }
}
