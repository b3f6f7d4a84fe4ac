//! What is behind the gateway: addresses of documentation and some that place databases know, and who answers there.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::thread;

use weir_testbed::netns::Namespace;
use weir_testbed::process::Process;
use weir_testbed::{Error, Result};

use crate::tls;

pub(super) const CARD: &str = "net";
pub const SSH: u16 = 22;
pub const TELNET: u16 = 23;
/// HTTP without encryption.
pub const PLAIN: u16 = 80;
pub const NTP: u16 = 123;
/// Who answers there; of an address of its own, since an answer to a datagram has its socket's.
pub const CLOCK: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 123);
/// Somebody's master.
pub const BEACON: u16 = 4444;
/// Takes whatever it gets.
pub const SINK: u16 = 9000;

/// All of them answer; addresses of 198.51.100.0/24 are silent.
const ANSWER: [&str; 4] = ["203.0.113.0/24", "81.2.69.142/32", "1.128.0.1/32", "89.160.20.112/32"];

pub(super) fn connect(internet: &Namespace) -> Result<()> {
    internet.ip(&["addr", "add", "100.64.0.2/30", "dev", CARD])?;
    internet.ip(&["route", "add", "default", "via", "100.64.0.1"])?;
    for network in ANSWER {
        internet.ip(&["route", "add", "local", network, "dev", "lo"])?;
    }
    Ok(())
}

/// Services on every address: TLS at 443, a version of it that nobody should use at 8443, and those of this module.
pub(super) fn serve(internet: &Namespace, folder: &Path) -> Result<Vec<Process>> {
    let anywhere = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let deprecated = ["-tls1", "-cipher", "ALL:@SECLEVEL=0"];
    let servers = vec![
        tls::serve(internet, anywhere(443), &[], folder)?,
        tls::serve(internet, anywhere(8443), &deprecated, folder)?,
    ];
    greet(internet, SSH, "SSH-2.0-site\r\n")?;
    greet(internet, TELNET, "login: ")?;
    greet(internet, PLAIN, OK)?;
    greet(internet, BEACON, "nothing to do\n")?;
    greet(internet, SINK, "")?;
    let socket = internet.enter(|| UdpSocket::bind((CLOCK, NTP)))?;
    let socket = socket.map_err(Error::io("listen at NTP's port"))?;
    thread::spawn(move || {
        let mut packet = [0; 64];
        while let Ok((length, from)) = socket.recv_from(&mut packet) {
            // Whoever asked may have gone.
            let _ = socket.send_to(&packet[..length], from);
        }
    });
    Ok(servers)
}

const OK: &str = "HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

/// Takes what machines of the office send to this one.
pub(super) fn sink(namespace: &Namespace) -> Result<()> {
    greet(namespace, SINK, "")
}

/// A web page on a machine of the office.
pub(super) fn page(namespace: &Namespace, port: u16) -> Result<()> {
    greet(namespace, port, OK)
}

/// Takes connections, says something, and reads to the end, for as long as this process runs.
fn greet(namespace: &Namespace, port: u16, greeting: &'static str) -> Result<()> {
    let listener = namespace.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))?;
    let listener = listener.map_err(Error::io(format!("listen at port {port}")))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream, greeting));
        }
    });
    Ok(())
}

fn answer(mut stream: TcpStream, greeting: &str) -> io::Result<()> {
    stream.write_all(greeting.as_bytes())?;
    let mut octets = vec![0; 64 << 10];
    while stream.read(&mut octets)? > 0 {}
    stream.shutdown(Shutdown::Both)
}
