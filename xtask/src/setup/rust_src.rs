//! `rust-src`, the sources of `core` that the kernel object is built with, of exactly this rustc.
//!
//! rustup has it for its own toolchains. Where rustup is absent or cannot reach its server, Debian has it
//! as a package of the same version; that package is downloaded and unpacked, not installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{Need, apt, apt::Apt, packages};
use crate::{cargo, screen};

/// Debian suites that may hold it, first choice first.
const SUITES: [&str; 3] = ["trixie-backports", "forky", "sid"];
/// rustup tries an unreachable server for minutes.
const RUSTUP_WITHIN_S: &str = "60";

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Source {
    Rustup,
    Debian,
}

pub struct RustSrc {
    /// `1.95.0`.
    version: String,
    /// The folder that holds `library/`.
    folder: PathBuf,
    from: Option<Source>,
}

impl RustSrc {
    pub fn new(from: Option<Source>, to: Option<PathBuf>) -> Result<Self> {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let told = cargo::read(Command::new(&rustc).arg("--version"))?;
        let version = told.split_whitespace().nth(1).context("`rustc --version` names no version")?;
        let sysroot = cargo::read(Command::new(&rustc).args(["--print", "sysroot"]))?;
        let folder = to.unwrap_or_else(|| Path::new(sysroot.trim()).join("lib/rustlib/src/rust"));
        Ok(Self { version: version.to_owned(), folder, from })
    }

    fn is_there(&self) -> bool {
        self.folder.join("library/core/src/lib.rs").is_file()
    }

    fn by_rustup(&self) -> Result<()> {
        let rustup = packages::find("rustup").context("rustup is not installed")?;
        screen::detail("rustup component add rust-src");
        cargo::read(Command::new("timeout").arg(RUSTUP_WITHIN_S).arg(rustup).args([
            "component",
            "add",
            "rust-src",
        ]))?;
        if !self.is_there() {
            bail!("rustup put nothing into {}", self.folder.display());
        }
        Ok(())
    }

    fn by_debian(&self) -> Result<()> {
        let mirror = apt::mirror()?;
        let work = cargo::target().join("rust-src-debian");
        let _ = fs::remove_dir_all(&work);
        let mut reasons = Vec::new();
        for suite in SUITES {
            screen::detail(&format!("looking for rust-src {} in Debian's {suite}", self.version));
            let apt = Apt::new(&work.join(suite), &mirror, suite)?;
            match package(&apt, &self.version) {
                Ok(version) => {
                    self.unpack(&apt.download("rust-src", Some(&version))?, &work)?;
                    fs::remove_dir_all(&work).with_context(|| format!("remove {}", work.display()))?;
                    return Ok(());
                }
                Err(error) => reasons.push(format!("{suite}: {error:#}")),
            }
        }
        bail!("Debian has no rust-src {}: {}", self.version, reasons.join("; "));
    }

    /// Copies the package's `library/` beside its place, then renames: never half of it is there.
    fn unpack(&self, package: &Path, work: &Path) -> Result<()> {
        let unpacked = work.join("unpacked");
        cargo::read(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&unpacked))?;
        let library = unpacked.join(format!("usr/src/rustc-{}/library", self.version));
        if !library.join("core/src/lib.rs").is_file() {
            bail!("{} holds no library/core", package.display());
        }
        fs::create_dir_all(&self.folder).with_context(|| format!("make {}", self.folder.display()))?;
        let partial = self.folder.join("library.partial");
        let _ = fs::remove_dir_all(&partial);
        cargo::read(Command::new("cp").args(["--archive", "--dereference"]).arg(library).arg(&partial))?;
        let place = self.folder.join("library");
        let _ = fs::remove_dir_all(&place);
        fs::rename(&partial, &place).with_context(|| format!("put {}", place.display()))
    }
}

impl Need for RustSrc {
    fn missing(&self) -> Result<Vec<String>> {
        Ok(if self.is_there() { vec![] } else { vec![format!("rust-src {}", self.version)] })
    }

    fn by_hand(&self) -> Result<Vec<String>> {
        Ok(vec![
            "rustup component add rust-src".to_owned(),
            format!(
                "# or unpack Debian's package rust-src {} and copy its library/ to {}",
                self.version,
                self.folder.display()
            ),
        ])
    }

    fn get(&self) -> Result<()> {
        match self.from {
            Some(Source::Rustup) => self.by_rustup(),
            Some(Source::Debian) => self.by_debian(),
            None => self.by_rustup().or_else(|first| {
                let first = format!("{first:#}");
                screen::detail(&format!("not by rustup: {}", first.lines().next_back().unwrap_or_default()));
                self.by_debian().with_context(|| format!("rustup: {first}; Debian"))
            }),
        }
    }
}

/// The full version of `rust-src` that is of this rustc: `1.95.0+dfsg1-2~bpo13+1` for `1.95.0`.
fn package(apt: &Apt, rustc: &str) -> Result<String> {
    let versions = apt.versions("rust-src")?;
    let right = versions.iter().find(|version| is_of(version, rustc));
    right.cloned().with_context(|| format!("it has {versions:?}"))
}

/// Whether a Debian version is that of this upstream version.
fn is_of(debian: &str, upstream: &str) -> bool {
    debian.strip_prefix(upstream).is_some_and(|rest| rest.starts_with(['+', '-', '~']))
}

#[cfg(test)]
mod tests {
    use super::is_of;

    #[test]
    fn a_debian_version_is_matched_by_its_whole_upstream_part() {
        assert!(is_of("1.95.0+dfsg1-2~bpo13+1", "1.95.0"));
        assert!(!is_of("1.95.01+dfsg1-1", "1.95.0"));
        assert!(!is_of("1.85.0+dfsg3-1", "1.95.0"));
    }
}
