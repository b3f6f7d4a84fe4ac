//! How the lists stand: what `weir-sensor lists` shows.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::parse::{LineErrors, Shape, parse};
use super::store::Store;
use crate::config::{List, ListAction, Threats};

/// All lists.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Whether a sensor runs; without one this is what stands on disk.
    pub running: bool,
    /// Whether `threats.enforce` is set.
    pub enforce: bool,
    /// Whether packets are dropped now.
    pub enforced: bool,
    /// Of what all lists hold together.
    pub version: String,
    /// When that was put into the kernel, nanoseconds since the Unix epoch.
    pub installed_ns: i64,
    /// Prefixes in the kernel, after merging.
    pub prefixes: u64,
    /// Domains in memory, after merging.
    pub domains: u64,
    /// Why the kernel does not have the lists as they are here.
    pub error: Option<String>,
    pub lists: Vec<ListStanding>,
}

/// One list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListStanding {
    pub name: String,
    pub source: String,
    pub drops: bool,
    /// Entries as the list has them, without repetitions.
    pub prefixes: u64,
    pub domains: u64,
    /// Lines that could not be read.
    pub errors: LineErrors,
    /// SHA-256 of its bytes; empty while there are none.
    pub version: String,
    /// When these bytes came.
    pub fetched_ns: i64,
    /// When they were last known to be what is there.
    pub checked_ns: i64,
    /// Refreshes that failed since.
    pub failures: u32,
    pub error: Option<String>,
    pub stale: bool,
    /// Packets of flows that it has, at every observation point.
    pub hits: u64,
    pub dropped: u64,
    /// Packets that would have been dropped if enforcement held.
    pub would_drop: u64,
}

impl ListStanding {
    pub(super) fn of(list: &List) -> Self {
        Self {
            name: list.name.clone(),
            source: list.source(),
            drops: list.action == ListAction::Drop,
            ..Self::default()
        }
    }
}

/// What stands on disk, where no sensor runs.
#[must_use]
pub fn stored(threats: &Threats) -> Standing {
    let store = Store::existing(&threats.folder);
    let lists = threats.lists.iter().map(|list| {
        let mut standing = ListStanding::of(list);
        let Some((origin, bytes)) =
            store.load(&list.name).filter(|(origin, _)| origin.source == list.source())
        else {
            standing.error = Some("it was never fetched".to_owned());
            return standing;
        };
        match parse(&bytes, &Shape::of(list)) {
            Ok(parsed) => {
                standing.prefixes = parsed.prefixes.len() as u64;
                standing.domains = parsed.domains.len() as u64;
                standing.errors = parsed.errors;
            }
            Err(error) => standing.error = Some(error.to_string()),
        }
        standing.version = origin.sha256;
        standing.fetched_ns = origin.fetched_ns;
        standing.checked_ns = origin.fetched_ns;
        standing
    });
    Standing { enforce: threats.enforce, lists: lists.collect(), ..Standing::default() }
}

/// Names of the lists, in order.
pub(super) fn names(threats: &Threats) -> Arc<[String]> {
    threats.lists.iter().map(|list| list.name.clone()).collect()
}
