//! Answers as far as they are shown in tables. Each says which schema of the server's document it is of, and what
//! its fields are; a test holds both against the document, so that neither drifts.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a field is in JSON, and whether it may be null or missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    pub json: &'static str,
    pub optional: bool,
}

pub trait Typed {
    const KIND: Kind;
}

macro_rules! typed {
    ($json:literal: $($type:ty),+) => {
        $(impl Typed for $type { const KIND: Kind = Kind { json: $json, optional: false }; })+
    };
}

typed!("string": String);
typed!("integer": i64, u16);
typed!("number": f64);
typed!("boolean": bool);
typed!("object": Value);

impl<T: Typed> Typed for Option<T> {
    const KIND: Kind = Kind { json: T::KIND.json, optional: true };
}

impl<T> Typed for Vec<T> {
    const KIND: Kind = Kind { json: "array", optional: false };
}

/// A part of a schema of the document.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub schema: &'static str,
    pub fields: &'static [(&'static str, Kind)],
}

/// A field's name as JSON has it: without what makes a keyword of Rust's a name.
const fn plain(name: &'static str) -> &'static str {
    match name.as_bytes() {
        [b'r', b'#', plain @ ..] => match std::str::from_utf8(plain) {
            Ok(plain) => plain,
            Err(_) => name,
        },
        _ => name,
    }
}

macro_rules! shapes {
    ($($(#[$doc:meta])* $name:ident = $schema:literal { $($field:ident: $type:ty),* $(,)? })+) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, Deserialize, Serialize)]
            pub struct $name { $(pub $field: $type,)* }

            typed!("object": $name);
        )+

        /// All of them.
        pub const ALL: &[Shape] =
            &[$(Shape { schema: $schema, fields: &[$((plain(stringify!($field)), <$type as Typed>::KIND)),*] }),+];
    };
}

shapes! {
    /// What a login gives.
    Tokens = "Tokens" {
        access_token: String, expires_in_s: i64, refresh_token: String, name: String, role: String,
    }
    Me = "Me" { kind: String, name: String, role: String }
    /// RFC 9457.
    Problem = "Problem" {
        title: String, status: u16, detail: String, category: String, request_id: String, errors: Option<Vec<Fault>>,
    }
    Fault = "FieldError" { field: String, message: String }
    Sensor = "Sensor" {
        id: i64, name: String, state: String, last_seen_at: Option<String>, clock_skew_ms: Option<i64>, records: i64,
    }
    Flow = "Flow" {
        sensor: String, window_start: String, src: String, src_port: i64, dst: String, dst_port: i64, protocol: i64,
        packets: i64, octets: i64, reverse_packets: i64, reverse_octets: i64, name: Option<String>,
        dst_country: Option<String>,
    }
    Sums = "Sums" { flows: i64, packets: i64, octets: i64, reverse_packets: i64, reverse_octets: i64 }
    /// What is ranked: those of its names that it is ranked by.
    Ranked = "Item" {
        src: Option<String>, dst: Option<String>, protocol: Option<i64>, port: Option<i64>, name: Option<String>,
        country: Option<String>, asn: Option<i64>, process: Option<String>, executable: Option<String>,
        container: Option<String>, unit: Option<String>, device: Option<String>, device_id: Option<i64>,
        network: Option<String>,
    }
    Top = "Top" { by: String, metric: String, exact: bool, items: Vec<Value>, other: Sums, total: Sums }
    Detection = "Detection" {
        id: i64, sensor: String, kind: String, severity: String, subject: String, last_seen: String, count: i64,
        state: String,
    }
    Network = "Network" {
        id: i64, name: String, prefixes: Vec<String>, sensor: Option<String>, internal: bool, description: String,
    }
    Domain = "Domain" { id: i64, name: String, first_seen_at: String, last_seen_on: String }
    Alert = "Alert" {
        id: i64, rule: String, severity: String, summary: String, group: String, state: String, value: f64,
        pending_at: String, firing_at: Option<String>, silenced: bool,
    }
    /// A version of what is pushed.
    SettingsVersion = "ConfigurationVersion" {
        version: i64, settings: Value, author: String, comment: String, created_at: String, restores: Option<i64>,
    }
    GroupSettings = "GroupConfiguration" { group: String, newest: Option<SettingsVersion> }
    Wanted = "WantedConfiguration" { settings: Value, sensor_version: i64, group_version: i64 }
    Reported = "ReportedConfiguration" { state: String, reason: Option<String> }
    SensorSettings = "SensorConfiguration" {
        sensor: Option<SettingsVersion>, group: Option<GroupSettings>, wanted: Wanted, reported: Reported,
    }
    Device = "Device" {
        id: i64, site: Option<String>, name: Option<String>, r#type: Option<String>, vendor: Option<String>,
        owner: Option<String>, notes: Option<String>, first_seen: String, last_seen: String, addresses: Vec<Value>,
    }
    /// What a device has beside that.
    DeviceWhole = "DeviceDetail" { facts: Vec<Value>, merges: Vec<Value> }
    DeviceMerge = "DeviceMerge" { id: i64, other: i64, at: String }
    SplitDevices = "SplitDevices" { device: Device, other: Device }
    DeviceFact = "Fact" {
        kind: String, source: String, value: String, weight: Option<i64>, first_seen: String, last_seen: String,
    }
    ErasurePlan = "ErasurePlan" { name: String, places: Vec<Value>, confirmation: String, expires_at: String }
    PlannedPlace = "PlannedPlace" { name: String, count: Option<i64> }
    Erasure = "Erasure" { id: i64, state: String }
    Event = "Event" { cursor: i64, topic: String, kind: String, sensor: Option<String>, at: String, data: Value }
}

/// A page of whatever it is.
#[derive(Clone, Debug, Deserialize)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub has_more: bool,
    pub continuation: Option<String>,
    /// Of events only: up to where they were read
    pub cursor: Option<i64>,
}
