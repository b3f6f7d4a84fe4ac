//! S7, S8, O6: a long run with faults all along. Nothing is lost, nothing doubled, and nothing is held that
//! was not held before: no descriptor, no connection, no map, program or link.
//!
//! `cargo xtask soak [--minutes N]` sets `WEIR_SOAK_MINUTES`; without it the run is short.
#![forbid(unsafe_code)]

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use weir_e2e::faults::{Chain, Fault, Sample, Soak};

const CONNECTIONS: u32 = 3_000;
const PPS: u32 = 3_000;
const EPOCH: Duration = Duration::from_millis(500);
const SHORT: Duration = Duration::from_secs(30);
/// Descriptors of connections that are open or not, as it happens: to the proxy, to Postgres, of a scrape.
const COME_AND_GO: u64 = 16;
/// Far more than either program needs for this; far less than a leak would take in an hour.
const MEMORY_KB: u64 = 1 << 20;

#[test]
fn a_long_run_with_faults_leaves_nothing_behind() {
    let time = number("WEIR_SOAK_MINUTES").map_or(SHORT, Duration::from_mins);
    let seed = number("WEIR_FAULT_SEED").unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    println!("WEIR_FAULT_SEED={seed}: {time:?}\n{}", Sample::HEAD);
    let mut chain = Chain::new(CONNECTIONS, PPS, EPOCH, seed).expect("the chain is made");
    let mut random = StdRng::seed_from_u64(seed);
    let soak = Soak::run(&mut chain, &Fault::ALL, time, &mut random).unwrap_or_else(|error| {
        panic!(
            "seed {seed}: {error}\n{:#?}\nlogs: {:?}",
            chain.ledger(),
            chain.keep_logs(&format!("soak-{seed}"))
        )
    });
    println!("{soak}");
    let outcome = &soak.outcome;
    if !outcome.wrong.is_empty() || outcome.lost + outcome.doubled > 0 {
        let logs = chain.keep_logs(&format!("soak-{seed}"));
        panic!("seed {seed}: {:#?}\n{:#?}\nlogs: {logs:?}", outcome, chain.ledger());
    }
    // From here on neither process was started anew.
    let (half, end) = (soak.samples[soak.half], soak.samples[soak.samples.len() - 1]);
    for (what, half, end) in
        [("sensor", half.sensor, end.sensor), ("control plane", half.control_plane, end.control_plane)]
    {
        // Fewer where old tables were still being drained at half time.
        let no_more = end.maps <= half.maps && end.programs <= half.programs && end.links <= half.links;
        assert!(no_more, "{what}: maps, programs and links: {half:?} {end:?}");
        assert!(end.descriptors <= half.descriptors + COME_AND_GO, "{what}: {half:?} {end:?}");
        assert!(end.anonymous_kb < MEMORY_KB, "{what}: {end:?}");
    }
    assert!(end.pins <= soak.samples[0].pins, "{} pins, {} at the start", end.pins, soak.samples[0].pins);
    assert!(end.postgres <= half.postgres + COME_AND_GO, "{} connections", end.postgres);
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is `{text}`, which is no number")))
}
