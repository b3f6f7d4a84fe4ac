//! schemathesis, which makes requests from the OpenAPI document: a virtual environment in the target folder.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::Need;
use crate::{cargo, screen};

/// It, and everything that it needs, each by its version.
const REQUIREMENTS: &str = "control-plane/tests/api_fuzz/requirements.txt";

pub struct Schemathesis;

impl Need for Schemathesis {
    fn missing(&self) -> Result<Vec<String>> {
        let wanted = fs::read(requirements()).with_context(|| format!("read {REQUIREMENTS}"))?;
        // A copy of what was installed, written last: other versions, or half of it, are found missing.
        let installed = fs::read(installed()).is_ok_and(|installed| installed == wanted);
        let there = installed && place().join("bin/schemathesis").is_file();
        Ok(if there { vec![] } else { vec!["schemathesis (Python package)".to_owned()] })
    }

    fn by_hand(&self) -> Result<Vec<String>> {
        let copy = format!("cp {} {}", requirements().display(), installed().display());
        Ok(vec![cargo::shown(&make()), cargo::shown(&install()), copy])
    }

    fn get(&self) -> Result<()> {
        screen::detail("schemathesis into target/tools (half a minute)");
        cargo::read(&mut make())?;
        cargo::read(&mut install())?;
        fs::copy(requirements(), installed()).context("note what was installed")?;
        Ok(())
    }
}

fn requirements() -> PathBuf {
    cargo::workspace().join(REQUIREMENTS)
}

fn place() -> PathBuf {
    cargo::target().join("tools/schemathesis")
}

fn installed() -> PathBuf {
    place().join("installed.txt")
}

fn make() -> Command {
    let mut make = Command::new("python3");
    make.args(["-m", "venv", "--clear"]).arg(place());
    make
}

fn install() -> Command {
    let mut install = Command::new(place().join("bin/pip"));
    install.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(requirements());
    install
}
