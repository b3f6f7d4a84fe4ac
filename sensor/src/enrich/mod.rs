//! What makes counts into answers: where addresses are, which processes the local ends of flows belong to, and
//! the names by which clients reach their servers.
//!
//! [`Enricher`] is called by the pipeline between merge and detection, with the records of an epoch, and is the
//! one owner of what is looked up. [`names`] learns from observations as they come and is asked when records are
//! made. Both add to records and never change a count.

mod daily;
pub mod names;
mod places;
mod processes;
mod shared;

use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_wire::NameSource;

use crate::flow::{Context, Record};
use crate::metrics::{Metrics, unix_seconds};

pub use daily::Daily;
pub use places::{Places, PlacesError};
pub use processes::Processes;
pub use shared::SharedNames;

/// How often files are looked at for a newer one.
const REFRESH: Duration = Duration::from_secs(30);

/// All sources of context.
pub struct Enricher {
    places: Places,
    /// Absent where no events are read.
    names: Option<(SharedNames, Daily)>,
    processes: Option<Processes>,
    refreshed: Option<Instant>,
    metrics: Arc<Metrics>,
}

impl Enricher {
    #[must_use]
    pub fn new(places: Places, metrics: Arc<Metrics>) -> Self {
        Self { places, names: None, processes: None, refreshed: None, metrics }
    }

    /// Flows get the names that are known, so many different ones a day.
    #[must_use]
    pub fn with_names(self, names: Option<(SharedNames, Daily)>) -> Self {
        Self { names, ..self }
    }

    /// Flows of this host get their processes.
    #[must_use]
    pub fn with_processes(self, processes: Option<Processes>) -> Self {
        Self { processes, ..self }
    }

    /// Adds what is known to each record. Takes what files need to be read.
    pub fn enrich(&mut self, records: &mut [Record]) {
        self.refresh();
        if let Some((names, daily)) = &mut self.names {
            names.describe(records);
            bound(records, daily, &self.metrics);
            self.count(records);
        }
        if let Some(processes) = &self.processes {
            // A socket that was made and closed within the epoch is told of by now.
            processes.read();
            processes.describe(records);
        }
        if self.places.is_empty() {
            return;
        }
        for record in records {
            let (src_place, dst_place) = (self.places.of(record.key.src), self.places.of(record.key.dst));
            if src_place.is_none() && dst_place.is_none() {
                continue;
            }
            let context: &mut Context = record.context.get_or_insert_default();
            (context.src_place, context.dst_place) = (src_place, dst_place);
        }
    }

    /// Of how many records the name is known.
    fn count(&self, records: &[Record]) {
        let names = records.iter().filter_map(|record| record.context.as_ref()?.name.as_ref());
        let mut named = [0; NameSource::GIVEN.len()];
        for name in names {
            if let Some(place) = NameSource::GIVEN.iter().position(|source| *source == name.source) {
                named[place] += 1;
            }
        }
        for (source, named) in NameSource::GIVEN.into_iter().zip(named) {
            self.metrics.named_records.with_label_values(&[source.word()]).inc_by(named);
        }
    }

    fn refresh(&mut self) {
        if self.refreshed.is_some_and(|at| at.elapsed() < REFRESH) {
            return;
        }
        self.refreshed = Some(Instant::now());
        for told in self.places.refresh() {
            let result = match told {
                Ok(path) => {
                    tracing::info!(path = %path.display(), "place database read");
                    "read"
                }
                Err(error) => {
                    tracing::warn!(%error, "place database not read; what was read before is still used");
                    "failed"
                }
            };
            self.metrics.place_reads.with_label_values(&[result]).inc();
        }
    }
}

/// Takes names from records once the day has had its share.
fn bound(records: &mut [Record], daily: &mut Daily, metrics: &Metrics) {
    let day = unix_seconds() as u64 / 86_400;
    for context in records.iter_mut().filter_map(|record| record.context.as_mut()) {
        if context.name.take_if(|name| !daily.admits(&name.text, day)).is_some() {
            metrics.names_over_daily.inc();
        }
    }
}
