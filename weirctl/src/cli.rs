//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

#[derive(Debug, Parser)]
#[command(
    name = "weirctl",
    version,
    about = "Ask a Weir control plane",
    after_help = "Examples:
  weirctl login https://weir.example ann
  weirctl flows --since 15m --filter 'dst_port = 443 and name ~ \"*.example.org\"'
  weirctl top --by pair --since 1h
  weirctl detections --severity high
  weirctl tail -f --topic detections,alerts
  weirctl export --format parquet --since 1d --output flows.parquet

Exit codes: 0 done; 1 the server, or this program, failed; 2 wrong arguments, or a value that the server refuses;
3 not logged in, or not allowed; 4 there is no such thing; 5 it contradicts what is there; 6 too much at once, try
again later; 7 the server cannot be reached."
)]
pub struct Cli {
    #[command(flatten)]
    pub server: ServerArgs,
    /// JSON instead of tables: an object a line
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

// Which server, and as whom; without them, as of the last login. No doc comment: it would be the command's.
#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    /// Its address, such as `https://weir.example`
    #[arg(long, global = true, env = "WEIRCTL_URL", value_name = "URL")]
    pub url: Option<String>,
    /// File with an API token, instead of a login
    #[arg(long, global = true, env = "WEIRCTL_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Authorities to believe instead of the system's, in PEM
    #[arg(long, global = true, env = "WEIRCTL_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// SHA-256 of the server's certificate, which is believed then whoever it names
    #[arg(long, global = true, env = "WEIRCTL_FINGERPRINT", value_name = "HEX", conflicts_with = "ca_file")]
    pub fingerprint: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Log in, and stay so
    #[command(after_help = "Examples:
  weirctl login https://weir.example ann
  weirctl login https://10.0.0.5:8443 ann --fingerprint 5f2a…
  weirctl login https://weir.example ann --password-stdin < password

The session is kept in $XDG_CONFIG_HOME/weir/weirctl.json (or ~/.config), readable by you alone. Machines use an API
token: --token-file or WEIRCTL_TOKEN_FILE.")]
    Login(LoginArgs),
    /// End the session
    Logout,
    /// Who am I
    Whoami,
    /// Sensors, and how they are
    Sensors(PageArgs),
    /// Flows, newest first
    #[command(after_help = "Examples:
  weirctl flows --since 15m --filter 'dst_port = 443 and (country = \"NL\" or name ~ \"*.example.com\")'
  weirctl flows --since 1h --all --json | jq -r .dst | sort | uniq -c")]
    Flows(FlowArgs),
    /// The largest talkers
    #[command(after_help = "Examples:
  weirctl top --by pair --since 1h
  weirctl top --by name --metric flows --filter 'protocol = udp'
  weirctl top --by process --sensor edge-1")]
    Top(TopArgs),
    /// What is a problem
    #[command(after_help = "Examples:
  weirctl detections --severity high
  weirctl detections dismiss 7 --reason 'our own scanner'")]
    Detections(DetectionArgs),
    /// Who is on the networks
    #[command(after_help = "Examples:
  weirctl devices --type printer --site ams
  weirctl devices show 7
  weirctl devices set 7 --name 'office printer' --type printer --clear notes
  weirctl devices merge 7 8              8 is 7, too
  weirctl devices split 7 3              8 is 8 again: `show 7` has merge 3 of it
  weirctl devices erase 7                what would go, and how to go on")]
    Devices(DeviceArgs),
    /// What responders were called
    Domains(DomainArgs),
    /// Networks that have names
    #[command(after_help = "Examples:
  weirctl networks add office 10.1.0.0/16 2001:db8:1::/48 --description 'second floor'
  weirctl networks add guests 10.9.0.0/16 --external
  weirctl networks remove guests
  weirctl flows --filter 'src_network = office and scope = outbound'")]
    Networks {
        #[command(subcommand)]
        command: NetworksCommand,
    },
    /// What fires
    Alerts(AlertArgs),
    /// Settings that are pushed to sensors
    #[command(after_help = "Examples:
  weirctl settings show edge-1
  weirctl settings set edge-1 epoch=2s detect.port_scan.hosts=40 --comment 'more scans'
  weirctl settings set group:edge 'detect.syn_flood.allow=[\"10.0.0.0/8\"]' --unset epoch
  weirctl settings versions edge-1
  weirctl settings roll-back edge-1 --to 3

A sensor takes them with its next heartbeat, tries them, and takes back what it is not well with; `show` says which.
docs/configuration.md has the keys that may be pushed.")]
    Settings {
        #[command(subcommand)]
        command: SettingsCommand,
    },
    /// What happened, and with -f what happens
    #[command(after_help = "Examples:
  weirctl tail --after 4711              replay, then end
  weirctl tail -f --topic detections     from now on, until Ctrl-C; it resumes where a connection broke")]
    Tail(TailArgs),
    /// All flows of a filter as a file
    #[command(after_help = "Examples:
  weirctl export --format csv --since 1d --output flows.csv
  weirctl export --since 1h --filter 'dst_port = 53' | jq .name")]
    Export(ExportArgs),
    /// Completions for a shell, on standard output
    Completions { shell: clap_complete::Shell },
    /// The man page, on standard output
    Man,
}

#[derive(Debug, Args)]
pub struct LoginArgs {
    /// The control plane's address
    pub address: String,
    /// User
    pub name: String,
    /// Read the password from standard input
    #[arg(long)]
    pub password_stdin: bool,
}

#[derive(Clone, Debug, Args)]
pub struct PageArgs {
    /// At most so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: u64,
    /// All of them
    #[arg(long, conflicts_with = "limit")]
    pub all: bool,
}

// Which flows.
#[derive(Clone, Debug, Args)]
pub struct WindowArgs {
    /// From so long ago on: 90s, 15m, 2h, 7d
    #[arg(long, value_parser = ago, default_value = "1h", conflicts_with = "from", value_name = "TIME")]
    pub since: std::time::Duration,
    /// From then on (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub from: Option<jiff::Timestamp>,
    /// Until then (RFC 3339); now
    #[arg(long, value_name = "TIME")]
    pub to: Option<jiff::Timestamp>,
    /// In the filter language; see docs/filters.md
    #[arg(long)]
    pub filter: Option<String>,
    /// Of this sensor
    #[arg(long)]
    pub sensor: Option<String>,
}

#[derive(Debug, Args)]
pub struct FlowArgs {
    #[command(flatten)]
    pub window: WindowArgs,
    #[command(flatten)]
    pub page: PageArgs,
}

#[derive(Debug, Args)]
pub struct TopArgs {
    #[command(flatten)]
    pub window: WindowArgs,
    /// What is ranked
    #[arg(long, value_enum, default_value_t = By::Source)]
    pub by: By,
    /// By what
    #[arg(long, value_enum, default_value_t = Metric::Octets)]
    pub metric: Metric,
    /// Entries
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub limit: u16,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum By {
    Source,
    Destination,
    Pair,
    Port,
    Protocol,
    Name,
    Country,
    Asn,
    Process,
    Executable,
    Container,
    Unit,
    #[value(name = "src_device")]
    SrcDevice,
    #[value(name = "dst_device")]
    DstDevice,
    #[value(name = "src_network")]
    SrcNetwork,
    #[value(name = "dst_network")]
    DstNetwork,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Metric {
    Octets,
    Packets,
    Flows,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DetectionArgs {
    #[command(subcommand)]
    pub judge: Option<Judge>,
    /// active, acknowledged, dismissed or all
    #[arg(long)]
    pub state: Option<String>,
    /// At least this bad: info, low, medium, high, critical
    #[arg(long)]
    pub severity: Option<String>,
    /// Of this kind, such as `port_scan`
    #[arg(long)]
    pub kind: Option<String>,
    #[command(flatten)]
    pub page: PageArgs,
}

#[derive(Debug, Subcommand)]
pub enum Judge {
    /// Somebody looks after it
    Ack { id: u64 },
    /// It is none
    Dismiss {
        id: u64,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// It is one after all
    Reopen { id: u64 },
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DeviceArgs {
    #[command(subcommand)]
    pub command: Option<DeviceCommand>,
    #[command(flatten)]
    pub filter: DeviceFilter,
    #[command(flatten)]
    pub page: PageArgs,
}

// Which devices.
#[derive(Clone, Debug, Args)]
pub struct DeviceFilter {
    /// Of this site
    #[arg(long)]
    pub site: Option<String>,
    /// Seen by this sensor
    #[arg(long)]
    pub sensor: Option<String>,
    /// Of this type, such as `printer`
    #[arg(long)]
    pub r#type: Option<String>,
    /// Part of the vendor's name; `*` stands for anything
    #[arg(long)]
    pub vendor: Option<String>,
    /// Part of the device's name, likewise
    #[arg(long)]
    pub name: Option<String>,
    /// That had this address, or one of this network
    #[arg(long)]
    pub address: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// All of them, the last that came to be known first
    List {
        #[command(flatten)]
        filter: DeviceFilter,
        #[command(flatten)]
        page: PageArgs,
    },
    /// One, with what sensors told of it
    Show { id: u64 },
    /// Say what it is; what is not named stays
    #[command(alias = "rename")]
    Set {
        id: u64,
        #[command(flatten)]
        words: DeviceWords,
        /// Say it no more: name, type, owner, notes; separated by commas
        #[arg(long, value_name = "WORD", value_delimiter = ',', value_parser = ["name", "type", "owner", "notes"])]
        clear: Vec<String>,
    },
    /// Say that another one is this one, too
    Merge { id: u64, other: u64 },
    /// Undo its last merge; `show` says which that is
    Split { id: u64, merge: u64 },
    /// Erase it and what tells of it: what would go, then, with the confirmation that this gives, for good
    Erase {
        id: u64,
        /// Of the first step; good once, for ten minutes
        #[arg(long)]
        confirmation: Option<String>,
        /// Both steps at once
        #[arg(long, conflicts_with = "confirmation")]
        yes: bool,
    },
}

// What is said of a device.
#[derive(Clone, Debug, Args)]
#[group(id = "words", multiple = true)]
pub struct DeviceWords {
    #[arg(long)]
    pub name: Option<String>,
    #[arg(long)]
    pub r#type: Option<String>,
    #[arg(long)]
    pub owner: Option<String>,
    #[arg(long)]
    pub notes: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum NetworksCommand {
    /// All of them
    List(PageArgs),
    /// Name a network: what is stored already has the name, too
    Add {
        name: String,
        /// Such as 10.1.0.0/16
        #[arg(required = true)]
        prefixes: Vec<String>,
        /// Id or name of the only sensor that sees it under these addresses
        #[arg(long)]
        sensor: Option<String>,
        /// Its addresses are not ours
        #[arg(long)]
        external: bool,
        #[arg(long, default_value = "")]
        description: String,
    },
    /// Its addresses have the name of the next larger network, or none
    Remove {
        /// Name or id
        network: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum SettingsCommand {
    /// What is pushed, and what the sensor says of it
    Show {
        /// A sensor's name or id, or group:NAME
        #[arg(value_parser = whose)]
        whose: Whose,
    },
    /// Push a setting, or push it no more; the others stay as they are
    Set {
        /// A sensor's name or id, or group:NAME
        #[arg(value_parser = whose)]
        whose: Whose,
        /// As in the sensor's file; lists as JSON
        #[arg(value_name = "KEY=VALUE", value_parser = pair, required_unless_present = "unset")]
        pairs: Vec<(String, serde_json::Value)>,
        /// Push this one no more
        #[arg(long, value_name = "KEY")]
        unset: Vec<String>,
        /// Why, for the history
        #[arg(long, default_value = "")]
        comment: String,
    },
    /// All versions, the newest first
    Versions {
        /// A sensor's name or id, or group:NAME
        #[arg(value_parser = whose)]
        whose: Whose,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Push earlier settings again
    RollBack {
        /// A sensor's name or id, or group:NAME
        #[arg(value_parser = whose)]
        whose: Whose,
        /// That version; the one before the newest without it
        #[arg(long, value_name = "VERSION")]
        to: Option<u32>,
        /// Why, for the history
        #[arg(long, default_value = "")]
        comment: String,
    },
}

/// Whom settings are pushed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    Sensor(String),
    Group(String),
}

// No name has a colon.
#[expect(clippy::unnecessary_wraps, reason = "as clap asks for it")]
fn whose(text: &str) -> Result<Whose, String> {
    Ok(match text.strip_prefix("group:") {
        Some(group) => Whose::Group(group.to_owned()),
        None => Whose::Sensor(text.to_owned()),
    })
}

/// What is no JSON is a text: durations need no quotes.
fn pair(text: &str) -> Result<(String, serde_json::Value), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not KEY=VALUE"))?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    Ok((key.to_owned(), value))
}

#[derive(Debug, Args)]
pub struct DomainArgs {
    /// Part of the name; `*` stands for anything
    pub part: Option<String>,
    #[command(flatten)]
    pub page: PageArgs,
}

#[derive(Debug, Args)]
pub struct AlertArgs {
    /// pending, firing or resolved; pending and firing without it
    #[arg(long)]
    pub state: Option<String>,
    /// info, warning or critical
    #[arg(long)]
    pub severity: Option<String>,
    #[command(flatten)]
    pub page: PageArgs,
}

#[derive(Debug, Args)]
pub struct TailArgs {
    /// Go on as things happen
    #[arg(short, long)]
    pub follow: bool,
    /// From the event after this cursor on
    #[arg(long, value_name = "CURSOR")]
    pub after: Option<u64>,
    /// flows, ledger, sensors, alerts, detections, devices, jobs, audit; separated by commas
    #[arg(long)]
    pub topic: Option<String>,
    /// Of these sensors, separated by commas
    #[arg(long)]
    pub sensor: Option<String>,
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    pub window: WindowArgs,
    #[arg(long, value_enum, default_value_t = Format::Ndjson)]
    pub format: Format,
    /// File; standard output without it
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// At most so many, the newest
    #[arg(long)]
    pub limit: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Ndjson,
    Csv,
    Parquet,
}

/// The word of a choice, as the API has it.
pub fn word(choice: &impl ValueEnum) -> String {
    choice.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn ago(text: &str) -> Result<std::time::Duration, String> {
    let wrong = || format!("`{text}` is not a time such as 90s, 15m, 2h or 7d");
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3_600,
        Some('d') => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    let seconds = number.checked_mul(unit).filter(|seconds| (1..=316_224_000).contains(seconds));
    seconds.map(std::time::Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_commands_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_ago_have_a_unit() {
        assert_eq!(ago("15m"), Ok(std::time::Duration::from_mins(15)));
        assert_eq!(ago("7d"), Ok(std::time::Duration::from_hours(168)));
        for wrong in ["", "15", "m", "-1h", "1w", "1.5h", "99999999999999999d", "0s", "é"] {
            assert!(ago(wrong).is_err(), "{wrong}");
        }
    }
}
