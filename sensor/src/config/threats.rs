//! Threat lists: where they are, how they are read, and what happens to packets that they have.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::units::{Bytes, Period};
use super::validate::Check;
use crate::kernel;
use crate::threat::Entry;

/// Lists of addresses and domains that are known for something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Threats {
    /// Without it nothing is dropped: lists whose action is to drop say what they would have dropped.
    pub enforce: bool,
    /// Packets are not dropped any more when the sensor has been gone for so long.
    pub dead_man: Period,
    /// Holds the last good copy of every list, and the socket of `weir-sensor lists`.
    pub folder: PathBuf,
    /// Addresses, networks and domains (with all below them) that are in no list, whatever a list says.
    pub allow: Vec<String>,
    pub lists: Vec<List>,
}

/// One list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// In metrics, logs and findings.
    pub name: String,
    /// A file, or
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// an `http://` or `https://` address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(default)]
    pub format: ListFormat,
    /// Of CSV: the name of the column, or its number from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<ListColumn>,
    #[serde(default)]
    pub action: ListAction,
    /// How often it is looked for.
    #[serde(default = "List::default_refresh")]
    pub refresh: Period,
    #[serde(default = "List::default_max_bytes")]
    pub max_bytes: Bytes,
    #[serde(default = "List::default_max_entries")]
    pub max_entries: usize,
    /// For one download, from connecting to the last byte.
    #[serde(default = "List::default_timeout")]
    pub timeout: Period,
}

/// How a list is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListFormat {
    /// An entry a line.
    #[default]
    Plain,
    Csv,
    /// A STIX 2.1 bundle.
    Stix,
}

/// What happens to packets from or to an address of the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListAction {
    /// Their flow is marked.
    #[default]
    Observe,
    /// It is marked, and its packets are dropped where `threats.enforce` is set.
    Drop,
}

/// A column of CSV.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListColumn {
    Name(String),
    /// From 1.
    Number(usize),
}

impl Serialize for ListColumn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Name(name) => serializer.serialize_str(name),
            Self::Number(number) => serializer.serialize_u64(*number as u64),
        }
    }
}

impl<'de> Deserialize<'de> for ListColumn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = ListColumn;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a column, or its number from 1")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<ListColumn, E> {
                Ok(ListColumn::Name(name.to_owned()))
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<ListColumn, E> {
                usize::try_from(number).map(ListColumn::Number).map_err(E::custom)
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<ListColumn, E> {
                usize::try_from(number).map(ListColumn::Number).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Default for Threats {
    fn default() -> Self {
        Self {
            enforce: false,
            dead_man: Period(Duration::from_mins(1)),
            folder: PathBuf::from("/var/lib/weir-sensor/lists"),
            allow: Vec::new(),
            lists: Vec::new(),
        }
    }
}

impl Threats {
    /// Where a running sensor answers.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("lists.sock")
    }
}

impl List {
    fn default_refresh() -> Period {
        Period(Duration::from_hours(1))
    }

    fn default_max_bytes() -> Bytes {
        Bytes(64 << 20)
    }

    fn default_max_entries() -> usize {
        1_000_000
    }

    fn default_timeout() -> Period {
        Period(Duration::from_secs(30))
    }

    /// The file or the address, without what may be a key: user, password, query.
    #[must_use]
    pub fn source(&self) -> String {
        match (&self.file, &self.url) {
            (Some(file), _) => file.display().to_string(),
            (None, Some(url)) => reqwest::Url::parse(url).map_or_else(
                |_| String::new(),
                |mut url| {
                    url.set_query(None);
                    url.set_fragment(None);
                    let _ = url.set_username("");
                    let _ = url.set_password(None);
                    url.to_string()
                },
            ),
            (None, None) => String::new(),
        }
    }
}

pub(super) fn check(threats: &Threats, check: &mut Check<'_>) {
    let hours = Duration::from_hours;
    check.period("threats.dead_man", threats.dead_man, Duration::from_secs(2), hours(1));
    check.that(threats.folder.is_absolute(), "threats.folder", || {
        format!("is {}; an absolute path is expected", threats.folder.display())
    });
    for (number, entry) in threats.allow.iter().enumerate() {
        let sound = Entry::parse(entry).is_ok_and(|entry| !matches!(entry, Entry::Range(..)));
        check.that(sound, format!("threats.allow[{number}]"), || {
            format!("is {entry:?}; an address, a network or a domain is expected")
        });
    }
    let count = threats.lists.len();
    check.that(count <= kernel::MAX_LISTS, "threats.lists", || {
        format!("names {count} lists; {} are allowed", kernel::MAX_LISTS)
    });
    let mut names = BTreeSet::new();
    for (number, list) in threats.lists.iter().enumerate() {
        let key = |key: &str| format!("threats.lists[{number}].{key}");
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let usable = (1..=64).contains(&list.name.len()) && list.name.bytes().all(plain);
        check.that(usable, key("name"), || {
            format!("is {:?}; 1 to 64 letters, digits, '-' and '_' are allowed", list.name)
        });
        check.that(names.insert(&list.name), key("name"), || format!("names {} a second time", list.name));
        check.that(list.file.is_some() != list.url.is_some(), key("file"), || {
            "and url: one of the two is expected".to_owned()
        });
        check.that(list.file.as_deref().is_none_or(Path::is_absolute), key("file"), || {
            "is not an absolute path".to_owned()
        });
        let web = |url: &str| {
            reqwest::Url::parse(url)
                .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        };
        check.that(list.url.as_deref().is_none_or(web), key("url"), || {
            // It may hold a key: it is not repeated.
            "is not an http:// or https:// address".to_owned()
        });
        let column = list.format == ListFormat::Csv || list.column.is_none();
        check.that(column, key("column"), || "is for format = \"csv\" only".to_owned());
        check.that(list.column != Some(ListColumn::Number(0)), key("column"), || {
            "is 0; columns are numbered from 1".to_owned()
        });
        check.period(&key("refresh"), list.refresh, Duration::from_secs(1), hours(24 * 31));
        check.period(&key("timeout"), list.timeout, Duration::from_millis(100), hours(1));
        check.that((1 << 10..=1 << 30).contains(&list.max_bytes.0), key("max_bytes"), || {
            format!("is {} bytes; 1KiB to 1GiB are allowed", list.max_bytes.0)
        });
        check.that((1..=kernel::MAX_PREFIXES).contains(&list.max_entries), key("max_entries"), || {
            format!("is {}; 1 to {} are allowed", list.max_entries, kernel::MAX_PREFIXES)
        });
    }
}
