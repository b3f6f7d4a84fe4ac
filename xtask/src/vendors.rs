//! `cargo xtask vendors`: the IEEE registry of link addresses, from Debian's `ieee-data`, in the compact form that
//! the sensor has built in (`sensor/data/vendors.zst`, `docs/decisions/0110-devices.md`).
//!
//! A line for each organisation, its name and after a tab its prefixes in hexadecimal: 6 digits are 24 bits, 7 are
//! 28, 9 are 36. IEEE claims no copyright in the listing and does not restrict it; addresses of organisations are
//! left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::setup::apt::{self, Apt};
use crate::{cargo, screen};

/// The registries: MA-L, MA-M, MA-S, and the individual blocks of former times.
const FILES: [&str; 4] = ["oui.csv", "mam.csv", "oui36.csv", "iab.csv"];
/// Fewer organisations than this is no registry.
const LEAST: usize = 20_000;

#[derive(clap::Args)]
#[command(
    about = "Refresh the sensor's built-in IEEE registry from Debian's ieee-data",
    after_help = "Examples:
  cargo xtask vendors                             of this system's own mirror
  cargo xtask vendors --suite sid                 of Debian's newest
  cargo xtask vendors --from /usr/share/ieee-data of files that are here"
)]
pub struct Args {
    /// Folder with oui.csv, mam.csv, oui36.csv and iab.csv
    #[arg(long, value_name = "FOLDER", conflicts_with = "suite")]
    from: Option<PathBuf>,
    /// Suite of Debian; this system's own unless another is named
    #[arg(long)]
    suite: Option<String>,
}

pub fn run(args: &Args) -> Result<()> {
    let folder = match &args.from {
        Some(folder) => folder.clone(),
        None => downloaded(args.suite.as_deref())?,
    };
    let mut organisations: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in FILES {
        let path = folder.join(file);
        read(&path, &mut organisations).with_context(|| format!("read {}", path.display()))?;
    }
    if organisations.len() < LEAST {
        bail!("{} has {} organisations; that is no registry", folder.display(), organisations.len());
    }
    let mut text = String::new();
    for (name, prefixes) in &organisations {
        let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
        text.push_str(&[name, "\t", &prefixes.join(" "), "\n"].concat());
    }
    let plain = cargo::target().join("vendors.txt");
    fs::write(&plain, text).with_context(|| format!("write {}", plain.display()))?;
    let packed = cargo::workspace().join("sensor/data/vendors.zst");
    cargo::run(Command::new("zstd").args(["-q", "-f", "-19"]).arg(&plain).arg("-o").arg(&packed))?;
    screen::step(&format!("{} organisations in {}", organisations.len(), packed.display()));
    Ok(())
}

/// The folder that the package has its files in.
fn downloaded(suite: Option<&str>) -> Result<PathBuf> {
    let folder = cargo::target().join("ieee-data");
    let suite = suite.map_or_else(apt::codename, |suite| Ok(suite.to_owned()))?;
    let package = Apt::new(&folder.join("apt"), &apt::mirror()?, &suite)?.download("ieee-data", None)?;
    let unpacked = folder.join("unpacked");
    cargo::run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&unpacked))?;
    Ok(unpacked.join("usr/share/ieee-data"))
}

fn read(path: &Path, organisations: &mut BTreeMap<String, BTreeSet<String>>) -> Result<()> {
    let mut reader = csv::Reader::from_path(path)?;
    for row in reader.records() {
        let row = row?;
        let (Some(prefix), Some(name)) = (row.get(1), row.get(2)) else {
            bail!("a row of {} fields", row.len())
        };
        let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
        if !name.is_empty() {
            organisations.entry(name).or_default().insert(prefix.to_ascii_lowercase());
        }
    }
    Ok(())
}
