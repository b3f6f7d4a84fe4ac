//! The whole chain under traffic: a sender, a host with its sensor, a proxy, a control plane, Postgres.
//!
//! A [`Chain`] owns every part that a fault breaks, and holds what is stored against what the sender's
//! interface counted after each round of them.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use weir_testbed::faketime::Clock;
use weir_testbed::mount::Mount;
use weir_testbed::netns::{Namespace, Veth};
use weir_testbed::proxy::Proxy;
use weir_testbed::scratch::Scratch;
use weir_testbed::weir::{Ledger, Place, Sensor, Watch};
use weir_testbed::{Error, Result};

use super::tally::{self, Tally};
use super::{Fault, inflict};
use crate::steady::{Flow, Steady};
use crate::{Counted, GIVE_UP, Site, wire};

const SENSOR: &str = "edge";
/// Ethernet's header, which a veth's counters leave out where native XDP is attached.
const HEADER: u64 = 14;
/// Slots of the IPv4 table: room for all, and far too few.
const SIZES: [u32; 3] = [16_384, 4_096, 256];
const SPOOL_BYTES: u64 = 24 << 20;
/// How the stamp of a kernel object begins (`WEIR_STAMP`); six bytes follow.
const STAMP: &[u8] = b"weir-build";
/// How often the tables are looked at.
const POLL: Duration = Duration::from_millis(200);

/// Fields are in the order in which they end.
pub struct Chain {
    pub(super) sensor: Sensor,
    pub(super) proxy: Proxy,
    pub(super) clock: Clock,
    /// Where the spool is.
    pub(super) disk: Mount,
    pins: Mount,
    builds: Scratch,
    program: PathBuf,
    watch: Watch,
    slots: u32,
    sender: Arc<Namespace>,
    _host: Namespace,
    pub site: Site,
    steady: Arc<Steady>,
    pps: u32,
    passes: u64,
}

/// What came of one round.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub faults: Vec<Fault>,
    /// What the sender's interface counted.
    pub sent: u64,
    /// Packets in stored rows.
    pub stored: u64,
    /// Packets whose loss the ledger names: overflow, non-IP, malformed, filtered, dropped by the spool.
    pub named: u64,
    pub lost: u64,
    pub doubled: u64,
    pub took: Duration,
    /// What does not add up; empty where all does.
    pub wrong: Vec<String>,
}

impl Chain {
    /// The member that the sensor is in.
    pub const HOST: &str = "host";

    /// A chain whose sensor counts, before the first packet.
    pub fn new(connections: u32, pps: u32, epoch: Duration, seed: u64) -> Result<Self> {
        let site = Site::new()?;
        let sender = site.member("sender", 0)?;
        let host = site.member(Self::HOST, 1)?;
        wire((&sender, "tx"), (&host, "rx"), Veth::default())?;
        sender.queue("tx")?;
        let (disk, pins) = (Mount::tmpfs("spool", SPOOL_BYTES)?, Mount::bpffs("pins")?);
        let clock = Clock::new()?;
        let proxy = Proxy::start(site.core.path().to_owned(), site.control_plane.address())?;
        let mut watch = Watch { epoch, ..Watch::interface("rx", "native", "off") };
        watch.env = clock.env();
        // A stalled connection is given up long before the fault ends.
        watch.env.push(("WEIR_SENSOR__CONTROL_PLANE__TIMEOUT".into(), "2s".into()));
        let slots = SIZES[0];
        watch.pins = Some(pins.path().to_owned());
        watch.more = more(slots, disk.path());
        let token = site.control_plane.add_sensor(SENSOR)?;
        let program = site.programs.sensor.clone();
        let sensor = Sensor::start(&program, &watch, &proxy.url(), &token, &Place::inside(&host))?;
        let steady = Steady::new(connections, seed)?;
        let builds = Scratch::new("builds")?;
        Ok(Self {
            sensor,
            proxy,
            clock,
            disk,
            pins,
            builds,
            program,
            watch,
            slots,
            sender: Arc::new(sender),
            _host: host,
            site,
            steady: Arc::new(steady),
            pps,
            passes: 0,
        })
    }

    pub fn sensor(&mut self) -> &mut Sensor {
        &mut self.sensor
    }

    /// Sends traffic while these faults come and go, and counts what arrived of it.
    pub fn round(&mut self, faults: &[Fault], random: &mut StdRng) -> Result<Outcome> {
        self.measure(faults, |chain| inflict(faults, chain, random))
    }

    /// Sends traffic while `work` goes on, and counts what arrived of it.
    pub(super) fn measure(
        &mut self,
        faults: &[Fault],
        work: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<Outcome> {
        let began = Instant::now();
        let (tally, flows) = (Tally::read(&self.site)?, tally::flows(&self.site)?);
        let before = self.sent()?;
        let (sender, steady) = (Arc::clone(&self.sender), Arc::clone(&self.steady));
        let (worked, passes) = steady.while_at(&sender, "tx", self.pps, || work(self))?;
        worked?;
        self.passes += passes;
        // A request that was on its way into the proxy's hands when it gave back what it held.
        self.proxy.release()?;
        let sent = self.sent()?;
        let (after, mut wrong) = self.settled(sent)?;
        let exact = (after.overflow, after.dropped) == (tally.overflow, tally.dropped);
        wrong.extend(self.compare_flows(&flows, &tally::flows(&self.site)?, passes, exact));
        let (sent, accounted) = (sent.packets - before.packets, after.accounted() - tally.accounted());
        Ok(Outcome {
            faults: faults.to_vec(),
            sent,
            stored: after.rows.packets - tally.rows.packets,
            named: after.named() - tally.named(),
            lost: sent.saturating_sub(accounted),
            doubled: accounted.saturating_sub(sent),
            took: began.elapsed(),
            wrong,
        })
    }

    /// The ledger as the API tells it, over all that a clock may have said.
    pub fn ledger(&self) -> Result<Ledger> {
        let day = jiff::SignedDuration::from_hours(24);
        let now = jiff::Timestamp::now();
        let path = format!("/api/v1/sensors/{SENSOR}/ledger?from={:.0}&to={:.0}", now - day, now + day);
        let answer = self.site.control_plane.api().json(&path)?;
        serde_json::from_value(answer).map_err(|error| Error::malformed(path, error.to_string()))
    }

    /// Copies every log to a folder that no later run removes; where it is.
    pub fn keep_logs(&self, name: &str) -> Result<PathBuf> {
        let kept = std::env::temp_dir().join(format!("weir-faults-{name}"));
        let parts = [
            ("sensor", self.sensor.folder()),
            ("control-plane", self.site.control_plane.folder()),
            ("postgres", self.site.postgres.folder()),
        ];
        for (part, folder) in parts {
            let to = kept.join(part);
            fs::create_dir_all(&to).map_err(Error::io(format!("make {}", to.display())))?;
            let entries = fs::read_dir(folder).map_err(Error::io(format!("list {}", folder.display())))?;
            for entry in entries.flatten() {
                let name = entry.file_name();
                let is_log =
                    name.to_str().is_some_and(|name| name.starts_with("log-") || name.starts_with("server-"));
                if is_log {
                    fs::copy(entry.path(), to.join(&name))
                        .map_err(Error::io(format!("copy {}", entry.path().display())))?;
                }
            }
        }
        Ok(kept)
    }

    /// Ends the sensor as an operator does, or as the kernel does when memory is short.
    pub(super) fn end_sensor(&mut self, kindly: bool) -> Result<()> {
        if kindly { self.sensor.stop() } else { self.sensor.kill() }.map(|_| ())
    }

    pub(super) fn start_sensor(&mut self) -> Result<()> {
        self.sensor.start_again(&self.program, &self.watch)
    }

    /// The next start is of another build: the same program, whose kernel side has another stamp.
    pub(super) fn upgrade(&mut self) -> Result<()> {
        let number = fs::read_dir(self.builds.path()).map_or(0, Iterator::count);
        let name = self.program.display().to_string();
        let mut bytes = fs::read(&self.program).map_err(Error::io(format!("read {name}")))?;
        let stamps: Vec<usize> = memmem(&bytes, STAMP).collect();
        if stamps.is_empty() {
            return Err(Error::malformed(name, "its kernel side has no stamp"));
        }
        let build = format!("{number:06}");
        for stamp in stamps {
            let end = stamp + STAMP.len() + build.len();
            bytes[stamp + STAMP.len()..end].copy_from_slice(build.as_bytes());
        }
        self.program = self.builds.path().join(format!("weir-sensor-{number}"));
        let failed = || Error::io(format!("write {}", self.program.display()));
        fs::write(&self.program, bytes).map_err(failed())?;
        fs::set_permissions(&self.program, Permissions::from_mode(0o755)).map_err(failed())
    }

    /// The next start is with tables of another size.
    pub(super) fn resize(&mut self, random: &mut StdRng) {
        let others: Vec<u32> = SIZES.into_iter().filter(|&slots| slots != self.slots).collect();
        self.slots = others.choose(random).copied().unwrap_or(SIZES[0]);
        self.watch.more = more(self.slots, self.disk.path());
    }

    /// Files below the folder of the pins, without those that a bpffs is born with.
    pub(super) fn pinned(&self) -> u64 {
        fn below(folder: &Path) -> u64 {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            let own = entries.filter(|entry| !entry.file_name().to_string_lossy().ends_with(".debug"));
            own.map(|entry| if entry.path().is_dir() { below(&entry.path()) } else { 1 }).sum()
        }
        below(self.pins.path())
    }

    /// What the sender's interface has counted, with Ethernet's headers.
    pub(super) fn sent(&self) -> Result<Counted> {
        let counters = self.sender.counters("tx")?;
        let packets = counters.tx_packets;
        Ok(Counted { packets, octets: counters.tx_octets + HEADER * packets })
    }

    /// The tally as soon as nothing is wrong with it any more; or as it is, with what is wrong, when the
    /// time is up or there is more than was sent.
    fn settled(&self, sent: Counted) -> Result<(Tally, Vec<String>)> {
        let deadline = Instant::now() + GIVE_UP;
        loop {
            let tally = Tally::read(&self.site)?;
            // Its pool may still be finding out that its database is another one.
            let wrong = self.compare(sent, &tally).unwrap_or_else(|error| vec![error.to_string()]);
            let too_much = tally.frames > sent.packets || tally.accounted() > sent.packets;
            if wrong.is_empty() || too_much || Instant::now() >= deadline {
                return Ok((tally, wrong));
            }
            thread::sleep(POLL);
        }
    }

    /// Everything that must be equal over the whole life of the chain.
    fn compare(&self, sent: Counted, tally: &Tally) -> Result<Vec<String>> {
        let ledger = self.ledger()?;
        let Self { passes, steady, .. } = self;
        let odd = passes * steady.odd;
        let equal = [
            ("frames counted by the kernel, and by the sender's interface", tally.frames, sent.packets),
            ("octets counted by the kernel, and by the sender's interface", tally.octets_l2, sent.octets),
            ("frames that tcpreplay sent", passes * steady.sent.packets, sent.packets),
            ("packets with a verdict, and frames", tally.accounted(), tally.frames),
            (
                "packets of the rows and dropped ones, and in the kernel's flows",
                tally.rows.packets + tally.dropped.packets,
                tally.flow_packets,
            ),
            (
                "octets of the rows and dropped ones, and in the kernel's flows",
                tally.rows.octets + tally.dropped.octets,
                tally.flow_octets,
            ),
            ("layer-3 octets", tally.flow_octets + tally.overflow_octets, passes * steady.ip_octets()),
            ("packets of the rollups, and of the rows", tally.rolled_up, tally.rows.packets),
            ("non-IP", tally.non_ip, odd),
            ("malformed", tally.malformed, odd),
            ("filtered", tally.filtered, 0),
            ("batches whose rows are not their own", tally.wrong, 0),
            ("batches, and different ones", tally.batches, tally.keys),
            ("the API's frames", ledger.total.frames, tally.frames),
            ("the API's committed packets", ledger.committed_packets, tally.rows.packets),
            ("the API's gaps", ledger.gaps.len() as u64, 0),
            ("the API's balance", u64::from(ledger.kernel_balanced && ledger.balanced), 1),
        ];
        let wrong = equal.into_iter().filter(|(_, is, should)| is != should);
        Ok(wrong.map(|(what, is, should)| format!("{what}: {is}, not {should}")).collect())
    }

    /// Flow by flow, what this round added.
    fn compare_flows(
        &self,
        before: &BTreeMap<Flow, Counted>,
        after: &BTreeMap<Flow, Counted>,
        passes: u64,
        exact: bool,
    ) -> Vec<String> {
        let strangers = after.keys().filter(|flow| !self.steady.flows.contains_key(*flow));
        let mut wrong: Vec<String> = strangers.map(|flow| format!("{flow}: nobody sent it")).collect();
        for (flow, once) in &self.steady.flows {
            let at = |flows: &BTreeMap<Flow, Counted>| flows.get(flow).copied().unwrap_or_default();
            let (before, after) = (at(before), at(after));
            let added = (after.packets - before.packets, after.octets - before.octets);
            let expected = (once.packets * passes, once.octets * passes);
            // Where the table or the spool was full, some packets are in its loss and in no row.
            if added != expected && (exact || added.0 > expected.0 || added.1 > expected.1) {
                wrong.push(format!("{flow}: {added:?} packets and octets more, not {expected:?}"));
            }
        }
        wrong.truncate(20);
        wrong
    }
}

/// What the sensor's configuration has beside its interface and its control plane.
fn more(slots: u32, spool: &Path) -> String {
    format!(
        "[tables]\nipv4_slots = {slots}\nipv6_slots = 1024\n\
         [spool]\nfolder = \"{}\"\nmax_bytes = \"8MiB\"\nquarantine_bytes = \"1MiB\"\n\
         [shipping]\nbackoff = \"50ms\"\nbackoff_max = \"500ms\"\nshutdown_deadline = \"3s\"\n\
         catch_up_batches_per_second = 1000\n",
        spool.display()
    )
}

/// Where `needle` is.
fn memmem<'a>(bytes: &'a [u8], needle: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let windows = bytes.windows(needle.len()).enumerate();
    windows.filter(move |(_, window)| *window == needle).map(|(at, _)| at)
}
