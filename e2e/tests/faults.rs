//! S7, S8, I2, I4, K5: whatever breaks, and whenever, each packet that the sender's interface counted is in
//! Postgres once, or in the ledger under the name of its loss.
//!
//! `cargo xtask test --faults [--rounds N] [--seed N]` sets `WEIR_FAULT_ROUNDS` and `WEIR_FAULT_SEED`; without
//! them each fault comes once, alone, and a few times mixed with others.
#![forbid(unsafe_code)]

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use weir_e2e::faults::{Chain, Fault, Report};

/// Rounds of several faults at once, unless more are asked for.
const MIXED: usize = 4;
const CONNECTIONS: u32 = 1_000;
const PPS: u32 = 4_000;
const EPOCH: Duration = Duration::from_millis(100);

#[test]
fn every_packet_is_stored_once_or_its_loss_is_named() {
    let rounds = number("WEIR_FAULT_ROUNDS").map_or(Fault::ALL.len() + MIXED, |rounds| rounds as usize);
    let seed = number("WEIR_FAULT_SEED").unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    println!("WEIR_FAULT_SEED={seed} WEIR_FAULT_ROUNDS={rounds}");
    let mut chain = Chain::new(CONNECTIONS, PPS, EPOCH, seed).expect("the chain is made");
    let mut report = Report::default();
    for round in 0..rounds {
        // Of its own, so that a round does not hang on what the ones before it drew.
        let mut random = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(round as u64));
        let faults = match Fault::ALL.get(round) {
            Some(&fault) => vec![fault],
            None => Fault::mixed(&Fault::ALL, &mut random),
        };
        let names: Vec<&str> = faults.iter().map(|fault| fault.name()).collect();
        let what = format!("round {round} (seed {seed}): {}", names.join(", "));
        println!("{what}");
        let failed = match chain.round(&faults, &mut random) {
            Ok(outcome) => {
                println!("  {outcome:?}");
                report.add(&outcome);
                (!outcome.wrong.is_empty() || outcome.lost + outcome.doubled > 0)
                    .then(|| outcome.wrong.join("\n"))
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(failed) = failed {
            let logs = chain.keep_logs(&format!("{seed}-{round}"));
            panic!("{what}\n{failed}\n{:#?}\nlogs: {logs:?}\n{report}", chain.ledger());
        }
    }
    assert!(chain.sensor().stop().expect("the sensor ends").success());
    println!("{report}");
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is `{text}`, which is no number")))
}
