//! What a machine boots into: busybox, the probe and the programs that it calls with their libraries, the
//! modules of its kernel, some captures.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use weir_testbed::capture;

use super::package::Kernel;
use crate::cargo;
use crate::setup::packages;

/// The program that looks.
pub const PROBE: &str = "weir-kernel-probe";

/// Programs of this system that the probe calls.
const PROGRAMS: [&str; 6] = ["busybox", "ip", "tc", "ethtool", "tcpreplay", "setpriv"];

/// Modules that the probe's interfaces and hooks need; others that these need come with them.
const MODULES: [&str; 6] = ["veth", "tun", "ipip", "sch_ingress", "cls_bpf", "act_bpf"];

/// Few frames of many kinds, because an emulated machine is slow: every link stack, IPv6 with extension
/// headers, fragments, SCTP, IP options, tunnels, what is not IP.
const CAPTURES: [&str; 18] = [
    "arkime-ospf",
    "cesnet-ssdp",
    "foxio-v6",
    "ndpi-vxlan-vlan",
    "pcpp-dns",
    "pcpp-ip4-fragments",
    "pcpp-ipv6-options",
    "tcpdump-802.1ad-arp",
    "tcpdump-dhcpv4v6",
    "tcpdump-geneve",
    "trex-udp-ipopts",
    "zeek-icmp6",
    "zeek-ipv6-atomic-frag",
    "zeek-pppoe",
    "zeek-pppoe-over-qinq",
    "zeek-sctp",
    "zeek-snap-tcp",
    "zeek-vlan-pcp-dei",
];

/// The second serial port is the probe's: what it says and what the kernel says do not mix.
const INIT: &str = "#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod /modules/$module || echo \"no $module\"; done
export WEIR_PCAPS=/pcaps
weir-kernel-probe >/dev/ttyS1
reboot -f
";

/// Builds the archive that the kernel unpacks.
pub fn build(kernel: &Kernel) -> Result<PathBuf> {
    let root = kernel.folder().join("initramfs");
    let _ = fs::remove_dir_all(&root);
    for folder in ["bin", "dev", "modules", "pcaps", "proc", "run", "sys", "tmp", "var"] {
        let folder = root.join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    }
    symlink("../run", root.join("var/run")).context("link var/run")?;
    let init = root.join("init");
    fs::write(&init, INIT).context("write the init script")?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).context("make the init script run")?;
    programs(&root)?;
    modules(kernel, &root.join("modules"))?;
    let captures = capture::folder()?;
    for name in CAPTURES {
        for file in [format!("{name}.pcap"), format!("{name}.truth.json")] {
            copy(&captures.join(&file), &root.join("pcaps").join(file))?;
        }
    }
    archive(&root, &kernel.folder().join("initramfs.cpio"))
}

fn programs(root: &Path) -> Result<()> {
    let probe = root.join("bin").join(PROBE);
    // Debug information is most of it.
    cargo::read(Command::new("strip").arg("-o").arg(&probe).arg(cargo::programs(false).join(PROBE)))?;
    let mut programs = vec![probe];
    for name in PROGRAMS {
        let found = packages::find(name).with_context(|| format!("{name} is not installed"))?;
        let to = root.join("bin").join(name);
        copy(&found, &to)?;
        programs.push(to);
    }
    let mut libraries = BTreeSet::new();
    for program in &programs {
        // A static program has none, and ldd says so with an error.
        let told = cargo::read(Command::new("ldd").arg(program)).unwrap_or_default();
        libraries.extend(told.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned));
    }
    for library in libraries {
        let to = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap_or(root)).with_context(|| format!("place {library}"))?;
        copy(Path::new(&library), &to)?;
    }
    Ok(())
}

/// The modules, uncompressed, and the order in which they can be loaded.
fn modules(kernel: &Kernel, to: &Path) -> Result<()> {
    let folder = kernel.modules()?;
    let listed = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    let (loadable, built_in) = (listed("modules.order")?, listed("modules.builtin")?);
    let mut loaded = Vec::new();
    for name in MODULES {
        load(name, &folder, &loadable, &built_in, to, &mut loaded)?;
    }
    fs::write(to.join("order"), loaded.join("\n")).context("note the order of the modules")
}

/// Puts a module after those that it needs.
fn load(
    name: &str,
    folder: &Path,
    loadable: &str,
    built_in: &str,
    to: &Path,
    loaded: &mut Vec<String>,
) -> Result<()> {
    let file = format!("{name}.ko");
    if loaded.contains(&file) {
        return Ok(());
    }
    let is_it = |line: &&str| module_name(line) == name;
    let Some(path) = loadable.lines().find(is_it) else {
        if built_in.lines().any(|line| is_it(&line)) {
            return Ok(());
        }
        bail!("{} has no module {name}", folder.display());
    };
    let module = read(&folder.join(path))?;
    fs::write(to.join(&file), &module).with_context(|| format!("write {file}"))?;
    for needed in needs(&module) {
        load(&needed, folder, loadable, built_in, to, loaded)?;
    }
    loaded.push(file);
    Ok(())
}

/// `kernel/net/sched/sch_ingress.ko` is `sch_ingress`; names have `_` where files may have `-`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or_default();
    file.split('.').next().unwrap_or_default().replace('-', "_")
}

/// A module's bytes; the package may have it compressed.
fn read(path: &Path) -> Result<Vec<u8>> {
    if path.is_file() {
        return fs::read(path).with_context(|| format!("read {}", path.display()));
    }
    let compressed = path.with_extension("ko.xz");
    let mut busybox = Command::new("busybox");
    let output = busybox.arg("xzcat").arg(&compressed).output().context("start busybox xzcat")?;
    if !output.status.success() {
        bail!("unpack {}: {}", compressed.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

/// The modules that a module says it needs (`depends=a,b` in its `.modinfo`).
fn needs(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = module[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

fn archive(root: &Path, to: &Path) -> Result<PathBuf> {
    let paths = cargo::read(Command::new("find").arg(".").current_dir(root))?;
    let list = root.with_extension("list");
    fs::write(&list, paths).context("list the initramfs")?;
    let mut cpio = Command::new("busybox");
    cpio.args(["cpio", "-o", "-H", "newc"]).current_dir(root).stderr(Stdio::null());
    cpio.stdin(File::open(&list).context("read the list of the initramfs")?);
    cpio.stdout(File::create(to).with_context(|| format!("make {}", to.display()))?);
    cargo::run(&mut cpio)?;
    Ok(to.to_owned())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(|_| ()).with_context(|| format!("copy {} to {}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::{module_name, needs};

    #[test]
    fn a_module_says_what_it_needs() {
        assert_eq!(needs(b"license=GPL\0depends=ip_tunnel,tunnel4\0name=ipip\0"), ["ip_tunnel", "tunnel4"]);
        assert_eq!(needs(b"license=GPL\0depends=\0name=veth\0"), Vec::<String>::new());
        assert_eq!(needs(b"no such key"), Vec::<String>::new());
        assert_eq!(module_name("kernel/net/ipv4/ip-tunnel.ko"), "ip_tunnel");
    }
}
