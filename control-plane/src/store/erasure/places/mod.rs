//! Where something of a subject may be, and what becomes of it there: one table for each kind.
//!
//! Every statement gets the same values: `$1` the subject's id, `$2` its name, `$3` what stands in the name's
//! place, `$4` and `$5` the ends of the range that a [`Step::Walk`] is at. What is not here is found by the test
//! that searches every column of every table for what was erased.

/// Rows of one step: short locks, little to repeat.
macro_rules! chunk {
    () => {
        "20000"
    };
}

macro_rules! count {
    ($table:literal, $which:expr) => {
        Some(concat!("SELECT count(*) FROM ", $table, " WHERE ", $which))
    };
}

/// Events of these rows, which may wait without a cursor, keep their place and say nothing. `$also` is emptied, too.
macro_rules! pending_events {
    ($also:literal, $which:expr) => {
        Step::Repeat(concat!(
            "UPDATE event_pending SET kind = 'erased', ",
            $also,
            "body = '{}' WHERE pending_id = ANY (ARRAY(SELECT pending_id FROM event_pending WHERE ",
            $which,
            " LIMIT ",
            chunk!(),
            "))"
        ))
    };
}

/// The same of events that have one: their place stays, so that no reader takes what is gone for what got lost.
macro_rules! events {
    ($also:literal, $which:expr) => {
        Step::Walk {
            bounds: EVENT_BOUNDS,
            range: concat!(
                "UPDATE event SET kind = 'erased', ",
                $also,
                "body = '{}' WHERE cursor > $4 AND cursor <= $5 AND ",
                $which
            ),
        }
    };
}

/// Names that no flow has any more, of the erasure of such a subject.
macro_rules! nameless_domains {
    ($kind:literal) => {
        Step::Repeat(concat!(
            "DELETE FROM domain WHERE domain_id = ANY (ARRAY(
                 SELECT domain_id
                 FROM erasure JOIN erasure_place USING (erasure_id) JOIN erasure_domain USING (erasure_id)
                      JOIN domain USING (domain_id)
                 WHERE kind = '",
            $kind,
            "' AND subject_id = $1 AND place = 'domain_search' AND last_used <= marked
                 LIMIT ",
            chunk!(),
            "))"
        ))
    };
}

mod device;
mod sensor;
mod user;

use super::Kind;
use crate::store::partitions::Parent;

/// Rows that one step handles; fewer are the last.
pub const CHUNK: i64 = 20_000;

/// A place, in the order in which they are erased.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub name: &'static str,
    /// A count ahead of time, for the confirmation; `None` where it would take a look at everything.
    pub count: Option<&'static str>,
    /// What each of its transactions does first.
    pub first: Option<&'static str>,
    pub step: Step,
}

/// How a place is erased.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// In the transaction that begins the erasure.
    AtOnce(&'static str),
    /// A statement for at most a chunk of rows, again and again until it finds fewer.
    Repeat(&'static str),
    /// A statement for a range of keys at a time, within the bounds that the first one gives.
    Walk { bounds: &'static str, range: &'static str },
    /// Rows of a partitioned table, some pages at a time: a sensor's are deleted, in others a device's address is hidden.
    Pages(Parent),
    /// Which of the erased flows' names no other flows have.
    Search,
    /// What a sensor told of devices, with those that no other one sees.
    Devices,
}

/// The places of a kind.
#[must_use]
pub fn of(kind: Kind) -> &'static [Place] {
    match kind {
        Kind::User => user::PLACES,
        Kind::Sensor => sensor::PLACES,
        Kind::Device => device::PLACES,
    }
}

const fn place(name: &'static str, count: Option<&'static str>, step: Step) -> Place {
    Place { name, count, first: None, step }
}

impl Place {
    const fn after(self, first: &'static str) -> Self {
        Self { first: Some(first), ..self }
    }
}

/// For everybody else the rows of the audit log stay as they are.
const MAY_ALTER_AUDIT: &str = "SET LOCAL weir.erasing = 'on'";
/// The key before the first one, and the last one.
const AUDIT_BOUNDS: &str = "SELECT coalesce(min(audit_id) - 1, 0), coalesce(max(audit_id), 0) FROM audit";
const EVENT_BOUNDS: &str = "SELECT pruned_to, last FROM event_head";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_has_a_name_of_its_own() {
        for kind in Kind::ALL {
            let mut names: Vec<&str> = of(kind).iter().map(|place| place.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), of(kind).len());
        }
        assert_eq!(chunk!().parse(), Ok(CHUNK));
    }
}
