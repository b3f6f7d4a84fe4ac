//! Sums of a batch into the rollup tables.

use std::net::IpAddr;

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use super::{Lease, StoreError, copy};
use crate::ingest::rollup::{Address, Row};

/// "Any" in an address column: `::/0`.
const ANY_ADDRESS: [u8; 20] = [3, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// "Any" in a number column.
const ANY: i16 = -1;

macro_rules! add_up {
    () => {
        "ON CONFLICT (dimension, bucket, sensor_id, src, dst, protocol, number) DO UPDATE SET
             flows = other.flows + EXCLUDED.flows,
             packets = other.packets + EXCLUDED.packets,
             octets = other.octets + EXCLUDED.octets,
             reverse_packets = other.reverse_packets + EXCLUDED.reverse_packets,
             reverse_octets = other.reverse_octets + EXCLUDED.reverse_octets"
    };
}

/// How a sum joins the one that is there, which is called `other`.
pub const ADD_UP: &str = add_up!();

macro_rules! upsert {
    ($table:literal, $unit:literal) => {
        concat!(
            "INSERT INTO ",
            $table,
            " AS other (bucket, sensor_id, dimension, src, dst, protocol, number,
                 flows, packets, octets, reverse_packets, reverse_octets)
             SELECT date_trunc('",
            $unit,
            "', to_timestamp($1::bigint / 1000000)), $2, *
             FROM unnest($3::smallint[], $4::inet[], $5::inet[], $6::smallint[], $7::integer[],
                         $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[])
             ",
            add_up!(),
        )
    };
}

/// Adds the rows, which are in key order, to the minute and the hour that the window begins in.
pub(super) async fn add(
    lease: &mut Lease<'_>,
    sensor_id: i32,
    window_start_us: i64,
    rows: &[Row],
) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let dimension = column(rows, |row| row.dimension as i16);
    let src = column(rows, |row| Inet(row.key.src));
    let dst = column(rows, |row| Inet(row.key.dst));
    let protocol = column(rows, |row| row.key.protocol.map_or(ANY, i16::from));
    let number = column(rows, |row| row.key.number.unwrap_or(i32::from(ANY)));
    let flows = column(rows, |row| row.sums.flows as i64);
    let packets = column(rows, |row| row.sums.packets as i64);
    let octets = column(rows, |row| row.sums.octets as i64);
    let reverse_packets = column(rows, |row| row.sums.reverse_packets as i64);
    let reverse_octets = column(rows, |row| row.sums.reverse_octets as i64);
    for sql in [upsert!("rollup_1m", "minute"), upsert!("rollup_1h", "hour")] {
        let statement = lease.prepared(sql).await?;
        let parameters: [&(dyn ToSql + Sync); 12] = [
            &window_start_us,
            &sensor_id,
            &dimension,
            &src,
            &dst,
            &protocol,
            &number,
            &flows,
            &packets,
            &octets,
            &reverse_packets,
            &reverse_octets,
        ];
        lease.client().execute(&statement, &parameters).await?;
    }
    Ok(())
}

fn column<T>(rows: &[Row], value: impl Fn(&Row) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// An address column of a rollup.
#[derive(Debug)]
struct Inet(Option<Address>);

impl ToSql for Inet {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        let Some(Address { ip_version, high, low }) = self.0 else {
            out.put_slice(&ANY_ADDRESS);
            return Ok(IsNull::No);
        };
        let address: IpAddr = copy::address(ip_version, high, low);
        address.to_sql(ty, out)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::INET
    }

    to_sql_checked!();
}
