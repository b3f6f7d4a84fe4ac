//! The outbox: what happened, told in the transaction in which it happened, numbered afterwards.
//!
//! [`append`] writes an event beside the change that it tells of: both are there or neither. [`publish`]
//! gives committed events their cursors, 1, 2, 3, …, one publisher at a time, so whoever reads up to a cursor
//! has seen all that there will ever be up to it (`docs/decisions/0050-events.md`). Events of one sensor are
//! numbered in the order in which their transactions were committed.

use std::time::SystemTime;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, SimpleQueryMessage};

use super::statement::Sql;
use super::{Class, Isolation, Lease, Pool, StoreError, locks};

/// Bytes of a body, as the table's check has them.
const MAX_BODY: usize = 16 << 10;
/// Events that are numbered in one transaction.
const BATCH: usize = 5_000;
/// Rows deleted in one transaction.
const CHUNK: i64 = 20_000;
/// Told when events were appended that need a cursor.
pub const PENDING: &str = "weir_event_pending";
/// Told when events have their cursors.
pub const PUBLISHED: &str = "weir_event_published";

/// What an event is about. A closed set, and a check of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    Flows,
    Ledger,
    Sensors,
    Alerts,
    Detections,
    Devices,
    Jobs,
    Audit,
}

impl Topic {
    pub const ALL: [Self; 8] = [
        Self::Flows,
        Self::Ledger,
        Self::Sensors,
        Self::Alerts,
        Self::Detections,
        Self::Devices,
        Self::Jobs,
        Self::Audit,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Flows => "flows",
            Self::Ledger => "ledger",
            Self::Sensors => "sensors",
            Self::Alerts => "alerts",
            Self::Detections => "detections",
            Self::Devices => "devices",
            Self::Jobs => "jobs",
            Self::Audit => "audit",
        }
    }

    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.name() == name)
    }
}

/// An event to append.
#[derive(Clone, Debug)]
pub struct NewEvent {
    pub topic: Topic,
    /// `flows.stored`, `user.create`, …: at most 64 bytes
    pub kind: &'static str,
    pub sensor_id: Option<i32>,
    /// At most 16 KiB as text; of a longer one only its length is kept.
    pub body: Value,
}

/// An event with its cursor.
#[derive(Clone, Debug)]
pub struct Event {
    pub cursor: i64,
    pub topic: Topic,
    pub kind: String,
    pub sensor_id: Option<i32>,
    /// The sensor's name, while there is one.
    pub sensor: Option<String>,
    pub at: SystemTime,
    pub body: Value,
}

/// Which events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// All topics, if empty.
    pub topics: Vec<Topic>,
    /// Of any sensor or none, if empty.
    pub sensors: Vec<i32>,
}

impl Selection {
    #[must_use]
    pub fn holds(&self, topic: Topic, sensor_id: Option<i32>) -> bool {
        (self.topics.is_empty() || self.topics.contains(&topic))
            && (self.sensors.is_empty() || sensor_id.is_some_and(|id| self.sensors.contains(&id)))
    }
}

/// The cursors that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The last one given.
    pub last: i64,
    /// The last one that retention took; 0 before that.
    pub pruned_to: i64,
}

/// What a look at the events found.
#[derive(Clone, Debug)]
pub struct Found {
    pub events: Vec<Event>,
    pub extent: Extent,
}

/// Appends an event in the caller's transaction and wakes the publishers when it commits.
///
/// The last thing to do in a transaction: an event of a sensor takes that sensor's event lock, which is held
/// until the commit, and whoever asked for other locks after it could wait in a circle.
pub async fn append(lease: &Lease<'_>, event: &NewEvent) -> Result<(), StoreError> {
    insert(lease, event.statement(), event).await?;
    // Many in one transaction are told once.
    lease.client().execute("SELECT pg_notify($1, '')", &[&PENDING]).await?;
    Ok(())
}

/// [`append`] for the busiest writers, who wake the publisher of their own instance after the commit
/// themselves: transactions that notify commit one after the other in the whole Postgres server.
pub async fn append_quietly(lease: &mut Lease<'_>, event: &NewEvent) -> Result<(), StoreError> {
    let statement = lease.prepared(event.statement()).await?;
    insert(lease, &statement, event).await
}

impl NewEvent {
    fn statement(&self) -> &'static str {
        match self.sensor_id {
            None => "INSERT INTO event_pending (topic, kind, body) VALUES ($1, $2, $3::text::json)",
            // The number is taken after the lock, so numbers of one sensor follow its commits.
            Some(_) => {
                "WITH turn AS MATERIALIZED (SELECT pg_advisory_xact_lock($5, $4))
                 INSERT INTO event_pending (topic, kind, body, sensor_id)
                 SELECT $1, $2, $3::text::json, $4 FROM turn"
            }
        }
    }
}

async fn insert<S: ?Sized + Sql>(
    lease: &Lease<'_>,
    statement: &S,
    event: &NewEvent,
) -> Result<(), StoreError> {
    let mut body = event.body.to_string();
    if body.len() > MAX_BODY {
        // An event must not make the change impossible that it tells of.
        body = json!({ "left_out_bytes": body.len() }).to_string();
    }
    let topic = event.topic.name();
    let mut values: Vec<&(dyn ToSql + Sync)> = vec![&topic, &event.kind, &body];
    if let Some(sensor_id) = &event.sensor_id {
        values.extend([sensor_id as &(dyn ToSql + Sync), &locks::EVENTS]);
    }
    lease.client().execute(statement, &values).await?;
    Ok(())
}

/// Gives cursors to what was committed; says whether there may be more.
///
/// One message to Postgres, which runs it as one transaction: an instance that hangs or dies here holds
/// nobody up.
pub async fn publish(pool: &Pool) -> Result<Published, StoreError> {
    let sql = format!(
        "SELECT last FROM event_head FOR UPDATE;
         WITH taken AS (
             DELETE FROM event_pending
             WHERE pending_id IN (SELECT pending_id FROM event_pending ORDER BY pending_id LIMIT {BATCH})
             RETURNING *
         ), numbered AS (
             INSERT INTO event (cursor, topic, kind, sensor_id, at, body)
             SELECT (SELECT last FROM event_head) + row_number() OVER (ORDER BY pending_id),
                    topic, kind, sensor_id, at, body
             FROM taken RETURNING 1
         ), counted AS (SELECT count(*) AS events FROM numbered)
         UPDATE event_head SET last = last + counted.events FROM counted WHERE counted.events > 0
         RETURNING counted.events, last, pg_notify('{PUBLISHED}', last::text)"
    );
    let work = async {
        let lease = pool.lease(Class::Admin, "event_publish").await?;
        let result = lease.client().simple_query(&sql).await.map_err(StoreError::from);
        lease.finish(result).await
    };
    let answer = pool.within(Class::Admin, work).await?;
    let mut published = Published::default();
    for message in answer {
        if let SimpleQueryMessage::Row(row) = message
            && row.len() == 3
        {
            published.events = row.get(0).and_then(|text| text.parse().ok()).unwrap_or_default();
        }
    }
    Ok(published)
}

/// What [`publish`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    pub events: usize,
}

impl Published {
    /// Whether more than it took may be waiting.
    #[must_use]
    pub fn may_have_left_some(self) -> bool {
        self.events == BATCH
    }
}

/// The first events after a cursor and up to another, at most `limit`, in order.
pub async fn read(
    pool: &Pool,
    selection: &Selection,
    after: i64,
    until: i64,
    limit: i64,
) -> Result<Found, StoreError> {
    let topics: Vec<&str> = selection.topics.iter().map(|topic| topic.name()).collect();
    let work = async {
        let mut lease = pool.begin(Class::Query, Isolation::Snapshot, "event_read").await?;
        let result = async {
            let extent = lease.prepared(EXTENT).await?;
            // Each kind of question has a plan of its own.
            let sql = match (topics.is_empty(), selection.sensors.is_empty()) {
                (true, true) => ALL,
                (false, true) => BY_TOPIC,
                (true, false) => BY_SENSOR,
                (false, false) => BY_BOTH,
            };
            let statement = lease.prepared(sql).await?;
            let client = lease.client();
            let mut values: Vec<&(dyn ToSql + Sync)> = vec![&after, &until, &limit];
            if !topics.is_empty() {
                values.push(&topics);
            }
            if !selection.sensors.is_empty() {
                values.push(&selection.sensors);
            }
            Ok(tokio::try_join!(client.query_one(&extent, &[]), client.query(&statement, &values))?)
        }
        .await;
        lease.finish(result).await
    };
    let (extent, rows) = pool.within(Class::Query, work).await?;
    let extent = Extent { last: extent.get(0), pruned_to: extent.get(1) };
    Ok(Found { events: rows.iter().filter_map(event).collect(), extent })
}

const EXTENT: &str = "SELECT last, pruned_to FROM event_head";
const ALL: &str = "SELECT cursor, topic, kind, event.sensor_id, name, at, body::text
                   FROM event LEFT JOIN sensor USING (sensor_id)
                   WHERE cursor > $1 AND cursor <= $2 ORDER BY cursor LIMIT $3";
const BY_TOPIC: &str = "SELECT cursor, topic, kind, event.sensor_id, name, at, body::text
                        FROM event LEFT JOIN sensor USING (sensor_id)
                        WHERE cursor > $1 AND cursor <= $2 AND topic = ANY ($4) ORDER BY cursor LIMIT $3";
const BY_SENSOR: &str = "SELECT cursor, topic, kind, event.sensor_id, name, at, body::text
                         FROM event LEFT JOIN sensor USING (sensor_id)
                         WHERE cursor > $1 AND cursor <= $2 AND event.sensor_id = ANY ($4)
                         ORDER BY cursor LIMIT $3";
const BY_BOTH: &str = "SELECT cursor, topic, kind, event.sensor_id, name, at, body::text
                       FROM event LEFT JOIN sensor USING (sensor_id)
                       WHERE cursor > $1 AND cursor <= $2 AND topic = ANY ($4) AND event.sensor_id = ANY ($5)
                       ORDER BY cursor LIMIT $3";

/// The cursors that there are now.
pub async fn extent(pool: &Pool) -> Result<Extent, StoreError> {
    let work = async {
        let mut lease = pool.begin(Class::Admin, Isolation::Snapshot, "event_extent").await?;
        let result = async {
            let statement = lease.prepared(EXTENT).await?;
            Ok(lease.client().query_one(&statement, &[]).await?)
        }
        .await;
        lease.finish(result).await
    };
    let row = pool.within(Class::Admin, work).await?;
    Ok(Extent { last: row.get(0), pruned_to: row.get(1) })
}

/// Deletes events from before a time and those beyond the newest `keep`; gives how many went. Cursors stay
/// without a gap: what goes is always the oldest.
pub async fn prune(pool: &Pool, before: Timestamp, keep: u64) -> Result<u64, StoreError> {
    let (before, keep) = (SystemTime::from(before), i64::try_from(keep).unwrap_or(i64::MAX));
    let mut pruned = 0;
    loop {
        let work = async {
            let lease = pool.begin(Class::Maintenance, Isolation::ReadCommitted, "event_prune").await?;
            let result = async {
                // The first that stays by its age: times of neighbours may be the wrong way round, cursors not.
                let sql = "WITH bound AS (
                               SELECT least(greatest(last - $2,
                                                     (SELECT coalesce(min(cursor) - 1, last) FROM event WHERE at >= $1)),
                                            pruned_to + $3) AS cursor
                               FROM event_head
                           ), gone AS (
                               DELETE FROM event USING bound WHERE event.cursor <= bound.cursor RETURNING 1
                           )
                           UPDATE event_head SET pruned_to = greatest(pruned_to, bound.cursor) FROM bound
                           RETURNING (SELECT count(*) FROM gone)";
                Ok(lease.client().query_one(sql, &[&before, &keep, &CHUNK]).await?.get::<_, i64>(0))
            }
            .await;
            lease.finish(result).await
        };
        let rows = pool.within(Class::Maintenance, work).await?;
        pruned += rows.unsigned_abs();
        if rows < CHUNK {
            return Ok(pruned);
        }
    }
}

fn event(row: &Row) -> Option<Event> {
    Some(Event {
        cursor: row.get(0),
        // Another one is a newer version's, which knows what to do with it.
        topic: Topic::parse(row.get(1))?,
        kind: row.get(2),
        sensor_id: row.get(3),
        sensor: row.get(4),
        at: row.get(5),
        body: serde_json::from_str(row.get(6)).unwrap_or(Value::Null),
    })
}
