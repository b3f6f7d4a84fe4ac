//! Examples of whole schemas, put together from those of their fields: each value is written down once.
//!
//! A schema gets one only if all its fields have: a field without an example is noticed by the test that
//! holds every example against its schema.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use utoipa::openapi::schema::{ArrayItems, SchemaType, Type};
use utoipa::openapi::{Components, RefOr, Schema};

type Schemas = BTreeMap<String, RefOr<Schema>>;

/// Our schemas are four deep; a circle would end here.
const DEPTH: usize = 8;

/// Gives every schema that has none its example.
pub fn complete(components: &mut Components) {
    let made: Vec<(String, Value)> = components
        .schemas
        .iter()
        .filter_map(|(name, schema)| Some((name.clone(), example(schema, &components.schemas, DEPTH)?)))
        .collect();
    for (name, value) in made {
        match components.schemas.get_mut(&name) {
            Some(RefOr::T(Schema::Object(object))) if object.enum_values.is_none() => {
                object.example.get_or_insert(value);
            }
            Some(RefOr::T(Schema::AllOf(all))) => {
                all.example.get_or_insert(value);
            }
            _ => {}
        }
    }
}

fn example(schema: &RefOr<Schema>, schemas: &Schemas, depth: usize) -> Option<Value> {
    let depth = depth.checked_sub(1)?;
    let schema = match schema {
        RefOr::T(schema) => schema,
        RefOr::Ref(reference) => {
            let name = reference.ref_location.rsplit('/').next()?;
            return example(schemas.get(name)?, schemas, depth);
        }
    };
    match schema {
        Schema::Object(object) => {
            let known = object.example.clone().or_else(|| object.examples.first().cloned());
            let known = known.or_else(|| object.enum_values.as_ref()?.first().cloned());
            if known.is_some() || !is_object(&object.schema_type) {
                return known;
            }
            let fields = object.properties.iter().map(|(name, field)| {
                let value = example(field, schemas, depth).or_else(|| of_every_page(name))?;
                Some((name.clone(), value))
            });
            fields.collect::<Option<Map<_, _>>>().map(Value::Object)
        }
        Schema::AllOf(all) => {
            if all.example.is_some() {
                return all.example.clone();
            }
            let mut merged = Map::new();
            for part in &all.items {
                let Value::Object(fields) = example(part, schemas, depth)? else { return None };
                merged.extend(fields);
            }
            Some(Value::Object(merged))
        }
        Schema::Array(array) => {
            let known = array.example.clone().or_else(|| array.examples.first().cloned());
            let ArrayItems::RefOrSchema(items) = &array.items else { return known };
            known.or_else(|| Some(Value::Array(vec![example(items, schemas, depth)?])))
        }
        // Something or null: something.
        Schema::OneOf(one) => {
            one.example.clone().or_else(|| one.items.iter().find_map(|item| example(item, schemas, depth)))
        }
        _ => None,
    }
}

/// The example of a list is its last page.
fn of_every_page(field: &str) -> Option<Value> {
    match field {
        "has_more" => Some(Value::Bool(false)),
        "continuation" => Some(Value::Null),
        _ => None,
    }
}

fn is_object(kind: &SchemaType) -> bool {
    match kind {
        SchemaType::Type(kind) => *kind == Type::Object,
        SchemaType::Array(kinds) => kinds.contains(&Type::Object),
        SchemaType::AnyValue => false,
    }
}
