//! Names between the thread that learns them and the task that names flows.
//!
//! What must stay true: neither holds the lock for long, and a panic under it costs the names that were known, not
//! the sensor.

use std::sync::{Arc, Mutex, MutexGuard};

use super::names::{Limits, Names};
use crate::flow::Record;

/// Records that are named before the other side has its turn.
const AT_ONCE: usize = 256;

/// Two or more hold it.
#[derive(Clone, Debug)]
pub struct SharedNames {
    names: Arc<Mutex<Names>>,
    limits: Limits,
}

impl SharedNames {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { names: Arc::new(Mutex::new(Names::new(limits))), limits }
    }

    /// Who panicked under the lock left names half learned: they are forgotten.
    pub fn lock(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(|poisoned| {
            let mut names = poisoned.into_inner();
            *names = Names::new(self.limits);
            self.names.clear_poison();
            names
        })
    }

    /// Tells each record what its responder was called.
    pub fn describe(&self, records: &mut [Record]) {
        for records in records.chunks_mut(AT_ONCE) {
            let mut names = self.lock();
            for record in records {
                names.describe(record);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn a_panic_under_the_lock_costs_the_names_and_no_more() {
        let shared = SharedNames::new(Limits::default());
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _names = shared.lock();
            panic!("half done");
        }));
        assert!(panicked.is_err());
        assert_eq!(shared.lock().octets(), 0);
        assert_eq!(shared.clone().lock().octets(), 0, "and once only");
    }
}
