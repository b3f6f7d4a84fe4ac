//! A machine on the LAN, and what machines do.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use weir_testbed::netns::Namespace;
use weir_testbed::scratch::Scratch;
use weir_testbed::traffic::Replay;
use weir_testbed::{Error, Result};

use super::{CLOCK, GATEWAY, Lease, NTP, Profile, dnsmasq, internet};
use crate::steady::pcap;
use crate::{dns, tls};

/// The name of its card.
pub const CARD: &str = "eth0";
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Station {
    pub namespace: Namespace,
    pub profile: Profile,
}

impl Station {
    /// Gets its address: by DHCP, or as somebody typed it in.
    pub fn join(&self) -> Result<()> {
        self.join_as(self.profile)
    }

    /// Leaves, makes up another hardware address, and comes back as that.
    pub fn returns_as(&self, profile: Profile) -> Result<()> {
        self.namespace.ip(&["addr", "flush", "dev", CARD])?;
        self.namespace.ip(&["link", "set", CARD, "address", profile.mac])?;
        self.join_as(profile)
    }

    fn join_as(&self, profile: Profile) -> Result<()> {
        let Profile { name, address, class, lease, .. } = profile;
        if lease == Lease::Fixed {
            self.namespace.ip(&["addr", "add", &format!("{address}/24"), "dev", CARD])?;
            self.namespace.ip(&["route", "add", "default", "via", &GATEWAY.to_string()])?;
            return Ok(());
        }
        let folder = Scratch::new("lease")?;
        let script = dnsmasq::script(folder.path())?;
        // In the foreground, until it has one, with broadcast answers; no pid file.
        let client = ["udhcpc", "-i", CARD, "-f", "-q", "-n", "-B", "-t", "15", "-T", "2"];
        let client = self.namespace.launch("busybox").args(client);
        let client = client.args(["-x", &format!("hostname:{name}"), "-s"]).arg(script);
        let client = class.into_iter().fold(client, |client, class| client.args(["-V", class]));
        client.run()?;
        let addresses = self.namespace.ip(&["-4", "-br", "addr", "show", "dev", CARD])?;
        if addresses.contains(&format!("{address}/24")) {
            return Ok(());
        }
        Err(Error::malformed(format!("the lease of {name}"), addresses))
    }

    /// Begins to speak IPv6, by what routers advertise.
    pub fn speak_ipv6(&self) -> Result<()> {
        self.namespace.set(&format!("net.ipv6.conf.{CARD}.disable_ipv6"), "0")
    }

    /// Asks the gateway; an error if it does not answer.
    pub fn looks_up(&self, name: &str) -> Result<()> {
        self.asks(GATEWAY.into(), name)
    }

    /// Asks it at its other address.
    pub fn looks_up_by_ipv6(&self, resolver: Ipv6Addr, name: &str) -> Result<()> {
        self.asks(resolver.into(), name)
    }

    fn asks(&self, resolver: IpAddr, name: &str) -> Result<()> {
        let resolver = SocketAddr::new(resolver, 53);
        // As resolvers do, which a busy machine may make wait.
        for id in 1..=6 {
            if dns::ask(&self.namespace, resolver, id, name, PATIENCE)? {
                return Ok(());
            }
        }
        Err(Error::malformed(format!("{} asks {resolver} for {name}", self.profile.name), "no answer"))
    }

    /// Connects, says something and reads to the end.
    pub fn talks(&self, to: Ipv4Addr, port: u16, words: &str) -> Result<()> {
        let talk = || -> io::Result<()> {
            let mut stream = TcpStream::connect((to, port))?;
            // What waits to be read at the end would make a reset of it.
            let mut greeting = [0; 256];
            if port != internet::SINK {
                let _ = stream.read(&mut greeting)?;
            }
            stream.write_all(words.as_bytes())?;
            stream.shutdown(Shutdown::Write)?;
            stream.read_to_end(&mut Vec::new()).map(|_| ())
        };
        self.within(&format!("talks to {to}:{port}"), talk)
    }

    /// Sends so many mebibytes.
    pub fn uploads(&self, to: Ipv4Addr, mebibytes: usize) -> Result<()> {
        let upload = || -> io::Result<()> {
            let mut stream = TcpStream::connect((to, internet::SINK))?;
            let block = vec![0x5a; 1 << 20];
            (0..mebibytes).try_for_each(|_| stream.write_all(&block))?;
            stream.shutdown(Shutdown::Write)?;
            stream.read_to_end(&mut Vec::new()).map(|_| ())
        };
        self.within(&format!("uploads to {to}"), upload)
    }

    /// Tries a port that nobody listens at: an error if somebody does.
    pub fn tries(&self, to: Ipv4Addr, port: u16) -> Result<()> {
        self.within(&format!("tries {to}:{port}"), || {
            match TcpStream::connect_timeout(&(to, port).into(), PATIENCE) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
                Err(error) => Err(error),
                Ok(_) => Err(io::Error::other("somebody listens there")),
            }
        })
    }

    /// Asks what time it is.
    pub fn asks_the_time(&self) -> Result<()> {
        self.within("asks for the time", || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect((CLOCK, NTP))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.send(&[0x23; 48])?;
            socket.recv(&mut [0; 64]).map(|_| ())
        })
    }

    /// A TLS handshake; `more` are arguments of `openssl s_client`.
    pub fn greets(&self, to: Ipv4Addr, port: u16, name: &str, more: &[&str]) -> Result<()> {
        tls::greet(&self.namespace, (to, port).into(), name, more)
    }

    /// Asks by ARP for the gateway, which says who itself is.
    pub fn speaks_on_the_link(&self) -> Result<()> {
        let ask = ["arping", "-c", "1", "-w", "10", "-I", CARD, &GATEWAY.to_string()];
        self.namespace.launch("busybox").args(ask).run().map(|_| ())
    }

    /// Tells everybody of a service, by multicast DNS.
    pub fn announces(&self, service: &str, instance: &str, host: &str) -> Result<()> {
        const GROUP: (Ipv4Addr, u16) = (Ipv4Addr::new(224, 0, 0, 251), 5353);
        let address = self.profile.address;
        self.within("announces a service", || {
            let socket = UdpSocket::bind((address, GROUP.1))?;
            socket.send_to(&dns::announcement(service, instance, host, address), GROUP).map(|_| ())
        })
    }

    /// Serves a page at a port, for as long as this process runs.
    pub fn serves_a_page(&self, port: u16) -> Result<()> {
        internet::page(&self.namespace, port)
    }

    /// Sends frames as they are, all of them so often, at so many a second.
    pub fn sends(&self, frames: &[Vec<u8>], times: u32, per_second: u32) -> Result<()> {
        let folder = Scratch::new("frames")?;
        let capture = folder.path().join("frames.pcap");
        std::fs::write(&capture, pcap(frames)).map_err(Error::io("write the frames"))?;
        let replay = Replay { loops: times, pps: Some(per_second), ..Replay::default() };
        replay.send(&self.namespace, CARD, &capture).map(|_| ())
    }

    fn within<T: Send>(&self, what: &str, f: impl FnOnce() -> io::Result<T> + Send) -> Result<T> {
        self.namespace.enter(f)?.map_err(Error::io(format!("{} {what}", self.profile.name)))
    }
}
