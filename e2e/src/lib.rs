//! The ground that the end-to-end tests stand on: a control plane with its Postgres in one namespace, and
//! namespaces around it that sensors run in and traffic passes through.
//!
//! ```text
//!   core (Postgres, control plane at 198.18.0.1)
//!    |mgmt       |mgmt
//!   sender ---- receiver        the wire between them is the test's own
//! ```
//!
//! Everything is real, and each test has all of it for itself. Every comparison is an equality; the only
//! deadlines are those after which a test gives up.
#![forbid(unsafe_code)]

pub mod differential;
pub mod dns;
mod expected;
pub mod faults;
pub mod hosts;
pub mod office;
pub mod steady;
pub mod tls;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use weir_testbed::netns::{End, Namespace, Veth};
use weir_testbed::postgres::{Options, Postgres};
use weir_testbed::process::{Launch, Process};
use weir_testbed::scratch::Scratch;
use weir_testbed::weir::{ControlPlane, Ledger, Place, Programs, Sensor, Watch};
use weir_testbed::{Error, Result};

pub use expected::{Counted, Flows, captures, committed, truth};

/// The control plane's address, on the core's loopback: every member has a route to it.
const CORE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const DATABASE: &str = "weir";
/// When a test gives up on what should have arrived; no healthy run comes near it.
const GIVE_UP: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(50);

/// A control plane and its Postgres. Fields are in the order in which they end.
pub struct Site {
    pub control_plane: ControlPlane,
    pub postgres: Postgres,
    core: Namespace,
    programs: Programs,
}

impl Site {
    pub fn new() -> Result<Self> {
        let programs = Programs::beside_this_one()?;
        let core = Namespace::new("core")?;
        core.ip(&["addr", "add", &format!("{CORE}/32"), "dev", "lo"])?;
        let namespace = Some(core.path().to_owned());
        let postgres = Postgres::start_with(Options { namespace, ..Options::default() })?;
        postgres.create_database(DATABASE)?;
        let place = Place { address: IpAddr::V4(CORE), ..Place::inside(&core) };
        let url = postgres.database_url(DATABASE);
        let control_plane = ControlPlane::start(programs.control_plane.clone(), &url, place)?;
        Ok(Self { control_plane, postgres, core, programs })
    }

    /// A namespace that can reach the control plane. `number` (0 to 63) is its own.
    pub fn member(&self, label: &str, number: u8) -> Result<Namespace> {
        let member = Namespace::new(label)?;
        let end = format!("to-{label}");
        let management = Veth { arp: true, offloads: true, ..Veth::default() };
        management.join(
            End { namespace: Some(&self.core), interface: &end },
            End { namespace: Some(&member), interface: "mgmt" },
        )?;
        let (near, far) = ([198, 18, 1, number * 4 + 1], [198, 18, 1, number * 4 + 2]);
        let (near, far) = (Ipv4Addr::from(near).to_string(), Ipv4Addr::from(far).to_string());
        self.core.ip(&["addr", "add", &format!("{near}/30"), "dev", &end])?;
        member.ip(&["addr", "add", &format!("{far}/30"), "dev", "mgmt"])?;
        member.ip(&["route", "add", &CORE.to_string(), "via", &near])?;
        Ok(member)
    }

    /// Registers a sensor and starts it in a member.
    pub fn sensor(&self, name: &str, watch: &Watch, member: &Namespace) -> Result<Sensor> {
        let token = self.control_plane.add_sensor(name)?;
        let url = self.control_plane.url();
        Sensor::start(&self.programs.sensor, watch, &url, &token, &Place::inside(member))
    }

    /// Starts a sensor that was enrolled: its credential is where its environment says.
    pub fn enrolled(&self, watch: &Watch, url: &str, member: &Namespace) -> Result<Sensor> {
        Sensor::start(&self.programs.sensor, watch, url, "unused", &Place::inside(member))
    }

    /// The sensor's program, for its other commands.
    #[must_use]
    pub fn sensor_program(&self) -> &Path {
        &self.programs.sensor
    }

    /// Another instance of the control plane on the same database, over TLS with a certificate of its own making.
    pub fn secure(&self, port: u16) -> Result<Secure> {
        self.secure_with(port, "")
    }

    /// The same with more lines in `[tls]`.
    pub fn secure_with(&self, port: u16, more: &str) -> Result<Secure> {
        let folder = Scratch::new("secure")?;
        let config = folder.path().join("config.toml");
        let state = folder.path().join("state");
        let text = format!(
            "listen = \"{CORE}:{port}\"\n[database]\nurl = \"{}\"\n[log]\nformat = \"text\"\n\
             [tls]\nself_signed = true\nstate_folder = \"{}\"\n{more}\n",
            self.postgres.database_url(DATABASE),
            state.display()
        );
        std::fs::write(&config, text).map_err(Error::io(format!("write {}", config.display())))?;
        let listening = folder.path().join("address");
        let mut process = Launch::new(&self.programs.control_plane)
            .in_namespace(self.core.path())
            .args(["serve", "--config"])
            .arg(&config)
            .arg("--listen-file")
            .arg(&listening)
            .spawn("weir-control-plane with TLS", folder.path().join("log"))?;
        process.wait_until("it listens", GIVE_UP, || listening.exists())?;
        let log = process.log();
        let fingerprint = log.split("fingerprint=").nth(1).map(|rest| {
            let digits = |char: &char| char.is_ascii_hexdigit();
            rest.trim_start_matches('"').chars().take_while(digits).collect::<String>()
        });
        let fingerprint =
            fingerprint.ok_or_else(|| Error::malformed("the log of an instance with TLS", log))?;
        Ok(Secure {
            _process: process,
            url: format!("https://{CORE}:{port}"),
            fingerprint,
            namespace: self.core.path().to_owned(),
            config,
            program: self.programs.control_plane.clone(),
            _folder: folder,
        })
    }

    /// Runs SQL in the control plane's database; rows are lines, columns split by `|`.
    pub fn sql(&self, sql: &str) -> Result<String> {
        self.postgres.sql(DATABASE, sql)
    }

    /// Takes the member's link to the core down, or up again.
    pub fn link(&self, member: &str, up: bool) -> Result<()> {
        // The core's end: the member keeps its routes, as a host does whose switch went away.
        let end = format!("to-{member}");
        self.core.ip(&["link", "set", "dev", &end, if up { "up" } else { "down" }]).map(|_| ())
    }

    /// Drops so many (1 to 100) of a hundred packets that come from the member, until [`Self::pass_packets`].
    pub fn drop_packets(&self, member: &str, of_hundred: u8) -> Result<()> {
        let rules = format!(
            "add table inet faults; \
             add chain inet faults input {{ type filter hook input priority 0; }}; \
             add rule inet faults input iifname \"to-{member}\" numgen random mod 100 <= {} drop",
            of_hundred - 1
        );
        self.core.launch("nft").arg(rules).run().map(|_| ())
    }

    pub fn pass_packets(&self) -> Result<()> {
        self.core.launch("nft").args(["delete", "table", "inet", "faults"]).run().map(|_| ())
    }

    /// The ledger of a sensor as soon as `settled` says so; a panic that shows it if that never comes.
    pub fn ledger_when(&self, sensor: &str, what: &str, settled: impl Fn(&Ledger) -> bool) -> Ledger {
        let deadline = Instant::now() + GIVE_UP;
        loop {
            // The control plane may be down at this moment: tests restart it.
            let ledger = self.control_plane.ledger(sensor);
            if let Ok(ledger) = &ledger
                && settled(ledger)
            {
                return ledger.clone();
            }
            assert!(Instant::now() < deadline, "{what} did not come within {GIVE_UP:?}: {ledger:#?}");
            thread::sleep(POLL);
        }
    }
}

/// Waits until this holds; a panic that says `what` if it never does.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + GIVE_UP;
    while !holds() {
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        thread::sleep(POLL);
    }
}

/// An instance of the control plane that speaks TLS.
pub struct Secure {
    // Declared before the folder: the process ends before its files go.
    _process: Process,
    pub url: String,
    /// SHA-256 of its certificate.
    pub fingerprint: String,
    namespace: PathBuf,
    config: PathBuf,
    program: PathBuf,
    _folder: Scratch,
}

impl Secure {
    /// Runs a command of the control plane with this instance's settings; gives what it prints.
    pub fn command(&self, arguments: &[&str]) -> Result<String> {
        let launch = Launch::new(&self.program).in_namespace(&self.namespace).args(arguments);
        launch.arg("--config").arg(&self.config).run()
    }
}

/// A wire between two members, without a stray frame on it.
pub fn wire(left: (&Namespace, &str), right: (&Namespace, &str), veth: Veth) -> Result<()> {
    veth.join(
        End { namespace: Some(left.0), interface: left.1 },
        End { namespace: Some(right.0), interface: right.1 },
    )
}
