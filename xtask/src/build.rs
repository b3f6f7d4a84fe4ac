//! `cargo xtask build`: the programs. The sensor's own build script builds the kernel object into it.

use anyhow::Result;

use crate::{cargo, screen, setup};

/// The programs that Weir is.
pub const SENSOR: &str = "weir-sensor";
pub const CONTROL_PLANE: &str = "weir-control-plane";
/// What people ask them with; neither needs it.
pub const CLIENT: &str = "weirctl";

#[derive(clap::Args)]
#[command(
    about = "Build the kernel programs, weir-sensor, weir-control-plane and weirctl",
    after_help = "Examples:
  cargo xtask build             quick to build, checks its own arithmetic
  cargo xtask build --release   what is installed and measured"
)]
pub struct Args {
    /// With optimisation
    #[arg(long)]
    release: bool,
}

pub fn run(args: &Args) -> Result<()> {
    programs(args.release)?;
    let mut build = cargo::cargo();
    build.args(["build", "--package", CLIENT, "--bin", CLIENT]);
    cargo::run(build.args(args.release.then_some("--release")))?;
    for program in [SENSOR, CONTROL_PLANE, CLIENT] {
        println!("{}", cargo::programs(args.release).join(program).display());
    }
    Ok(())
}

/// Sets up if needed and builds both programs.
pub fn programs(release: bool) -> Result<()> {
    setup::ensure()?;
    screen::step("building the kernel programs, the sensor and the control plane");
    let mut build = cargo::cargo();
    build.args(["build", "--package", SENSOR, "--bin", SENSOR]);
    build.args(["--package", CONTROL_PLANE, "--bin", CONTROL_PLANE]);
    if release {
        build.arg("--release");
    }
    cargo::run(&mut build)
}
