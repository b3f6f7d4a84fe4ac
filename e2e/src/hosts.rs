//! Members that speak TCP to each other without a frame that no test asked for: fixed addresses, fixed
//! neighbours, a bounded transfer.

use std::net::Ipv4Addr;
use std::time::Duration;

use weir_testbed::netns::Namespace;
use weir_testbed::process::Process;
use weir_testbed::scratch::Scratch;
use weir_testbed::{Error, Result};

const PORT: &str = "5201";
const TRANSFER_WITHIN: Duration = Duration::from_mins(2);

/// One end of a link between two hosts.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    pub namespace: &'a Namespace,
    pub interface: &'a str,
    pub address: Ipv4Addr,
}

/// Gives both ends their addresses and tells each the other's hardware address: no ARP is needed.
pub fn introduce(left: Host<'_>, right: Host<'_>) -> Result<()> {
    for (host, peer) in [(left, right), (right, left)] {
        let Host { namespace, interface, address } = host;
        namespace.ip(&["addr", "add", &format!("{address}/24"), "dev", interface])?;
        let mac = peer.namespace.mac(peer.interface)?;
        let peer = peer.address.to_string();
        let neighbour = ["neigh", "replace", &peer, "lladdr", &mac, "dev", interface, "nud", "permanent"];
        namespace.ip(&neighbour)?;
    }
    Ok(())
}

/// Sends so many bytes over one TCP connection (and iperf3's control connection beside it) and waits
/// until both ends have closed.
pub fn transfer(from: &Namespace, to: &Namespace, address: Ipv4Addr, bytes: &str) -> Result<()> {
    let logs = Scratch::new("iperf3")?;
    let serve = to.launch("iperf3").args(["--server", "--one-off", "--port", PORT]);
    let mut server = serve.spawn("iperf3 --server", logs.path().join("server"))?;
    listening(&mut server, to)?;
    from.launch("iperf3").args(["--client", &address.to_string(), "--port", PORT, "--bytes", bytes]).run()?;
    let status = server.wait(TRANSFER_WITHIN)?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Ended {
        what: "iperf3 --server".to_owned(),
        status: status.to_string(),
        log: server.log_tail(),
    })
}

/// Waits for the listening socket without connecting to it: a probe would be traffic.
fn listening(server: &mut Process, namespace: &Namespace) -> Result<()> {
    server.wait_until("it listens", TRANSFER_WITHIN, || {
        let sockets = namespace.launch("ss").args(["-Hltn", &format!("sport = :{PORT}")]).run();
        sockets.is_ok_and(|sockets| !sockets.trim().is_empty())
    })
}
