//! A network namespace and a mount namespace of a test's own: a veth pair, a `/sys` that shows it, and a
//! bpffs below it. All of it goes with the thread that is in there.

use std::{
    fs,
    net::UdpSocket,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use weir_sensor::kernel::Pinning;

/// Where the bpffs is.
const BPFFS: &str = "/sys/fs/bpf";

/// Calls `test` in a room. What `tx` sends comes in at `rx`.
pub fn room(test: impl FnOnce() + Send + 'static) {
    let inside = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("this test needs root");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("mounts become private");
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).expect("sysfs is mounted");
        mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), none).expect("a bpffs is mounted");
        for scope in ["all", "default"] {
            let file = format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6");
            // Kernels without IPv6 need no telling.
            let _ = fs::write(file, "1");
        }
        wire("tx", "rx");
        ip(&["addr", "add", "10.77.0.1/24", "dev", "tx"]);
        test();
    });
    if let Err(panic) = inside.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A veth pair, both ends up.
pub fn wire(one: &str, other: &str) {
    ip(&["link", "add", "name", one, "type", "veth", "peer", "name", other]);
    for end in [one, other] {
        ip(&["link", "set", "dev", end, "arp", "off", "up"]);
    }
    until_up(one);
}

/// Waits until the kernel has noticed that both ends are up: what is sent before is dropped unseen.
pub fn until_up(interface: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let file = format!("/sys/class/net/{interface}/operstate");
    while fs::read_to_string(&file).is_ok_and(|state| state.trim() != "up") {
        assert!(Instant::now() < deadline, "{interface} does not come up");
        thread::sleep(Duration::from_millis(2));
    }
}

pub fn ip(arguments: &[&str]) -> String {
    run("ip", arguments)
}

pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("iproute2 is installed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn pinning() -> Pinning {
    Pinning::new(format!("{BPFFS}/weir"), "main")
}

/// A statistic of `tx`, by the kernel's own count.
pub fn statistic(name: &str) -> u64 {
    let file = format!("/sys/class/net/tx/statistics/{name}");
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
    text.trim().parse().expect("a statistic is a number")
}

/// Sends `packets` from `tx`, over eight flows.
pub fn send(packets: u32) {
    send_by(&UdpSocket::bind("10.77.0.1:0").expect("the address is ours"), packets);
}

fn send_by(socket: &UdpSocket, packets: u32) {
    for packet in 0..packets {
        // Nobody is there: the packets end at `rx`, counted. A full ring drops, and the statistics tell.
        let _ = socket.send_to(b"weir", ("10.77.0.99", 7000 + (packet % 8) as u16));
    }
}

/// Traffic that goes on until it is stopped.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Traffic {
    pub fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let socket = UdpSocket::bind("10.77.0.1:0").expect("the address is ours");
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                send_by(&socket, 64);
                // The other processes of this machine want to run as well.
                thread::yield_now();
            }
        });
        Self { stop, thread: Some(thread) }
    }

    /// Returns when the last packet is sent.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the sender does not panic");
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.end();
    }
}
