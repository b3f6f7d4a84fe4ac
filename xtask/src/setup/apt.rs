//! An apt of its own: the system's lists, cache and sources are neither read nor written, and packages are
//! downloaded, not installed. The mirror is the one that the system itself uses.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{cargo, screen};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One suite of Debian, with its configuration, lists and cache in a folder.
pub struct Apt {
    folder: PathBuf,
}

impl Apt {
    pub fn new(folder: &Path, mirror: &str, suite: &str) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial", "parts"] {
            let part = folder.join(part);
            fs::create_dir_all(&part).with_context(|| format!("make {}", part.display()))?;
        }
        // An empty status: no package of this system has a say in which version is chosen.
        fs::write(folder.join("status"), "")?;
        fs::write(folder.join("sources.list"), format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n"))?;
        let apt = Self { folder: folder.to_owned() };
        cargo::read(apt.command("apt-get").args(["update", "-qq"]))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let folder = self.folder.display();
        let mut command = Command::new(program);
        for setting in [
            format!("Dir::Etc::sourcelist={folder}/sources.list"),
            format!("Dir::Etc::sourceparts={folder}/parts"),
            format!("Dir::Etc::preferences={folder}/parts/none"),
            format!("Dir::Etc::preferencesparts={folder}/parts"),
            format!("Dir::State::lists={folder}/lists"),
            format!("Dir::State::status={folder}/status"),
            format!("Dir::Cache={folder}/cache"),
            // The folder may be one that apt's own user cannot enter.
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
        ] {
            command.arg("-o").arg(setting);
        }
        command
    }

    /// Versions of a package, newest first.
    pub fn versions(&self, package: &str) -> Result<Vec<String>> {
        let offered = cargo::read(self.command("apt-cache").args(["madison", package]))?;
        let versions = offered.lines().filter_map(|line| line.split('|').nth(1));
        Ok(versions.map(|version| version.trim().to_owned()).collect())
    }

    /// Names of packages, by a regular expression.
    pub fn names(&self, pattern: &str) -> Result<Vec<String>> {
        let found = cargo::read(self.command("apt-cache").args(["search", "--names-only", pattern]))?;
        Ok(found.lines().filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect())
    }

    /// Names of the packages that a package needs.
    pub fn needs(&self, package: &str) -> Result<Vec<String>> {
        let told = cargo::read(self.command("apt-cache").args(["depends", package]))?;
        let names = told.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(names.map(str::to_owned).collect())
    }

    /// Downloads a package; the newest version unless one is named.
    pub fn download(&self, package: &str, version: Option<&str>) -> Result<PathBuf> {
        let wanted = version.map_or_else(|| package.to_owned(), |version| format!("{package}={version}"));
        screen::detail(&format!("downloading {wanted}"));
        let to = self.folder.join("downloaded").join(package);
        let _ = fs::remove_dir_all(&to);
        fs::create_dir_all(&to).with_context(|| format!("make {}", to.display()))?;
        cargo::read(self.command("apt-get").args(["download", "-qq", &wanted]).current_dir(&to))?;
        let file = fs::read_dir(&to)?.next().context("apt-get download left no file")??;
        Ok(file.path())
    }
}

/// The suite of Debian that this system is.
pub fn codename() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
    if !release.lines().any(|line| line == "ID=debian") {
        bail!("this is not Debian");
    }
    let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    codename.map(str::to_owned).context("/etc/os-release names no VERSION_CODENAME")
}

/// The Debian mirror that this system itself uses.
pub fn mirror() -> Result<String> {
    let codename = codename()?;
    let targets = cargo::read(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(RELEASE) $(COMPONENT) $(REPO_URI)",
        "Created-By: Packages",
    ]))?;
    let wanted = format!("{codename} main ");
    let mirror = targets.lines().find_map(|line| line.strip_prefix(&wanted));
    mirror.map(str::to_owned).with_context(|| format!("apt has no source for {codename} main"))
}
