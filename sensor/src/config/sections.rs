//! The sections and their defaults. A section that is left out has all of its defaults.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weir_trace::Traces;

use super::detect::Detect;
use super::devices::Devices;
use super::events::Events;
use super::heartbeat::{Credential, Heartbeat};
use super::threats::Threats;
use super::units::{Bytes, Cidr, Period, Ports, Protocol, Secret};
use crate::kernel;

/// Everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How long the kernel counts into one half of its tables: 50ms to 60s. Shorter when a table fills.
    pub epoch: Period,
    pub interfaces: Vec<Interface>,
    pub tables: Tables,
    pub sampling: Sampling,
    pub filter: Filter,
    pub connections: Connections,
    pub events: Events,
    pub detect: Detect,
    pub devices: Devices,
    pub pins: Pins,
    pub threats: Threats,
    /// Without it the sensor works alone: metrics only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<ControlPlane>,
    pub heartbeat: Heartbeat,
    pub credential: Credential,
    pub spool: Spool,
    pub shipping: Shipping,
    pub places: Places,
    pub processes: Processes,
    pub metrics: Metrics,
    pub traces: Traces,
    pub log: Log,
}

/// An interface to watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    pub name: String,
    #[serde(default)]
    pub ingress: Ingress,
    #[serde(default)]
    pub egress: Egress,
}

/// How what arrives is seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ingress {
    /// XDP in native mode, else in generic mode.
    #[default]
    Auto,
    Native,
    Generic,
    Tc,
    Off,
}

/// How what leaves is seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Egress {
    /// TCX, else clsact.
    #[default]
    Auto,
    Tcx,
    Clsact,
    Off,
}

/// Sizes of the kernel tables, for each CPU and half; powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tables {
    pub ipv4_slots: u32,
    pub ipv6_slots: u32,
}

/// One packet in so many is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    pub interval: u32,
}

/// Which packets are counted: the first rule that matches either side of a packet wins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    pub default: FilterAction,
    pub rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FilterAction {
    #[default]
    Allow,
    Deny,
}

/// A rule matches what agrees with all that it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub action: FilterAction,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cidr: Option<Cidr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Ports>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
}

/// Where addresses are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Places {
    /// Country, city and ASN databases in the MMDB format; the first that tells a field wins. A file that is
    /// replaced is read again.
    pub databases: Vec<PathBuf>,
}

/// Processes of local flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Processes {
    pub enabled: bool,
    /// Keep the power to read which file any process runs (`CAP_SYS_PTRACE`); without it that is known of
    /// processes of the sensor's own user.
    pub executables: bool,
    /// Sockets, and flows of sockets, whose process is remembered: 1,024 to 1,048,576.
    pub remembered: NonZeroUsize,
    /// How often /proc is looked through for sockets that were there before.
    pub look_interval: Period,
}

/// The table of connections that are remembered between epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Connections {
    /// Beyond it the longest silent lose their start time, not their counts.
    pub max: usize,
    /// After so long a silence the next packet is a new connection.
    pub idle_timeout: Period,
    /// The same for a connection that has ended.
    pub closed_timeout: Period,
}

/// Maps and programs that outlive the sensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pins {
    /// Without it, counting ends with the sensor.
    pub enabled: bool,
    /// On a bpffs.
    pub folder: PathBuf,
    /// A folder below it, for this sensor alone.
    pub name: String,
}

/// Where batches go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlPlane {
    /// `https://weir.example.org`; the sensor adds the path.
    pub url: String,
    /// Better in a file, or in the environment as `WEIR_SENSOR__CONTROL_PLANE__TOKEN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Where the sensor keeps its certificate with its key; `identity.pem` beside `token_file` unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_file: Option<PathBuf>,
    /// For one request, from connecting to the answer's last byte.
    #[serde(default = "ControlPlane::default_timeout")]
    pub timeout: Period,
    /// PEM certificates to trust in addition to the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

/// Where batches wait until they are acknowledged. Without a control plane there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spool {
    /// Holds the spool's file and the sockets of `weir-sensor spool`, `ledger` and `top`.
    pub folder: PathBuf,
    /// Batches that wait; over it the oldest are given up, and tombstones stand for them.
    pub max_bytes: Bytes,
    pub max_age: Period,
    /// Batches that the control plane refused for good, kept aside.
    pub quarantine_bytes: Bytes,
    /// Epochs that the sensor's own ledger remembers.
    pub ledger_epochs: u64,
}

/// How batches are delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shipping {
    /// Longest wait after the first failure; doubled with each further one up to `backoff_max`.
    pub backoff: Period,
    pub backoff_max: Period,
    /// Failures in a row after which only a probe now and then is sent.
    pub breaker_failures: u32,
    /// What has piled up is sent at this rate, and only while nothing newer waits.
    pub catch_up_batches_per_second: u32,
    /// On SIGTERM: how long the last batches may take to be delivered.
    pub shutdown_deadline: Period,
}

/// Prometheus metrics and health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    pub listen: SocketAddr,
}

/// The sensor's own log, on standard error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    pub level: LogLevel,
    pub format: LogFormat,
    /// Messages of the kernel programs: rare, and free when off.
    pub kernel: KernelLog,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KernelLog {
    Off,
    #[default]
    Info,
    Debug,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            epoch: Period(Duration::from_secs(5)),
            interfaces: Vec::new(),
            tables: Tables::default(),
            sampling: Sampling::default(),
            filter: Filter::default(),
            connections: Connections::default(),
            events: Events::default(),
            detect: Detect::default(),
            devices: Devices::default(),
            pins: Pins::default(),
            threats: Threats::default(),
            control_plane: None,
            heartbeat: Heartbeat::default(),
            credential: Credential::default(),
            spool: Spool::default(),
            shipping: Shipping::default(),
            places: Places::default(),
            processes: Processes::default(),
            metrics: Metrics::default(),
            traces: Traces::default(),
            log: Log::default(),
        }
    }
}

impl Default for Processes {
    fn default() -> Self {
        Self {
            enabled: true,
            executables: false,
            remembered: const { NonZeroUsize::new(65_536).expect("it is not zero") },
            look_interval: Period(Duration::from_secs(30)),
        }
    }
}

impl Default for Tables {
    fn default() -> Self {
        let kernel::TableSizes { ipv4_slots, ipv6_slots } = kernel::TableSizes::default();
        Self { ipv4_slots, ipv6_slots }
    }
}

impl Default for Sampling {
    fn default() -> Self {
        Self { interval: 1 }
    }
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            max: 262_144,
            idle_timeout: Period(Duration::from_mins(2)),
            closed_timeout: Period(Duration::from_secs(10)),
        }
    }
}

impl Default for Pins {
    fn default() -> Self {
        Self { enabled: true, folder: PathBuf::from("/sys/fs/bpf/weir"), name: "main".to_owned() }
    }
}

impl Pins {
    /// As the kernel side takes it; `None` where pins are off.
    #[must_use]
    pub fn pinning(&self) -> Option<kernel::Pinning> {
        self.enabled.then(|| kernel::Pinning::new(&self.folder, &self.name))
    }
}

impl ControlPlane {
    #[must_use]
    pub fn default_timeout() -> Period {
        Period(Duration::from_secs(10))
    }
}

impl Default for Spool {
    fn default() -> Self {
        Self {
            folder: PathBuf::from("/var/lib/weir-sensor"),
            max_bytes: Bytes(1 << 30),
            max_age: Period(Duration::from_hours(7 * 24)),
            quarantine_bytes: Bytes(64 << 20),
            ledger_epochs: 100_000,
        }
    }
}

impl Spool {
    /// As the spool takes them.
    #[must_use]
    pub fn settings(&self) -> crate::spool::Settings {
        crate::spool::Settings {
            folder: self.folder.clone(),
            bounds: crate::spool::Bounds {
                bytes: self.max_bytes.0,
                age: self.max_age.0,
                quarantine_bytes: self.quarantine_bytes.0,
                quarantine_batches: crate::spool::MAX_QUARANTINE_BATCHES,
                epochs: self.ledger_epochs,
                tombstones: crate::spool::MAX_TOMBSTONES,
            },
        }
    }
}

impl Default for Shipping {
    fn default() -> Self {
        Self {
            backoff: Period(Duration::from_millis(500)),
            backoff_max: Period(Duration::from_mins(1)),
            breaker_failures: 5,
            catch_up_batches_per_second: 20,
            shutdown_deadline: Period(Duration::from_secs(10)),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9465)) }
    }
}

impl Interface {
    /// With both directions in their default modes.
    #[must_use]
    pub fn new(name: String) -> Self {
        Self { name, ingress: Ingress::default(), egress: Egress::default() }
    }
}

impl Filter {
    /// The rules as the kernel takes them.
    #[must_use]
    pub fn kernel_rules(&self) -> Vec<kernel::FilterRule> {
        let rule = |rule: &Rule| kernel::FilterRule {
            action: rule.action.into(),
            cidr: rule.cidr.map(|cidr| (cidr.address, cidr.prefix)),
            ports: rule.ports.as_ref().map(|ports| ports.0.clone()),
            protocol: rule.protocol.map(|protocol| protocol.0),
        };
        self.rules.iter().map(rule).collect()
    }
}

impl From<FilterAction> for kernel::FilterAction {
    fn from(action: FilterAction) -> Self {
        match action {
            FilterAction::Allow => Self::Allow,
            FilterAction::Deny => Self::Deny,
        }
    }
}

impl From<KernelLog> for kernel::KernelLog {
    fn from(log: KernelLog) -> Self {
        match log {
            KernelLog::Off => Self::Off,
            KernelLog::Info => Self::Info,
            KernelLog::Debug => Self::Debug,
        }
    }
}

impl From<Ingress> for kernel::IngressMode {
    fn from(mode: Ingress) -> Self {
        match mode {
            Ingress::Auto => Self::Auto,
            Ingress::Native => Self::Native,
            Ingress::Generic => Self::Generic,
            Ingress::Tc => Self::Tc,
            Ingress::Off => Self::Off,
        }
    }
}

impl From<Egress> for kernel::EgressMode {
    fn from(mode: Egress) -> Self {
        match mode {
            Egress::Auto => Self::Auto,
            Egress::Tcx => Self::Tcx,
            Egress::Clsact => Self::Clsact,
            Egress::Off => Self::Off,
        }
    }
}

impl From<LogLevel> for tracing::Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}
