//! Partitions by time: their names, their making (ahead of time and on demand) and their end.
//!
//! A partition is made as a table of its own and then attached, which, unlike `CREATE TABLE … PARTITION
//! OF`, stops neither readers nor writers of its siblings. An advisory lock lets one maker work at a
//! time; a partition that is made and stays empty harms nobody, so making one is not part of the
//! transaction that needed it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use super::{Class, Isolation, Lease, Pool, StoreError, locks};

/// A table that is partitioned by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Parent {
    Flow,
    Rollup1m,
    Rollup1h,
}

/// One partition: `flow_20250131`, `rollup_1h_202501`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Partition {
    parent: Parent,
    first_day: Date,
}

impl Parent {
    pub const ALL: [Self; 3] = [Self::Flow, Self::Rollup1m, Self::Rollup1h];

    #[must_use]
    pub fn table(self) -> &'static str {
        match self {
            Self::Flow => "flow",
            Self::Rollup1m => "rollup_1m",
            Self::Rollup1h => "rollup_1h",
        }
    }

    /// An hour's sums are few: a month of them is one partition, a day of the others.
    fn monthly(self) -> bool {
        self == Self::Rollup1h
    }

    /// Rollup rows are updated in place; room on the page keeps their index out of it.
    fn storage(self) -> &'static str {
        match self {
            Self::Flow => "",
            Self::Rollup1m | Self::Rollup1h => "WITH (fillfactor = 70)",
        }
    }
}

impl Partition {
    /// The partition that holds `time`.
    #[must_use]
    pub fn holding(parent: Parent, time: Timestamp) -> Self {
        let day = time.to_zoned(TimeZone::UTC).date();
        let first_day = if parent.monthly() { day.first_of_month() } else { day };
        Self { parent, first_day }
    }

    /// The partition of that name, if it is one of ours.
    #[must_use]
    pub fn named(parent: Parent, name: &str) -> Option<Self> {
        let digits = name.strip_prefix(parent.table())?.strip_prefix('_')?;
        let length = if parent.monthly() { 6 } else { 8 };
        if digits.len() != length || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let year = digits.get(..4)?.parse().ok()?;
        let month = digits.get(4..6)?.parse().ok()?;
        let day = if parent.monthly() { 1 } else { digits.get(6..8)?.parse().ok()? };
        Some(Self { parent, first_day: Date::new(year, month, day).ok()? })
    }

    #[must_use]
    pub fn name(&self) -> String {
        let (year, month, day) = (self.first_day.year(), self.first_day.month(), self.first_day.day());
        if self.parent.monthly() {
            format!("{}_{year:04}{month:02}", self.parent.table())
        } else {
            format!("{}_{year:04}{month:02}{day:02}", self.parent.table())
        }
    }

    /// The first day after it.
    #[must_use]
    pub fn end(&self) -> Date {
        let span = if self.parent.monthly() { Span::new().months(1) } else { Span::new().days(1) };
        self.first_day.saturating_add(span)
    }

    /// The next one in time.
    #[must_use]
    pub fn next(&self) -> Self {
        Self { parent: self.parent, first_day: self.end() }
    }
}

/// Partitions that this process knows to be there. A cache: another instance's retention may drop one,
/// which the write that needs it then finds out.
#[derive(Clone, Default)]
pub struct Known(Arc<Mutex<HashSet<Partition>>>);

impl Known {
    fn missing(&self, wanted: &[Partition]) -> Vec<Partition> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.iter().filter(|partition| !known.contains(partition)).copied().collect()
    }

    fn add(&self, made: &[Partition]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Bounded by the days that ingest takes; a server that runs for years still starts over here.
        if known.len() > 4_096 {
            known.clear();
        }
        known.extend(made);
    }

    /// Forgets everything: the next writer looks again.
    pub fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Makes those of `wanted` that are not there.
pub async fn ensure(pool: &Pool, known: &Known, wanted: &[Partition]) -> Result<(), StoreError> {
    let missing = known.missing(wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let work = async {
        let lease = pool.begin(Class::Maintenance, Isolation::ReadCommitted, "make_partitions").await?;
        let result = make(&lease, &missing).await;
        lease.finish(result).await
    };
    pool.within(Class::Maintenance, work).await?;
    known.add(&missing);
    Ok(())
}

async fn make(lease: &Lease<'_>, missing: &[Partition]) -> Result<(), StoreError> {
    let client = lease.client();
    client.execute(locks::ALONE, &[&locks::PARTITIONS]).await?;
    for partition in missing {
        let name = partition.name();
        let attached = client
            .query_one(
                "SELECT EXISTS (SELECT FROM pg_inherits
                                WHERE inhrelid = to_regclass($1) AND NOT inhdetachpending)",
                &[&name],
            )
            .await?;
        if attached.get::<_, bool>(0) {
            continue;
        }
        // Names are made of our own words and digits, so they need no quoting.
        let parent = partition.parent.table();
        let storage = partition.parent.storage();
        let (from, to) = (partition.first_day, partition.end());
        // A table of that name that is not attached was detached by an operator or by a drop that was cut
        // short; it comes back with what it holds.
        client
            .batch_execute(&format!(
                "CREATE TABLE IF NOT EXISTS {name}
                     (LIKE {parent} INCLUDING DEFAULTS INCLUDING CONSTRAINTS) {storage};
                 ALTER TABLE {parent} ATTACH PARTITION {name} FOR VALUES FROM ('{from} 00:00+00') TO ('{to} 00:00+00')"
            ))
            .await?;
        tracing::info!(partition = name, "partition made");
    }
    Ok(())
}

/// The partitions of `parent` that are there, those that an interrupted drop left detached included.
pub async fn present(pool: &Pool, parent: Parent) -> Result<Vec<Partition>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Maintenance, Isolation::Snapshot, "list_partitions").await?;
        let result = lease
            .client()
            .query(
                "SELECT relname::text FROM pg_class
                 WHERE relkind = 'r' AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = $1::text::regclass)
                   AND starts_with(relname::text, $1 || '_')",
                &[&parent.table()],
            )
            .await
            .map_err(StoreError::from);
        lease.finish(result).await
    };
    let rows = pool.within(Class::Maintenance, work).await?;
    Ok(rows.iter().filter_map(|row| Partition::named(parent, row.get(0))).collect())
}

/// Detaches without stopping readers or writers of its siblings, then drops.
pub async fn drop(pool: &Pool, partition: Partition) -> Result<(), StoreError> {
    let (name, parent) = (partition.name(), partition.parent.table());
    let work = async {
        let lease = pool.lease(Class::Maintenance, "drop_partition").await?;
        // Alone, so that no maker attaches the table again between the two steps, old rows and all. Outside a
        // transaction the lock is the session's; on an error the connection is closed, and that frees it.
        let result = async {
            lease.client().execute("SELECT pg_advisory_lock($1)", &[&locks::PARTITIONS]).await?;
            detach_and_drop(&lease, &name, parent).await?;
            lease.client().execute("SELECT pg_advisory_unlock($1)", &[&locks::PARTITIONS]).await?;
            Ok(())
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Maintenance, work).await?;
    tracing::info!(partition = name, "partition dropped: past its retention");
    Ok(())
}

async fn detach_and_drop(lease: &Lease<'_>, name: &str, parent: &str) -> Result<(), StoreError> {
    let client = lease.client();
    let state = client
        .query_opt("SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = to_regclass($1)", &[&name])
        .await?;
    match state.map(|row| row.get::<_, bool>(0)) {
        // A detach that was cut short can only be finished.
        Some(true) => {
            client.batch_execute(&format!("ALTER TABLE {parent} DETACH PARTITION {name} FINALIZE")).await?;
        }
        Some(false) => {
            let detach = format!("ALTER TABLE {parent} DETACH PARTITION {name} CONCURRENTLY");
            client.batch_execute(&detach).await?;
        }
        None => {}
    }
    Ok(client.batch_execute(&format!("DROP TABLE IF EXISTS {name}")).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bounds_agree() {
        let time: Timestamp = "2024-12-31T23:59:59.999999999Z".parse().expect("a time");
        let day = Partition::holding(Parent::Flow, time);
        assert_eq!((day.name().as_str(), day.end().to_string().as_str()), ("flow_20241231", "2025-01-01"));
        let month = Partition::holding(Parent::Rollup1h, time);
        assert_eq!(
            (month.name().as_str(), month.end().to_string().as_str()),
            ("rollup_1h_202412", "2025-01-01")
        );
        for partition in [day, month, Partition::holding(Parent::Rollup1m, time)] {
            assert_eq!(Partition::named(partition.parent, &partition.name()), Some(partition));
        }
    }

    #[test]
    fn tables_that_are_not_partitions_are_left_alone() {
        for name in ["flow", "flow_", "flow_2024123", "flow_20241331", "flow_archive", "flow_20241231x"] {
            assert_eq!(Partition::named(Parent::Flow, name), None, "{name}");
        }
    }
}
