//! A sensor: its folder with configuration and token, its process, its metrics.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use super::control_plane::Place;
use crate::http::Client;
use crate::process::{Process, Signal};
use crate::scratch::{Scratch, serial};
use crate::{Error, Result};

/// Loading and attaching, with the verifier at work on a busy machine.
const READY_WITHIN: Duration = Duration::from_mins(1);
/// Longer than the sensor's own deadline for its last delivery.
const STOP_WITHIN: Duration = Duration::from_mins(1);

/// What a sensor is to do.
#[derive(Clone, Debug)]
pub struct Watch {
    pub epoch: Duration,
    /// Name, ingress mode, egress mode, as its configuration spells them.
    pub interfaces: Vec<(String, &'static str, &'static str)>,
    /// Further TOML, at the top level or in tables that are not written here.
    pub more: String,
    /// Port of its metrics; a free one unless set.
    pub metrics_port: Option<u16>,
    /// The bpffs on which its counting outlives it; none unless set, so that tests cannot meet.
    pub pins: Option<PathBuf>,
    /// What its process finds in its environment, beside what this one has.
    pub env: Vec<(OsString, OsString)>,
}

impl Watch {
    /// One interface.
    #[must_use]
    pub fn interface(name: &str, ingress: &'static str, egress: &'static str) -> Self {
        Self {
            epoch: Duration::from_millis(50),
            interfaces: vec![(name.to_owned(), ingress, egress)],
            more: String::new(),
            metrics_port: None,
            pins: None,
            env: Vec::new(),
        }
    }

    /// One more interface.
    #[must_use]
    pub fn and(mut self, name: &str, ingress: &'static str, egress: &'static str) -> Self {
        self.interfaces.push((name.to_owned(), ingress, egress));
        self
    }

    fn config(&self, url: &str, token_file: &Path, spool: &Path, metrics: SocketAddr) -> String {
        let mut config = format!("epoch = \"{}ms\"\n", self.epoch.as_millis());
        for (name, ingress, egress) in &self.interfaces {
            // Writing to a string cannot fail.
            let _ = write!(
                config,
                "[[interfaces]]\nname = \"{name}\"\ningress = \"{ingress}\"\negress = \"{egress}\"\n"
            );
        }
        let _ = write!(
            config,
            "[control_plane]\nurl = \"{url}\"\ntoken_file = \"{}\"\n[metrics]\nlisten = \"{metrics}\"\n{}",
            token_file.display(),
            self.more
        );
        if !self.more.contains("[spool]") {
            let _ = write!(config, "[spool]\nfolder = \"{}\"\n", spool.display());
        }
        // Tests that want them name a folder of their own: this machine's is shared.
        let _ = match &self.pins {
            Some(folder) => write!(config, "[pins]\nfolder = \"{}\"\n", folder.display()),
            None => write!(config, "[pins]\nenabled = false\n"),
        };
        config
    }
}

/// A sensor; dropping it kills it.
#[derive(Debug)]
pub struct Sensor {
    // Declared before the folder: the process ends before its files go.
    process: Process,
    metrics: SocketAddr,
    url: String,
    place: Place,
    folder: Scratch,
}

impl Sensor {
    /// Starts one and waits until its programs are attached.
    pub fn start(program: &Path, watch: &Watch, url: &str, token: &str, place: &Place) -> Result<Self> {
        let folder = Scratch::new("sensor")?;
        let port = watch.metrics_port.map_or_else(|| place.free_port(), Ok)?;
        let metrics = SocketAddr::new(place.address, port);
        write(&folder.path().join("token"), token)?;
        let process = spawn(program, watch, url, metrics, place, &folder)?;
        Ok(Self { process, metrics, url: url.to_owned(), place: place.clone(), folder })
    }

    /// Starts it again after [`Self::stop`] or [`Self::kill`], as another program or with another
    /// configuration, in the same folder and on the same port.
    pub fn start_again(&mut self, program: &Path, watch: &Watch) -> Result<()> {
        self.process = spawn(program, watch, &self.url, self.metrics, &self.place, &self.folder)?;
        Ok(())
    }

    /// Its configuration, its token, and a log for each of its starts.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `http://ADDRESS:PORT` of its metrics and health.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.metrics)
    }

    /// Its metrics and its health.
    #[must_use]
    pub fn open(&self) -> Client {
        Client::new(&self.url(), None).inside(self.place.namespace.clone())
    }

    /// The sum of a metric over all its labels, from `/metrics`; `None` if there is none of that name.
    pub fn metric(&self, name: &str) -> Result<Option<f64>> {
        let text = self.open().get("/metrics")?.body;
        let samples = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with([' ', '{']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
        });
        Ok(samples.fold(None, |sum, sample| Some(sum.unwrap_or(0.0) + sample)))
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// SIGTERM, and its exit status once it has drained, shipped and ended.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.process.signal(Signal::SIGTERM)?;
        self.process.wait(STOP_WITHIN)
    }

    /// SIGKILL: no goodbye to anyone.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.process.signal(Signal::SIGKILL)?;
        self.process.wait(STOP_WITHIN)
    }

    /// What it has logged since its last start.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }
}

fn spawn(
    program: &Path,
    watch: &Watch,
    url: &str,
    metrics: SocketAddr,
    place: &Place,
    folder: &Scratch,
) -> Result<Process> {
    let path = |name: &str| folder.path().join(name);
    write(&path("config.toml"), &watch.config(url, &path("token"), &path("spool"), metrics))?;
    let mut launch = place.launch(program).args(["run", "--config"]).arg(path("config.toml"));
    for (name, value) in &watch.env {
        launch = launch.env(name, value);
    }
    let mut process = launch.spawn("weir-sensor", path(&format!("log-{}", serial())))?;
    let open = Client::new(&format!("http://{metrics}"), None).inside(place.namespace.clone());
    // Not `/readyz`: that waits for the first epoch to be delivered, and a test may want it long.
    process.wait_until("its programs are attached", READY_WITHIN, || open.is_ok("/healthz"))?;
    Ok(process)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(Error::io(format!("write {}", path.display())))
}
