//! A private Postgres server: its own folder, a free port on 127.0.0.1, no password, gone on drop.
//!
//! The server refuses to run as root; there, it runs as the `postgres` user, which the Debian package
//! makes. Tests turn `fsync` off; a bench turns it on with [`Options::durable`].

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::unistd::{User, geteuid};

use crate::process::{Launch, Process, Signal};
use crate::scratch::Scratch;
use crate::{Error, Result};

/// Debian's folder of server versions.
const DEBIAN: &str = "/usr/lib/postgresql";
/// The unprivileged user that runs the server when this process is root.
const SERVER_USER: &str = "postgres";
/// Generous: a crashed server replays its log first, and CI has two busy cores.
const START_WITHIN: Duration = Duration::from_mins(1);
const STOP_WITHIN: Duration = Duration::from_mins(1);
/// A free port may be taken between the look and the bind.
const PORT_TRIES: u32 = 5;

/// How the server is set.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Writes reach the disk before a commit is acknowledged, as in production.
    pub durable: bool,
    /// Further `postgresql.conf` settings; the last one of a name wins.
    pub settings: Vec<(String, String)>,
    /// Path of the network namespace to live in, with its loopback address; the caller's unless set.
    pub namespace: Option<PathBuf>,
}

/// A running server. All methods take `&self`: tests share one.
#[derive(Debug)]
pub struct Postgres {
    // Declared before the folder: the server ends before its files go.
    server: Mutex<Option<Process>>,
    programs: Programs,
    options: Options,
    port: u16,
    folder: Scratch,
}

impl Postgres {
    /// A server set for tests: fast, not durable, in memory where there is plenty.
    pub fn start() -> Result<Self> {
        Self::start_with(Options::default())
    }

    pub fn start_with(options: Options) -> Result<Self> {
        let programs = Programs::find(options.namespace.clone())?;
        let folder = if options.durable { Scratch::new("postgres") } else { Scratch::in_memory("postgres") }?;
        programs.give(folder.path())?;
        programs
            .launch("initdb")
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"])
            .args(["--no-sync", "--no-instructions", "--pgdata"])
            .arg(folder.path().join("pgdata"))
            .current_dir(folder.path())
            .run()?;
        let mut postgres = Self { server: Mutex::new(None), programs, options, port: 0, folder };
        let mut tries = 1;
        loop {
            postgres.port = free_port()?;
            match postgres.start_again() {
                Err(Error::Ended { log, .. })
                    if tries < PORT_TRIES && log.contains("Address already in use") =>
                {
                    tries += 1;
                }
                Err(error) => return Err(error),
                Ok(()) => return Ok(postgres),
            }
        }
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address of a database for any client: `postgres://postgres@127.0.0.1:PORT/NAME`.
    #[must_use]
    pub fn database_url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes an empty database.
    pub fn create_database(&self, name: &str) -> Result<()> {
        let create = format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\""));
        self.sql("postgres", &create).map(|_| ())
    }

    /// Runs SQL through psql; gives the rows unaligned, columns split by `|`.
    pub fn sql(&self, database: &str, sql: &str) -> Result<String> {
        self.programs
            .launch("psql")
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", &self.database_url(database), "-c", sql])
            .current_dir(self.folder.path())
            .run()
    }

    /// Stops the server as an operator would (`fast`): open transactions are rolled back, the rest is
    /// written. Fine if it is stopped already.
    pub fn stop(&self) -> Result<()> {
        self.end(Signal::SIGINT)
    }

    /// [`Self::crash`], and starts it on the same port: it recovers from its write-ahead log.
    pub fn restart_immediate(&self) -> Result<()> {
        self.crash()?;
        self.start_again()
    }

    /// Starts a stopped server on the port that it had, and waits until it answers.
    pub fn start_again(&self) -> Result<()> {
        let mut server = self.server();
        if server.is_some() {
            return Ok(());
        }
        let mut launch = self
            .programs
            .launch("postgres")
            .arg("-D")
            .arg(self.folder.path().join("pgdata"))
            .args(["-p", &self.port.to_string()])
            // Immediate shutdown: the postmaster takes its children with it.
            .on_parent_death("QUIT")
            .current_dir(self.folder.path());
        for (name, value) in self.settings() {
            launch = launch.arg("-c").arg(format!("{name}={value}"));
        }
        // A log of its own for each start: an old "address in use" must not explain a new failure.
        let log = self.folder.path().join(format!("server-{}.log", crate::scratch::serial()));
        let mut process = launch.spawn("postgres", log)?;
        let port = self.port.to_string();
        process.wait_until("it answers", START_WITHIN, || {
            let ask = self.programs.launch("pg_isready").args(["-q", "-h", "127.0.0.1", "-p", &port]);
            ask.current_dir(self.folder.path()).run().is_ok()
        })?;
        *server = Some(process);
        Ok(())
    }

    /// Its data, and a log for each of its starts.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Kills the server without a checkpoint (`immediate`), as a crash does.
    pub fn crash(&self) -> Result<()> {
        self.end(Signal::SIGQUIT)
    }

    /// What the server has logged since its last start.
    #[must_use]
    pub fn log(&self) -> String {
        self.server().as_ref().map(Process::log).unwrap_or_default()
    }

    fn settings(&self) -> Vec<(String, String)> {
        let sockets = self.folder.path().display().to_string();
        let durable = if self.options.durable { "on" } else { "off" };
        let mut settings: Vec<(String, String)> = [
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", sockets.as_str()),
            ("max_connections", "200"),
            ("shared_buffers", "256MB"),
            ("max_wal_size", "4GB"),
            ("timezone", "UTC"),
            // Never synchronous_commit: `restart_immediate` must find what was acknowledged.
            ("fsync", durable),
            ("full_page_writes", durable),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        settings.extend(self.options.settings.iter().cloned());
        settings
    }

    fn end(&self, signal: Signal) -> Result<()> {
        if let Some(mut server) = self.server().take() {
            server.signal(signal)?;
            server.wait(STOP_WITHIN)?;
        }
        Ok(())
    }

    fn server(&self) -> MutexGuard<'_, Option<Process>> {
        // A panic elsewhere leaves the process as it was.
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGQUIT ends the server's children too; a SIGKILL of the parent alone would leave them.
        if let Err(error) = self.end(Signal::SIGQUIT) {
            eprintln!("stop postgres: {error}");
        }
    }
}

/// Where the server's programs are, and who runs them.
#[derive(Debug)]
struct Programs {
    folder: PathBuf,
    user: Option<User>,
    namespace: Option<PathBuf>,
}

impl Programs {
    fn find(namespace: Option<PathBuf>) -> Result<Self> {
        let folder = newest_debian().or_else(in_path).ok_or_else(|| Error::Missing {
            program: "the Postgres server".to_owned(),
            looked_in: format!("{DEBIAN}/*/bin and PATH"),
        })?;
        if !geteuid().is_root() {
            return Ok(Self { folder, user: None, namespace });
        }
        let user = User::from_name(SERVER_USER)
            .map_err(|errno| Error::io(format!("look up the user {SERVER_USER}"))(errno.into()))?
            .ok_or_else(|| Error::Missing {
                program: format!("the user {SERVER_USER} (the server does not run as root)"),
                looked_in: "/etc/passwd".to_owned(),
            })?;
        Ok(Self { folder, user: Some(user), namespace })
    }

    fn launch(&self, program: &str) -> Launch {
        let mut launch = Launch::new(self.folder.join(program));
        if let Some(namespace) = &self.namespace {
            launch = launch.in_namespace(namespace);
        }
        match &self.user {
            Some(user) => launch.as_user(user.name.clone()),
            None => launch,
        }
    }

    /// Makes a folder the server's own.
    fn give(&self, folder: &Path) -> Result<()> {
        let Some(user) = &self.user else { return Ok(()) };
        chown(folder, Some(user.uid.as_raw()), Some(user.gid.as_raw())).map_err(Error::io(format!(
            "give {} to {}",
            folder.display(),
            user.name
        )))
    }
}

fn newest_debian() -> Option<PathBuf> {
    fs::read_dir(DEBIAN)
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            let folder = entry.path().join("bin");
            folder.join("initdb").exists().then_some((version, folder))
        })
        .max_by_key(|(version, _)| *version)
        .map(|(_, folder)| folder)
}

fn in_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).find(|folder| folder.join("initdb").exists())
}

/// A port of 127.0.0.1 that nobody listens on.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(Error::io("find a free port"))?;
    Ok(listener.local_addr().map_err(Error::io("read a free port"))?.port())
}
