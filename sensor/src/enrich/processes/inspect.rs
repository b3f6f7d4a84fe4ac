//! What /proc says of processes and their sockets.
//!
//! A process may be gone before it is looked at, and its files may be closed to this sensor: what cannot be
//! read is not known, and nothing here fails.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use procfs::process::{FDTarget, Process as Proc};
use weir_wire::{Process, limits};

use super::group::Group;
use crate::observe::text;

/// Sockets that one look takes in: of a host with more, some flows have no process.
const MAX_SOCKETS: usize = 262_144;

/// A socket that was there when it was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub pid: u32,
    pub protocol: u8,
    pub local: SocketAddr,
    /// The unspecified address of a socket that listens or is not connected.
    pub remote: SocketAddr,
}

/// A process as flows show it. `name` is what the kernel called it, of a process that may be gone.
pub(super) fn process(pid: u32, name: Option<&[u8]>) -> Process {
    let folder = Path::new("/proc").join(pid.to_string());
    let name = name.map_or_else(
        || fs::read(folder.join("comm")).unwrap_or_default().trim_ascii_end().to_vec(),
        |name| name.iter().copied().take_while(|octet| *octet != 0).collect(),
    );
    let executable = fs::read_link(folder.join("exe")).map(|path| path.to_string_lossy().into_owned());
    let executable = executable.unwrap_or_default();
    let group =
        fs::read_to_string(folder.join("cgroup")).ok().and_then(|lines| unified(&lines).map(Group::of));
    let Group { container, unit } = group.unwrap_or_default();
    Process {
        name: fitting(&name, limits::MAX_PROCESS_NAME),
        // Of a file that was replaced while it runs.
        executable: fitting(executable.trim_end_matches(" (deleted)").as_bytes(), limits::MAX_EXECUTABLE),
        container: fitting(container.as_bytes(), limits::MAX_CONTAINER),
        unit: fitting(unit.as_bytes(), limits::MAX_UNIT),
    }
}

/// Cleaned (I6), and empty where it does not fit: the wrong half of a path says less than nothing.
fn fitting(bytes: &[u8], most: usize) -> String {
    let text = text::clean(bytes);
    if text.len() > most { String::new() } else { text }
}

/// The path in the unified hierarchy, or in the service manager's of a host that has both versions.
fn unified(lines: &str) -> Option<&str> {
    let path = |head: &str| lines.lines().find_map(|line| line.split_once(head).map(|(_, path)| path));
    path("0::").filter(|path| *path != "/").or_else(|| path(":name=systemd:")).or_else(|| path("0::"))
}

/// Every TCP and UDP socket of this network namespace whose process can be told.
pub(super) fn sockets() -> Vec<Found> {
    let mut found = HashMap::new();
    let tcp = [procfs::net::tcp(), procfs::net::tcp6()].into_iter().flatten().flatten();
    for entry in tcp.take(MAX_SOCKETS) {
        found.insert(entry.inode, (6, entry.local_address, entry.remote_address));
    }
    let udp = [procfs::net::udp(), procfs::net::udp6()].into_iter().flatten().flatten();
    for entry in udp.take(MAX_SOCKETS) {
        found.insert(entry.inode, (17, entry.local_address, entry.remote_address));
    }
    // Of a connection that nobody holds any more.
    found.remove(&0);
    let mut sockets = Vec::with_capacity(found.len());
    for process in procfs::process::all_processes().into_iter().flatten().flatten() {
        if found.is_empty() {
            break;
        }
        owned(&process, &mut found, &mut sockets);
    }
    sockets
}

fn owned(process: &Proc, found: &mut HashMap<u64, (u8, SocketAddr, SocketAddr)>, sockets: &mut Vec<Found>) {
    let Ok(files) = process.fd() else { return };
    for file in files.flatten() {
        let FDTarget::Socket(inode) = file.target else { continue };
        if let Some((protocol, local, remote)) = found.remove(&inode) {
            let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
            let (local, remote) = (plain(local), plain(remote));
            sockets.push(Found { pid: process.pid as u32, protocol, local, remote });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s5_a_socket_of_this_process_is_found_and_told() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let local = listener.local_addr().expect("its address");
        let found = sockets().into_iter().find(|socket| socket.local == local && socket.protocol == 6);
        let found = found.expect("it is listed");
        assert_eq!((found.pid, found.remote.port()), (std::process::id(), 0));
        let told = process(found.pid, None);
        let executable = std::env::current_exe().expect("a path");
        assert_eq!(told.executable, executable.to_string_lossy());
        assert!(crate::kernel::host_addresses().contains(&local.ip()));
    }

    #[test]
    fn i6_a_name_is_cleaned_and_what_is_gone_is_empty() {
        let told = process(u32::MAX, Some(b"a\x1b[2J\0\0\0"));
        assert_eq!(told, Process { name: "a\\u{1b}[2J".to_owned(), ..Process::default() });
        assert_eq!(unified("12:pids:/x\n0::/system.slice/a.service\n"), Some("/system.slice/a.service"));
        assert_eq!(
            unified("1:name=systemd:/system.slice/b.service\n0::/\n"),
            Some("/system.slice/b.service")
        );
    }
}
