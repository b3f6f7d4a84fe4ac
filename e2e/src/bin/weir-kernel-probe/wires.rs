//! The programs on interfaces: veth with each hook, and devices whose frames begin with IP.

use std::net::{Ipv4Addr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use weir_e2e::{Counted, Flows};
use weir_sensor::kernel::{Attachment, Datapath, Drained, EgressMode, IngressMode, Settings};
use weir_testbed::netns::ip;
use weir_wire::Direction;

use crate::ground::{FAR, Ground, NEAR, Tally, Wire, counting, settings};

/// When a check gives up on frames that should have been counted. An emulated machine may be slow.
const GIVE_UP: Duration = Duration::from_mins(5);
const POLL: Duration = Duration::from_millis(20);

/// As a sensor does it that was told nothing; veth offers native XDP.
pub fn automatic(ground: &Ground) -> Result<String> {
    let seen = captures_both_ways(ground, &settings(), IngressMode::Auto, EgressMode::Auto)?;
    ensure!(seen.starts_with("xdp native"), "veth has native XDP, but this was taken: {seen}");
    Ok(seen)
}

pub fn generic(ground: &Ground) -> Result<String> {
    captures_both_ways(ground, &counting(), IngressMode::Generic, EgressMode::Auto)
}

pub fn tc(ground: &Ground) -> Result<String> {
    captures_both_ways(ground, &counting(), IngressMode::Tc, EgressMode::Auto)
}

/// The fallback, on every kernel.
pub fn clsact(ground: &Ground) -> Result<String> {
    captures_both_ways(ground, &counting(), IngressMode::Auto, EgressMode::Clsact)
}

/// All captures in, all captures out, with a flip in between.
fn captures_both_ways(
    ground: &Ground,
    settings: &Settings,
    ingress: IngressMode,
    egress: EgressMode,
) -> Result<String> {
    let _wire = ground.wire()?;
    let mut datapath = Datapath::load(settings)?;
    let attachment = datapath.attach(NEAR, ingress, egress)?;
    ground.replay(FAR)?;
    await_frames(&datapath, Direction::Ingress, ground.frames)?;
    let mut drains = vec![drain(&mut datapath)?];
    ground.replay(NEAR)?;
    await_frames(&datapath, Direction::Egress, ground.frames)?;
    datapath.detach_all()?;
    drains.push(drain(&mut datapath)?);
    for direction in [Direction::Ingress, Direction::Egress] {
        let mut tally = Tally::default();
        for drained in &drains {
            tally.add(drained, NEAR, direction);
        }
        tally.check(&ground.truth, ground.frames).with_context(|| format!("{direction:?}"))?;
    }
    Ok(hooks(&attachment))
}

/// Which hooks were taken.
fn hooks(attachment: &Attachment) -> String {
    let none = "none".to_owned();
    let ingress = attachment.ingress.as_ref().unwrap_or(&none);
    format!("{ingress}, {}", attachment.egress.as_ref().unwrap_or(&none))
}

pub fn drain(datapath: &mut Datapath) -> Result<Drained> {
    let drained = datapath.flip()?;
    datapath.release(drained.epoch)?;
    Ok(drained)
}

/// From now.
pub fn deadline() -> Instant {
    Instant::now() + GIVE_UP
}

/// Frames are counted when the other end's are taken from its ring: soon, not at once.
pub fn await_frames(datapath: &Datapath, direction: Direction, frames: u64) -> Result<()> {
    let deadline = deadline();
    loop {
        let points = datapath.totals();
        let counted: u64 =
            points.iter().filter(|point| point.direction == direction).map(|point| point.totals.frames).sum();
        if counted >= frames {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{counted} of {frames} frames were counted ({direction:?})");
        thread::sleep(POLL);
    }
}

const OUTER: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
const INNER: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(198, 51, 100, 2)];
const DATAGRAMS: u64 = 50;
const PAYLOAD: [u8; 100] = [7; 100];
/// IPv4 and UDP headers before it.
const OCTETS: u64 = 128;

/// An IP-in-IP tunnel over the wire, counted in both directions: its frames begin with IP.
pub fn tunnel(ground: &Ground) -> Result<String> {
    const TUNNEL: &str = "tunnel";
    let _wire = ground.wire()?;
    // The peers must know each other's hardware address: there is no ARP on the wire.
    let (near, far) = (mac(NEAR)?, ground.peer.mac(FAR)?);
    let [here, there] = OUTER.map(|address| address.to_string());
    ip(&["addr", "add", &format!("{here}/24"), "dev", NEAR])?;
    ip(&["neigh", "replace", &there, "lladdr", &far, "dev", NEAR])?;
    ground.peer.ip(&["addr", "add", &format!("{there}/24"), "dev", FAR])?;
    ground.peer.ip(&["neigh", "replace", &here, "lladdr", &near, "dev", FAR])?;
    ip(&["link", "add", TUNNEL, "type", "ipip", "local", &here, "remote", &there])?;
    let _tunnel = Wire(TUNNEL);
    ground.peer.ip(&["link", "add", TUNNEL, "type", "ipip", "local", &there, "remote", &here])?;
    let [here, there] = INNER.map(|address| format!("{address}/24"));
    ip(&["addr", "add", &here, "dev", TUNNEL])?;
    ip(&["link", "set", TUNNEL, "up"])?;
    ground.peer.ip(&["addr", "add", &there, "dev", TUNNEL])?;
    ground.peer.ip(&["link", "set", TUNNEL, "up"])?;

    let mut datapath = Datapath::load(&counting())?;
    let attachment = datapath.attach(TUNNEL, IngressMode::Auto, EgressMode::Auto)?;
    let [here, there] = INNER;
    let socket = UdpSocket::bind((here, 1000)).context("bind at this end of the tunnel")?;
    let echo = ground.peer.enter(|| UdpSocket::bind((there, 2000)))?.context("bind at the other end")?;
    for _ in 0..DATAGRAMS {
        socket.send_to(&PAYLOAD, (there, 2000)).context("send into the tunnel")?;
        let mut buffer = PAYLOAD;
        echo.set_read_timeout(Some(GIVE_UP))?;
        let (octets, from) = echo.recv_from(&mut buffer).context("receive out of the tunnel")?;
        echo.send_to(&buffer[..octets], from).context("send back")?;
    }
    await_frames(&datapath, Direction::Ingress, DATAGRAMS)?;
    datapath.detach_all()?;
    let drained = drain(&mut datapath)?;
    let flow = |from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)| udp(from, to, DATAGRAMS);
    check(&drained, TUNNEL, Direction::Egress, &flow((here, 1000), (there, 2000)))?;
    check(&drained, TUNNEL, Direction::Ingress, &flow((there, 2000), (here, 1000)))?;
    Ok(hooks(&attachment))
}

/// What leaves by a tun device. (What comes in by one is the tunnel's case: the hook is the same.)
pub fn tun(_: &Ground) -> Result<String> {
    const TUN: &str = "tun";
    ip(&["tuntap", "add", "dev", TUN, "mode", "tun"])?;
    let _tun = Wire(TUN);
    ip(&["addr", "add", &format!("{}/24", INNER[0]), "dev", TUN])?;
    ip(&["link", "set", TUN, "up"])?;
    let mut datapath = Datapath::load(&counting())?;
    let attachment = datapath.attach(TUN, IngressMode::Auto, EgressMode::Auto)?;
    let socket = UdpSocket::bind((INNER[0], 1000)).context("bind at the tun device")?;
    for _ in 0..DATAGRAMS {
        socket.send_to(&PAYLOAD, (INNER[1], 2000)).context("send to the tun device")?;
    }
    await_frames(&datapath, Direction::Egress, DATAGRAMS)?;
    datapath.detach_all()?;
    let drained = drain(&mut datapath)?;
    check(&drained, TUN, Direction::Egress, &udp((INNER[0], 1000), (INNER[1], 2000), DATAGRAMS))?;
    Ok(hooks(&attachment))
}

/// Times of flows lie within their epoch, whichever clock stamped them.
pub fn clock(ground: &Ground) -> Result<String> {
    /// A tick at 100 Hz: the stamp of a packet may be one old.
    const TICK_NS: i64 = 10_000_000;
    let _wire = ground.wire()?;
    let mut datapath = Datapath::load(&counting())?;
    datapath.attach(NEAR, IngressMode::Auto, EgressMode::Auto)?;
    for _ in 0..2 {
        ground.replay(FAR)?;
        await_frames(&datapath, Direction::Ingress, ground.frames)?;
        let drained = drain(&mut datapath)?;
        let epoch = drained.window_start_ns - TICK_NS..=drained.window_end_ns + TICK_NS;
        for flow in &drained.flows {
            ensure!(
                epoch.contains(&flow.first_ns) && epoch.contains(&flow.last_ns),
                "{:?} to {:?} is not within {epoch:?}: {flow:?}",
                flow.first_ns,
                flow.last_ns
            );
            ensure!(flow.first_ns <= flow.last_ns + TICK_NS, "ends before it begins: {flow:?}");
        }
    }
    Ok("ticks, interpolated".to_owned())
}

fn udp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), packets: u64) -> Flows {
    let key = (from.0.to_string(), to.0.to_string(), 17, from.1, to.1, Vec::new());
    Flows::from([(key, Counted { packets, octets: packets * OCTETS })])
}

fn check(drained: &Drained, interface: &str, direction: Direction, truth: &Flows) -> Result<()> {
    let mut tally = Tally::default();
    tally.add(drained, interface, direction);
    tally.check(truth, DATAGRAMS).with_context(|| format!("{direction:?}"))
}

/// The hardware address of an interface in our own namespace.
fn mac(interface: &str) -> Result<String> {
    let shown = ip(&["-br", "link", "show", "dev", interface])?;
    shown.split_whitespace().nth(2).map(str::to_owned).context("`ip` shows no hardware address")
}
