//! The fuzz targets, built with coverage counters and the address sanitizer by the stable compiler.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use weir_testbed::capture;

use crate::{cargo, screen};

/// Named, so that build scripts and macros are built without the flags.
const HOST: &str = "x86_64-unknown-linux-gnu";

/// As cargo-fuzz has them.
const FLAGS: [&str; 8] = [
    "-Zsanitizer=address",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=4",
    "-Cdebug-assertions",
];

/// Where all of it is.
pub fn folder() -> PathBuf {
    cargo::target().join("fuzz")
}

/// A built target.
pub fn program(name: &str) -> PathBuf {
    folder().join(HOST).join("release").join(name)
}

/// Builds targets, and writes the seeds that they start from.
pub fn targets(names: &[&str]) -> Result<()> {
    screen::step("building the fuzz targets");
    let mut build = cargo::cargo();
    build.args(["build", "--quiet", "--release", "--locked", "--target", HOST, "--bin", "seeds"]);
    build.arg("--manifest-path").arg(cargo::workspace().join("fuzz/Cargo.toml"));
    build.arg("--target-dir").arg(folder());
    for name in names {
        build.args(["--bin", name]);
    }
    build.env("RUSTFLAGS", FLAGS.join(" ")).env("RUSTC_BOOTSTRAP", "1");
    // The sensor's build script looks below its own target folder.
    let linker = cargo::target().join("tools/bin/bpf-linker");
    if linker.is_file() && std::env::var_os("BPF_LINKER").is_none() {
        build.env("BPF_LINKER", linker);
    }
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
