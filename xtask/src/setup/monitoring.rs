//! Prometheus and Alertmanager, into the target folder: their packages would start servers of their own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::apt::{self, Apt};
use super::{Need, packages};
use crate::{cargo, screen};

/// A program and the package that has it.
const PROGRAMS: [(&str, &str); 3] =
    [("prometheus", "prometheus"), ("promtool", "prometheus"), ("amtool", "prometheus-alertmanager")];

pub struct Monitoring;

impl Need for Monitoring {
    fn missing(&self) -> Result<Vec<String>> {
        Ok(missing().map(|(program, package)| format!("{program} ({package})")).collect())
    }

    fn by_hand(&self) -> Result<Vec<String>> {
        Ok(vec!["# put prometheus, promtool and amtool into PATH".to_owned()])
    }

    fn get(&self) -> Result<()> {
        let work = cargo::target().join("tools/apt-monitoring");
        let (codename, mirror) = (apt::codename()?, apt::mirror()?);
        let apt = Apt::new(&work, &mirror, &codename)?;
        let mut names: Vec<&str> = missing().map(|(_, package)| package).collect();
        names.dedup();
        for name in names {
            let package = apt.download(name, None)?;
            let unpacked = work.join("unpacked").join(name);
            screen::detail(&format!("unpacking {name}"));
            for folder in [&unpacked, &bin()] {
                fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
            }
            cargo::read(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&unpacked))?;
            for (program, _) in PROGRAMS.iter().filter(|(_, package)| *package == name) {
                let (from, to) = (unpacked.join("usr/bin").join(program), bin().join(program));
                fs::copy(&from, &to).with_context(|| format!("copy {}", from.display()))?;
            }
        }
        fs::remove_dir_all(&work).with_context(|| format!("remove {}", work.display()))
    }
}

fn missing() -> impl Iterator<Item = (&'static str, &'static str)> {
    PROGRAMS
        .into_iter()
        .filter(|(program, _)| !bin().join(program).is_file() && packages::find(program).is_none())
}

/// Where the tests look for them first.
fn bin() -> PathBuf {
    cargo::target().join("tools/bin")
}
