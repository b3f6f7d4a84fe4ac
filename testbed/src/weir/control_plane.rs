//! A control plane: its folder with configuration and tokens, its process, its API.

use std::fs;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::ledger::{Flow, Ledger};
use crate::http::Client;
use crate::netns::Namespace;
use crate::postgres::free_port;
use crate::process::{Launch, Process, Signal};
use crate::scratch::{Scratch, serial};
use crate::{Error, Result};

/// Migrations run before it is ready.
const READY_WITHIN: Duration = Duration::from_mins(1);
const STOP_WITHIN: Duration = Duration::from_secs(40);

/// Where a program lives: a namespace (the caller's own if none) and the address that it listens on.
#[derive(Clone, Debug)]
pub struct Place {
    pub namespace: Option<PathBuf>,
    pub address: IpAddr,
}

impl Place {
    /// This host's loopback.
    #[must_use]
    pub fn here() -> Self {
        Self { namespace: None, address: Ipv4Addr::LOCALHOST.into() }
    }

    /// A namespace's loopback.
    #[must_use]
    pub fn inside(namespace: &Namespace) -> Self {
        Self { namespace: Some(namespace.path().to_owned()), ..Self::here() }
    }

    /// A free port of this place.
    pub(super) fn free_port(&self) -> Result<u16> {
        match &self.namespace {
            None => free_port(),
            Some(path) => crate::netns::enter(path, free_port)?,
        }
    }

    pub(super) fn launch(&self, program: &Path) -> Launch {
        let launch = Launch::new(program);
        match &self.namespace {
            Some(path) => launch.in_namespace(path),
            None => launch,
        }
    }
}

/// A running control plane. All methods take `&self`: a test restarts it while others use it.
#[derive(Debug)]
pub struct ControlPlane {
    // Declared before the folder: the process ends before its files go.
    process: Mutex<Option<Process>>,
    program: PathBuf,
    place: Place,
    listen: SocketAddr,
    admin_token: String,
    folder: Scratch,
}

impl ControlPlane {
    /// Starts one on a free port and waits until it is ready.
    pub fn start(program: PathBuf, database_url: &str, place: Place) -> Result<Self> {
        let listen = SocketAddr::new(place.address, place.free_port()?);
        Self::start_at(program, database_url, place, listen.port())
    }

    /// The same, on a port that the caller chose.
    pub fn start_at(program: PathBuf, database_url: &str, place: Place, port: u16) -> Result<Self> {
        let folder = Scratch::new("control-plane")?;
        let admin_token = token()?;
        let listen = SocketAddr::new(place.address, port);
        let shown = |name: &str| folder.path().join(name).display().to_string();
        let config = format!(
            "listen = \"{listen}\"\n\
             [database]\nurl_file = \"{}\"\n\
             [auth]\nadmin_token_file = \"{}\"\n\
             [log]\nformat = \"text\"\n",
            shown("database.url"),
            shown("admin.token"),
        );
        for (name, text) in [
            ("config.toml", &config),
            ("database.url", &database_url.to_owned()),
            ("admin.token", &admin_token),
        ] {
            let path = folder.path().join(name);
            fs::write(&path, text).map_err(Error::io(format!("write {}", path.display())))?;
        }
        let control_plane = Self { process: Mutex::new(None), program, place, listen, admin_token, folder };
        control_plane.start_again()?;
        Ok(control_plane)
    }

    /// Starts it again after [`Self::stop`] or [`Self::kill`], on the same port; waits until it is ready.
    pub fn start_again(&self) -> Result<()> {
        let mut running = self.process();
        if running.is_some() {
            return Ok(());
        }
        let log = self.folder.path().join(format!("log-{}", serial()));
        let mut process = self.command("serve").spawn("weir-control-plane", log)?;
        let open = self.open();
        process.wait_until("it is ready", READY_WITHIN, || open.is_ok("/readyz"))?;
        *running = Some(process);
        Ok(())
    }

    /// `http://ADDRESS:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.listen)
    }

    #[must_use]
    pub fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// The API as an operator.
    #[must_use]
    pub fn api(&self) -> Client {
        self.api_as(&self.admin_token)
    }

    /// The API without a credential.
    #[must_use]
    pub fn open(&self) -> Client {
        Client::new(&self.url(), None).inside(self.place.namespace.clone())
    }

    /// Registers a sensor; gives its token.
    pub fn add_sensor(&self, name: &str) -> Result<String> {
        let printed = self.command("sensor").args(["add", name, "--json"]).run()?;
        let added = printed.lines().find_map(|line| serde_json::from_str::<Value>(line).ok());
        let token = added.as_ref().and_then(|added| added["token"].as_str()).map(str::to_owned);
        token.ok_or_else(|| Error::malformed("weir-control-plane sensor add", printed))
    }

    /// Takes a sensor's right to send away, for good.
    pub fn revoke_sensor(&self, name: &str) -> Result<()> {
        self.command("sensor").args(["revoke", name, "--json"]).run().map(|_| ())
    }

    /// The API as a sensor.
    #[must_use]
    pub fn api_as(&self, token: &str) -> Client {
        Client::new(&self.url(), Some(token)).inside(self.place.namespace.clone())
    }

    /// The ledger of a sensor over all that it ever sent.
    pub fn ledger(&self, sensor: &str) -> Result<Ledger> {
        Ledger::read(&self.api(), sensor)
    }

    /// Every flow that a sensor ever sent, newest first.
    pub fn flows(&self, sensor: &str) -> Result<Vec<Flow>> {
        Flow::all(&self.api(), sensor)
    }

    /// SIGTERM, and its exit status.
    pub fn stop(&self) -> Result<ExitStatus> {
        self.end(Signal::SIGTERM)
    }

    /// SIGKILL: no goodbye to anyone.
    pub fn kill(&self) -> Result<ExitStatus> {
        self.end(Signal::SIGKILL)
    }

    /// Its configuration, and a log for each of its starts.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The id of its process, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.process().as_ref().map(Process::id)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listen
    }

    /// What it has logged since its last start.
    #[must_use]
    pub fn log(&self) -> String {
        self.process().as_ref().map(Process::log).unwrap_or_default()
    }

    fn end(&self, signal: Signal) -> Result<ExitStatus> {
        let Some(mut process) = self.process().take() else {
            return Err(Error::malformed("stop the control plane", "it is not running"));
        };
        process.signal(signal)?;
        process.wait(STOP_WITHIN)
    }

    fn command(&self, subcommand: &str) -> Launch {
        let config = self.folder.path().join("config.toml");
        self.place.launch(&self.program).env("WEIR_CONTROL_PLANE_CONFIG", config).arg(subcommand)
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        // A panic elsewhere leaves the process as it was.
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// 256 random bits as hexadecimal digits.
fn token() -> Result<String> {
    use std::fmt::Write as _;
    let mut bytes = [0_u8; 32];
    let mut random = fs::File::open("/dev/urandom").map_err(Error::io("open /dev/urandom"))?;
    random.read_exact(&mut bytes).map_err(Error::io("read /dev/urandom"))?;
    Ok(bytes.iter().fold(String::new(), |mut token, byte| {
        let _ = write!(token, "{byte:02x}");
        token
    }))
}
