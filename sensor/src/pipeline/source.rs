//! What the drain task needs of the kernel side; traits so that tests can stand in for it.

use std::future::Future;
use std::io;

use uuid::Uuid;

use crate::kernel::{Datapath, Drained, FilterAction, FilterRule, KernelError, Predecessor, Wakeup, Wakeups};

/// Tables that are drained by epochs. All calls may block.
pub trait Source: Send + 'static {
    type Error: std::error::Error + Send + Sync + 'static;

    /// Ends the epoch and reads its half.
    fn flip(&mut self) -> Result<Drained, Self::Error>;
    /// Zeroes the drained half; must come before the next flip.
    fn release(&mut self, epoch: u64) -> Result<(), Self::Error>;
    /// Takes effect with the next epoch.
    fn update(
        &mut self,
        sampling_interval: u32,
        rules: &[FilterRule],
        default: FilterAction,
    ) -> Result<(), Self::Error>;
    fn generation(&self) -> Uuid;
    /// Tables that earlier sensors left behind and that nobody has drained to the end.
    fn predecessors(&mut self) -> Vec<Box<dyn Past>> {
        Vec::new()
    }
    /// The half that an earlier sensor had drained and not released, read again. `spooled` is the last epoch
    /// of these tables that is known to be safe: if that half's is, it is only released.
    fn resume(&mut self, spooled: Option<u64>) -> Result<Option<Drained>, Self::Error> {
        let _ = spooled;
        Ok(None)
    }
    /// The sensor stops and one flip follows. To leave is to count nothing more; to stay is to count on
    /// without a sensor, for the next one, where the tables can.
    fn stop(&mut self, stop: Stop) -> Result<(), Self::Error>;
    /// After the last release.
    fn end(&mut self, stop: Stop) -> Result<(), Self::Error> {
        let _ = stop;
        Ok(())
    }
}

/// How a sensor goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    Stay,
    Leave,
}

/// Why tables of the past cannot be read.
pub type PastError = Box<dyn std::error::Error + Send + Sync>;

/// Tables of an earlier sensor that nothing counts into any more. All calls may block.
pub trait Past: Send + 'static {
    fn generation(&self) -> Uuid;
    /// The next half that holds something; `None` when all is drained.
    fn next(&mut self, spooled: Option<u64>) -> Result<Option<Drained>, PastError>;
    /// Its counts are safe.
    fn release(&mut self, epoch: u64) -> Result<(), PastError>;
    /// Nothing is left in them: they go.
    fn discard(self: Box<Self>) -> Result<(), PastError>;
}

/// The kernel's tables, and those of earlier sensors.
pub struct Kernel {
    /// Empty once it has ended.
    datapath: Option<Datapath>,
    predecessors: Vec<Predecessor>,
    /// Whether they outlive the sensor.
    pinned: bool,
}

impl Kernel {
    #[must_use]
    pub fn new(datapath: Datapath, predecessors: Vec<Predecessor>, pinned: bool) -> Self {
        Self { datapath: Some(datapath), predecessors, pinned }
    }

    fn datapath(&mut self) -> Result<&mut Datapath, KernelError> {
        self.datapath.as_mut().ok_or_else(|| KernelError::System {
            what: "use the kernel's tables",
            source: io::Error::other("they have been given up already"),
        })
    }

    /// Whether counting ends with this sensor.
    fn leaves(&self, stop: Stop) -> bool {
        !self.pinned || stop == Stop::Leave
    }
}

impl Source for Kernel {
    type Error = KernelError;

    fn flip(&mut self) -> Result<Drained, KernelError> {
        self.datapath()?.flip()
    }

    fn release(&mut self, epoch: u64) -> Result<(), KernelError> {
        self.datapath()?.release(epoch)
    }

    fn update(
        &mut self,
        sampling_interval: u32,
        rules: &[FilterRule],
        default: FilterAction,
    ) -> Result<(), KernelError> {
        self.datapath()?.update(sampling_interval, rules, default)
    }

    fn generation(&self) -> Uuid {
        self.datapath.as_ref().map_or(Uuid::nil(), Datapath::generation)
    }

    fn predecessors(&mut self) -> Vec<Box<dyn Past>> {
        let boxed = |predecessor| Box::new(predecessor) as Box<dyn Past>;
        std::mem::take(&mut self.predecessors).into_iter().map(boxed).collect()
    }

    fn resume(&mut self, spooled: Option<u64>) -> Result<Option<Drained>, KernelError> {
        self.datapath()?.resume(spooled)
    }

    fn stop(&mut self, stop: Stop) -> Result<(), KernelError> {
        if self.leaves(stop) { self.datapath()?.detach_all() } else { Ok(()) }
    }

    fn end(&mut self, stop: Stop) -> Result<(), KernelError> {
        let leaves = self.leaves(stop);
        match self.datapath.take() {
            Some(datapath) if leaves => datapath.discard(),
            Some(datapath) => {
                datapath.leave();
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Past for Predecessor {
    fn generation(&self) -> Uuid {
        Self::generation(self)
    }

    fn next(&mut self, spooled: Option<u64>) -> Result<Option<Drained>, PastError> {
        Ok(Self::next(self, spooled)?)
    }

    fn release(&mut self, epoch: u64) -> Result<(), PastError> {
        Ok(Self::release(self, epoch)?)
    }

    fn discard(self: Box<Self>) -> Result<(), PastError> {
        Ok(Self::discard(*self)?)
    }
}

/// Calls for an early drain.
pub trait Wakes: Send + 'static {
    /// The next call; cancelling it loses none.
    fn next(&mut self) -> impl Future<Output = io::Result<Wakeup>> + Send;
}

impl Wakes for Wakeups {
    fn next(&mut self) -> impl Future<Output = io::Result<Wakeup>> + Send {
        Self::next(self)
    }
}

/// Where the kernel side offers none.
pub struct NoWakes;

impl Wakes for NoWakes {
    fn next(&mut self) -> impl Future<Output = io::Result<Wakeup>> + Send {
        std::future::pending()
    }
}

impl<W: Wakes> Wakes for Option<W> {
    async fn next(&mut self) -> io::Result<Wakeup> {
        match self {
            Some(wakes) => wakes.next().await,
            None => std::future::pending().await,
        }
    }
}
