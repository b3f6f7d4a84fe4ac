//! Builds the kernel object that the sensor embeds.
//!
//! A second cargo does it, because the object has another target, wants `core` built for it, and that wants
//! the compiler's unstable switches (`RUSTC_BOOTSTRAP`), which must not leak into the build of anything
//! else. It works in a target folder of its own, so that the two do not wait for each other's lock, and it
//! runs again only when the kernel sources change.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// What goes into the object, beside the sources.
const TARGET: &str = "bpfel-unknown-none";
const OBJECTS: [&str; 3] = ["weir-kernel", "weir-kernel-sockets", "weir-kernel-bench"];

fn main() -> Result<(), String> {
    let manifest = required("CARGO_MANIFEST_DIR")?;
    let workspace = manifest.parent().ok_or("the sensor's folder has no parent")?.to_path_buf();
    let out = required("OUT_DIR")?;
    for watched in ["sensor-ebpf/src", "sensor-ebpf/Cargo.toml", "sensor-common/src", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace.join(watched).display());
    }
    println!("cargo::rerun-if-env-changed=BPF_LINKER");

    let target = out
        .ancestors()
        .find(|folder| folder.ends_with("build"))
        .and_then(|build| build.parent()?.parent())
        .ok_or("cannot find the target folder above OUT_DIR")?;
    let objects = target.join("ebpf");
    build(&workspace, &objects, &linker(target)?)?;
    for object in OBJECTS {
        let built = objects.join(TARGET).join("release").join(object);
        std::fs::copy(&built, out.join(object))
            .map_err(|error| format!("copy {}: {error}", built.display()))?;
    }
    Ok(())
}

fn build(workspace: &Path, objects: &Path, linker: &Path) -> Result<(), String> {
    let mut cargo = Command::new(required("CARGO")?);
    cargo
        .current_dir(workspace)
        .args(["build", "--quiet", "--release", "--package", "weir-sensor-ebpf", "--features", "kernel"])
        .args(OBJECTS.iter().flat_map(|object| ["--bin", object]))
        .args(["--target", TARGET, "-Z", "build-std=core", "--target-dir"])
        .arg(objects)
        .env("RUSTC_BOOTSTRAP", "1")
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            format!(
                "-Cdebuginfo=2\u{1f}-Clinker={}\u{1f}-Clink-arg=--btf\u{1f}-Ctarget-cpu=v3",
                linker.display()
            ),
        );
    // Wrappers and flags of the outer build (clippy, coverage) are for the outer build.
    for outer in ["RUSTC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(outer);
    }
    let status = cargo.status().map_err(|error| format!("run cargo for the kernel object: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err("the kernel object did not build (above); `cargo xtask setup` gets what it needs: \
             rust-src and bpf-linker"
            .to_owned())
    }
}

/// `BPF_LINKER`, else what `cargo xtask setup` installed, else the one in `PATH`.
fn linker(target: &Path) -> Result<PathBuf, String> {
    if let Some(named) = env::var_os("BPF_LINKER") {
        return Ok(named.into());
    }
    let installed = target.join("tools/bin/bpf-linker");
    let path = env::var_os("PATH").unwrap_or_default();
    std::iter::once(installed)
        .chain(env::split_paths(&path).map(|folder| folder.join("bpf-linker")))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| {
            "bpf-linker is not installed: run `cargo xtask setup`, or name it in BPF_LINKER".to_owned()
        })
}

fn required(variable: &str) -> Result<PathBuf, String> {
    env::var_os(variable).map(PathBuf::from).ok_or_else(|| format!("cargo does not set {variable}"))
}
