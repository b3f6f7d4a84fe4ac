//! bpf-linker, into the target folder: nothing outside the clone changes.
//!
//! The sensor's build looks for it in `BPF_LINKER`, in `<target>/tools/bin`, then in PATH, and so do we.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::{Need, packages};
use crate::{cargo, screen};

/// The last version that uses the LLVM which rustc 1.95 itself brings (22), so none need be installed.
const VERSION: &str = "0.10.3";

pub struct BpfLinker;

impl Need for BpfLinker {
    fn missing(&self) -> Result<Vec<String>> {
        let named = std::env::var_os("BPF_LINKER").map(PathBuf::from);
        let places = named.into_iter().chain([tools().join("bin/bpf-linker")]);
        let found = places.chain(packages::find("bpf-linker")).any(|path| is_right(&path));
        Ok(if found { vec![] } else { vec![format!("bpf-linker {VERSION}")] })
    }

    fn by_hand(&self) -> Result<Vec<String>> {
        Ok(vec![cargo::shown(&install())])
    }

    fn get(&self) -> Result<()> {
        screen::detail(&format!("cargo install bpf-linker {VERSION} (about a minute)"));
        cargo::run(&mut install())
    }
}

fn tools() -> PathBuf {
    cargo::target().join("tools")
}

fn install() -> Command {
    let mut install = cargo::cargo();
    install.args(["install", "--quiet", "--locked", "--version", VERSION, "--root"]);
    install.arg(tools()).arg("bpf-linker");
    install
}

fn is_right(path: &Path) -> bool {
    let said = cargo::read(Command::new(path).arg("--version"));
    said.is_ok_and(|said| said.split_whitespace().any(|word| word == VERSION))
}
