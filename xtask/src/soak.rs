//! `cargo xtask soak`: the fault test for long, and what both programs hold meanwhile.

use anyhow::Result;

use crate::{cargo, screen, setup};

#[derive(clap::Args)]
#[command(
    about = "Run the whole chain under faults for many minutes; memory, descriptors, maps and links each minute",
    after_help = "Examples:
  sudo -E cargo xtask soak                 20 minutes
  sudo -E cargo xtask soak --minutes 600   a night

Needs root. Ends with an error if a packet is lost or doubled, or if something is held that was not before."
)]
pub struct Args {
    #[arg(long, value_name = "MINUTES", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// The faults and their instants, as an earlier run printed it
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
}

pub fn run(args: &Args) -> Result<()> {
    weir_testbed::require_root("cargo xtask soak (kernel programs, network namespaces)")?;
    setup::ensure()?;
    screen::step(&format!("soak, {} minutes", args.minutes));
    let mut soak = cargo::end_to_end("soak")?;
    soak.env("WEIR_SOAK_MINUTES", args.minutes.to_string());
    soak.envs(args.seed.map(|seed| ("WEIR_FAULT_SEED", seed.to_string())));
    cargo::run(&mut soak)
}
