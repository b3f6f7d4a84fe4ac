//! File, environment and flags laid over each other, then read as one [`Config`].
//!
//! Reading goes on after an error: the wrong key is noted and left out, so that all are told at once.

use std::collections::BTreeMap;
use std::path::Path;

use toml::{Table, Value};
use weir_wire::settings::Settings;

use super::error::{ConfigError, Problem};
use super::sections::Config;

/// Where pushed settings come from, for messages.
pub(super) const PUSHED: &str = "the control plane";
/// Variables that begin so are settings: `WEIR_SENSOR__SAMPLING__INTERVAL=10`.
const PREFIX: &str = "WEIR_SENSOR__";

/// Wrong keys after which the rest is not read: somebody has given us a different file.
const MAX_PROBLEMS: usize = 50;

/// What stands above the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Variables of the environment; see [`environment`].
    pub environment: BTreeMap<String, String>,
    /// `KEY=VALUE` of `--set`.
    pub settings: Vec<String>,
    /// Names of `--interface`, watched in addition to the file's.
    pub interfaces: Vec<String>,
    /// What the control plane pushed: above the file, below what this host's own operator says.
    pub pushed: Settings,
}

/// The process's variables that are settings.
#[must_use]
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect()
}

/// All layers, as one table.
pub(super) struct Layers {
    table: Table,
    /// Where a key that is not the file's comes from.
    origins: BTreeMap<String, String>,
    problems: Vec<Problem>,
}

impl Layers {
    pub(super) fn read(file: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        let table = match file {
            None => Table::new(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
                text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
                    path: path.to_owned(),
                    message: error.to_string().trim_end().to_owned(),
                })?
            }
        };
        let mut layers = Self { table, origins: BTreeMap::new(), problems: Vec::new() };
        // The defaults tell whether a text is a string or something else.
        let defaults = Table::try_from(Config::default()).unwrap_or_default();
        for (key, value) in &overrides.pushed {
            match toml_of(value) {
                Some(value) => layers.put(key, value, PUSHED),
                None => layers.problems.push(Problem {
                    key: key.clone(),
                    message: format!("{value} is no setting (from {PUSHED})"),
                }),
            }
        }
        for (name, value) in &overrides.environment {
            let key = name.trim_start_matches(PREFIX).to_ascii_lowercase().replace("__", ".");
            layers.set(&defaults, &key, value, name);
        }
        for setting in &overrides.settings {
            match setting.split_once('=') {
                Some((key, value)) => layers.set(&defaults, key.trim(), value.trim(), "--set"),
                None => layers.problems.push(Problem {
                    key: setting.clone(),
                    message: "--set takes KEY=VALUE, such as --set sampling.interval=10".to_owned(),
                }),
            }
        }
        layers.add_interfaces(&overrides.interfaces);
        Ok(layers)
    }

    /// Sets one key from text.
    fn set(&mut self, defaults: &Table, key: &str, text: &str, origin: &str) {
        let mut path: Vec<&str> = key.split('.').collect();
        let Some(last) = path.pop() else { return };
        let known = path.iter().try_fold(defaults, |table, part| table.get(*part)?.as_table());
        let is_text = known.and_then(|table| table.get(last)).is_none_or(Value::is_str);
        let value =
            if is_text { None } else { parse(text) }.unwrap_or_else(|| Value::String(text.to_owned()));
        self.put(key, value, origin);
    }

    /// Sets one key.
    fn put(&mut self, key: &str, value: Value, origin: &str) {
        let mut path: Vec<&str> = key.split('.').collect();
        let Some(last) = path.pop() else { return };
        let mut table = &mut self.table;
        for part in path {
            let entry = table.entry(part).or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(inner) = entry else {
                let message = format!("`{part}` is a value, not a section (from {origin})");
                self.problems.push(Problem { key: key.to_owned(), message });
                return;
            };
            table = inner;
        }
        table.insert(last.to_owned(), value);
        self.origins.insert(key.to_owned(), origin.to_owned());
    }

    /// Says where a key's value comes from.
    pub(super) fn origin_of(&self, overrides: &Overrides) -> impl Fn(&str) -> &'static str + use<> {
        let (table, origins) = (self.table.clone(), self.origins.clone());
        let flags = !overrides.interfaces.is_empty();
        move |key| match origins.get(key).map(String::as_str) {
            Some(PUSHED) => "pushed",
            Some("--set") => "flag",
            Some(_) => "environment",
            None if flags && key == "interfaces" => "flag",
            None => {
                let mut path: Vec<&str> = key.split('.').collect();
                let last = path.pop().unwrap_or_default();
                let section = path.iter().try_fold(&table, |table, part| table.get(*part)?.as_table());
                if section.is_some_and(|table| table.contains_key(last)) { "file" } else { "default" }
            }
        }
    }

    fn add_interfaces(&mut self, names: &[String]) {
        if names.is_empty() {
            return;
        }
        let entry = self.table.entry("interfaces").or_insert_with(|| Value::Array(Vec::new()));
        // Anything else in its place is told as a problem of the file.
        let Value::Array(interfaces) = entry else { return };
        for name in names {
            let named = |entry: &Value| entry.get("name").and_then(Value::as_str) == Some(name);
            if !interfaces.iter().any(named) {
                let entry = Table::from_iter([("name".to_owned(), Value::String(name.clone()))]);
                interfaces.push(Value::Table(entry));
            }
        }
    }

    /// Reads the table; what cannot be read has its default and is told.
    pub(super) fn into_config(self) -> (Config, Vec<Problem>) {
        let Self { table, origins, mut problems } = self;
        let mut root = Value::Table(table);
        loop {
            let error = match serde_path_to_error::deserialize::<_, Config>(root.clone()) {
                Ok(config) => return (config, problems),
                Err(error) => error,
            };
            let path = error.path().clone();
            let mut message = error.inner().message().to_owned();
            let key = key_of(&path, &message);
            if let Some(origin) = origins.get(&key) {
                message = format!("{message} (from {origin})");
            }
            let went = remove(&mut root, &path, &message);
            problems.push(Problem { key, message });
            if !went || problems.len() >= MAX_PROBLEMS {
                return (Config::default(), problems);
            }
        }
    }
}

/// Every value below a section, by its key; lists are values.
pub(super) fn leaves(section: &str, table: &Table, found: &mut Vec<(String, String)>) {
    for (name, value) in table {
        let key = if section.is_empty() { name.clone() } else { format!("{section}.{name}") };
        match value {
            Value::Table(table) => leaves(&key, table, found),
            value => found.push((key, value.to_string())),
        }
    }
}

/// A pushed value as the file would have it.
fn toml_of(value: &serde_json::Value) -> Option<Value> {
    use serde_json::Value as Json;
    match value {
        Json::Bool(flag) => Some(Value::Boolean(*flag)),
        Json::Number(number) => number.as_i64().map(Value::Integer),
        Json::String(text) => Some(Value::String(text.clone())),
        Json::Array(items) => items.iter().map(toml_of).collect::<Option<_>>().map(Value::Array),
        Json::Null | Json::Object(_) => None,
    }
}

/// Text as a TOML value.
fn parse(text: &str) -> Option<Value> {
    format!("value = {text}").parse::<Table>().ok()?.remove("value")
}

/// The unknown or missing field that a message names, which the path does not.
fn field_in(message: &str) -> Option<&str> {
    let rest = message.strip_prefix("unknown field `").or_else(|| message.strip_prefix("missing field `"))?;
    rest.split_once('`').map(|(field, _)| field)
}

fn key_of(path: &serde_path_to_error::Path, message: &str) -> String {
    let path = path.to_string();
    match field_in(message) {
        Some(field) if path == "." => field.to_owned(),
        Some(field) if !path.ends_with(field) => format!("{path}.{field}"),
        _ => path,
    }
}

/// Takes the value at a path out, so that the rest can be read; whether there was one.
fn remove(root: &mut Value, path: &serde_path_to_error::Path, message: &str) -> bool {
    use serde_path_to_error::Segment;
    let mut at: Vec<Segment> = path.iter().cloned().collect();
    if let Some(field) = field_in(message).filter(|_| message.starts_with("unknown"))
        && !matches!(at.last(), Some(Segment::Map { key }) if key == field)
    {
        at.push(Segment::Map { key: field.to_owned() });
    }
    // An item of a list goes whole: what is left of it may not make sense.
    let end =
        at.iter().position(|segment| matches!(segment, Segment::Seq { .. })).map_or(at.len(), |seq| seq + 1);
    at.truncate(end);
    let Some(last) = at.pop() else { return false };
    let mut value = root;
    for segment in &at {
        let inner = match segment {
            Segment::Map { key } => value.get_mut(key.as_str()),
            Segment::Seq { index } => value.get_mut(*index),
            _ => None,
        };
        let Some(inner) = inner else { return false };
        value = inner;
    }
    match (last, value) {
        (Segment::Map { key }, Value::Table(table)) => table.remove(&key).is_some(),
        (Segment::Seq { index }, Value::Array(list)) if index < list.len() => {
            list.remove(index);
            true
        }
        _ => false,
    }
}
