//! Whose an address was, at a sensor and a time.
//!
//! What is known is when each device of the sensor's site was first and last seen with the address. Of those that
//! were seen before and after a time, it is the one's that came to it last; if there is none, the one's that was seen
//! with it last before that time; before all of them the first one's, for an hour. So at any time it is one device's
//! at the most, and what another device had before is that one's.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tokio_postgres::types::Type;

use super::super::expression::like;
use super::super::filter::{Held, Sql};
use super::super::{Class, Isolation, Lease, Pool, StoreError};
use crate::expression::{Comparison, Expression, Test, Value};

/// An address is a device's for so long before it was first seen with it: flows come before the word of them.
const BEFORE_US: i64 = 3_600_000_000;
/// Sensors, addresses and times that the devices of one filter may have: each flow with one of the addresses is held
/// against them.
const MAX_HELD: usize = 2_000;
/// Of what is known of the addresses, the last so many sightings.
const MAX_CLAIMS: i64 = 200_000;
/// What lies around a window: epochs reach out of it, and so do sightings.
const AROUND: Duration = Duration::from_hours(24);

/// Why a filter by devices cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum HeldError {
    #[error(
        "its devices had more than {MAX_HELD} addresses, each counted for every sensor of the site: name fewer \
         devices, or ask for a shorter window"
    )]
    TooMany,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whom an address was with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub device_id: i64,
    /// What an operator called it, else what it calls itself.
    pub name: Option<String>,
}

/// When a device was seen with an address, in microseconds.
#[derive(Clone, Copy, Debug)]
struct Claim {
    device_id: i64,
    first_us: i64,
    last_us: i64,
}

/// From when on an address was whose; until the next one's.
type Spans = Vec<(i64, i64)>;

/// Whose some addresses were.
#[derive(Debug, Default)]
pub struct Holders {
    spans: HashMap<(i32, IpAddr), Spans>,
    names: HashMap<i64, Option<String>>,
}

impl Holders {
    /// Of these addresses at these sensors, for times between the two.
    pub async fn of(
        lease: &Lease<'_>,
        pairs: &BTreeSet<(i32, IpAddr)>,
        (from, to): (SystemTime, SystemTime),
    ) -> Result<Self, StoreError> {
        // Whoever was seen last before the window may have the address in it; who was seen before that has not.
        const CLAIMS: &str = "
            WITH wanted AS (
                SELECT sensor_id, address, coalesce(site, '#' || sensor_id) AS scope
                FROM unnest($1::integer[], $2::inet[]) AS wanted (sensor_id, address) JOIN sensor USING (sensor_id)
            ), claim AS (
                SELECT wanted.sensor_id, wanted.address, device.device_id, coalesce(device.name, told_name) AS name,
                       min(fact.first_seen) AS first, max(fact.last_seen) AS last
                FROM wanted JOIN device_fact AS fact ON fact.address = wanted.address AND fact.kind = 'address'
                     JOIN device USING (device_id)
                WHERE device.scope = wanted.scope OR fact.sensor_id = wanted.sensor_id
                GROUP BY wanted.sensor_id, wanted.address, device.device_id
            ), bounded AS (
                SELECT *, max(last) FILTER (WHERE last < $3) OVER (PARTITION BY sensor_id, address) AS before
                FROM claim WHERE first <= $4
            )
            SELECT sensor_id, address, device_id, name, (extract(epoch FROM first) * 1000000)::bigint,
                   (extract(epoch FROM last) * 1000000)::bigint
            FROM bounded WHERE last >= $3 OR last = before ORDER BY last DESC LIMIT $5";
        if pairs.is_empty() {
            return Ok(Self::default());
        }
        let (sensors, addresses): (Vec<i32>, Vec<IpAddr>) = pairs.iter().copied().unzip();
        let (from, to) = (from.checked_sub(AROUND).unwrap_or(from), to.checked_add(AROUND).unwrap_or(to));
        let values: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 5] = [
            (&sensors, Type::INT4_ARRAY),
            (&addresses, Type::INET_ARRAY),
            (&from, Type::TIMESTAMPTZ),
            (&to, Type::TIMESTAMPTZ),
            (&MAX_CLAIMS, Type::INT8),
        ];
        let rows = lease.client().query_typed(CLAIMS, &values).await?;
        let mut claims: HashMap<(i32, IpAddr), Vec<Claim>> = HashMap::new();
        let mut names = HashMap::new();
        for row in &rows {
            let claim = Claim { device_id: row.get(2), first_us: row.get(4), last_us: row.get(5) };
            names.entry(claim.device_id).or_insert_with(|| row.get(3));
            claims.entry((row.get(0), row.get(1))).or_default().push(claim);
        }
        let spans = claims.into_iter().map(|(pair, claims)| (pair, spans(claims))).collect();
        Ok(Self { spans, names })
    }

    /// Whose an address was at a sensor, at a time in nanoseconds.
    #[must_use]
    pub fn at(&self, sensor_id: i32, address: IpAddr, time_ns: i64) -> Option<Holder> {
        let spans = self.spans.get(&(sensor_id, address))?;
        let time_us = time_ns.div_euclid(1_000);
        let next = spans.partition_point(|(from_us, _)| *from_us <= time_us);
        let (_, device_id) = *spans.get(next.checked_sub(1)?)?;
        Some(Holder { device_id, name: self.name(device_id) })
    }

    /// All that overlaps a time, with whose it was.
    pub(in crate::store) fn all(&self, (from, to): (Timestamp, Timestamp)) -> Vec<(Held, i64)> {
        let (from, to) = (from.as_nanosecond(), to.as_nanosecond());
        let overlaps = |held: &Held| i128::from(held.from_ns) < to && i128::from(held.until_ns) > from;
        let mut all: Vec<(Held, i64)> = self.each().filter(|(held, _)| overlaps(held)).collect();
        // The same question reads the same each time.
        all.sort_unstable();
        all
    }

    /// What a device is called.
    #[must_use]
    pub fn name(&self, device_id: i64) -> Option<String> {
        self.names.get(&device_id).cloned().flatten()
    }

    /// What these devices had.
    fn held(&self, devices: &BTreeSet<i64>) -> Vec<Held> {
        let theirs = self.each().filter(|(_, device_id)| devices.contains(device_id));
        let mut held: Vec<Held> = theirs.map(|(held, _)| held).collect();
        held.sort_unstable();
        held
    }

    fn each(&self) -> impl Iterator<Item = (Held, i64)> {
        self.spans.iter().flat_map(|(&(sensor_id, address), spans)| {
            spans.iter().enumerate().map(move |(at, &(from_us, device_id))| {
                let until_us = spans.get(at + 1).map_or(i64::MAX, |(from_us, _)| *from_us);
                let (from_ns, until_ns) = (from_us.saturating_mul(1_000), until_us.saturating_mul(1_000));
                (Held { sensor_id, address, from_ns, until_ns }, device_id)
            })
        })
    }
}

/// Who has the address from when on, in order of time.
fn spans(mut claims: Vec<Claim>) -> Spans {
    claims.sort_unstable_by_key(|claim| (claim.first_us, claim.last_us, claim.device_id));
    let Some(first) = claims.first().copied() else { return Vec::new() };
    let mut changes: BTreeSet<i64> =
        claims.iter().flat_map(|claim| [claim.first_us, claim.last_us.saturating_add(1)]).collect();
    changes.insert(first.first_us.saturating_sub(BEFORE_US));
    let mut coming = claims.iter().peekable();
    // Those that are seen before and after, by when they came and by when they go.
    let (mut present, mut going) = (BTreeSet::new(), BTreeSet::new());
    let mut last = None;
    let mut spans = Spans::new();
    for at_us in changes {
        while let Some(claim) = coming.next_if(|claim| claim.first_us <= at_us) {
            let who = Reverse(claim.device_id);
            present.insert((claim.first_us, claim.last_us, who));
            going.insert((claim.last_us, claim.first_us, who));
        }
        while let Some(&(last_us, first_us, who)) = going.first().filter(|gone| gone.0 < at_us) {
            going.pop_first();
            present.remove(&(first_us, last_us, who));
            last = last.max(Some((last_us, first_us, who)));
        }
        let holder = present.last().map(|it| it.2).or(last.map(|it| it.2));
        let device_id = holder.map_or(first.device_id, |Reverse(device_id)| device_id);
        if spans.last().is_none_or(|(_, before)| *before != device_id) {
            spans.push((at_us, device_id));
        }
    }
    spans
}

/// An expression of which it is known whose addresses it means: only such a one chooses flows.
#[derive(Clone, Debug)]
pub struct Resolved(Expression);

impl Resolved {
    #[must_use]
    pub fn expression(&self) -> &Expression {
        &self.0
    }
}

/// The expression with what its devices had in the place of their names, for a window and the one before it.
pub async fn resolve(
    pool: &Pool,
    expression: &Expression,
    (from, to): (Timestamp, Timestamp),
) -> Result<Resolved, HeldError> {
    let mut tests = Vec::new();
    expression.each(&mut |test| {
        if test.field.is_device() {
            tests.push(test.comparison.clone());
        }
    });
    if tests.is_empty() {
        return Ok(Resolved(expression.clone()));
    }
    let from = SystemTime::from(from.checked_sub(to.duration_since(from)).unwrap_or(from));
    let to = SystemTime::from(to);
    let work = async {
        let lease = pool.begin(Class::Query, Isolation::Snapshot, "flows_devices").await?;
        let result = held(&lease, &tests, (from, to)).await;
        lease.finish(result).await
    };
    let held = pool.within(Class::Query, work).await?.ok_or(HeldError::TooMany)?;
    let resolved = |test: &Test| {
        let at = tests.iter().position(|comparison| test.field.is_device() && *comparison == test.comparison);
        let comparison = at.map_or_else(|| test.comparison.clone(), |at| Comparison::Held(held[at].clone()));
        Test { field: test.field, comparison }
    };
    Ok(Resolved(expression.with(&resolved)))
}

/// What the devices of each test had; `None` if that is too much.
async fn held(
    lease: &Lease<'_>,
    tests: &[Comparison],
    window: (SystemTime, SystemTime),
) -> Result<Option<Vec<Vec<Held>>>, StoreError> {
    const PAIRS: &str = "
        SELECT DISTINCT sensor.sensor_id, fact.address
        FROM device JOIN device_fact AS fact USING (device_id)
             JOIN sensor ON coalesce(site, '#' || sensor.sensor_id) = scope OR sensor.sensor_id = fact.sensor_id
        WHERE device_id = ANY ($1) AND fact.kind = 'address' AND fact.first_seen <= $2 LIMIT $3";
    let mut chosen = Vec::new();
    for comparison in tests {
        chosen.push(named(lease, comparison).await?);
    }
    let all: BTreeSet<i64> = chosen.iter().flatten().copied().collect();
    let (all, most) = (all.into_iter().collect::<Vec<_>>(), MAX_HELD as i64 + 1);
    let latest = window.1.checked_add(AROUND).unwrap_or(window.1);
    let rows = lease.client().query(PAIRS, &[&all, &latest, &most]).await?;
    if rows.len() > MAX_HELD {
        return Ok(None);
    }
    let pairs = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let holders = Holders::of(lease, &pairs, window).await?;
    let mut known: BTreeMap<&BTreeSet<i64>, Vec<Held>> = BTreeMap::new();
    for devices in &chosen {
        known.entry(devices).or_insert_with(|| holders.held(devices));
    }
    let held: Vec<Vec<Held>> = chosen.iter().map(|devices| known[devices].clone()).collect();
    Ok((held.iter().map(Vec::len).sum::<usize>() <= MAX_HELD).then_some(held))
}

/// The devices that a test is about: digits are an id, case does not matter in names.
async fn named(lease: &Lease<'_>, comparison: &Comparison) -> Result<BTreeSet<i64>, StoreError> {
    const NAME: &str = "lower(coalesce(name, told_name))";
    let mut sql = Sql::new("SELECT device_id FROM device WHERE ");
    match comparison {
        Comparison::Is(values) => {
            let texts = values.iter().filter_map(|value| match value {
                Value::Text(text) => Some(text.as_str()),
                _ => None,
            });
            let is_id = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
            let (ids, names): (Vec<&str>, Vec<&str>) = texts.partition(is_id);
            let ids: Vec<i64> = ids.iter().filter_map(|id| id.parse().ok()).collect();
            let names: Vec<String> = names.iter().map(|name| name.to_lowercase()).collect();
            let (ids, names) = (sql.bind(ids, Type::INT8_ARRAY), sql.bind(names, Type::TEXT_ARRAY));
            sql.push(&format!("device_id = ANY ({ids}) OR {NAME} = ANY ({names})"));
        }
        Comparison::Like(pattern) => {
            let pattern = sql.bind(like(&pattern.to_lowercase()), Type::TEXT);
            sql.push(&format!("{NAME} LIKE {pattern}"));
        }
        _ => return Ok(BTreeSet::new()),
    }
    let rows = lease.client().query_typed(&sql.text, &sql.parameters()).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = BEFORE_US;

    fn of(claims: &[(i64, i64, i64)]) -> Spans {
        let claim =
            |&(device_id, first_us, last_us): &(i64, i64, i64)| Claim { device_id, first_us, last_us };
        spans(claims.iter().map(claim).collect())
    }

    /// S4: at any time an address is one device's at the most.
    #[test]
    fn s4_an_address_is_the_last_comers_until_it_goes_and_then_whose_it_was() {
        assert_eq!(of(&[]), []);
        assert_eq!(of(&[(1, HOUR, HOUR)]), [(0, 1)]);
        // One after the other: the first has it until the second one comes.
        assert_eq!(of(&[(2, HOUR + 50, HOUR + 60), (1, HOUR, HOUR + 9)]), [(0, 1), (HOUR + 50, 2)]);
        // One is there while the other comes and goes.
        assert_eq!(
            of(&[(1, HOUR, HOUR + 30), (2, HOUR + 5, HOUR + 10)]),
            [(0, 1), (HOUR + 5, 2), (HOUR + 11, 1)]
        );
        // Both are gone: it stays with who was there last.
        assert_eq!(of(&[(1, HOUR, HOUR + 30), (2, HOUR + 5, HOUR + 40)]), [(0, 1), (HOUR + 5, 2)]);
        assert_eq!(
            of(&[(1, HOUR, HOUR + 30), (2, HOUR + 5, HOUR + 9), (3, HOUR + 50, HOUR + 60)]),
            [(0, 1), (HOUR + 5, 2), (HOUR + 10, 1), (HOUR + 50, 3)]
        );
    }

    /// The rule itself, asked for each time, gives what the sweep gives.
    #[test]
    fn the_sweep_says_what_the_rule_says() {
        let mut seed = 7_u64;
        let mut below = |most: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((seed >> 33) % most) as i64
        };
        for _ in 0..500 {
            let claims: Vec<Claim> = (1..=1 + below(6))
                .map(|device_id| {
                    let first_us = HOUR + below(30);
                    Claim { device_id, first_us, last_us: first_us + below(12) }
                })
                .collect();
            let swept = spans(claims.clone());
            for time in (-2..40).chain(HOUR - 2..HOUR + 60) {
                let present = claims.iter().filter(|it| it.first_us <= time && time <= it.last_us);
                let gone = claims.iter().filter(|it| it.last_us < time);
                let rule = present
                    .max_by_key(|it| (it.first_us, it.last_us, Reverse(it.device_id)))
                    .or(gone.max_by_key(|it| (it.last_us, it.first_us, Reverse(it.device_id))))
                    .or(claims
                        .iter()
                        .min_by_key(|it| (it.first_us, it.last_us, it.device_id))
                        .filter(|it| time >= it.first_us - HOUR))
                    .map(|it| it.device_id);
                let next = swept.partition_point(|(from, _)| *from <= time);
                assert_eq!(next.checked_sub(1).map(|at| swept[at].1), rule, "{claims:?} at {time}");
            }
        }
    }
}
