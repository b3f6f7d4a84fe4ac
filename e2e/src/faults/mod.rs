//! What can go wrong, each done to a [`Chain`] that counts, and taken back.

mod chain;
mod report;
mod soak;
mod tally;

use std::thread;
use std::time::{Duration, Instant};

use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use weir_testbed::proxy::Mischief;
use weir_testbed::{Error, Result};

pub use chain::{Chain, Outcome};
pub use report::Report;
pub use soak::{Sample, Soak};
pub use tally::Tally;

/// When a proxy that should have disturbed something has not: the sensor sends nothing.
const TOUCHED_WITHIN: Duration = Duration::from_mins(1);

/// One way to break a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    // Lifted in this order: a control plane is not ready before its database is.
    PostgresCrashed,
    ControlPlaneKilled,
    SensorKilled,
    SensorUpgraded,
    SensorResized,
    LinkDown,
    PacketsDropped,
    Stalled,
    Reset,
    Truncated,
    Delayed,
    Repeated,
    Reordered,
    DiskFull,
    ClockStepped,
}

/// What a fault takes for itself: one fault of a part at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Postgres,
    ControlPlane,
    Sensor,
    Network,
    Proxy,
    Disk,
    Clock,
}

impl Fault {
    pub const ALL: [Self; 15] = [
        Self::PostgresCrashed,
        Self::ControlPlaneKilled,
        Self::SensorKilled,
        Self::SensorUpgraded,
        Self::SensorResized,
        Self::LinkDown,
        Self::PacketsDropped,
        Self::Stalled,
        Self::Reset,
        Self::Truncated,
        Self::Delayed,
        Self::Repeated,
        Self::Reordered,
        Self::DiskFull,
        Self::ClockStepped,
    ];

    /// As the table names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PostgresCrashed => "Postgres killed (immediate) and started",
            Self::ControlPlaneKilled => "control plane killed (SIGKILL)",
            Self::SensorKilled => "sensor killed (SIGKILL)",
            Self::SensorUpgraded => "sensor restarted as a newer build",
            Self::SensorResized => "sensor restarted with other table sizes",
            Self::LinkDown => "link down",
            Self::PacketsDropped => "packets dropped (nftables)",
            Self::Stalled => "connection stalls",
            Self::Reset => "connection reset",
            Self::Truncated => "request or answer truncated",
            Self::Delayed => "request and answer delayed",
            Self::Repeated => "batches delivered twice",
            Self::Reordered => "batches delivered out of order",
            Self::DiskFull => "spool's disk full",
            Self::ClockStepped => "sensor's clock stepped",
        }
    }

    /// Whether both of Weir's processes live through it.
    #[must_use]
    pub fn spares_processes(self) -> bool {
        !matches!(self.part(), Part::Sensor | Part::ControlPlane)
    }

    fn part(self) -> Part {
        match self {
            Self::PostgresCrashed => Part::Postgres,
            Self::ControlPlaneKilled => Part::ControlPlane,
            Self::SensorKilled | Self::SensorUpgraded | Self::SensorResized => Part::Sensor,
            Self::LinkDown | Self::PacketsDropped => Part::Network,
            Self::Stalled
            | Self::Reset
            | Self::Truncated
            | Self::Delayed
            | Self::Repeated
            | Self::Reordered => Part::Proxy,
            Self::DiskFull => Part::Disk,
            Self::ClockStepped => Part::Clock,
        }
    }

    /// Whether both can be at work at the same time.
    fn goes_with(self, other: Self) -> bool {
        self.part() != other.part()
    }

    /// Two or three of these that go together.
    #[must_use]
    pub fn mixed(among: &[Self], random: &mut StdRng) -> Vec<Self> {
        let wanted = random.random_range(2..=3);
        let mut faults: Vec<Self> = Vec::new();
        for _ in 0..100 {
            let Some(&fault) = among.choose(random).filter(|_| faults.len() < wanted) else { break };
            if faults.iter().all(|&other| fault.goes_with(other)) {
                faults.push(fault);
            }
        }
        faults
    }

    fn begin(self, chain: &mut Chain, random: &mut StdRng) -> Result<()> {
        match self {
            Self::PostgresCrashed => chain.site.postgres.crash(),
            Self::ControlPlaneKilled => chain.site.control_plane.kill().map(|_| ()),
            Self::SensorKilled => chain.sensor.kill().map(|_| ()),
            Self::SensorUpgraded => {
                chain.end_sensor(random.random())?;
                chain.upgrade()
            }
            Self::SensorResized => {
                chain.end_sensor(random.random())?;
                chain.resize(random);
                Ok(())
            }
            Self::LinkDown => chain.site.link(Chain::HOST, false),
            Self::PacketsDropped => {
                // All of them, or most of them: the rest then comes late and in pieces.
                let share = *[30, 60, 100].choose(random).unwrap_or(&100);
                chain.site.drop_packets(Chain::HOST, share)
            }
            Self::DiskFull => chain.disk.fill(),
            Self::ClockStepped => {
                // Up to what is tolerated, or beyond.
                let step_s = random.random_range(1..=1_200);
                chain.clock.set(if random.random() { step_s } else { -step_s })
            }
            Self::Stalled
            | Self::Reset
            | Self::Truncated
            | Self::Delayed
            | Self::Repeated
            | Self::Reordered => {
                chain.proxy.set(self.mischief(random));
                Ok(())
            }
        }
    }

    /// What the proxy is to do.
    fn mischief(self, random: &mut StdRng) -> Mischief {
        let either = random.random();
        let permille = random.random_range(0..1_000);
        match self {
            Self::Stalled if either => Mischief::StallRequest,
            Self::Stalled => Mischief::StallAnswer,
            Self::Reset if either => Mischief::ResetRequest,
            Self::Reset => Mischief::ResetAnswer,
            Self::Truncated if either => Mischief::TruncateRequest(permille),
            Self::Truncated => Mischief::TruncateAnswer(permille),
            Self::Delayed => Mischief::Delay(Duration::from_millis(u64::from(permille))),
            Self::Repeated => Mischief::Twice,
            Self::Reordered => Mischief::Hold,
            _ => Mischief::None,
        }
    }

    fn lift(self, chain: &mut Chain) -> Result<()> {
        match self {
            Self::PostgresCrashed => chain.site.postgres.start_again(),
            Self::ControlPlaneKilled => chain.site.control_plane.start_again(),
            Self::SensorKilled | Self::SensorUpgraded | Self::SensorResized => chain.start_sensor(),
            Self::LinkDown => chain.site.link(Chain::HOST, true),
            Self::PacketsDropped => chain.site.pass_packets(),
            Self::DiskFull => chain.disk.free(),
            Self::ClockStepped => chain.clock.set(0),
            Self::Stalled
            | Self::Reset
            | Self::Truncated
            | Self::Delayed
            | Self::Repeated
            | Self::Reordered => {
                chain.proxy.set(Mischief::None);
                Ok(())
            }
        }
    }
}

/// Does all of it to a chain that is under traffic, at random instants, and lifts it again.
fn inflict(faults: &[Fault], chain: &mut Chain, random: &mut StdRng) -> Result<()> {
    let touched = chain.proxy.touched();
    for &fault in faults {
        pause(random);
        fault.begin(chain, random)?;
    }
    pause(random);
    if let [fault] = faults
        && fault.part() == Part::Proxy
    {
        disturbed(chain, touched)?;
        // The other way of doing it, too.
        pause(random);
        fault.begin(chain, random)?;
        pause(random);
    }
    let mut order = faults.to_vec();
    order.sort_unstable();
    for fault in order {
        fault.lift(chain)?;
        pause(random);
    }
    // The control plane is back: what was held comes late, and what came is repeated in any order.
    chain.proxy.release()?;
    if faults.contains(&Fault::Repeated) {
        chain.proxy.repeat(|requests| requests.shuffle(random))?;
    }
    Ok(())
}

/// Up to a second, so that a fault meets the chain at any of its steps.
fn pause(random: &mut StdRng) {
    thread::sleep(Duration::from_millis(random.random_range(0..1_000)));
}

/// A mischief that nothing met proves nothing.
fn disturbed(chain: &Chain, before: u64) -> Result<()> {
    let deadline = Instant::now() + TOUCHED_WITHIN;
    while chain.proxy.touched() == before {
        if Instant::now() >= deadline {
            let log = chain.sensor.log();
            return Err(Error::Deadline {
                what: "a request through the proxy".to_owned(),
                within: TOUCHED_WITHIN,
                log,
            });
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
