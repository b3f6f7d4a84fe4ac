//! One boot: an emulated machine that runs the probe and ends.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use weir_testbed::process::Launch;

use super::package::Kernel;
use crate::screen;

/// When a machine is given up that says nothing new. On an idle core no check takes ten seconds, and all of
/// them a minute and a half; the host may have other things to do.
const SILENCE: Duration = Duration::from_mins(10);
const POLL: Duration = Duration::from_millis(100);
/// Lines of the console that an error shows.
const TAIL: usize = 15;

/// Boots the kernel and gives what the probe printed.
pub fn run(kernel: &Kernel, initramfs: &Path, cpus: u8) -> Result<String> {
    let folder = kernel.folder();
    let (console, probe) = (folder.join("console.log"), folder.join("probe.ndjson"));
    for file in [&console, &probe] {
        let _ = fs::remove_file(file);
    }
    let serial = |file: &Path| format!("file:{}", file.display());
    let began = Instant::now();
    let mut heard = (began, 0);
    let launch = Launch::new("qemu-system-x86_64")
        // Without cmpxchg16b: qemu 7.2 emulates it wrong now and then (it leaves the flags in disorder), and
        // newer kernels, which use it in their allocator, die of a double fault.
        .args(["-accel", "tcg", "-cpu", "max,-cx16", "-smp", &cpus.to_string(), "-m", "640"])
        .args(["-nodefaults", "-display", "none", "-no-reboot"])
        .arg("-kernel")
        .arg(kernel.image()?)
        .arg("-initrd")
        .arg(initramfs)
        // A panic ends the machine, as the end of the probe does.
        .args(["-append", "console=ttyS0 loglevel=4 panic=-1 random.trust_cpu=on"])
        .args(["-serial", &serial(&console), "-serial", &serial(&probe)]);
    // Ended by its id when it is dropped, and by the kernel if we die.
    let mut machine = launch.spawn("qemu", folder.join("qemu.log"))?;
    loop {
        if let Some(status) = machine.try_wait()? {
            if !status.success() {
                bail!("qemu ended with {status}: {}", machine.log());
            }
            break;
        }
        let said = [&console, &probe].iter().filter_map(|file| Some(file.metadata().ok()?.len())).sum();
        if said != heard.1 {
            heard = (Instant::now(), said);
        } else if heard.0.elapsed() > SILENCE {
            let tails = [tail(&probe), tail(&console)].join("\n");
            bail!("it said nothing for {SILENCE:?}; the probe and the console said last:\n{tails}");
        }
        thread::sleep(POLL);
    }
    let printed = fs::read_to_string(&probe).with_context(|| format!("read {}", probe.display()))?;
    if printed.trim().is_empty() {
        bail!("the probe said nothing; the console said last:\n{}", tail(&console));
    }
    screen::detail(&format!("{} ran for {:.0} s", kernel.release, began.elapsed().as_secs_f64()));
    Ok(printed)
}

fn tail(console: &Path) -> String {
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}
