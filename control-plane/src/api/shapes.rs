//! What texts of a parameter may look like, said once for all routes that have it.
//!
//! By name: the same name is the same thing everywhere. A shape takes everything that the handlers take; what
//! a pattern cannot say (whether there is such a sensor, whether an expression is one) they answer themselves.

use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::schema::{KnownFormat, SchemaFormat, Type};
use utoipa::openapi::{Object, RefOr, Schema};

/// An id, or a name as `store::sensors::is_name` has it.
const SENSOR: &str = "^([1-9][0-9]{0,8}|[A-Za-z][A-Za-z0-9._-]*|[0-9]+[A-Za-z._-][A-Za-z0-9._-]*)$";
/// The same without ids.
const NAME: &str = "^([A-Za-z][A-Za-z0-9._-]*|[0-9]+[A-Za-z._-][A-Za-z0-9._-]*)$";
/// An id, or a name as `store::users::is_name` has it.
const USER: &str = "^([1-9][0-9]{0,8}|[a-z][a-z0-9._@-]*|[0-9]+[a-z._@-][a-z0-9._@-]*)$";
/// An id, or a name as `store::networks::is_name` has it.
const NETWORK: &str = "^([1-9][0-9]{0,8}|[a-z][a-z0-9._-]*|[0-9]+[a-z._-][a-z0-9._-]*)$";
/// Without control characters.
const PLAIN: &str = "^[^\\x00-\\x1f\\x7f-\\x9f]+$";
const MAX_NAME: usize = 63;

/// Completes the parameters of an operation that say only that they are texts.
pub fn complete(path: &str, operation: &mut Operation) {
    for parameter in operation.parameters.iter_mut().flatten() {
        let RefOr::T(parameter) = parameter else { continue };
        let of_path = parameter.parameter_in == ParameterIn::Path;
        let Some(object) = parameter.schema.as_mut().and_then(text) else { continue };
        match parameter.name.as_str() {
            "sensor" => bounded(object, SENSOR, MAX_NAME),
            "id" if of_path && path.contains("/sensors/") => bounded(object, SENSOR, MAX_NAME),
            "site" | "group" => bounded(object, NAME, MAX_NAME),
            "network" => bounded(object, NETWORK, MAX_NAME),
            "user" => bounded(object, USER, MAX_NAME),
            // Of the audit log.
            "actor" | "action" | "subject_kind" | "subject" => bounded(object, PLAIN, 128),
            "session" if of_path => object.format = Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)),
            "continuation" => (object.min_length, object.max_length) = (Some(1), Some(256)),
            _ => {}
        }
    }
}

/// The schema of a text that may have any characters.
fn text(schema: &mut RefOr<Schema>) -> Option<&mut Object> {
    let RefOr::T(Schema::Object(object)) = schema else { return None };
    let plain = object.format.is_none() && object.pattern.is_none() && object.enum_values.is_none();
    let is_text = match &object.schema_type {
        utoipa::openapi::schema::SchemaType::Type(kind) => *kind == Type::String,
        utoipa::openapi::schema::SchemaType::Array(kinds) => kinds.contains(&Type::String),
        utoipa::openapi::schema::SchemaType::AnyValue => false,
    };
    (plain && is_text).then_some(object)
}

fn bounded(object: &mut Object, pattern: &str, length: usize) {
    object.pattern = Some(pattern.to_owned());
    object.max_length = Some(length);
}
