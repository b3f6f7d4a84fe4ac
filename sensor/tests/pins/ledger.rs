//! What a test's sensors have drained, held against what the interface sent.

use std::{
    collections::BTreeMap,
    fs::{File, read_to_string},
    io::Write as _,
    path::Path,
};

use uuid::Uuid;
use weir_sensor::kernel::{Datapath, Drained, EgressMode, IngressMode, Opened, Pinning, Settings};
use weir_wire::Direction;

use super::room::statistic;

/// The sum of all batches, as a spool keeps it: an epoch of a generation once.
#[derive(Debug, Default)]
pub struct Ledger {
    epochs: BTreeMap<(Uuid, u64), (u64, u64)>,
    file: Option<File>,
}

/// How a test's interfaces are hooked.
#[derive(Clone, Copy, Debug)]
pub struct Modes {
    pub ingress: IngressMode,
    pub egress: EgressMode,
}

/// Small tables: a fresh load of them is quick.
pub fn settings() -> Settings {
    let mut settings = Settings { max_points: 16, ..Settings::default() };
    settings.tables.ipv4_slots = 256;
    settings.tables.ipv6_slots = 16;
    settings
}

impl Ledger {
    /// One that outlives its process: each commit is one line, by one call of the kernel.
    pub fn in_file(path: &Path) -> Self {
        let mut epochs = BTreeMap::new();
        for line in read_to_string(path).unwrap_or_default().lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [generation, numbers @ ..] = words.as_slice() else { panic!("{line:?}") };
            let generation: Uuid = generation.parse().expect("a generation");
            let numbers: Vec<u64> = numbers.iter().map(|word| word.parse().expect("a number")).collect();
            let [epoch, egress, ingress] = numbers[..] else { panic!("{line:?}") };
            let again = epochs.insert((generation, epoch), (egress, ingress));
            assert_eq!(again, None, "epoch {epoch} of {generation} stands there twice");
        }
        let file = File::options().create(true).append(true).open(path).expect("the ledger opens");
        Self { epochs, file: Some(file) }
    }

    /// Commits an epoch; nothing may be committed twice.
    pub fn commit(&mut self, generation: Uuid, drained: &Drained) {
        let (mut egress, mut ingress) = (0, 0);
        for point in &drained.points {
            let totals = point.totals;
            assert_eq!(totals.accounted(), totals.frames, "K3 at {}: {totals:?}", point.interface);
            assert_eq!(totals.overflow, 0, "the table has room for eight flows");
            match point.direction {
                Direction::Ingress => ingress += totals.flow_packets,
                Direction::Egress => egress += totals.flow_packets,
            }
        }
        let again = self.epochs.insert((generation, drained.epoch), (egress, ingress));
        assert_eq!(again, None, "epoch {} of {generation} is committed twice", drained.epoch);
        if let Some(file) = &mut self.file {
            let line = format!("{generation} {} {egress} {ingress}\n", drained.epoch);
            file.write_all(line.as_bytes()).expect("the ledger is written");
        }
    }

    /// The last epoch of a generation.
    pub fn spooled(&self, generation: Uuid) -> Option<u64> {
        let epochs = self.epochs.range((generation, 0)..=(generation, u64::MAX));
        epochs.last().map(|((_, epoch), _)| *epoch)
    }

    pub fn generations(&self) -> usize {
        self.epochs.keys().map(|(generation, _)| generation).collect::<std::collections::BTreeSet<_>>().len()
    }

    /// Everything that `tx` has sent is here, once: what left it, and what came in at the other end.
    pub fn settle(&self) {
        let (egress, ingress) = self
            .epochs
            .values()
            .fold((0, 0), |(egress, ingress), (out, into)| (egress + out, ingress + into));
        let arrived = statistic("tx_packets");
        assert_eq!((egress, ingress), (arrived + statistic("tx_dropped"), arrived), "{:?}", self.epochs);
        let mut before: Option<(Uuid, u64)> = None;
        for (generation, epoch) in self.epochs.keys().copied() {
            if let Some((last, previous)) = before
                && last == generation
            {
                assert_eq!(epoch, previous + 1, "epochs of a generation have no gap");
            }
            before = Some((generation, epoch));
        }
    }

    /// One epoch, from flip to release.
    pub fn drain(&mut self, datapath: &mut Datapath) {
        let drained = datapath.flip().expect("the epoch ends");
        self.commit(datapath.generation(), &drained);
        datapath.release(drained.epoch).expect("it is zeroed");
    }

    /// Opens, attaches and catches up with whatever was left, as the daemon does it.
    pub fn take_over(&mut self, settings: &Settings, pinning: &Pinning, modes: Modes) -> Datapath {
        let Opened { mut datapath, predecessors, .. } =
            Datapath::open(settings, Some(pinning)).expect("the datapath opens; this test needs root");
        attach(&mut datapath, modes);
        datapath.retire_unclaimed().expect("unclaimed hooks go");
        for mut predecessor in predecessors {
            let generation = predecessor.generation();
            while let Some(drained) = predecessor.next(self.spooled(generation)).expect("old tables are read")
            {
                self.commit(generation, &drained);
                predecessor.release(drained.epoch).expect("they are zeroed");
            }
            predecessor.discard().expect("they are removed");
        }
        let generation = datapath.generation();
        if let Some(drained) = datapath.resume(self.spooled(generation)).expect("the old half is read") {
            self.commit(generation, &drained);
            datapath.release(drained.epoch).expect("it is zeroed");
        }
        datapath
    }
}

/// What leaves `tx` and what comes in at `rx`.
pub fn attach(datapath: &mut Datapath, modes: Modes) {
    datapath.attach("rx", modes.ingress, EgressMode::Off).expect("ingress is attached");
    datapath.attach("tx", IngressMode::Off, modes.egress).expect("egress is attached");
}
