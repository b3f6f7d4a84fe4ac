//! Flows that were counted and are not stored: how many, and why.
//!
//! A notice of a loss has the key of the batch that it stands for, so exactly one of the two is stored:
//! the loss has a name in the ledger instead of being a gap in it.

use weir_wire::{DropReason, limits};

use super::validate::{Invalid, count};

/// Why flows are not stored. The numbers are stored; those below 100 are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i16)]
pub enum Reason {
    /// The sensor's spool reached its bound of bytes.
    SpoolBytes = 1,
    /// Older than the sensor's spool keeps.
    SpoolAge = 2,
    /// Refused for good, and the sensor's quarantine reached its bound.
    Quarantine = 3,
    /// The sensor's spool was damaged there.
    Corrupt = 4,
    /// Came when its window was older than `ingest.max_past_days`.
    Expired = 100,
}

/// What is not stored. Counts are of both directions and fit an `i64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    pub reason: Reason,
    pub records: i64,
    pub packets: i64,
    pub octets: i64,
}

impl Reason {
    pub const ALL: [Self; 5] =
        [Self::SpoolBytes, Self::SpoolAge, Self::Quarantine, Self::Corrupt, Self::Expired];

    /// For answers and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SpoolBytes => DropReason::SpoolBytes.word(),
            Self::SpoolAge => DropReason::SpoolAge.word(),
            Self::Quarantine => DropReason::Quarantine.word(),
            Self::Corrupt => DropReason::Corrupt.word(),
            Self::Expired => "expired",
        }
    }

    /// As it is stored.
    #[must_use]
    pub fn code(self) -> i16 {
        self as i16
    }

    #[must_use]
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

/// Checks a notice of the wire.
pub(super) fn check(dropped: &weir_wire::Dropped) -> Result<Dropped, Invalid> {
    let reason = match DropReason::try_from(dropped.reason) {
        Ok(DropReason::SpoolBytes) => Reason::SpoolBytes,
        Ok(DropReason::SpoolAge) => Reason::SpoolAge,
        Ok(DropReason::Quarantine) => Reason::Quarantine,
        Ok(DropReason::Corrupt) => Reason::Corrupt,
        Ok(DropReason::Unknown) | Err(_) => {
            let message = format!("{} is not a reason", dropped.reason);
            return Err(Invalid { field: "dropped.reason".to_owned(), message });
        }
    };
    if dropped.records > limits::MAX_RECORDS as u64 {
        let message = format!("{} is more than a batch has ({})", dropped.records, limits::MAX_RECORDS);
        return Err(Invalid { field: "dropped.records".to_owned(), message });
    }
    Ok(Dropped {
        reason,
        records: count("dropped.records", dropped.records)?,
        packets: count("dropped.packets", dropped.packets)?,
        octets: count("dropped.octets", dropped.octets)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_come_back_from_what_is_stored() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_code(reason.code()), Some(reason));
        }
        assert_eq!(Reason::from_code(0), None);
    }
}
