//! `cargo xtask audit`: licences and sources of everything that Cargo.lock brings in.
//!
//! It reads the lists in `deny.toml`, so that there is one place for them, and does in a second the part
//! of `cargo deny check` that needs neither its build nor the network. The full check (known
//! vulnerabilities, licence texts) is cargo-deny's.

mod licence;

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{cargo, screen};

#[derive(clap::Args)]
#[command(
    about = "Check licences and sources of all dependencies by deny.toml",
    after_help = "Example:
  cargo xtask audit    a quick part of `cargo deny check`"
)]
pub struct Args {}

pub fn run(_: &Args) -> Result<()> {
    let rules = std::fs::read_to_string(cargo::workspace().join("deny.toml")).context("read deny.toml")?;
    let allowed = strings(&rules, "allow = [")?;
    let banned = strings(&rules, "deny = [")?;
    let metadata = cargo::read(cargo::cargo().args(["metadata", "--format-version", "1", "--locked"]))?;
    let metadata: Value = serde_json::from_str(&metadata).context("read what cargo metadata prints")?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    // All come from one registry, which is cargo's own unless a file of ours says otherwise; a repository or
    // a second registry is refused.
    let registry = packages
        .iter()
        .filter_map(|package| package["source"].as_str())
        .find(|source| source.starts_with("registry+"))
        .context("no dependency comes from a registry")?;
    let mut faults = Vec::new();
    let mut checked = 0;
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        // Weir's own crates have no source.
        let Some(source) = package["source"].as_str() else { continue };
        checked += 1;
        if source != registry {
            faults.push(format!("{name} comes from {source}"));
        }
        if banned.contains(name) {
            faults.push(format!("{name} is banned"));
        }
        let licence = package["license"].as_str().unwrap_or_default();
        if !licence::is_allowed(licence, &allowed) {
            faults.push(format!("{name} has the licence `{licence}`, which deny.toml does not allow"));
        }
    }
    for fault in &faults {
        println!("{fault}");
    }
    if !faults.is_empty() {
        bail!("{} of {checked} dependencies break the rules of deny.toml", faults.len());
    }
    screen::step(&format!("licences and sources of {checked} dependencies are as deny.toml wants them"));
    Ok(())
}

/// The quoted strings of a list in `deny.toml`, which begins on the line `opening` and ends with `]`.
fn strings(rules: &str, opening: &str) -> Result<BTreeSet<String>> {
    let list = rules
        .lines()
        .skip_while(|line| *line != opening)
        .skip(1)
        .take_while(|line| *line != "]")
        .filter(|line| !line.trim_start().starts_with('#'));
    let strings: BTreeSet<String> =
        list.filter_map(|line| line.split('"').nth(1)).map(str::to_owned).collect();
    if strings.is_empty() {
        bail!("deny.toml has no list `{opening}`");
    }
    Ok(strings)
}
