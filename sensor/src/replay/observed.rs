//! `pcap --observations` and `--devices`: what the frames of a capture say, the names of its connections, and who
//! is in it.

use std::io::{self, Write};

use crate::capture::{Carried, Frame};
use crate::detect::{Detection, Watch};
use crate::device::{Device, Devices};
use crate::enrich::names::{Exchange, Limits, Names, Outcome};
use crate::flow::Record;
use crate::observe::{self, Framing, Observation, Observer};

use super::run::Output;
use super::{ndjson, table};

/// Observes one file.
pub(super) struct Observed {
    observer: Observer,
    names: Names,
    devices: Option<Devices>,
    watch: Watch,
    /// Each observation is printed, too.
    print: bool,
    output: Output,
    /// For a table: the first ones.
    kept: Vec<Observation>,
    all: u64,
    dns: DnsFigures,
}

/// How the capture's resolvers did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DnsFigures {
    pub answered: u64,
    pub failed: u64,
    pub timed_out: u64,
    /// Sum and number of latencies.
    pub latency_ns: u64,
    pub timed: u64,
}

impl Observed {
    pub(super) fn new(output: Output, print: bool, devices: Option<Devices>, watch: Watch) -> Self {
        Self {
            observer: Observer::default(),
            names: Names::new(Limits::default()),
            devices,
            watch,
            print,
            output,
            kept: Vec::new(),
            all: 0,
            dns: DnsFigures::default(),
        }
    }

    /// Reads a frame; in JSON, what it says is printed at once.
    pub(super) fn frame(&mut self, out: &mut impl Write, file: &str, captured: &Frame<'_>) -> io::Result<()> {
        let with_header;
        let (framing, bytes, added) = match captured.link.carried(captured.bytes) {
            Carried::Ethernet(bytes) => (Framing::Ethernet, bytes, 0),
            Carried::Ip(bytes) => (Framing::Ip, bytes, 0),
            Carried::Payload(ether_type, bytes) => {
                with_header = [&[0; 12], ether_type.to_be_bytes().as_slice(), bytes].concat();
                (Framing::Ethernet, with_header.as_slice(), 14)
            }
            Carried::NonIp => return Ok(()),
        };
        let wire_octets = captured.original_len.saturating_sub(captured.link.pseudo_header());
        let frame = observe::Frame {
            framing,
            bytes,
            wire_octets: wire_octets.saturating_add(added),
            offloaded_vlan: None,
        };
        for exchange in self.names.timed_out(captured.time_ns) {
            self.dns.count(&exchange);
            if self.output == Output::Json && self.print {
                ndjson::unanswered(out, file, &exchange)?;
            }
        }
        let Self { observer, names, devices, watch, print, output, kept, all, dns } = self;
        let mut written = Ok(());
        observer.frame(&frame, captured.time_ns, |observation| {
            *all += 1;
            watch.observe(&observation);
            if let Some(devices) = devices {
                devices.observe(&observation);
            }
            let exchange = names.observe(&observation);
            if let Some(exchange) = &exchange {
                dns.count(exchange);
            }
            match *output {
                _ if !*print => {}
                Output::Json if written.is_ok() => {
                    written = ndjson::observation(out, file, &observation, exchange.as_ref());
                }
                Output::Table { limit } if kept.len() < limit => kept.push(observation),
                _ => {}
            }
        });
        written
    }

    /// Gives connections their names.
    pub(super) fn describe(&mut self, records: &mut [Record]) {
        for record in records.iter_mut() {
            self.names.describe(record);
        }
        if let Some(devices) = &mut self.devices {
            devices.flows(records);
        }
    }

    /// What is a problem in what the frames said.
    pub(super) fn detections(&mut self) -> Vec<Detection> {
        self.watch.take()
    }

    /// Whoever was seen, in the order of their first sighting.
    pub(super) fn devices(&self) -> Option<Vec<&Device>> {
        let mut devices: Vec<_> = self.devices.as_ref()?.all().collect();
        let key = |device: &Device| (device.first_ns, device.identifiers.first().map(|it| it.value.clone()));
        devices.sort_by_cached_key(|device| key(device));
        Some(devices)
    }

    /// For a table: the first observations, and how DNS did.
    pub(super) fn summary(&self, out: &mut impl Write) -> io::Result<()> {
        match self.output {
            Output::Table { .. } if self.print => table::observations(out, &self.kept, self.all, self.dns),
            _ => Ok(()),
        }
    }
}

impl DnsFigures {
    fn count(&mut self, exchange: &Exchange) {
        match exchange.outcome {
            Outcome::TimedOut => self.timed_out += 1,
            Outcome::Answered { rcode, latency_ns } => {
                self.answered += 1;
                self.failed += u64::from(rcode != 0);
                if let Some(latency_ns) = latency_ns {
                    self.timed += 1;
                    self.latency_ns = self.latency_ns.saturating_add(latency_ns);
                }
            }
        }
    }
}
