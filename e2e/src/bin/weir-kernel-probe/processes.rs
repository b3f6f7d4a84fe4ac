//! Processes: each socket of this very process is told once for each peer, with its name, and nothing else of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use weir_sensor::kernel::{FlowKey, Sockets};
use weir_testbed::mount::Mount;
use weir_testbed::netns::Namespace;

use crate::ground::Ground;

pub fn of_sockets(ground: &Ground) -> Result<String> {
    // A bare system may have no control groups mounted, and namespaces hide those that are.
    let _groups = Mount::cgroup2("processes")?;
    let mut sockets = Sockets::attach(1_024)?;
    let place = Namespace::new("sockets")?;
    for scope in ["all", "default", "lo"] {
        place.set(&format!("net.ipv6.conf.{scope}.disable_ipv6"), "0")?;
    }
    let (mut expected, own) = place.enter(|| talk(shows_syn_ack6(&ground.kernel)))??;
    expected.retain(|_, times| *times > 0);
    let mut told: BTreeMap<Flow, u32> = BTreeMap::new();
    let mut strange = None;
    sockets.read(4_096, |flow, owner| {
        if owner.pid != std::process::id() {
            return;
        }
        if !owner.name.starts_with(&own) {
            strange = Some(owner);
        }
        *told.entry(plain(&flow)).or_default() += 1;
    });
    ensure!(strange.is_none(), "not this process: {strange:?}");
    ensure!(told == expected, "told {told:?}, expected {expected:?}");
    ensure!(sockets.untold()? == 0, "joins were lost");
    let without = if shows_syn_ack6(&ground.kernel) { "" } else { ", no SYN-ACK of IPv6" };
    Ok(format!("{} flows of sockets{without}", told.len()))
}

/// Sends over TCP and UDP, of both versions; the flows that were sent, and the name of who sent them.
fn talk(syn_ack6: bool) -> Result<(BTreeMap<Flow, u32>, Vec<u8>)> {
    let mut sent = BTreeMap::new();
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(address).with_context(|| address.to_owned())?;
        let mut near = TcpStream::connect(listener.local_addr()?)?;
        let (mut far, _) = listener.accept()?;
        near.write_all(b"x")?;
        far.read_exact(&mut [0])?;
        let (client, server) = (near.local_addr()?, near.peer_addr()?);
        sent.insert(key(6, client, server), 1);
        sent.insert(key(6, server, client), u32::from(server.is_ipv4() || syn_ack6));

        let receiver = UdpSocket::bind(address)?;
        let sender = UdpSocket::bind(address)?;
        for _ in 0..3 {
            sender.send_to(b"x", receiver.local_addr()?)?;
        }
        sent.insert(key(17, sender.local_addr()?, receiver.local_addr()?), 1);
    }
    let own = fs::read("/proc/thread-self/comm")?.trim_ascii_end().to_vec();
    Ok((sent, own))
}

/// Whether programs of control groups see the SYN-ACK of an IPv6 connection: before 6.7 the kernel takes its socket,
/// a request, for another one than the listener's and passes the programs by. Then the listener is found in /proc.
fn shows_syn_ack6(kernel: &str) -> bool {
    let mut numbers = kernel.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(7))
}

/// Source, destination, protocol.
type Flow = (String, u16, String, u16, u8);

fn plain(flow: &FlowKey) -> Flow {
    (flow.src.to_string(), flow.src_port, flow.dst.to_string(), flow.dst_port, flow.protocol)
}

fn key(protocol: u8, src: SocketAddr, dst: SocketAddr) -> Flow {
    (src.ip().to_string(), src.port(), dst.ip().to_string(), dst.port(), protocol)
}
