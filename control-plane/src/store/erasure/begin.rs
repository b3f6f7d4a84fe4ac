//! The two steps of an erasure: what would go and the confirmation of that, then the beginning.
//!
//! A confirmation is good once, for a few minutes, for who asked, for one subject and for the counts that were said.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio_postgres::types::ToSql;

use super::places::{self, Step};
use super::receipt::{self, Erasure};
use super::{Kind, Subject};
use crate::store::audit::{self, Author, Change};
use crate::store::events::{self, NewEvent, Topic};
use crate::store::users::{self, UserError};
use crate::store::{Class, Isolation, Lease, Pool, StoreError, devices, sensors};

/// How long a confirmation is good.
pub const GOOD_FOR: Duration = Duration::from_mins(10);
/// A count that takes longer is left out: the receipt has it.
const COUNT_MS: u32 = 2_000;

/// The values of every statement in [`places`], whichever of them it uses.
pub(super) const GIVEN: &str =
    "WITH given AS (SELECT $1::bigint, $2::text, $3::text, $4::bigint, $5::bigint) ";

/// What would go.
#[derive(Clone, Debug)]
pub struct Plan {
    pub kind: Kind,
    pub subject_id: i64,
    pub name: String,
    /// By place; `None` where it was not counted ahead.
    pub places: Vec<(&'static str, Option<i64>)>,
    pub expires_at: SystemTime,
}

/// What the second step shows.
#[derive(Clone, Copy, Debug)]
pub struct Confirmation<'a> {
    pub token_sha256: &'a [u8; 32],
}

/// What the second step did.
#[derive(Clone, Debug)]
pub struct Begun {
    pub erasure: Erasure,
    pub name: String,
}

/// Why nothing is erased.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    #[error("no {} has this id or name", .0.name())]
    Unknown(Kind),
    #[error("it is being erased already: GET /api/v1/erasures/{0} says how far it is")]
    Running(i32),
    #[error(
        "the confirmation is not for this, was used, or its time is over: ask for the counts again, which gives \
         another one"
    )]
    Void,
    #[error(transparent)]
    LastAdmin(UserError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Counts what would go, and keeps the hash of a confirmation for it. An earlier one of the same caller is void.
pub async fn plan(
    pool: &Pool,
    author: &Author,
    subject: &Subject,
    token_sha256: &[u8; 32],
) -> Result<Plan, EraseError> {
    let kind = subject.kind();
    let (subject_id, name) = find(pool, subject).await?.ok_or(EraseError::Unknown(kind))?;
    if let Some(erasure_id) = running(pool, kind, subject_id).await? {
        return Err(EraseError::Running(erasure_id));
    }
    let mut counts = Vec::new();
    for place in places::of(kind) {
        let count = match place.count {
            None => None,
            Some(sql) => count(pool, sql, (kind, subject_id, &name)).await?,
        };
        counts.push((place.name, count));
    }
    let announced: BTreeMap<_, _> = counts.iter().copied().collect();
    let announced = json!(announced).to_string();
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "erasure_plan").await?;
        let result = async {
            let client = lease.client();
            client.execute("DELETE FROM erasure_confirmation WHERE expires_at <= now()", &[]).await?;
            let sql = "INSERT INTO erasure_confirmation (principal, kind, subject_id, token_sha256, announced, expires_at)
                       VALUES ($1, $2, $3, $4, $5::text::json, now() + make_interval(secs => $6))
                       ON CONFLICT (principal, kind, subject_id) DO UPDATE SET token_sha256 = excluded.token_sha256,
                           announced = excluded.announced, expires_at = excluded.expires_at
                       RETURNING expires_at";
            let values: [&(dyn ToSql + Sync); 6] = [
                &principal(author),
                &kind.name(),
                &subject_id,
                &&token_sha256[..],
                &announced,
                &GOOD_FOR.as_secs_f64(),
            ];
            Ok(client.query_one(sql, &values).await?.get(0))
        }
        .await;
        lease.finish(result).await
    };
    let expires_at = pool.within(Class::Admin, work).await?;
    Ok(Plan { kind, subject_id, name, places: counts, expires_at })
}

/// Ends the subject, for good: from the commit on nothing of it is taken, and the rest is the job's.
pub async fn begin(
    pool: &Pool,
    author: &Author,
    subject: &Subject,
    confirmation: Confirmation<'_>,
) -> Result<Begun, EraseError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "erasure_begin").await?;
        let result = steps(&lease, author, subject, confirmation).await;
        lease.settle(result).await
    };
    pool.within(Class::Admin, work).await?
}

async fn steps(
    lease: &Lease<'_>,
    author: &Author,
    subject: &Subject,
    confirmation: Confirmation<'_>,
) -> Result<Begun, EraseError> {
    let kind = subject.kind();
    let ending = lock(lease, subject).await?.ok_or(EraseError::Unknown(kind))?;
    let Ending { subject_id, name, .. } = &ending;
    let client = lease.client();
    let sql = "DELETE FROM erasure_confirmation
               WHERE token_sha256 = $1 AND principal = $2 AND kind = $3 AND subject_id = $4 AND expires_at > now()
               RETURNING announced::text";
    let who = principal(author);
    let values: [&(dyn ToSql + Sync); 4] = [&&confirmation.token_sha256[..], &who, &kind.name(), subject_id];
    let used = client.query_opt(sql, &values).await.map_err(StoreError::from)?.ok_or(EraseError::Void)?;
    let announced: Value = serde_json::from_str(used.get(0)).unwrap_or(Value::Null);
    let begun = async {
        // Two that confirm at once: the second one waits for the lock and finds no confirmation, or this row.
        let sql = "INSERT INTO erasure (kind, subject_id, name, requested_by, token_ids)
                   SELECT $1::text, $2::bigint, $3::text, $4::text, ARRAY(SELECT api_token_id::text FROM api_token
                                                WHERE $1 = 'user' AND user_id = $2) RETURNING erasure_id";
        let row = client.query_one(sql, &[&kind.name(), subject_id, name, &who]).await?;
        let erasure_id: i32 = row.get(0);
        if kind == Kind::Device {
            devices::bury(lease, erasure_id, *subject_id).await?;
        }
        for (position, place) in places::of(kind).iter().enumerate() {
            let mut erased = None;
            if let Step::AtOnce(sql) = place.step {
                let alias = kind.alias(*subject_id);
                let values: [&(dyn ToSql + Sync); 5] = [subject_id, name, &alias, &0_i64, &0_i64];
                erased = Some(client.execute(&format!("{GIVEN}{sql}"), &values).await?.cast_signed());
            }
            let sql = "INSERT INTO erasure_place (erasure_id, place, position, announced, erased, done_at)
                       VALUES ($1, $2, $3, $4, coalesce($5::bigint, 0), CASE WHEN $5 IS NOT NULL THEN clock_timestamp() END)";
            let values: [&(dyn ToSql + Sync); 5] =
                [&erasure_id, &place.name, &(position as i32), &announced[place.name].as_i64(), &erased];
            client.execute(sql, &values).await?;
        }
        Ok::<_, StoreError>(erasure_id)
    };
    let erasure_id = begun.await?;
    end(lease, &ending).await?;
    let told = tell(lease, author, &ending, erasure_id).await;
    told?;
    let erasure = receipt::read(lease, erasure_id).await?.ok_or(EraseError::Unknown(kind))?;
    Ok(Begun { erasure, name: ending.name })
}

/// A subject whose lock is held.
struct Ending {
    kind: Kind,
    subject_id: i64,
    name: String,
    user: Option<users::User>,
}

/// Waits for what is in flight for the subject, and keeps everything later out until the commit.
async fn lock(lease: &Lease<'_>, subject: &Subject) -> Result<Option<Ending>, EraseError> {
    let kind = subject.kind();
    match subject {
        Subject::User(user) => match users::lock(lease, user).await {
            Ok(user) => Ok(Some(Ending {
                kind,
                subject_id: user.user_id.into(),
                name: user.name.clone(),
                user: Some(user),
            })),
            Err(UserError::Store(error)) => Err(error.into()),
            Err(_) => Ok(None),
        },
        Subject::Sensor(sensor) => {
            let found = sensors::lock(lease, sensor).await?;
            Ok(found.map(|(sensor_id, name, _)| Ending {
                kind,
                subject_id: sensor_id.into(),
                name,
                user: None,
            }))
        }
        Subject::Device(subject_id) => {
            let title = devices::lock(lease, *subject_id).await?;
            Ok(title.map(|name| Ending { kind, subject_id: *subject_id, name, user: None }))
        }
    }
}

/// What marks it as gone, beyond what [`Step::AtOnce`] deletes.
async fn end(lease: &Lease<'_>, ending: &Ending) -> Result<(), EraseError> {
    if let Some(user) = &ending.user {
        users::keep_an_admin(lease, user).await.map_err(|error| match error {
            UserError::Store(error) => error.into(),
            refusal => EraseError::LastAdmin(refusal),
        })?;
    }
    if ending.kind == Kind::Sensor {
        let mark = async {
            let sql = "UPDATE sensor SET revoked_at = coalesce(revoked_at, clock_timestamp()),
                                         deleted_at = clock_timestamp()
                       WHERE sensor_id = $1";
            lease.client().execute(sql, &[&(ending.subject_id as i32)]).await?;
            // Whoever evaluated a rule while the sensor was there writes nothing of it.
            lease.client().execute("UPDATE alert_rule SET revision = revision + 1", &[]).await?;
            Ok::<_, StoreError>(())
        };
        mark.await?;
    }
    Ok(())
}

/// The log, without the name; whoever follows sensors; and the job, which has something to do.
async fn tell(
    lease: &Lease<'_>,
    author: &Author,
    ending: &Ending,
    erasure_id: i32,
) -> Result<(), StoreError> {
    let sql = "UPDATE job SET requested_at = clock_timestamp() WHERE name = 'erasure'";
    lease.client().execute(sql, &[]).await?;
    let change = Change {
        action: match ending.kind {
            Kind::User => "user.remove",
            Kind::Sensor => "sensor.remove",
            Kind::Device => "device.remove",
        },
        subject_kind: ending.kind.name(),
        subject_id: Some(ending.subject_id.to_string()),
        subject_name: Some(ending.kind.alias(ending.subject_id)),
        before: None,
        after: Some(json!({"erasure": erasure_id})),
    };
    audit::record_last(lease, author, &change).await?;
    if ending.kind == Kind::Sensor {
        let body = json!({"name": ending.name, "erasure": erasure_id});
        let sensor_id = Some(ending.subject_id as i32);
        let event = NewEvent { topic: Topic::Sensors, kind: "sensor.remove", sensor_id, body };
        events::append(lease, &event).await?;
    }
    if ending.kind == Kind::Device {
        let body = json!({"id": ending.subject_id, "erasure": erasure_id});
        let event = NewEvent { topic: Topic::Devices, kind: "device.remove", sensor_id: None, body };
        events::append(lease, &event).await?;
    }
    Ok(())
}

/// Who asks, without a name.
fn principal(author: &Author) -> String {
    format!("{}:{}", author.kind, author.id.as_deref().unwrap_or_default())
}

async fn find(pool: &Pool, subject: &Subject) -> Result<Option<(i64, String)>, StoreError> {
    Ok(match subject {
        Subject::User(user) => users::get(pool, user).await?.map(|user| (user.user_id.into(), user.name)),
        Subject::Sensor(sensor) => {
            sensors::get(pool, sensor).await?.map(|(sensor, _)| (sensor.sensor_id.into(), sensor.name))
        }
        Subject::Device(id) => {
            let work = async {
                let lease = pool.begin(Class::Admin, Isolation::Snapshot, "device_title").await?;
                let result = devices::title(&lease, *id).await;
                lease.finish(result).await
            };
            pool.within(Class::Admin, work).await?.map(|title| (*id, title))
        }
    })
}

async fn running(pool: &Pool, kind: Kind, subject_id: i64) -> Result<Option<i32>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::Snapshot, "erasure_running").await?;
        let sql = "SELECT erasure_id FROM erasure WHERE kind = $1 AND subject_id = $2";
        let result = lease.client().query_opt(sql, &[&kind.name(), &subject_id]).await;
        lease.finish(result.map_err(StoreError::from)).await
    };
    Ok(pool.within(Class::Admin, work).await?.map(|row| row.get(0)))
}

/// One count; `None` if it takes long.
async fn count(
    pool: &Pool,
    sql: &str,
    (kind, subject_id, name): (Kind, i64, &str),
) -> Result<Option<i64>, StoreError> {
    let sql = format!("{GIVEN}{sql}");
    let work = async {
        let lease = pool.begin(Class::Query, Isolation::Snapshot, "erasure_count").await?;
        let result = async {
            let limit = format!("SET LOCAL statement_timeout = {COUNT_MS}");
            lease.client().batch_execute(&limit).await?;
            let values: [&(dyn ToSql + Sync); 5] =
                [&subject_id, &name, &kind.alias(subject_id), &0_i64, &0_i64];
            Ok(lease.client().query_one(&sql, &values).await?.get(0))
        }
        .await;
        lease.finish(result).await
    };
    match pool.within(Class::Query, work).await {
        Ok(count) => Ok(Some(count)),
        Err(StoreError::Timeout(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
