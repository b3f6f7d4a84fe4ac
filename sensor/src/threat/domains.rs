//! Listed domains: asked by name, answered without allocating.
//!
//! A million names stand in one text with a sorted index beside it: 8 bytes a name more than the names.

use super::ListId;
use super::entry::{Cover, Domain};

/// The domains of all lists.
#[derive(Debug, Default)]
pub struct Domains {
    text: String,
    index: Vec<Place>,
    /// The same for what is allowed: such a name and all below it.
    allowed: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    start: u32,
    length: u8,
    /// List of the name itself; 0 for none.
    name: u8,
    /// List of what is below it.
    below: u8,
}

/// Octets of all names: what the index reaches.
const MAX_TEXT: usize = u32::MAX as usize;

impl Domains {
    /// Of each list its sorted domains; of lists that have the same one, the first counts. What is beyond four
    /// gigabytes of names is left out; lists are bounded far below.
    #[must_use]
    pub fn new(lists: &[(ListId, &[Domain])], allowed: &[Domain]) -> Self {
        let mut all: Vec<(&str, ListId, Cover)> = lists
            .iter()
            .flat_map(|(list, domains)| {
                domains.iter().map(|domain| (domain.name.as_str(), *list, domain.cover))
            })
            .collect();
        all.sort_unstable_by_key(|(name, list, _)| (*name, *list));
        let mut domains = Self::default();
        for same in all.chunk_by(|a, b| a.0 == b.0) {
            let name = same[0].0;
            if domains.text.len() + name.len() > MAX_TEXT {
                break;
            }
            let first = |covers: [Cover; 2]| {
                same.iter().find(|(.., cover)| covers.contains(cover)).map_or(0, |(_, list, _)| list.0)
            };
            let place = Place {
                start: domains.text.len() as u32,
                length: name.len() as u8,
                name: first([Cover::Name, Cover::Both]),
                below: first([Cover::Below, Cover::Both]),
            };
            domains.text.push_str(name);
            domains.index.push(place);
        }
        domains.text.shrink_to_fit();
        domains.index.shrink_to_fit();
        domains.allowed = allowed.iter().map(|domain| domain.name.clone()).collect();
        domains.allowed.sort_unstable();
        domains
    }

    /// How many names there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The list that has a name: itself, else the nearest name above it that covers what is below. Any case, with
    /// or without a dot at the end; what is not a name is in no list.
    #[must_use]
    pub fn listed(&self, name: &str) -> Option<ListId> {
        let name = name.strip_suffix('.').unwrap_or(name);
        if self.index.is_empty() || name.len() > 253 {
            return None;
        }
        let mut lower = [0; 253];
        let lower = &mut lower[..name.len()];
        lower.copy_from_slice(name.as_bytes());
        lower.make_ascii_lowercase();
        let name = std::str::from_utf8(lower).ok()?;
        if !self.allowed.is_empty() && suffixes(name).any(|name| self.is_allowed(name)) {
            return None;
        }
        suffixes(name).enumerate().find_map(|(above, name)| {
            let place = self.find(name)?;
            let list = if above == 0 { place.name } else { place.below };
            (list != 0).then_some(ListId(list))
        })
    }

    fn is_allowed(&self, name: &str) -> bool {
        self.allowed.binary_search_by(|allowed| allowed.as_str().cmp(name)).is_ok()
    }

    fn find(&self, name: &str) -> Option<&Place> {
        let text = |place: &Place| {
            let start = place.start as usize;
            &self.text[start..start + usize::from(place.length)]
        };
        let at = self.index.binary_search_by(|place| text(place).cmp(name)).ok()?;
        self.index.get(at)
    }
}

/// A name, and the names above it.
fn suffixes(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| name.split_once('.').map(|(_, above)| above))
}

#[cfg(test)]
mod tests {
    use super::super::entry::domain;
    use super::*;

    fn domains(names: &[&str]) -> Vec<Domain> {
        names.iter().map(|name| domain(name).expect("a domain")).collect()
    }

    #[test]
    fn s6_a_name_is_listed_by_itself_or_from_above_and_what_is_allowed_is_not() {
        let (one, two) = (
            domains(&["bad.example", "*.below.example", ".both.example"]),
            domains(&["bad.example", "deep.below.example", "*.org.example"]),
        );
        let allowed = domains(&["good.org.example"]);
        let listed = Domains::new(&[(ListId(1), &one), (ListId(2), &two)], &allowed);
        assert_eq!(listed.len(), 5);
        for (name, list) in [
            ("bad.example", Some(1)),
            ("BAD.Example.", Some(1)),
            ("www.bad.example", None),
            ("below.example", None),
            ("a.b.below.example", Some(1)),
            ("deep.below.example", Some(2)),
            ("both.example", Some(1)),
            ("x.both.example", Some(1)),
            ("x.org.example", Some(2)),
            ("good.org.example", None),
            ("x.good.org.example", None),
            ("xgood.org.example", Some(2)),
            ("example", None),
            ("", None),
            (".", None),
            ("\u{fc}\u{0}.example", None),
        ] {
            assert_eq!(listed.listed(name), list.map(ListId), "{name}");
        }
        assert_eq!(listed.listed(&"a.".repeat(4000)), None);
        assert_eq!(Domains::default().listed("bad.example"), None);
    }
}
