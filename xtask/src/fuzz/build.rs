//! The fuzz targets, built with coverage counters and the address sanitizer by the stable compiler.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use weir_testbed::capture;

use crate::{cargo, screen};

/// Where corpora and artefacts are.
pub fn folder() -> PathBuf {
    cargo::target().join("fuzz")
}

/// A built target.
pub fn program(name: &str) -> PathBuf {
    cargo::programs(false).join(format!("fuzz-{name}"))
}

/// Builds targets, and writes the seeds that they start from.
pub fn targets(names: &[&str]) -> Result<()> {
    screen::step("building the fuzz targets");
    let mut build = cargo::cargo();
    build.args(["build", "--quiet", "--package", "weir-fuzz", "--features", "fuzz", "--bin", "fuzz-seeds"]);
    build.args(names.iter().flat_map(|name| ["--bin".to_owned(), format!("fuzz-{name}")]));
    // Weir's own crates alone get the flags; cargo keeps both builds of them apart.
    build.env("RUSTC_WORKSPACE_WRAPPER", cargo::workspace().join("fuzz/rustc-fuzz"));
    cargo::run(&mut build)?;
    let mut seeds = Command::new(program("seeds"));
    seeds.arg(cargo::workspace()).arg(capture::folder().context("find the captures")?);
    cargo::run(seeds.arg(folder().join("corpus")))
}

/// The fuzzer of the kernel programs: an ordinary program.
pub fn kernel() -> Result<()> {
    screen::step("building the kernel fuzzer");
    cargo::run(cargo::cargo().args([
        "build",
        "--quiet",
        "--package",
        "weir-e2e",
        "--bin",
        super::run::KERNEL,
    ]))
}
