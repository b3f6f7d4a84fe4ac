//! What the control plane does with the body of a batch before it takes a connection.
//!
//! Any bytes give a batch or an error; a batch is the same after it was encoded again; what validation lets
//! through is within the bounds that the database relies on.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use weir_control_plane::ingest::rollup::{Dimension, of_batch};
use weir_control_plane::ingest::{Horizon, check};
use weir_wire::{Batch, decode, encode, limits};

/// 2026-01-01, the clock of the seeds.
const NOW_NS: i64 = 1_767_225_600_000_000_000;

fuzz_target!(|input: &[u8]| {
    let Some((mode, body)) = input.split_first() else { return };
    // Compressed, as it comes; plain, because a fuzzer does not find its way through zstd.
    let batch = if mode & 1 == 0 { decode(body).ok() } else { Batch::decode(body).ok() };
    let Some(batch) = batch else { return };
    if let Ok(bytes) = encode(&batch) {
        let again = decode(&bytes).expect("what was encoded decodes");
        assert_eq!(again, batch, "a batch survives the wire");
    }
    let sent: u64 = batch
        .flows
        .iter()
        .fold(0, |sum: u64, flow| sum.saturating_add(flow.packets).saturating_add(flow.reverse_packets));
    let records = batch.flows.len();
    let Ok(checked) = check(batch) else { return };
    assert!(records <= limits::MAX_RECORDS && checked.flows.len() == records, "no record is lost");
    assert_eq!(u64::try_from(checked.packets), Ok(sent), "the sum that the ledger is told");
    assert!(checked.window_start_ns <= checked.window_end_ns);
    assert!(checked.part >= 0 && checked.part < checked.parts);
    assert!(checked.dropped.is_none() || records == 0, "what was dropped has no records");
    let horizon = Horizon::around(NOW_NS, 30, 1);
    let window = (checked.window_start_ns, checked.window_end_ns);
    for skew_ms in
        [None, Some(0), Some(i64::MAX), Some(i64::MIN), Some(NOW_NS / 1_000_000 - window.0 / 1_000_000)]
    {
        let start_ns = match horizon.place(window, skew_ms) {
            Ok(placement) => placement.start_ns,
            Err(_) => horizon.at_receipt(window).start_ns,
        };
        assert!((horizon.oldest_ns..=horizon.newest_ns).contains(&start_ns), "it has a partition");
    }
    let mut summed: BTreeMap<Dimension, u64> = BTreeMap::new();
    let domain_ids: Vec<i32> = (1..).take(checked.context.names.len()).collect();
    let process_ids: Vec<i32> = (1..).take(checked.context.processes.len()).collect();
    for row in of_batch(&checked, &domain_ids, &process_ids, 2) {
        *summed.entry(row.dimension).or_default() += row.sums.packets + row.sums.reverse_packets;
    }
    let holds = |(dimension, packets): (&Dimension, &u64)| match dimension {
        // Of the flows whose domain, country, system or process is known.
        Dimension::Domain | Dimension::Country | Dimension::System | Dimension::Process => *packets <= sent,
        _ => *packets == sent,
    };
    assert!(summed.iter().all(holds), "each rollup sums to the batch: {summed:?}");
    for flow in &checked.flows {
        assert!(flow.ip_version == 4 || flow.ip_version == 6);
        assert!(flow.protocol <= 255 && flow.src_port <= 65_535 && flow.dst_port <= 65_535);
        assert!((flow.link as usize) <= checked.links.len(), "the link stack is there");
    }
});
