//! A long run with faults all along, and a look at what both programs hold every minute.
//!
//! In the first half every fault comes; in the second only those that both processes live through, so
//! that what they hold at the end has had time to grow.

use std::fmt;
use std::time::{Duration, Instant};

use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use weir_testbed::usage::Usage;
use weir_testbed::{Error, Result};

use super::{Chain, Fault, Outcome, inflict};

/// Between two lines of the table, in a long run; a short one has some ten.
const LOOK: Duration = Duration::from_mins(1);

/// What is held at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub after: Duration,
    pub sent: u64,
    pub sensor: Usage,
    pub control_plane: Usage,
    /// Connections of the control plane to Postgres.
    pub postgres: u64,
    /// Files in the sensor's folder of pins.
    pub pins: u64,
}

/// A run and what was seen of it.
#[derive(Debug)]
pub struct Soak {
    pub outcome: Outcome,
    pub faults: u64,
    /// The first one before any fault, the last one when all is stored.
    pub samples: Vec<Sample>,
    /// The sample from which on neither process was started anew.
    pub half: usize,
}

impl Soak {
    /// Faults from these, for so long.
    pub fn run(chain: &mut Chain, faults: &[Fault], time: Duration, random: &mut StdRng) -> Result<Self> {
        let began = Instant::now();
        let look = LOOK.min(time / 10);
        let sparing: Vec<Fault> = faults.iter().copied().filter(|fault| fault.spares_processes()).collect();
        let (mut samples, mut inflicted, mut half) = (Vec::new(), 0, 0);
        let outcome = chain.measure(&[], |chain| {
            samples.push(Sample::take(chain, began)?);
            while began.elapsed() < time {
                let among = if began.elapsed() < time / 2 {
                    faults
                } else {
                    if half == 0 {
                        half = samples.len();
                        samples.push(Sample::take(chain, began)?);
                    }
                    &sparing[..]
                };
                let chosen = if random.random_ratio(1, 3) {
                    Fault::mixed(among, random)
                } else {
                    among.choose(random).copied().into_iter().collect()
                };
                inflict(&chosen, chain, random)?;
                inflicted += chosen.len() as u64;
                if samples.last().is_none_or(|last| began.elapsed() >= last.after + look) {
                    let sample = Sample::take(chain, began)?;
                    println!("{sample}");
                    samples.push(sample);
                }
            }
            Ok(())
        })?;
        samples.push(Sample::take(chain, began)?);
        Ok(Self { outcome, faults: inflicted, samples, half })
    }
}

impl Sample {
    pub const HEAD: &str = "| minutes | packets sent | sensor: memory, of it anonymous, kB | descriptors | maps, programs, links | pins | control plane: memory, of it anonymous, kB | descriptors | connections to Postgres |\n| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |";

    fn take(chain: &mut Chain, began: Instant) -> Result<Self> {
        let sent = chain.sent()?.packets;
        let sensor = Usage::of(chain.sensor.process().id())?;
        let control_plane = chain.site.control_plane.id();
        let control_plane =
            control_plane.ok_or_else(|| Error::malformed("the control plane", "it is down"))?;
        let control_plane = Usage::of(control_plane)?;
        // All but the one that asks.
        let connections = "SELECT count(*) FROM pg_stat_activity
                           WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        let printed = chain.site.sql(connections)?;
        let postgres = printed
            .trim()
            .parse()
            .map_err(|_| Error::malformed("connections to Postgres", printed.clone()))?;
        Ok(Self { after: began.elapsed(), sent, sensor, control_plane, postgres, pins: chain.pinned() })
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { after, sent, sensor, control_plane, postgres, pins } = self;
        let Usage { maps, programs, links, .. } = sensor;
        write!(
            to,
            "| {:.1} | {sent} | {}, {} | {} | {maps}, {programs}, {links} | {pins} | {}, {} | {} | {postgres} |",
            after.as_secs_f64() / 60.0,
            sensor.rss_kb,
            sensor.anonymous_kb,
            sensor.descriptors,
            control_plane.rss_kb,
            control_plane.anonymous_kb,
            control_plane.descriptors,
        )
    }
}

impl fmt::Display for Soak {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(to, "{}", Sample::HEAD)?;
        for sample in &self.samples {
            writeln!(to, "{sample}")?;
        }
        let Outcome { sent, stored, named, lost, doubled, .. } = &self.outcome;
        writeln!(
            to,
            "{} faults; {sent} packets sent, {stored} in stored rows, {named} named losses, {lost} lost, {doubled} doubled",
            self.faults
        )
    }
}
