//! What Postgres holds, read from its tables and not from the API that is under test.

use std::collections::BTreeMap;

use weir_testbed::{Error, Result};

use crate::steady::Flow;
use crate::{Counted, Site};

/// One row: the kernel's totals, the rows, and whether each batch's rows are its own, once.
const TALLY: &str = "
    WITH point AS (
        SELECT coalesce(sum(frames), 0) AS frames, coalesce(sum(octets_l2), 0) AS octets_l2,
               coalesce(sum(flow_packets), 0) AS flow_packets, coalesce(sum(flow_octets), 0) AS flow_octets,
               coalesce(sum(overflow), 0) AS overflow, coalesce(sum(overflow_octets), 0) AS overflow_octets,
               coalesce(sum(non_ip), 0) AS non_ip, coalesce(sum(malformed), 0) AS malformed,
               coalesce(sum(filtered), 0) AS filtered
        FROM point_total
    ), row AS (
        SELECT coalesce(sum(packets + reverse_packets), 0) AS packets,
               coalesce(sum(octets + reverse_octets), 0) AS octets
        FROM flow
    ), rollup AS (
        SELECT coalesce(sum(packets + reverse_packets), 0) AS packets FROM rollup_1m WHERE dimension = 5
    ), own AS (
        SELECT flow_id >> 16 AS batch_id, count(*) AS records, sum(packets + reverse_packets) AS packets,
               sum(octets + reverse_octets) AS octets
        FROM flow GROUP BY 1
    ), wrong AS (
        SELECT count(*) AS batches FROM batch FULL JOIN own USING (batch_id)
        WHERE (batch.records, batch.packets, batch.octets)
              IS DISTINCT FROM (coalesce(own.records, 0), coalesce(own.packets, 0), coalesce(own.octets, 0))
    ), key AS (
        SELECT count(*) AS batches, count(DISTINCT (sensor_id, generation, epoch, part)) AS keys,
               count(DISTINCT generation) AS generations,
               coalesce(sum(dropped_packets), 0) AS dropped_packets,
               coalesce(sum(dropped_octets), 0) AS dropped_octets
        FROM batch
    )
    SELECT point.*, row.packets, row.octets, rollup.packets, wrong.batches, key.*
    FROM point, row, rollup, wrong, key";

/// Every direction of every connection with what is stored of it.
const FLOWS: &str = "
    WITH one AS (
        SELECT host(src) AS src, host(dst) AS dst, protocol, src_port, dst_port, packets, octets FROM flow
        UNION ALL
        SELECT host(dst), host(src), protocol, dst_port, src_port, reverse_packets, reverse_octets FROM flow
    )
    SELECT src, dst, protocol, src_port, dst_port, sum(packets), sum(octets)
    FROM one WHERE packets > 0 GROUP BY 1, 2, 3, 4, 5";

/// All that a sensor's batches came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The kernel's own totals, as batches brought them.
    pub frames: u64,
    pub octets_l2: u64,
    pub flow_packets: u64,
    pub flow_octets: u64,
    pub overflow: u64,
    pub overflow_octets: u64,
    pub non_ip: u64,
    pub malformed: u64,
    pub filtered: u64,
    /// Packets and octets of the stored rows.
    pub rows: Counted,
    /// Packets of the rollups by minute.
    pub rolled_up: u64,
    /// Batches whose rows are not what the batch brought.
    pub wrong: u64,
    pub batches: u64,
    /// Different ones among them.
    pub keys: u64,
    pub generations: u64,
    /// What the sensor's spool gave up, as the notices in its place say.
    pub dropped: Counted,
}

impl Tally {
    pub fn read(site: &Site) -> Result<Self> {
        let printed = site.sql(TALLY)?;
        let numbers: Vec<u64> = printed.trim().split('|').map_while(|number| number.parse().ok()).collect();
        let [
            frames,
            octets_l2,
            flow_packets,
            flow_octets,
            overflow,
            overflow_octets,
            non_ip,
            malformed,
            filtered,
            packets,
            octets,
            rolled_up,
            wrong,
            batches,
            keys,
            generations,
            dropped_packets,
            dropped_octets,
        ] = numbers[..]
        else {
            return Err(Error::malformed("the tally of the tables", printed));
        };
        Ok(Self {
            frames,
            octets_l2,
            flow_packets,
            flow_octets,
            overflow,
            overflow_octets,
            non_ip,
            malformed,
            filtered,
            rows: Counted { packets, octets },
            rolled_up,
            wrong,
            batches,
            keys,
            generations,
            dropped: Counted { packets: dropped_packets, octets: dropped_octets },
        })
    }

    /// Packets that are stored, and those whose loss has a name.
    #[must_use]
    pub fn accounted(&self) -> u64 {
        self.rows.packets + self.named()
    }

    /// Packets whose loss has a name in the ledger.
    #[must_use]
    pub fn named(&self) -> u64 {
        self.overflow + self.non_ip + self.malformed + self.filtered + self.dropped.packets
    }
}

/// What is stored of each flow.
pub fn flows(site: &Site) -> Result<BTreeMap<Flow, Counted>> {
    let printed = site.sql(FLOWS)?;
    let flow = |line: &str| {
        let (rest, octets) = line.rsplit_once('|')?;
        let (flow, packets) = rest.rsplit_once('|')?;
        Some((flow.to_owned(), Counted { packets: packets.parse().ok()?, octets: octets.parse().ok()? }))
    };
    let lines = printed.lines().filter(|line| !line.is_empty());
    lines.map(|line| flow(line).ok_or_else(|| Error::malformed("a row of the flows", line))).collect()
}
