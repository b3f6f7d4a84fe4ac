//! What a process used: processor time and memory, as the kernel tells it.

use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result};
use nix::unistd::{SysconfVar, sysconf};
use weir_testbed::usage::Usage;

/// Processor time up to a moment.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    at: Instant,
    user_s: f64,
    system_s: f64,
}

/// Cores that were busy, on the average.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    pub user: f64,
    pub system: f64,
}

impl Clock {
    pub fn read(pid: u32) -> Result<Self> {
        let file = format!("/proc/{pid}/stat");
        let stat = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
        // After the name, which may hold anything: state is the third field, utime the 14th, stime the 15th.
        let (_, fields) = stat.rsplit_once(") ").with_context(|| format!("{file} has no name"))?;
        let mut fields = fields.split(' ').skip(11).map(str::parse::<f64>);
        let mut ticks = || -> Result<f64> { Ok(fields.next().context("a field is missing")??) };
        let hertz = sysconf(SysconfVar::CLK_TCK)?.context("the kernel tells its ticks")? as f64;
        Ok(Self { at: Instant::now(), user_s: ticks()? / hertz, system_s: ticks()? / hertz })
    }

    pub fn since(&self, before: &Self) -> Cores {
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        Cores {
            user: (self.user_s - before.user_s) / seconds,
            system: (self.system_s - before.system_s) / seconds,
        }
    }
}

/// The most that was seen of a process's memory, MiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peak {
    /// All that is resident, the kernel's tables where they were touched included.
    pub resident: f64,
    /// Heap and stacks.
    pub own: f64,
}

impl Peak {
    /// Looks once.
    pub fn look(&mut self, pid: u32) -> Result<()> {
        let usage = Usage::of(pid)?;
        self.resident = self.resident.max(usage.rss_kb as f64 / 1024.0);
        self.own = self.own.max(usage.anonymous_kb as f64 / 1024.0);
        Ok(())
    }
}
