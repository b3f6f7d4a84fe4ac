//! Processes that flows refer to by number.
//!
//! [`Process`] is what tells them apart; how numbers are remembered and forgotten is in [`super::dictionary`].

use hashbrown::HashMap;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::{Lease, Pool, StoreError, dictionary};

/// A program that runs in one place. What is not known is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Process {
    /// The kernel's name of the task.
    pub name: String,
    pub executable: String,
    pub container: String,
    /// Of the service manager.
    pub unit: String,
}

impl Process {
    /// One of the texts, if it is known.
    #[must_use]
    pub fn known(&self, of: fn(&Self) -> &String) -> Option<String> {
        Some(of(self)).filter(|text| !text.is_empty()).cloned()
    }
}

/// Marks the processes as used today, adds those that are new, and gives the numbers of all.
pub(super) async fn add(
    lease: &Lease<'_>,
    processes: &[Process],
    day: Date,
) -> Result<HashMap<Process, i32>, StoreError> {
    if processes.is_empty() {
        return Ok(HashMap::new());
    }
    let column = |of: fn(&Process) -> &String| {
        processes.iter().map(|process| of(process).as_str()).collect::<Vec<_>>()
    };
    let names = column(|process| &process.name);
    let executables = column(|process| &process.executable);
    let containers = column(|process| &process.container);
    let units = column(|process| &process.unit);
    // As with domains: known ones do not use up numbers, and what another writer adds meanwhile is a conflict
    // that changes nothing.
    let sql = "WITH wanted AS (
                   SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
                            AS wanted (name, executable, container, unit)
               ), used AS (
                   UPDATE process SET last_used = $5::text::date WHERE process_id IN (
                       SELECT process_id FROM process JOIN wanted USING (name, executable, container, unit)
                       WHERE last_used < $5::text::date
                       ORDER BY name, executable, container, unit FOR UPDATE OF process)
               )
               INSERT INTO process (name, executable, container, unit, last_used)
               SELECT name, executable, container, unit, $5::text::date FROM wanted
               WHERE NOT EXISTS (SELECT FROM process AS known
                                 WHERE (known.name, known.executable, known.container, known.unit)
                                     = (wanted.name, wanted.executable, wanted.container, wanted.unit))
               ORDER BY name, executable, container, unit
               ON CONFLICT (name, executable, container, unit) DO NOTHING";
    let day = day.to_string();
    lease.client().execute(sql, &[&names, &executables, &containers, &units, &day]).await?;
    let sql = "SELECT name, executable, container, unit, process_id FROM process
               JOIN unnest($1::text[], $2::text[], $3::text[], $4::text[])
                    AS wanted (name, executable, container, unit) USING (name, executable, container, unit)";
    let rows = lease.client().query(sql, &[&names, &executables, &containers, &units]).await?;
    let found = rows.iter().map(|row| {
        let process =
            Process { name: row.get(0), executable: row.get(1), container: row.get(2), unit: row.get(3) };
        (process, row.get(4))
    });
    Ok(found.collect())
}

/// Deletes processes that no flow from `end` on was given; gives how many went.
pub async fn forget_before(pool: &Pool, end: Timestamp) -> Result<u64, StoreError> {
    let day = end.to_zoned(TimeZone::UTC).date().to_string();
    let sql = "DELETE FROM process WHERE process_id = ANY (ARRAY(
                   SELECT process_id FROM process WHERE last_used < $1::text::date
                   LIMIT $2 FOR UPDATE SKIP LOCKED))";
    dictionary::delete_unused(pool, sql, "process_retention", &day).await
}
