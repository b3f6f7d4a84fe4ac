//! The `pcap` subcommand: each file in turn, what cannot be read said and left out.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use weir_wire::Totals;

use super::feed::{Feed, Program};
use super::observed::Observed;
use super::{ReplayLists, ndjson, table, unidirectional};
use crate::capture::{Capture, Frame};
use crate::config::{self, Detect};
use crate::detect::{Detection, Engine, Watch};
use crate::device::Devices;
use crate::flow::{Limits, Merged, Merger};
use crate::kernel::{self, Drained, Event};

/// What to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Json,
    /// The largest so many.
    Table {
        limit: usize,
    },
}

/// What to do with the files.
#[derive(Clone, Debug)]
pub struct Options {
    pub output: Output,
    /// Flows as the kernel keys them, instead of connections.
    pub unidirectional: bool,
    pub also: Also,
    pub settings: kernel::Settings,
    pub lists: ReplayLists,
    /// Detectors look at connections alone.
    pub detect: Detect,
}

/// What to print beside the flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Also {
    /// What the frames say, and the names of connections.
    pub observations: bool,
    /// With JSON: a line for each packet whose bytes the sensor would read.
    pub events: bool,
    /// Who is in the capture, and the names of connections.
    pub devices: bool,
}

/// Devices of one capture.
const MAX_DEVICES: usize = 1 << 17;

/// Runs every file; the files that could not be read, or not to their end, have been named on `messages`.
/// Their number is returned. An error is one of the programs or of the output, not of a file.
pub fn run<P: Program>(
    files: &[PathBuf],
    options: &Options,
    out: &mut impl Write,
    messages: &mut impl Write,
) -> anyhow::Result<usize> {
    let mut unreadable = 0;
    for path in files {
        let name = path.to_string_lossy();
        let opened = if path == Path::new("-") {
            Ok(Box::new(io::stdin()) as Box<dyn Read>)
        } else {
            File::open(path).map(|file| Box::new(file) as Box<dyn Read>)
        };
        let source = match opened {
            Ok(source) => source,
            Err(error) => {
                unreadable += 1;
                writeln!(messages, "weir-sensor: cannot open capture {name}: {error}")?;
                continue;
            }
        };
        let mut observed = if options.also.observations || options.also.devices || !options.unidirectional {
            let settings = config::Devices { max: MAX_DEVICES, ..config::Devices::default() };
            let devices = options.also.devices.then(|| Devices::new(&settings)).transpose()?;
            Some(Observed::new(
                options.output,
                options.also.observations,
                devices,
                Watch::new(&options.detect).with_lists(options.lists.known()),
            ))
        } else {
            None
        };
        let (counted, failure) = file::<P>(source, options, |frame, events| {
            for event in events.iter().filter(|_| options.also.events) {
                ndjson::event(out, &name, event)?;
            }
            match &mut observed {
                Some(observed) => observed.frame(out, &name, frame),
                None => Ok(()),
            }
        })
        .with_context(|| format!("replay {name}"))?;
        if let Some(counted) = counted {
            print(&name, counted, options, observed, out).context("write the result")?;
        }
        if let Some(failure) = failure {
            unreadable += 1;
            writeln!(messages, "weir-sensor: cannot read capture {name}: {failure}")?;
        }
    }
    out.flush().context("write the result")?;
    Ok(unreadable)
}

/// A file's drain and its refused frames.
type Counted = (Drained, u64);

/// Counts one file, and shows its frames to `look`, each with its events. Nothing is counted where not even its
/// header could be read.
fn file<P: Program>(
    source: impl Read,
    options: &Options,
    mut look: impl FnMut(&Frame<'_>, &[Event]) -> io::Result<()>,
) -> anyhow::Result<(Option<Counted>, Option<crate::capture::CaptureError>)> {
    let mut capture = match Capture::open(source) {
        Ok(capture) => capture,
        Err(error) => return Ok((None, Some(error))),
    };
    let mut feed = Feed::<P>::new(&options.settings, &options.lists);
    let failure = loop {
        match capture.next_frame() {
            Ok(Some(frame)) => {
                let events = feed.frame(&frame)?;
                look(&frame, &events).context("write what was seen")?;
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    Ok((Some(feed.finish()?), failure))
}

fn print(
    name: &str,
    (drained, refused): Counted,
    options: &Options,
    mut observed: Option<Observed>,
    out: &mut impl Write,
) -> io::Result<()> {
    let totals = sum(&drained);
    if let Output::Table { .. } = options.output {
        writeln!(out, "{name}")?;
    }
    if options.unidirectional {
        let flows = unidirectional::flows(&drained);
        match options.output {
            Output::Json => {
                flows.iter().try_for_each(|flow| ndjson::flow(out, name, flow, &options.lists))?;
            }
            Output::Table { limit } => table::flows(out, flows, limit)?,
        }
    } else {
        // A capture is one epoch: nothing is remembered after it, so nothing has to be forgotten.
        let limits =
            Limits { connections: usize::MAX, idle_timeout: Duration::MAX, closed_timeout: Duration::MAX };
        let mut merged = Merger::new(limits).merge(drained);
        merged.records.sort_by_key(|record| record.first_ns);
        if let Some(observed) = &mut observed
            && (options.also.observations || options.also.devices)
        {
            observed.describe(&mut merged.records);
        }
        let found = observed.as_mut().map(Observed::detections).unwrap_or_default();
        let detections = detect(&merged, found, options);
        let records = merged.records;
        match options.output {
            Output::Json => {
                records
                    .iter()
                    .try_for_each(|record| ndjson::connection(out, name, record, &options.lists))?;
                detections.iter().try_for_each(|detection| ndjson::detection(out, name, detection))?;
            }
            Output::Table { limit } => {
                table::connections(out, records, limit)?;
                table::detections(out, &detections)?;
            }
        }
    }
    if let Some(observed) = observed {
        if let Some(devices) = observed.devices() {
            match options.output {
                Output::Json => devices.iter().try_for_each(|device| ndjson::device(out, name, device))?,
                Output::Table { limit } => table::devices(out, &devices, limit)?,
            }
        }
        observed.summary(out)?;
    }
    match options.output {
        Output::Json => ndjson::totals(out, name, &totals, refused),
        Output::Table { .. } => table::totals(out, &totals, refused),
    }
}

/// What there is to say of a whole capture.
fn detect(merged: &Merged, found: Vec<Detection>, options: &Options) -> Vec<Detection> {
    let mut engine = Engine::new(&options.detect).with_lists(&options.detect, options.lists.names());
    engine.observe(merged);
    engine.end(merged);
    engine.tell_of(found, merged.window_end_ns);
    engine.take(usize::MAX)
}

/// The ledger over all points.
fn sum(drained: &Drained) -> Totals {
    drained.points.iter().fold(Totals::default(), |sum, point| Totals {
        frames: sum.frames + point.totals.frames,
        octets_l2: sum.octets_l2 + point.totals.octets_l2,
        flow_packets: sum.flow_packets + point.totals.flow_packets,
        flow_octets: sum.flow_octets + point.totals.flow_octets,
        overflow: sum.overflow + point.totals.overflow,
        overflow_octets: sum.overflow_octets + point.totals.overflow_octets,
        non_ip: sum.non_ip + point.totals.non_ip,
        malformed: sum.malformed + point.totals.malformed,
        filtered: sum.filtered + point.totals.filtered,
        unsampled: sum.unsampled + point.totals.unsampled,
    })
}
