//! `cargo xtask apifuzz`: the test that fuzzes the API from its own document, for longer and from another seed.

use anyhow::Result;

use crate::{cargo, screen, setup};

#[derive(clap::Args)]
#[command(
    about = "Fuzz the API with schemathesis, from the OpenAPI document that the control plane serves",
    after_help = "Examples:
  cargo xtask apifuzz                   the bounded run that is part of `cargo xtask test`: always the same
  cargo xtask apifuzz --minutes 60      random cases for an hour, shared among all kinds of callers
  cargo xtask apifuzz --caller viewer   as one of: viewer, operator, admin, machine-flows, machine-all,
                                        admin-token, sensor

A finding is printed with the request that made it, as a curl command. Reports: target/tmp/api-fuzz."
)]
pub struct Args {
    #[arg(long, value_name = "MINUTES", value_parser = clap::value_parser!(u64).range(1..))]
    minutes: Option<u64>,
    /// As this caller only
    #[arg(long, value_name = "NAME")]
    caller: Option<String>,
}

pub fn run(args: &Args) -> Result<()> {
    setup::ensure()?;
    screen::step("fuzzing the API");
    let mut fuzz = cargo::cargo();
    fuzz.args(["test", "--package", "weir-control-plane", "--test", "api_fuzz", "--", "--nocapture"]);
    fuzz.envs(args.minutes.map(|minutes| ("WEIR_API_FUZZ_MINUTES", minutes.to_string())));
    fuzz.envs(args.caller.as_ref().map(|caller| ("WEIR_API_FUZZ_CALLER", caller)));
    cargo::run(&mut fuzz)
}
