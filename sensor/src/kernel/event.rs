//! Events: packets whose bytes somebody wants to read, as the programs choose and copy them. Which are wanted, what
//! a record of their ring says, and what became of those that did not get there.

use std::{collections::HashMap, io, sync::Arc};

use aya::maps::{MapData, PerCpuArray, RingBuf};
use tokio::io::{Interest, unix::AsyncFd};
use weir_sensor_common::{EventHeader, EventState, event as layout};
use weir_wire::Direction;

use super::{
    KernelError,
    clock::WallClock,
    object::{self, Maps},
    tables::Element,
};

/// The most octets of a frame that are ever copied.
pub const MAX_SNAP_OCTETS: u32 = layout::MAX_SNAP;

pub(super) const RING: &str = "WEIR_EVENT_RING";
pub(super) const STATES: &str = "WEIR_EVENT_STATES";

macro_rules! classes {
    ($($(#[doc = $doc:literal])* $class:ident = $number:ident $name:literal;)+) => {
        /// What an event is about, as far as its first bytes and ports say. The bytes may say otherwise.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum EventClass {
            $($(#[doc = $doc])* $class,)+
        }

        impl EventClass {
            /// All of them.
            pub const ALL: [Self; layout::class::END as usize - 1] = [$(Self::$class,)+];

            /// Its name in settings, metrics and output.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$class => $name,)+
                }
            }

            const fn number(self) -> u32 {
                match self {
                    $(Self::$class => layout::class::$number,)+
                }
            }
        }
    };
}

classes! {
    Arp = ARP "arp";
    /// Router and neighbour discovery: `ICMPv6` 133 to 137.
    Ndp = NDP "ndp";
    Dhcpv4 = DHCPV4 "dhcpv4";
    Dhcpv6 = DHCPV6 "dhcpv6";
    /// UDP and TCP port 53.
    Dns = DNS "dns";
    Mdns = MDNS "mdns";
    Llmnr = LLMNR "llmnr";
    Nbns = NBNS "nbns";
    Ssdp = SSDP "ssdp";
    /// A segment that begins with a `ClientHello` or goes on with one, on any port; DTLS as well.
    TlsClient = TLS_CLIENT "tls_client";
    /// A segment that begins with a `ServerHello`.
    TlsServer = TLS_SERVER "tls_server";
    /// QUIC Initial packets of both sides, on any port.
    Quic = QUIC "quic";
    /// The segment in which an HTTP/1 request begins.
    Http = HTTP "http";
    Lldp = LLDP "lldp";
    Cdp = CDP "cdp";
}

impl EventClass {
    fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.number() == u32::from(number))
    }
}

/// Which packets are wanted, and how much of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventSettings {
    pub classes: Vec<EventClass>,
    /// The budget of each class on each CPU.
    pub per_second: u32,
    /// What a class may save up of it.
    pub burst: u32,
    /// Octets of a frame that are copied; 128 to 4096.
    pub snap_octets: u32,
    /// So many packets of a flow are looked at for their payload, in each direction and epoch.
    pub packets: u32,
}

impl Default for EventSettings {
    /// A frame of an Ethernet is taken whole, and so is a hello with post-quantum keys that leaves as one packet.
    fn default() -> Self {
        Self {
            classes: EventClass::ALL.to_vec(),
            per_second: 2000,
            burst: 1000,
            snap_octets: 2560,
            packets: 16,
        }
    }
}

/// The same as the programs read it.
pub(super) struct Globals {
    pub classes: u32,
    pub cost_ns: u64,
    pub burst_ns: u64,
    pub snap: u32,
    pub packets: u64,
}

impl EventSettings {
    /// No events: the verifier removes what makes them.
    #[must_use]
    pub fn none() -> Self {
        Self { classes: Vec::new(), ..Self::default() }
    }

    pub(super) fn validate(&self) -> Result<(), KernelError> {
        let within = |key, value: u32, least: u32, most: u32, allowed| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            Err(KernelError::Setting { key, value: value.to_string(), allowed })
        };
        within("events.per_second", self.per_second, 1, 1_000_000, "1 to 1000000")?;
        within("events.burst", self.burst, 1, 1_000_000, "1 to 1000000")?;
        within("events.snap_octets", self.snap_octets, 128, layout::MAX_SNAP, "128 to 4096")?;
        within("events.packets", self.packets, 1, 1_000_000, "1 to 1000000")
    }

    /// `bounded` is off for a replay, which finds everything and has the time for it.
    pub(super) fn globals(&self, bounded: bool) -> Globals {
        let classes = self.classes.iter().fold(0, |mask, class| mask | 1 << class.number());
        let cost_ns = 1_000_000_000 / u64::from(self.per_second);
        Globals {
            classes,
            cost_ns: if bounded { cost_ns } else { 0 },
            burst_ns: cost_ns * u64::from(self.burst),
            snap: self.snap_octets,
            packets: if bounded { self.packets.into() } else { u64::MAX },
        }
    }
}

/// A packet and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub class: EventClass,
    /// Nanoseconds since the Unix epoch; capture time in a replay.
    pub time_ns: i64,
    /// Refers to [`super::PointTotals::id`].
    pub point: u16,
    pub interface: Arc<str>,
    pub ifindex: u32,
    pub direction: Direction,
    /// The bytes begin with an IP header, not with Ethernet.
    pub layer3: bool,
    /// Tag control information of a VLAN tag that is not in the bytes: the outermost one.
    pub offloaded_vlan: Option<u16>,
    /// Octets of the frame, at least as many as `bytes`. Of a packet that the device will cut into segments, all.
    pub octets: u32,
    /// Payload of each segment of such a packet; 0 for others.
    pub gso_size: u32,
    /// Number of the frame in its capture, from 1; 0 where there is no capture.
    pub frame: u64,
    pub bytes: Vec<u8>,
}

/// What became of the packets of a class. Counters only grow, also across restarts of the sensor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventCounts {
    /// `delivered + over_budget + ring_full + unreadable`, counted by itself.
    pub selected: u64,
    pub delivered: u64,
    /// Of the frames in what was delivered.
    pub delivered_octets: u64,
    /// Delivered, but cut at `snap_octets`.
    pub cut: u64,
    /// The class had spent its budget on that CPU.
    pub over_budget: u64,
    /// Nobody had read what was there already.
    pub ring_full: u64,
    /// The kernel could not give the bytes.
    pub unreadable: u64,
}

impl EventCounts {
    /// Packets of which nothing was handed over.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.over_budget + self.ring_full + self.unreadable
    }
}

/// Reads what the programs count of each class.
pub struct EventTally(PerCpuArray<MapData, Element<EventState>>);

impl EventTally {
    pub(super) fn new(mut maps: Maps<'_>) -> Result<Self, KernelError> {
        let map = maps.map(STATES, aya::maps::Map::PerCpuArray)?;
        PerCpuArray::try_from(map).map(Self).map_err(KernelError::map(STATES))
    }

    pub fn of(&self, class: EventClass) -> Result<EventCounts, KernelError> {
        let states = self.0.get(&class.number(), 0).map_err(KernelError::map(STATES))?;
        Ok(states.iter().fold(EventCounts::default(), |sum, Element(state)| EventCounts {
            selected: sum.selected + state.selected,
            delivered: sum.delivered + state.delivered,
            delivered_octets: sum.delivered_octets + state.delivered_octets,
            cut: sum.cut + state.cut,
            over_budget: sum.over_budget + state.over_budget,
            ring_full: sum.ring_full + state.ring_full,
            unreadable: sum.unreadable + state.unreadable,
        }))
    }
}

/// Interfaces by index, for the names of events.
pub(super) type Names = HashMap<u32, Arc<str>>;

/// The sensor's end of the ring, and what did not get into it.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
    tally: EventTally,
    names: Names,
}

impl Events {
    /// Events that are read before other tasks have their turn.
    pub const AT_ONCE: usize = 256;

    /// Must be called within a tokio runtime.
    pub(super) fn new(ring: RingBuf<MapData>, tally: EventTally, names: Names) -> Result<Self, KernelError> {
        // SAFETY: the ring owns its descriptor and keeps it open.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }
            .map_err(|error| KernelError::system("watch the ring buffer of events")(error.into()))?;
        Ok(Self { ring, tally, names })
    }

    /// Waits for events and gives each to `take`, until the ring is empty; how many there were. Cancelling it
    /// loses none.
    pub async fn read(&mut self, mut take: impl FnMut(Event)) -> io::Result<usize> {
        let Self { ring, names, .. } = self;
        let mut guard = ring.readable_mut().await?;
        let clock = WallClock::measure();
        let mut taken = 0;
        let ring = guard.get_inner_mut();
        while let Some(item) = ring.next() {
            if let Some(event) = parse(&item, clock, names) {
                take(event);
                taken += 1;
            }
            // Others have work, too: the rest waits in the ring, which stays readable.
            if taken == Self::AT_ONCE {
                return Ok(taken);
            }
        }
        guard.clear_ready();
        Ok(taken)
    }

    /// Gives `take` what is in the ring now, without waiting; how many there were. There may be more where it is as
    /// many as are read at once.
    pub fn read_now(&mut self, mut take: impl FnMut(Event)) -> usize {
        let clock = WallClock::measure();
        let Self { ring, names, .. } = self;
        let ring = ring.get_mut();
        let mut taken = 0;
        while taken < Self::AT_ONCE
            && let Some(item) = ring.next()
        {
            taken += 1;
            if let Some(event) = parse(&item, clock, names) {
                take(event);
            }
        }
        taken
    }

    /// What became of a class's packets in the programs.
    pub fn counts(&self, class: EventClass) -> Result<EventCounts, KernelError> {
        self.tally.of(class)
    }
}

/// The ring of an object.
pub(super) fn ring(object: &mut aya::Ebpf) -> Result<RingBuf<MapData>, KernelError> {
    RingBuf::try_from(object::take(object, RING)?).map_err(KernelError::map(RING))
}

/// A record of the ring. `None` for what no program of ours writes.
pub(super) fn parse(record: &[u8], clock: WallClock, names: &Names) -> Option<Event> {
    let (header, octets) = record.split_at_checked(size_of::<EventHeader>())?;
    // SAFETY: the slice is as long as the header, of which any bytes are a value; the read asks for no alignment.
    let header = unsafe { header.as_ptr().cast::<EventHeader>().read_unaligned() };
    let bytes = octets.get(..header.captured as usize)?.to_vec();
    let interface =
        names.get(&header.ifindex).cloned().unwrap_or_else(|| format!("if{}", header.ifindex).into());
    Some(Event {
        class: EventClass::of(header.class)?,
        time_ns: clock.wall(header.time_ns),
        point: header.point.into(),
        interface,
        ifindex: header.ifindex,
        direction: if header.flags & layout::flag::EGRESS == 0 {
            Direction::Ingress
        } else {
            Direction::Egress
        },
        layer3: header.flags & layout::flag::LAYER3 != 0,
        offloaded_vlan: (header.tag != layout::NO_TAG).then_some(header.tag as u16),
        octets: header.octets,
        gso_size: header.gso_size,
        frame: 0,
        bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_names_and_numbers_of_their_own() {
        for class in EventClass::ALL {
            assert_eq!(EventClass::of(class.number() as u8), Some(class));
            assert_eq!(EventClass::ALL.iter().filter(|other| other.name() == class.name()).count(), 1);
        }
        assert_eq!((EventClass::of(0), EventClass::of(layout::class::END as u8)), (None, None));
    }

    #[test]
    fn a_budget_is_a_time_for_each_event() {
        let settings = EventSettings { per_second: 4, burst: 10, ..EventSettings::default() };
        let globals = settings.globals(true);
        assert_eq!((globals.cost_ns, globals.burst_ns), (250_000_000, 2_500_000_000));
        assert_eq!(settings.globals(false).cost_ns, 0, "a replay has no bound");
        assert_eq!(EventSettings::none().globals(true).classes, 0);
        let all = EventSettings::default();
        assert_eq!(all.globals(true).classes, (1 << layout::class::END) - 2);
        let error = EventSettings { snap_octets: 5000, ..all }.validate().expect_err("too long").to_string();
        assert!(error.contains("events.snap_octets") && error.contains("5000"), "{error}");
    }

    #[test]
    fn a_record_that_is_cut_is_none() {
        assert_eq!(parse(&[0; 31], WallClock::of_capture(), &Names::new()), None);
    }
}
