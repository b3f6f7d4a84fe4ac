//! Threat lists: addresses and domains that are known for something, from files and feeds.
//!
//! `fetch -> parse -> store -> compile -> kernel`: one task, the [`Keeper`], owns all of it. It puts addresses
//! into the kernel's trie, where a flow is marked when it begins (and dropped, where an operator says so), and
//! publishes domains as [`Known`], for whoever sees names. Called by `run`, and by the command line, which asks
//! a running sensor through `socket`.
//!
//! What must stay true: a refresh that fails in any way leaves the list as it was (I7), in the kernel and on
//! disk; nothing is dropped unless `threats.enforce` says so and the sensor lives; what is allowed or protected
//! is never dropped.

mod check;
mod compile;
mod domains;
mod entry;
mod fetch;
mod keeper;
mod parse;
mod protected;
pub mod socket;
mod standing;
mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use check::check;
pub use compile::{Source, compile};
pub use domains::Domains;
pub use entry::{Cover, Domain, Entry, EntryError, Prefix, V4, domain};
pub use keeper::{Keeper, Order};
pub use parse::{LineError, LineErrors, ParseError, Parsed, Shape, parse};
pub use standing::{ListStanding, Standing, stored};

/// The number of a list: its place in the configuration, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListId(pub u8);

/// What the lists say now, for those who see names.
#[derive(Debug, Default)]
pub struct Known {
    /// Of the lists, in the order of the configuration.
    pub names: Arc<[String]>,
    /// Of what all lists hold together: the same content has the same version.
    pub version: String,
    domains: Domains,
}

impl Known {
    /// Of lists by name, with their sorted domains.
    #[must_use]
    pub fn of(lists: &[(String, &[Domain])]) -> Self {
        let numbered: Vec<_> =
            (1..).zip(lists).map(|(number, (_, domains))| (ListId(number), *domains)).collect();
        let names = lists.iter().map(|(name, _)| name.clone()).collect();
        Self { names, version: String::new(), domains: Domains::new(&numbered, &[]) }
    }

    /// The list that has a domain.
    #[must_use]
    pub fn listed(&self, name: &str) -> Option<ListId> {
        self.domains.listed(name)
    }

    /// What the configuration calls a list.
    #[must_use]
    pub fn name(&self, list: ListId) -> Option<&str> {
        let place = usize::from(list.0).checked_sub(1)?;
        self.names.get(place).map(String::as_str)
    }
}
