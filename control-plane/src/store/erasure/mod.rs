//! Erasure: the end of a user's, a sensor's or a device's data, everywhere (U5, I5; `docs/decisions/0120-erasure.md`).
//!
//! [`plan`] says what would go and gives a confirmation; [`begin`] takes it, ends the subject in one transaction,
//! and writes the row that keeps it from coming back; [`work`] erases in the background, place by place
//! ([`places`]), each step a transaction that also counts, so that whoever is cut off goes on where it was.
//! At last the row is the receipt: counts and numbers, no name.

mod begin;
mod device;
mod domains;
mod places;
mod receipt;
mod work;

use super::Reference;

pub use begin::{Begun, Confirmation, EraseError, Plan, begin, plan};
pub use receipt::{Erasure, Place, get, list};
pub use work::{open, work};

/// What can be erased. A new kind is an entry here, in [`places::of`] and in [`begin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    User,
    Sensor,
    Device,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::User, Self::Sensor, Self::Device];

    /// As the audit log calls a subject of this kind.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Sensor => "sensor",
            Self::Device => "device",
        }
    }

    fn stored(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What stands where the name stood. No name has a space in it.
    #[must_use]
    pub fn alias(self, subject_id: i64) -> String {
        format!("erased {} {subject_id}", self.name())
    }
}

/// Whose data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    User(Reference),
    Sensor(Reference),
    /// By its number.
    Device(i64),
}

impl Subject {
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::User(_) => Kind::User,
            Self::Sensor(_) => Kind::Sensor,
            Self::Device(_) => Kind::Device,
        }
    }
}
