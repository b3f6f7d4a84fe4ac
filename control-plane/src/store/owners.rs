//! Whose the addresses of a ranking by devices are: joined to the rows or the buckets that are added up.

use std::fmt::Write as _;
use std::net::IpAddr;

use jiff::SignedDuration;
use tokio_postgres::types::Type;

use super::devices::Holders;
use super::filter::{Filter, Held, Sql};
use super::resolution::{Piece, push_pieces};
use super::top::{By, End, Item};
use super::{Lease, StoreError};

/// Addresses of devices, each at a sensor, that a ranking looks at; the rest is among the others.
const MAX_OWNED: i64 = 50_000;
/// Epochs reach out of a window.
const AROUND: SignedDuration = SignedDuration::from_hours(24);

/// Nothing, for any other ranking.
#[derive(Default)]
pub(super) struct Owners {
    pub end: Option<End>,
    holders: Holders,
    held: Vec<(Held, i64)>,
    /// No address was left out.
    pub complete: bool,
}

impl Owners {
    /// Of the filter's flows, or of the buckets that stand for them.
    pub async fn of(
        lease: &Lease<'_>,
        filter: &Filter,
        by: By,
        pieces: Option<&[Piece]>,
    ) -> Result<Self, StoreError> {
        let By::Device(end) = by else { return Ok(Self { complete: true, ..Self::default() }) };
        let column = end.column();
        let mut sql = Sql::new(&format!("SELECT DISTINCT sensor_id, {column} FROM "));
        match pieces {
            None => {
                sql.push("flow");
                sql.push_filter(filter);
            }
            Some(pieces) => {
                push_pieces(&mut sql, pieces, by.dimension(), filter);
                sql.push(" AS rows WHERE TRUE");
            }
        }
        let most = sql.bind(MAX_OWNED + 1, Type::INT8);
        let _ = write!(
            sql.text,
            " AND {column} IN (SELECT address FROM device_fact WHERE kind = 'address') LIMIT {most}"
        );
        let rows = lease.client().query_typed(&sql.text, &sql.parameters()).await?;
        let complete = (rows.len() as i64) <= MAX_OWNED;
        let pairs = rows.iter().map(|row| (row.get(0), row.get::<_, IpAddr>(1)));
        // What an erasure left was nobody's.
        let pairs = pairs.filter(|(_, address)| !address.is_unspecified()).collect();
        let holders = Holders::of(lease, &pairs, (filter.from.into(), filter.to.into())).await?;
        let from = filter.from.checked_sub(AROUND).unwrap_or(filter.from);
        let to = filter.to.checked_add(AROUND).unwrap_or(filter.to);
        let held = holders.all((from, to));
        Ok(Self { end: Some(end), holders, held, complete })
    }

    /// Joins them to the table that stands before, where `time` says that it is their time.
    pub fn push(&self, sql: &mut Sql, time: &str) {
        let Some(end) = self.end else { return };
        let sensors: Vec<i32> = self.held.iter().map(|(held, _)| held.sensor_id).collect();
        let addresses: Vec<IpAddr> = self.held.iter().map(|(held, _)| held.address).collect();
        let from: Vec<i64> = self.held.iter().map(|(held, _)| held.from_ns).collect();
        let until: Vec<i64> = self.held.iter().map(|(held, _)| held.until_ns).collect();
        let devices: Vec<i64> = self.held.iter().map(|(_, device_id)| *device_id).collect();
        let columns = [
            sql.bind(sensors, Type::INT4_ARRAY),
            sql.bind(addresses, Type::INET_ARRAY),
            sql.bind(from, Type::INT8_ARRAY),
            sql.bind(until, Type::INT8_ARRAY),
            sql.bind(devices, Type::INT8_ARRAY),
        ];
        // `write!` to a String cannot fail.
        let _ = write!(
            sql.text,
            " LEFT JOIN unnest({}) AS owner (held_sensor, held_address, held_from, held_until, held_device)
                   ON held_sensor = sensor_id AND held_address = {} AND {time}",
            columns.join(", "),
            end.column(),
        );
    }

    /// What the devices are called.
    pub fn name(&self, items: &mut [Item]) {
        for item in items.iter_mut().filter(|_| self.end.is_some()) {
            item.name = item.device.and_then(|device_id| self.holders.name(device_id));
        }
    }
}
