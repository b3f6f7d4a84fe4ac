//! What flows refer to by number: domains, processes, and who runs an autonomous system.
//!
//! [`Dictionary::resolve`] runs before the transaction of a batch, in one of its own,
//! and remembers for the rest of the day what it found. A domain is deleted no earlier than two days after
//! the last flow that may refer to it was dropped, so a number that is remembered for a day never goes away
//! while it is remembered. An erasure does not wait so long: it makes a new edition, and a batch whose numbers are
//! of an older one is not stored with them ([`is_current`]).

use std::collections::BTreeSet;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use weir_wire::Place;

use super::processes::{self, Process};
use super::{Class, Isolation, Lease, Pool, StoreError, devices, locks};
use crate::ingest::Batch;

/// Names that are remembered; at this many all are forgotten and looked up again.
const REMEMBERED: usize = 200_000;
/// Rows deleted in one transaction.
const CHUNK: i64 = 20_000;

/// The numbers of what a batch's flows refer to, in the batch's order; 0 for what is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    pub domains: Vec<i32>,
    pub processes: Vec<i32>,
    /// Which edition of the dictionary they are of.
    pub edition: i64,
}

/// The numbers of today's names.
#[derive(Clone, Default)]
pub struct Dictionary {
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    day: Date,
    /// That was current before the first of the names was looked up.
    edition: Option<i64>,
    domains: HashMap<String, i32>,
    systems: HashMap<u32, String>,
    processes: HashMap<Process, i32>,
}

impl Known {
    /// What is remembered of `day`, and room for more.
    fn of(&mut self, day: Date) -> &mut Self {
        if self.day != day || self.domains.len() + self.systems.len() + self.processes.len() >= REMEMBERED {
            *self = Self { day, ..Self::default() };
        }
        self
    }
}

impl Dictionary {
    /// The numbers of a sensor's batch's names and processes. Unknown ones are added, and so are autonomous systems.
    ///
    /// `None` if a device was erased that the batch may be about: nothing is added of what it may not say any more.
    pub async fn resolve(
        &self,
        pool: &Pool,
        sensor_id: i32,
        batch: &Batch,
    ) -> Result<Option<Numbers>, StoreError> {
        let context = &batch.context;
        if context.names.is_empty() && context.places.is_empty() && context.processes.is_empty() {
            return Ok(Some(Numbers::default()));
        }
        let day = Timestamp::now().to_zoned(TimeZone::UTC).date();
        let (mut domains, mut processes, new_systems, mut edition) = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let known = known.of(day);
            let names = context.names.iter().map(|name| (name.is_empty(), name));
            let told = context.processes.iter().map(|process| (process.name.is_empty(), process));
            let new_systems = systems(&context.places, &known.systems);
            let domains = Wanted::of(names, &known.domains);
            (domains, Wanted::of(told, &known.processes), new_systems, known.edition)
        };
        if !domains.new.is_empty() || !processes.new.is_empty() || !new_systems.is_empty() {
            let work = async {
                let lease = pool.begin(Class::Ingest, Isolation::ReadCommitted, "dictionary").await?;
                let result = async {
                    if !devices::may_say(&lease, sensor_id, batch).await? {
                        return Ok(None);
                    }
                    let edition = match edition {
                        Some(edition) => edition,
                        None => lease.client().query_one(EDITION, &[]).await?.get(0),
                    };
                    add_systems(&lease, &new_systems, day).await?;
                    domains.take(add_domains(&lease, &domains.new, day).await?);
                    processes.take(processes::add(&lease, &processes.new, day).await?);
                    Ok(Some(edition))
                }
                .await;
                lease.finish(result).await
            };
            edition = pool.within(Class::Ingest, work).await?;
            if edition.is_none() {
                return Ok(None);
            }
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.of(day);
        // What was found in an older edition than others found meanwhile is not remembered.
        let of_theirs = known.edition.is_none() || known.edition == edition;
        if of_theirs {
            known.edition = edition;
        }
        known.systems.extend(new_systems);
        Ok(Some(Numbers {
            domains: domains.numbers(of_theirs.then_some(&mut known.domains))?,
            processes: processes.numbers(of_theirs.then_some(&mut known.processes))?,
            edition: edition.unwrap_or_default(),
        }))
    }

    /// Looks everything up again, if what is remembered is of this edition.
    pub fn forget(&self, edition: i64) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.edition == Some(edition) {
            *known = Known::default();
        }
    }
}

/// What a batch asks for, and what was found of it.
struct Wanted<T> {
    /// In the batch's order; what is to be looked up is `Err`, with its place in `new`.
    slots: Vec<Result<i32, usize>>,
    /// In order, and each once: whoever else adds the same ones does so in the same order.
    new: Vec<T>,
    found: HashMap<T, i32>,
}

impl<T: Clone + Eq + Hash + Ord> Wanted<T> {
    /// Pairs of "is empty" and a value.
    fn of<'a>(values: impl Iterator<Item = (bool, &'a T)> + Clone, known: &HashMap<T, i32>) -> Self
    where
        T: 'a,
    {
        let unknown = |(empty, value): &(bool, &'a T)| !empty && !known.contains_key(*value);
        let new: BTreeSet<&T> = values.clone().filter(unknown).map(|(_, value)| value).collect();
        let new: Vec<T> = new.into_iter().cloned().collect();
        let slot = |(empty, value): (bool, &T)| match known.get(value) {
            _ if empty => Ok(0),
            Some(number) => Ok(*number),
            None => Err(new.binary_search(value).unwrap_or_default()),
        };
        Self { slots: values.map(slot).collect(), new, found: HashMap::new() }
    }

    fn take(&mut self, found: HashMap<T, i32>) {
        self.found = found;
    }

    /// The numbers in the batch's order; what was found is known there from now on.
    fn numbers(self, known: Option<&mut HashMap<T, i32>>) -> Result<Vec<i32>, StoreError> {
        let Self { slots, new, found } = self;
        let number = |slot| match slot {
            Ok(number) => Some(number),
            Err(place) => new.get::<usize>(place).and_then(|value| found.get(value)).copied(),
        };
        // Nobody deletes a name of today; a hand in the database, or an erasure, may.
        let numbers: Option<Vec<i32>> = slots.into_iter().map(number).collect();
        if let Some(known) = known {
            known.extend(found);
        }
        numbers.ok_or_else(|| StoreError::Unavailable("a name went while it was looked up".to_owned()))
    }
}

const EDITION: &str = "SELECT edition FROM dictionary_edition";

/// Whether the numbers hold until the caller's transaction ends: a new edition waits for that.
pub(super) async fn is_current(lease: &mut Lease<'_>, numbers: &Numbers) -> Result<bool, StoreError> {
    if numbers.domains.iter().chain(&numbers.processes).all(|number| *number == 0) {
        return Ok(true);
    }
    let lock = lease.prepared(locks::BESIDE).await?;
    let edition = lease.prepared(EDITION).await?;
    let client = lease.client();
    // Sent together, done one after the other: the second one sees what the lock waited for.
    let lock_id: &[&(dyn tokio_postgres::types::ToSql + Sync)] = &[&locks::DICTIONARY];
    let (_, row) = tokio::try_join!(client.execute(&lock, lock_id), client.query_one(&edition, &[]))?;
    Ok(row.get::<_, i64>(0) == numbers.edition)
}

/// Waits for the batches that are being stored with numbers of this edition, and begins another one.
pub(super) async fn new_edition(lease: &Lease<'_>) -> Result<(), StoreError> {
    lease.client().execute(locks::ALONE, &[&locks::DICTIONARY]).await?;
    lease.client().execute("UPDATE dictionary_edition SET edition = edition + 1", &[]).await?;
    Ok(())
}

/// Systems whose organisation is not what is remembered, in order.
fn systems(places: &[Place], known: &HashMap<u32, String>) -> std::collections::BTreeMap<u32, String> {
    let told = places.iter().filter(|place| place.asn != 0 && !place.organisation.is_empty());
    let new = told.filter(|place| known.get(&place.asn) != Some(&place.organisation));
    new.map(|place| (place.asn, place.organisation.clone())).collect()
}

async fn add_systems(
    lease: &Lease<'_>,
    systems: &std::collections::BTreeMap<u32, String>,
    day: Date,
) -> Result<(), StoreError> {
    if systems.is_empty() {
        return Ok(());
    }
    let numbers: Vec<i64> = systems.keys().map(|asn| i64::from(*asn)).collect();
    let organisations: Vec<&str> = systems.values().map(String::as_str).collect();
    let sql = "INSERT INTO autonomous_system AS known (asn, organisation, last_used)
               SELECT asn, organisation, $3::text::date
               FROM unnest($1::bigint[], $2::text[]) AS wanted (asn, organisation) ORDER BY asn
               ON CONFLICT (asn) DO UPDATE SET organisation = EXCLUDED.organisation, last_used = EXCLUDED.last_used
               WHERE known.organisation <> EXCLUDED.organisation OR known.last_used < EXCLUDED.last_used";
    lease.client().execute(sql, &[&numbers, &organisations, &day.to_string()]).await?;
    Ok(())
}

/// Marks the names as used today, adds those that are new, and gives the numbers of all.
async fn add_domains(
    lease: &Lease<'_>,
    names: &[String],
    day: Date,
) -> Result<HashMap<String, i32>, StoreError> {
    if names.is_empty() {
        return Ok(HashMap::new());
    }
    // Known ones do not use up numbers. What another writer adds between the two statements is a conflict
    // that changes nothing.
    let sql = "WITH wanted AS (SELECT unnest($1::text[]) AS name), used AS (
                   UPDATE domain SET last_used = $2::text::date WHERE domain_id IN (
                       SELECT domain_id FROM domain JOIN wanted USING (name)
                       WHERE last_used < $2::text::date ORDER BY name FOR UPDATE)
               )
               INSERT INTO domain (name, last_used)
               SELECT name, $2::text::date FROM wanted
               WHERE NOT EXISTS (SELECT FROM domain WHERE domain.name = wanted.name)
               ORDER BY name ON CONFLICT (name) DO NOTHING";
    let day = day.to_string();
    lease.client().execute(sql, &[&names, &day]).await?;
    let rows =
        lease.client().query("SELECT name, domain_id FROM domain WHERE name = ANY ($1)", &[&names]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Deletes domains that no flow from `end` on was given; gives how many went.
pub async fn forget_before(pool: &Pool, end: Timestamp) -> Result<u64, StoreError> {
    let day = end.to_zoned(TimeZone::UTC).date().to_string();
    let sql = "DELETE FROM domain WHERE domain_id = ANY (ARRAY(
                   SELECT domain_id FROM domain WHERE last_used < $1::text::date
                   LIMIT $2 FOR UPDATE SKIP LOCKED))";
    delete_unused(pool, sql, "domain_retention", &day).await
}

/// Runs a deletion of at most `$2` rows that were last used before the day `$1`, until there are none.
pub(super) async fn delete_unused(
    pool: &Pool,
    sql: &str,
    purpose: &'static str,
    day: &str,
) -> Result<u64, StoreError> {
    let mut deleted = 0;
    loop {
        let work = async {
            let lease = pool.begin(Class::Maintenance, Isolation::ReadCommitted, purpose).await?;
            let result = lease.client().execute(sql, &[&day, &CHUNK]).await.map_err(StoreError::from);
            lease.finish(result).await
        };
        let rows = pool.within(Class::Maintenance, work).await?;
        deleted += rows;
        if (rows as i64) < CHUNK {
            return Ok(deleted);
        }
    }
}
