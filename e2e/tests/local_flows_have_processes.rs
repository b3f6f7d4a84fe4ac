//! S5: flows of the host's own sockets carry the process that made them, also when it lived for a moment, and also
//! when it was there before the sensor.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use weir_e2e::hosts::{Host, introduce};
use weir_e2e::{Site, wire};
use weir_testbed::mount::Mount;
use weir_testbed::netns::{Namespace, Veth};
use weir_testbed::scratch::Scratch;
use weir_testbed::weir::Watch;

const NEAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const GIVE_UP: Duration = Duration::from_mins(1);
const TIMES: usize = 20;

fn within<T: Send>(namespace: &Namespace, f: impl FnOnce() -> std::io::Result<T> + Send) -> T {
    namespace.enter(f).expect("the namespace is entered").expect("the socket works")
}

/// What the database says, once it is this.
fn eventually(site: &Site, sql: &str, expected: &str) {
    let deadline = Instant::now() + GIVE_UP;
    loop {
        let found = site.sql(sql).expect("the database answers");
        if found.trim_end() == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{sql}\n{found}\nis not\n{expected}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn s5_flows_of_local_sockets_carry_their_process() {
    let site = Site::new().expect("a control plane starts");
    let near = site.member("near", 0).expect("a member is made");
    let far = site.member("far", 1).expect("a member is made");
    wire((&near, "tx"), (&far, "rx"), Veth { arp: true, ..Veth::default() }).expect("the wire is made");
    introduce(
        Host { namespace: &near, interface: "tx", address: NEAR },
        Host { namespace: &far, interface: "rx", address: FAR },
    )
    .expect("the ends know each other");
    // A program with a name of its own, which can open sockets.
    let folder = Scratch::new("processes").expect("a folder is made");
    let program = folder.path().join("weir-brief");
    fs::copy("/bin/bash", &program).expect("bash is there");

    // A namespace hides what the host mounts below /sys.
    let _groups = Mount::cgroup2("groups").expect("the control groups are mounted");

    // Before the sensor.
    let old = within(&near, || UdpSocket::bind((NEAR, 6000)));
    within(&near, || old.connect((FAR, 6001)));

    let watch = Watch {
        more: "[processes]\nexecutables = true\nlook_interval = \"1s\"\n".to_owned(),
        ..Watch::interface("tx", "native", "auto")
    };
    let mut sensor = site.sensor("near", &watch, &near).expect("the sensor starts");
    assert_eq!(sensor.metric("weir_sensor_process_programs").expect("metrics are served"), Some(1.0));

    // Made after it: the far end is of this kernel, too.
    let listener = within(&far, || TcpListener::bind((FAR, 7000)));
    let server = std::thread::spawn(move || {
        for _ in 0..=TIMES {
            let (mut peer, _) = listener.accept().expect("a connection comes");
            let mut line = [0; 3];
            peer.read_exact(&mut line).expect("a line comes");
            peer.write_all(b"yes\n").expect("it is answered");
        }
    });
    let shell =
        |script: String| near.launch(&program).args(["-c", &script]).run().expect("the shell ends well");
    for _ in 0..TIMES {
        shell(format!("exec 3<>/dev/tcp/{FAR}/7000; echo hi >&3; read line <&3"));
        shell(format!("echo hi > /dev/udp/{FAR}/7001"));
    }
    let of = |port: u16, side: &str| {
        format!(
            "SELECT process.name, count(DISTINCT src_port) FROM flow LEFT JOIN process ON process_id = {side}_process_id
             WHERE dst_port = {port} GROUP BY 1 ORDER BY 1"
        )
    };
    eventually(&site, &of(7000, "src"), &format!("weir-brief|{TIMES}"));
    eventually(&site, &of(7001, "src"), &format!("weir-brief|{TIMES}"));
    // The kernel's name of this thread.
    eventually(&site, &of(7000, "dst"), &format!("s5_flows_of_loc|{TIMES}"));
    eventually(&site, &of(7001, "dst"), &format!("|{TIMES}"));

    // One that stays is seen with its file.
    let script = format!("exec 3<>/dev/tcp/{FAR}/7000; sleep 0.5; echo hi >&3; read line <&3");
    near.launch(&program).args(["-c", &script]).run().expect("the shell ends well");
    server.join().expect("the server ends");
    let executable = "SELECT DISTINCT executable FROM process WHERE name = 'weir-brief' AND executable <> ''";
    eventually(&site, executable, &program.display().to_string());

    // The one from before is found within a look or two, and then sends.
    std::thread::sleep(Duration::from_secs(2));
    old.send(b"x").expect("it is sent");
    let own = std::env::current_exe().expect("a path").display().to_string();
    let from_before = "SELECT DISTINCT executable FROM flow JOIN process ON process_id = src_process_id WHERE dst_port = 6001";
    eventually(&site, from_before, &own);

    assert_eq!(sensor.metric("weir_sensor_process_joins_lost_total").expect("metrics are served"), Some(0.0));
    assert!(sensor.stop().expect("the sensor ends").success(), "{}", sensor.log());
}
