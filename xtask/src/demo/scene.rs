//! Where the demo plays: the namespaces and their links, or the host; and Weir running in it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use weir_testbed::netns::{self, End, Namespace, Veth};
use weir_testbed::postgres::{Options, Postgres};
use weir_testbed::traffic::Replay;
use weir_testbed::weir::{ControlPlane, Ledger, Place, Programs, Sensor, Watch};

use super::Wire;
use crate::interrupt::Interrupt;
use crate::screen;

/// The name under which the demo's sensor is registered.
pub const SENSOR: &str = "demo";
const DATABASE: &str = "weir";
/// The control plane's port inside the receiver's namespace, where nothing else is.
const PORT: u16 = 8080;
/// And the sensor's.
const METRICS_PORT: u16 = 9465;
const EPOCH: Duration = Duration::from_millis(500);
/// The ends of the wire.
const SENDS: &str = "source";
const RECEIVES: &str = "wire";
/// Large enough for any frame of a capture, aggregated ones too.
const MAX_MTU: u32 = 65_535;

pub enum Scene {
    Host {
        interface: String,
    },
    Namespaces {
        /// Before the namespaces: it goes at once, they go when the kernel gets to it.
        #[expect(dead_code, reason = "held for its drop")]
        host_link: HostLink,
        sender: Namespace,
        receiver: Namespace,
        /// The receiver's address on the link to the host.
        address: Ipv4Addr,
    },
}

impl Scene {
    pub fn host(interface: &str) -> Self {
        Self::Host { interface: interface.to_owned() }
    }

    /// `large`: frames may be larger than Ethernet's.
    pub fn namespaces(large: bool) -> Result<Self> {
        screen::step("making two network namespaces and the wire between them");
        let (sender, receiver) = (Namespace::new("sender")?, Namespace::new("receiver")?);
        let mtu = if large { MAX_MTU } else { 1500 };
        Veth { mtu, ..Veth::default() }.join(
            End { namespace: Some(&sender), interface: SENDS },
            End { namespace: Some(&receiver), interface: RECEIVES },
        )?;
        let (host_link, address) = HostLink::to(&receiver)?;
        Ok(Self::Namespaces { host_link, sender, receiver, address })
    }

    /// The interface that the sensor watches.
    pub fn interface(&self) -> &str {
        match self {
            Self::Host { interface } => interface,
            Self::Namespaces { .. } => RECEIVES,
        }
    }

    pub fn replay(&self, pcap: &Path, interrupt: &Interrupt) -> Result<Wire> {
        let Self::Namespaces { sender, receiver, .. } = self else {
            bail!("a capture is replayed between namespaces only");
        };
        let before = receiver.counters(RECEIVES)?;
        let sent = Replay::default().send_unless(sender, SENDS, pcap, || interrupt.came())?;
        interrupt.check()?;
        let sent = sent.context("tcpreplay was stopped")?;
        Ok(Wire { sent, received: receiver.counters(RECEIVES)?.since(&before) })
    }

    fn place(&self) -> Place {
        match self {
            Self::Host { .. } => Place::here(),
            Self::Namespaces { receiver, address, .. } => {
                Place { address: IpAddr::V4(*address), ..Place::inside(receiver) }
            }
        }
    }
}

/// A veth pair between the host and a namespace, in a /30 of 198.18.0.0/15, which RFC 2544 sets aside for
/// tests. Goes on drop.
pub struct HostLink {
    interface: String,
}

impl HostLink {
    /// Gives the namespace's address, too.
    fn to(namespace: &Namespace) -> Result<(Self, Ipv4Addr)> {
        const INSIDE: &str = "host";
        let process = std::process::id();
        let link = Self { interface: format!("weir{process}") };
        Veth { arp: true, offloads: true, ..Veth::default() }.join(
            End { namespace: None, interface: &link.interface },
            End { namespace: Some(namespace), interface: INSIDE },
        )?;
        let network = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + (process % (1 << 15)) * 4;
        let (host, inside) = (Ipv4Addr::from(network + 1), Ipv4Addr::from(network + 2));
        netns::ip(&["addr", "add", &format!("{host}/30"), "dev", &link.interface])?;
        namespace.ip(&["addr", "add", &format!("{inside}/30"), "dev", INSIDE])?;
        Ok((link, inside))
    }
}

impl Drop for HostLink {
    fn drop(&mut self) {
        if let Err(error) = netns::ip(&["link", "delete", "dev", &self.interface]) {
            eprintln!("delete {}: {error}", self.interface);
        }
    }
}

/// Weir with one sensor. Fields are in the order in which they end.
pub struct Weir {
    sensor: Sensor,
    control_plane: ControlPlane,
    _postgres: Postgres,
}

impl Weir {
    pub fn start(scene: &Scene, programs: &Path, interrupt: &Interrupt) -> Result<Self> {
        let programs = Programs::in_folder(programs)?;
        let place = scene.place();
        screen::step("starting a private Postgres");
        let namespace = place.namespace.clone();
        let postgres = Postgres::start_with(Options { namespace, ..Options::default() })?;
        postgres.create_database(DATABASE)?;
        interrupt.check()?;
        screen::step("starting the control plane");
        let url = postgres.database_url(DATABASE);
        let control_plane = match scene {
            Scene::Host { .. } => ControlPlane::start(programs.control_plane, &url, place.clone())?,
            Scene::Namespaces { .. } => {
                ControlPlane::start_at(programs.control_plane, &url, place.clone(), PORT)?
            }
        };
        interrupt.check()?;
        screen::step(&format!("starting the sensor on {}", scene.interface()));
        let token = control_plane.add_sensor(SENSOR)?;
        let metrics_port = matches!(scene, Scene::Namespaces { .. }).then_some(METRICS_PORT);
        let watch =
            Watch { epoch: EPOCH, metrics_port, ..Watch::interface(scene.interface(), "auto", "auto") };
        let sensor = Sensor::start(&programs.sensor, &watch, &control_plane.url(), &token, &place)?;
        interrupt.check()?;
        Ok(Self { sensor, control_plane, _postgres: postgres })
    }

    pub fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    pub fn sensor(&self) -> &Sensor {
        &self.sensor
    }

    pub fn ledger(&self) -> Result<Ledger> {
        Ok(self.control_plane.ledger(SENSOR)?)
    }

    /// Ends the sensor in order: it drains once more and delivers.
    pub fn stop_sensor(&mut self) -> Result<()> {
        screen::step("stopping the sensor: a last drain, and its delivery");
        let status: ExitStatus = self.sensor.stop()?;
        if !status.success() {
            bail!("the sensor ended with {status}:\n{}", self.sensor.log());
        }
        Ok(())
    }
}
