//! Counting that outlives the sensor: what is pinned is taken over, replaced, drained and removed.

use anyhow::{Context as _, Result, ensure};
use weir_sensor::kernel::{
    Attachment, Datapath, EgressMode, IngressMode, Opened, Pinning, Settings, TableSizes, pins::remove,
};
use weir_wire::Direction;

use crate::ground::{FAR, Ground, NEAR, Tally, counting, settings};

/// In the probe's own bpffs.
fn pinning(build: Option<u64>) -> Pinning {
    Pinning { build, ..Pinning::new("/sys/fs/bpf/weir", "probe") }
}

/// What all sensors of a check have drained together.
#[derive(Default)]
struct Drained {
    ingress: Tally,
    egress: Tally,
}

impl Drained {
    fn add(&mut self, drained: &weir_sensor::kernel::Drained) {
        self.ingress.add(drained, NEAR, Direction::Ingress);
        self.egress.add(drained, NEAR, Direction::Egress);
    }

    /// Opens as the daemon does: attaches, drains older tables to their end, goes on where a half was left.
    fn take_over(
        &mut self,
        settings: &Settings,
        pinning: &Pinning,
    ) -> Result<(Datapath, Attachment, bool, usize)> {
        let Opened { mut datapath, predecessors, adopted } = Datapath::open(settings, Some(pinning))?;
        let attachment = datapath.attach(NEAR, IngressMode::Auto, EgressMode::Auto)?;
        let older = predecessors.len();
        for mut predecessor in predecessors {
            while let Some(drained) = predecessor.next(None)? {
                self.add(&drained);
                predecessor.release(drained.epoch)?;
            }
            predecessor.discard()?;
        }
        if let Some(drained) = datapath.resume(None)? {
            self.add(&drained);
            datapath.release(drained.epoch)?;
        }
        Ok((datapath, attachment, adopted, older))
    }
}

/// A sensor; nobody; the same build; another build; tables of another size; all of it counted once.
pub fn taken_over(ground: &Ground) -> Result<String> {
    let _wire = ground.wire()?;
    let mut drained = Drained::default();
    let (datapath, _, adopted, _) = drained.take_over(&settings(), &pinning(None))?;
    ensure!(!adopted, "there was nothing to take over");
    let generation = datapath.generation();
    datapath.leave();
    // Nobody is there, and the programs count on.
    ground.replay(FAR)?;
    ground.replay(NEAR)?;

    let (datapath, attachment, adopted, older) = drained.take_over(&settings(), &pinning(None))?;
    ensure!(adopted && older == 0 && datapath.generation() == generation, "the same tables go on");
    let hooks = format!(
        "{}; {}",
        attachment.ingress.context("ingress is attached")?,
        attachment.egress.context("egress is attached")?
    );
    datapath.leave();

    let (datapath, _, adopted, older) = drained.take_over(&settings(), &pinning(Some(4711)))?;
    ensure!(adopted && older == 0 && datapath.generation() == generation, "another build, the same tables");
    datapath.leave();
    ground.replay(FAR)?;

    let tables = TableSizes { ipv4_slots: 1 << 13, ipv6_slots: 1 << 10 };
    let other = Settings { tables, ..settings() };
    let (mut datapath, _, adopted, older) = drained.take_over(&other, &pinning(None))?;
    ensure!(!adopted && older == 1 && datapath.generation() != generation, "new tables, and the old ones");
    ground.replay(NEAR)?;
    datapath.detach_all()?;
    let last = datapath.flip()?;
    drained.add(&last);
    datapath.release(last.epoch)?;
    datapath.discard()?;
    drained.ingress.check_times(&ground.truth, ground.frames, 2).context("Ingress")?;
    drained.egress.check_times(&ground.truth, ground.frames, 2).context("Egress")?;
    Ok(hooks)
}

/// `weir-sensor detach`: nothing is left, and programs count no more.
pub fn detached(ground: &Ground) -> Result<String> {
    let _wire = ground.wire()?;
    let pinning = pinning(None);
    let (datapath, ..) = Drained::default().take_over(&counting(), &pinning)?;
    datapath.leave();
    ground.replay(FAR)?;
    let removed = remove(&pinning)?;
    ensure!(removed.hooks.len() == 2 && removed.generations == 1, "{removed:?}");
    ensure!(removed.undrained_packets == Some(ground.frames), "{removed:?}, of {} frames", ground.frames);
    ensure!(remove(&pinning)?.is_nothing(), "a second time there is nothing");
    ensure!(!pinning.path().exists(), "{} is still there", pinning.path().display());
    // Its hooks are free.
    let mut datapath = Datapath::load(&counting())?;
    datapath.attach(NEAR, IngressMode::Auto, EgressMode::Auto)?;
    Ok(format!("{} undrained named", ground.frames))
}
