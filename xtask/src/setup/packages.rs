//! Programs that Debian packages bring: compilers, Postgres, an emulator, and what makes and reads traffic.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::Need;
use crate::{cargo, screen};

/// A program and the package that has it.
struct Wanted {
    program: &'static str,
    package: &'static str,
    /// Further folders to look in, beside PATH and the system's own.
    found: fn(&str) -> bool,
}

const WANTED: &[Wanted] = &[
    Wanted { program: "cc", package: "gcc", found: in_path },
    Wanted { program: "stdlib.h", package: "libc6-dev", found: header },
    Wanted { program: "initdb", package: "postgresql", found: postgres },
    Wanted { program: "redis-server", package: "redis-server", found: in_path },
    Wanted { program: "tcpreplay", package: "tcpreplay", found: in_path },
    Wanted { program: "ip", package: "iproute2", found: in_path },
    Wanted { program: "tc", package: "iproute2", found: in_path },
    Wanted { program: "ss", package: "iproute2", found: in_path },
    Wanted { program: "ethtool", package: "ethtool", found: in_path },
    Wanted { program: "iperf3", package: "iperf3", found: in_path },
    Wanted { program: "setpriv", package: "util-linux", found: in_path },
    // A terminal for tests.
    Wanted { program: "script", package: "bsdutils", found: in_path },
    // A TLS server and its client, for names of flows.
    Wanted { program: "openssl", package: "openssl", found: in_path },
    // A DHCP server and resolver, for a site of which each part is real.
    Wanted { program: "dnsmasq", package: "dnsmasq-base", found: in_path },
    // The kernel matrix: an emulator, and what is in its initramfs.
    Wanted { program: "qemu-system-x86_64", package: "qemu-system-x86", found: in_path },
    // And a DHCP client.
    Wanted { program: "busybox", package: "busybox-static", found: in_path },
    // Fuzzing: libFuzzer is C++.
    Wanted { program: "c++", package: "g++", found: in_path },
    Wanted { program: "nft", package: "nftables", found: in_path },
    // Fuzzing the API: a virtual environment for a Python package.
    Wanted { program: "python3 -m venv", package: "python3-venv", found: virtual_environments },
    Wanted { program: "faketime/libfaketimeMT.so.1", package: "libfaketime", found: library },
];

pub struct Packages;

impl Need for Packages {
    fn missing(&self) -> Result<Vec<String>> {
        Ok(missing().iter().map(|wanted| format!("{} ({})", wanted.program, wanted.package)).collect())
    }

    fn by_hand(&self) -> Result<Vec<String>> {
        if !is_debian() {
            let programs: Vec<&str> = missing().iter().map(|wanted| wanted.program).collect();
            return Ok(vec![format!(
                "# not Debian: install the programs {} with this system's own packages",
                programs.join(", ")
            )]);
        }
        let sudo = if is_root() { "" } else { "sudo " };
        Ok(vec![
            format!("{sudo}apt-get update"),
            format!("{sudo}apt-get install --no-install-recommends {}", names().join(" ")),
        ])
    }

    fn get(&self) -> Result<()> {
        if !is_debian() {
            bail!("this is not Debian or one of its descendants");
        }
        if !is_root() {
            bail!("installing packages needs root");
        }
        let names = names();
        screen::detail(&format!("apt-get install {}", names.join(" ")));
        let install = || {
            let mut apt = apt();
            apt.args(["install", "--yes", "-qq", "--no-install-recommends"]).args(&names);
            cargo::run(&mut apt)
        };
        // Lists may be absent or old: one update, and only if the install did not go without it.
        if install().is_err() {
            screen::detail("apt-get update");
            cargo::run(apt().args(["update", "-qq"]))?;
            install().context("install Debian packages")?;
        }
        match missing().first() {
            None => Ok(()),
            Some(wanted) => bail!("{} is installed, but has no {}", wanted.package, wanted.program),
        }
    }
}

fn apt() -> Command {
    let mut apt = Command::new("apt-get");
    // Its output belongs to our progress, not to our results.
    apt.env("DEBIAN_FRONTEND", "noninteractive").stdin(std::process::Stdio::null()).stdout(std::io::stderr());
    apt
}

fn missing() -> Vec<&'static Wanted> {
    WANTED.iter().filter(|wanted| !(wanted.found)(wanted.program)).collect()
}

fn names() -> Vec<&'static str> {
    let mut names: Vec<&str> = missing().iter().map(|wanted| wanted.package).collect();
    names.dedup();
    names
}

/// Whether a program is in PATH or in the folders of the system's own.
pub(super) fn in_path(program: &str) -> bool {
    find(program).is_some()
}

pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|folder| folder.join(program)).find(|path| path.is_file())
}

fn header(name: &str) -> bool {
    Path::new("/usr/include").join(name).is_file()
}

/// Debian keeps libraries in a folder for each architecture.
fn library(name: &str) -> bool {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    folders.map(|folder| folder.path().join(name)).any(|path| path.is_file())
}

/// Debian splits pip's wheel, which a new environment begins with, from Python.
fn virtual_environments(_: &str) -> bool {
    let mut python = Command::new("python3");
    python.args(["-c", "import ensurepip, venv"]);
    in_path("python3") && cargo::read(&mut python).is_ok()
}

/// Debian keeps the server's programs out of PATH.
fn postgres(program: &str) -> bool {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions.map(|version| version.path().join("bin").join(program)).any(|path| path.is_file())
        || in_path(program)
}

fn is_debian() -> bool {
    Path::new("/etc/debian_version").exists() && in_path("apt-get")
}

pub(super) fn is_root() -> bool {
    weir_testbed::require_root("").is_ok()
}
