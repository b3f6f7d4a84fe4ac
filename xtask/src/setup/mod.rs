//! `cargo xtask setup`: what Weir's build and tests need of the machine, got where it is missing.
//!
//! Each need is looked at, not remembered: a second run finds everything in place and is instant, and a
//! package that somebody removed is found missing. Outside the target folder only Debian packages and the
//! toolchain's own `rust-src` are added.

pub(crate) mod apt;
mod bpf_linker;
mod monitoring;
pub(crate) mod packages;
mod rust_src;
mod schemathesis;

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::screen;

#[derive(clap::Args)]
#[command(
    about = "Get what this machine lacks: Debian packages, rust-src, bpf-linker, schemathesis",
    after_help = "Examples:
  cargo xtask setup           get what is missing; instant when nothing is
  cargo xtask setup --check   only say what is missing; exit status 1 if anything is

Installing Debian packages needs root. Where it may not install, it prints what is missing and the
commands that get it, and exits with status 1."
)]
pub struct Args {
    /// Install nothing: say what is missing and how to get it
    #[arg(long)]
    check: bool,
    /// Get rust-src from this source only
    #[arg(long, value_enum, hide = true)]
    rust_src_from: Option<rust_src::Source>,
    /// Put rust-src there instead of into the toolchain
    #[arg(long, value_name = "FOLDER", hide = true)]
    rust_src_to: Option<PathBuf>,
}

/// Something that Weir needs of the machine.
trait Need {
    /// What is missing, as a person would call it; empty when nothing is.
    fn missing(&self) -> Result<Vec<String>>;
    /// The commands by which a person gets it.
    fn by_hand(&self) -> Result<Vec<String>>;
    /// Gets it. An error says why this could not be done here.
    fn get(&self) -> Result<()>;
}

pub fn run(args: &Args) -> Result<()> {
    let rust_src = rust_src::RustSrc::new(args.rust_src_from, args.rust_src_to.clone())?;
    meet(args.check, rust_src)?;
    screen::step("this machine has everything that Weir needs");
    Ok(())
}

/// For the other commands: silent unless something is missing.
pub fn ensure() -> Result<()> {
    meet(false, rust_src::RustSrc::new(None, None)?)
}

fn meet(check: bool, rust_src: rust_src::RustSrc) -> Result<()> {
    let needs: [Box<dyn Need>; 5] = [
        Box::new(packages::Packages),
        Box::new(rust_src),
        Box::new(bpf_linker::BpfLinker),
        Box::new(monitoring::Monitoring),
        Box::new(schemathesis::Schemathesis),
    ];
    let mut unmet = Vec::new();
    for need in &needs {
        let missing = need.missing()?;
        if missing.is_empty() {
            continue;
        }
        screen::step(&format!("missing: {}", missing.join(", ")));
        if check {
            unmet.push((missing, need.by_hand()?, None));
        } else if let Err(error) = need.get() {
            unmet.push((missing, need.by_hand()?, Some(error)));
        }
    }
    if unmet.is_empty() {
        return Ok(());
    }
    for (missing, by_hand, error) in &unmet {
        println!("missing: {}", missing.join(", "));
        if let Some(error) = error {
            println!("  not installed: {error:#}");
        }
        println!("  get it with:");
        for line in by_hand {
            println!("    {line}");
        }
    }
    bail!("this machine lacks what is listed above");
}
