//! TLS as others speak it: openssl's server and client, with a certificate that is made for the run.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use weir_testbed::Result;
use weir_testbed::netns::Namespace;
use weir_testbed::process::Process;

const LISTENS_WITHIN: Duration = Duration::from_mins(1);

/// Serves on this address; `more` are further arguments of `openssl s_server`. Its key and its log are in `folder`.
pub fn serve(server: &Namespace, address: SocketAddr, more: &[&str], folder: &Path) -> Result<Process> {
    let file = |name: &str| folder.join(format!("{}-{name}", address.port()));
    let (key, certificate) = (file("key"), file("certificate"));
    let make =
        ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"];
    let make = server.launch("openssl").args(make).args(["-subj", "/CN=test"]);
    make.arg("-keyout").arg(&key).arg("-out").arg(&certificate).run()?;
    let serve = server.launch("openssl").args(["s_server", "-quiet", "-www", "-accept"]);
    let serve = serve.arg(address.to_string()).arg("-key").arg(&key).arg("-cert").arg(&certificate);
    let mut process = serve.args(more).spawn("openssl s_server", file("log"))?;
    process.wait_until("it listens", LISTENS_WITHIN, || {
        let sockets = server.launch("ss").args(["-Hltn", &format!("sport = :{}", address.port())]).run();
        sockets.is_ok_and(|sockets| !sockets.trim().is_empty())
    })?;
    Ok(process)
}

/// A handshake that asks for this name; `more` are further arguments of `openssl s_client`.
pub fn greet(client: &Namespace, address: SocketAddr, name: &str, more: &[&str]) -> Result<()> {
    let hello = ["s_client", "-connect", &address.to_string(), "-servername", name];
    client.launch("openssl").args(hello).args(more).run().map(|_| ())
}
