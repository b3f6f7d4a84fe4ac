//! `weir-sensor pcap FILE…`

use std::io::{BufWriter, stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::EXIT_INPUT;
use crate::config::Detect;
use crate::kernel::{self, EventSettings};
use crate::replay::{self, Also, KernelProgram, Options, Output, ReplayLists};

const EXAMPLES: &str = "Examples:
  weir-sensor pcap traffic.pcap
      the largest connections of a capture, as a table
  weir-sensor pcap --json traffic.pcapng | jq 'select(.type == \"connection\")'
      every connection, one JSON object a line; the last line of a file has its totals
  weir-sensor pcap --json traffic.pcap | jq 'select(.type == \"detection\")'
      what is a problem in it, with its evidence
  weir-sensor pcap --observations --json traffic.pcap | jq 'select(.type == \"client_hello\") | .sni'
      also what the frames say (DNS, TLS, DHCP, ARP …), and the names of connections
  weir-sensor pcap --devices traffic.pcap
      who is on the network: vendor, type with its reasons, names, addresses
  weir-sensor pcap --json --unidirectional *.pcap
      flows as the kernel keys them, each line naming its file
  weir-sensor pcap --json --list bad.txt traffic.pcap | jq 'select(.listed)'
      connections with an address of a threat list

Needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (or root): the frames run through the real kernel program.";

/// Reads pcap and pcapng; Ethernet, raw IP, Linux cooked and loopback link types.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line, each by itself")]
pub(super) struct Arguments {
    /// Captures; `-` is standard input. Each is a run of its own
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    /// Print flows in one direction, as the kernel keys them, instead of connections
    #[arg(long)]
    unidirectional: bool,
    /// Also print what the frames say of names and devices, and give connections their names
    #[arg(long)]
    observations: bool,
    /// With --json: print a line for each packet whose bytes the sensor would read, and what for
    #[arg(long, requires = "json")]
    events: bool,
    /// Also print who is in the capture: one record for each device
    #[arg(long)]
    devices: bool,
    /// Print so many flows, observations and devices of each file, the largest and the first
    #[arg(long, value_name = "N", default_value_t = 20, conflicts_with = "json")]
    limit: usize,
    /// Mark flows from or to an address of this threat list, one entry a line; may be repeated. With --json
    #[arg(long = "list", value_name = "FILE", requires = "json")]
    lists: Vec<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let lists = match ReplayLists::read(&arguments.lists) {
        Ok(lists) => lists,
        Err(error) => {
            eprintln!("weir-sensor: {error:#}");
            return Ok(ExitCode::from(EXIT_INPUT));
        }
    };
    let options = Options {
        lists,
        output: if arguments.json { Output::Json } else { Output::Table { limit: arguments.limit } },
        unidirectional: arguments.unidirectional,
        detect: Detect::default(),
        also: Also {
            observations: arguments.observations,
            devices: arguments.devices,
            events: arguments.events,
        },
        settings: kernel::Settings {
            log_level: kernel::KernelLog::Off,
            events: if arguments.events { EventSettings::default() } else { EventSettings::none() },
            ..kernel::Settings::default()
        },
    };
    let mut out = BufWriter::new(stdout().lock());
    let unreadable =
        replay::run::<KernelProgram>(&arguments.files, &options, &mut out, &mut stderr().lock())?;
    Ok(if unreadable == 0 { ExitCode::SUCCESS } else { ExitCode::from(EXIT_INPUT) })
}
