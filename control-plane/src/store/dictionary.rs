//! Names that flows refer to by number: domains, and who runs an autonomous system.
//!
//! [`Dictionary::resolve`] runs before the transaction of a batch, in statements that commit by themselves,
//! and remembers for the rest of the day what it found. A domain is deleted no earlier than two days after
//! the last flow that may refer to it was dropped, so a number that is remembered for a day never goes away
//! while it is remembered.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use weir_wire::Place;

use super::{Class, Isolation, Lease, Pool, StoreError};
use crate::ingest::Context;

/// Names that are remembered; at this many all are forgotten and looked up again.
const REMEMBERED: usize = 200_000;
/// Domains deleted in one transaction.
const CHUNK: i64 = 20_000;

/// The numbers of today's names.
#[derive(Clone, Default)]
pub struct Dictionary {
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    day: Date,
    domains: HashMap<String, i32>,
    systems: HashMap<u32, String>,
}

impl Known {
    /// What is remembered of `day`, and room for more.
    fn of(&mut self, day: Date) -> &mut Self {
        if self.day != day || self.domains.len() + self.systems.len() >= REMEMBERED {
            *self = Self { day, ..Self::default() };
        }
        self
    }
}

impl Dictionary {
    /// The numbers of a batch's names, in their order; 0 for an empty one. Unknown ones are added, and so
    /// are autonomous systems.
    pub async fn resolve(&self, pool: &Pool, context: &Context) -> Result<Vec<i32>, StoreError> {
        if context.names.is_empty() && context.places.is_empty() {
            return Ok(Vec::new());
        }
        let day = Timestamp::now().to_zoned(TimeZone::UTC).date();
        let (mut numbers, new_names, new_systems) = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let known = known.of(day);
            let number =
                |name: &String| if name.is_empty() { Some(0) } else { known.domains.get(name).copied() };
            let numbers: Vec<Option<i32>> = context.names.iter().map(number).collect();
            // In order, and each once: whoever else adds the same ones does so in the same order.
            let new: BTreeSet<&String> = context
                .names
                .iter()
                .zip(&numbers)
                .filter(|(_, number)| number.is_none())
                .map(|(name, _)| name)
                .collect();
            let new: Vec<String> = new.into_iter().cloned().collect();
            (numbers, new, systems(&context.places, &known.systems))
        };
        let mut found = HashMap::new();
        if !new_names.is_empty() || !new_systems.is_empty() {
            let work = async {
                let lease = pool.lease(Class::Ingest, "dictionary").await?;
                let result = async {
                    add_systems(&lease, &new_systems, day).await?;
                    add_domains(&lease, &new_names, day).await
                }
                .await;
                lease.finish(result).await
            };
            found = pool.within(Class::Ingest, work).await?;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.of(day);
        for (number, name) in numbers.iter_mut().zip(&context.names).filter(|(number, _)| number.is_none()) {
            *number = found.get(name).copied();
        }
        known.domains.extend(found);
        known.systems.extend(new_systems);
        // Nobody deletes a name of today; a hand in the database may.
        let numbers: Option<Vec<i32>> = numbers.into_iter().collect();
        numbers.ok_or_else(|| StoreError::Unavailable("a name went while it was looked up".to_owned()))
    }
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
    let mut deleted = 0;
    loop {
        let work = async {
            let lease = pool.begin(Class::Maintenance, Isolation::ReadCommitted, "domain_retention").await?;
            let sql = "DELETE FROM domain WHERE domain_id = ANY (ARRAY(
                           SELECT domain_id FROM domain WHERE last_used < $1::text::date
                           LIMIT $2 FOR UPDATE SKIP LOCKED))";
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
