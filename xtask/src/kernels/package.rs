//! Debian's kernels: found by series, downloaded, unpacked, kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::setup::apt::{self, Apt};
use crate::{cargo, screen};

/// The newest kernel that can be had, whatever its series.
pub const NEWEST: &str = "newest";

/// Kernels for virtual machines: few modules, quick to boot.
const CLOUD: &str = "-cloud-amd64";
/// With `PREEMPT_RT`, for any machine: `6.12-rt` asks for one.
const REAL_TIME: &str = "-rt-amd64";
const PREFIX: &str = "linux-image-";

/// Suites with the series that each is made for; what is newer than those is in the last.
const SUITES: [(&str, &str); 6] = [
    ("bullseye", "5.10"),
    ("bookworm", "6.1"),
    ("trixie", "6.12"),
    ("trixie-backports", NEWEST),
    ("forky", NEWEST),
    ("sid", NEWEST),
];

/// An unpacked kernel.
#[derive(Debug)]
pub struct Kernel {
    /// `6.12.107+deb13-cloud-amd64`.
    pub release: String,
    folder: PathBuf,
}

impl Kernel {
    /// In its folder, with the name that was asked for.
    fn kept(folder: &Path) -> Option<Self> {
        let release = fs::read_to_string(folder.join("release")).ok()?;
        Some(Self { release, folder: folder.to_owned() })
    }

    /// Beside its modules from 7.3 on, in `/boot` before.
    pub fn image(&self) -> Result<PathBuf> {
        let places = [
            self.modules()?.join("vmlinuz"),
            self.folder.join("root/boot").join(format!("vmlinuz-{}", self.release)),
        ];
        let found = places.into_iter().find(|place| place.is_file());
        found.with_context(|| format!("the package of {} has no image", self.release))
    }

    /// Where the modules are.
    pub fn modules(&self) -> Result<PathBuf> {
        let places = ["usr/lib/modules", "lib/modules"];
        let places = places.map(|place| self.folder.join("root").join(place).join(&self.release));
        let found = places.into_iter().find(|place| place.is_dir());
        found.with_context(|| format!("the package of {} has no modules", self.release))
    }

    /// For what a run makes of this kernel.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// The kernel of a series: kept, or from the first suite that has it.
pub fn get(series: &str, refresh: bool) -> Result<Kernel> {
    let folder = cargo::target().join("kernels").join(series);
    if !refresh && let Some(kernel) = Kernel::kept(&folder) {
        return Ok(kernel);
    }
    screen::step(&format!("getting the kernel {series}"));
    let mirror = apt::mirror()?;
    let work = cargo::target().join("kernels").join("apt").join(series);
    let _ = fs::remove_dir_all(&work);
    let mut suites = SUITES.to_vec();
    // A series of its own may be anywhere, the newest only where new ones are.
    suites.retain(|(_, made_for)| series != NEWEST || *made_for == NEWEST);
    suites.sort_by_key(|(_, made_for)| *made_for != flavour(series).0);
    let mut reasons = Vec::new();
    for (suite, _) in suites {
        screen::detail(&format!("looking in Debian's {suite}"));
        let work = work.join(suite);
        let found = Apt::new(&work, &mirror, suite).and_then(|apt| Ok((find(&apt, series)?, apt)));
        match found {
            Ok((release, apt)) => {
                let kernel = unpack(&apt, &release, &folder)?;
                fs::remove_dir_all(&work).with_context(|| format!("remove {}", work.display()))?;
                return Ok(kernel);
            }
            Err(error) => reasons.push(format!("{suite}: {error:#}")),
        }
    }
    bail!("no suite has it: {}", reasons.join("; "));
}

/// A series without its suffix, and how the names of its packages end.
fn flavour(series: &str) -> (&str, &'static str) {
    series.strip_suffix("-rt").map_or((series, CLOUD), |series| (series, REAL_TIME))
}

/// The newest release of a series in a suite.
fn find(apt: &Apt, series: &str) -> Result<String> {
    let (series, flavour) = flavour(series);
    let names = apt.names(&format!("^{PREFIX}[0-9].*{flavour}$"))?;
    let releases = names.iter().filter_map(|name| name.strip_prefix(PREFIX));
    let release = newest(releases, series).with_context(|| format!("it is none of {}", names.len()))?;
    Ok(release.to_owned())
}

fn unpack(apt: &Apt, release: &str, folder: &Path) -> Result<Kernel> {
    // From 7.3 on the image is a package that only needs those that hold the kernel.
    let image = format!("{PREFIX}{release}");
    let parts = apt.needs(&image)?.into_iter().filter(|name| name.ends_with(release));
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    for package in std::iter::once(image.clone()).chain(parts) {
        let file = apt.download(&package, None)?;
        cargo::read(Command::new("dpkg-deb").arg("--extract").arg(file).arg(folder.join("root")))?;
    }
    let kernel = Kernel { release: release.to_owned(), folder: folder.to_owned() };
    kernel.image()?;
    // Last: without it the folder counts as empty.
    fs::write(folder.join("release"), release).context("note the kernel's release")?;
    Ok(kernel)
}

/// The newest release of a series.
fn newest<'a>(releases: impl Iterator<Item = &'a str>, series: &str) -> Option<&'a str> {
    let wanted = if series == NEWEST { Vec::new() } else { numbers(series) };
    releases.filter(|release| numbers(release).starts_with(&wanted)).max_by_key(|release| numbers(release))
}

/// `6.12.107+deb13-cloud-amd64` as 6, 12, 107; `5.10.0-32-cloud-amd64` as 5, 10, 0, 32.
fn numbers(release: &str) -> Vec<u32> {
    release
        .split(['.', '-'])
        .map_while(|part| {
            let digits = part.split('+').next().unwrap_or_default();
            digits.parse().ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{CLOUD, NEWEST, REAL_TIME, flavour, newest};

    #[test]
    fn the_newest_of_a_series_is_found_by_number() {
        let releases = [
            "5.10.0-9-cloud-amd64",
            "5.10.0-32-cloud-amd64",
            "6.1.0-50-cloud-amd64",
            "6.12.94+deb13-cloud-amd64",
            "6.12.107+deb13-cloud-amd64",
        ];
        let of = |series| newest(releases.into_iter(), series);
        assert_eq!(of("5.10"), Some("5.10.0-32-cloud-amd64"));
        assert_eq!(of("6.1"), Some("6.1.0-50-cloud-amd64"));
        assert_eq!(of("6.12"), Some("6.12.107+deb13-cloud-amd64"));
        assert_eq!(of(NEWEST), Some("6.12.107+deb13-cloud-amd64"));
        assert_eq!(of("7.0"), None);
    }

    #[test]
    fn a_suffix_asks_for_another_flavour() {
        assert_eq!(flavour("6.12-rt"), ("6.12", REAL_TIME));
        assert_eq!(flavour("6.12"), ("6.12", CLOUD));
    }
}
