//! A sensor: its folder with configuration and token, its process, its metrics.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use super::control_plane::Place;
use crate::http::Client;
use crate::process::{Process, Signal};
use crate::scratch::Scratch;
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
        }
    }

    /// One more interface.
    #[must_use]
    pub fn and(mut self, name: &str, ingress: &'static str, egress: &'static str) -> Self {
        self.interfaces.push((name.to_owned(), ingress, egress));
        self
    }

    fn config(&self, url: &str, token_file: &Path, metrics: SocketAddr) -> String {
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
        config
    }
}

/// A running sensor; dropping it kills it.
#[derive(Debug)]
pub struct Sensor {
    // Declared before the folder: the process ends before its files go.
    process: Process,
    metrics: SocketAddr,
    namespace: Option<PathBuf>,
    _folder: Scratch,
}

impl Sensor {
    /// Starts one and waits until its programs are attached.
    pub fn start(program: &Path, watch: &Watch, url: &str, token: &str, place: &Place) -> Result<Self> {
        let folder = Scratch::new("sensor")?;
        let port = watch.metrics_port.map_or_else(|| place.free_port(), Ok)?;
        let metrics = SocketAddr::new(place.address, port);
        let path = |name: &str| folder.path().join(name);
        let config = watch.config(url, &path("token"), metrics);
        for (name, text) in [("config.toml", config.as_str()), ("token", token)] {
            fs::write(path(name), text).map_err(Error::io(format!("write {}", path(name).display())))?;
        }
        let launch = place.launch(program).args(["run", "--config"]).arg(path("config.toml"));
        let mut process = launch.spawn("weir-sensor", path("log"))?;
        let open = Client::new(&format!("http://{metrics}"), None).inside(place.namespace.clone());
        // Not `/readyz`: that waits for the first epoch to be delivered, and a test may want it long.
        process.wait_until("its programs are attached", READY_WITHIN, || open.is_ok("/healthz"))?;
        Ok(Self { process, metrics, namespace: place.namespace.clone(), _folder: folder })
    }

    /// `http://ADDRESS:PORT` of its metrics and health.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.metrics)
    }

    /// The sum of a metric over all its labels, from `/metrics`; `None` if there is none of that name.
    pub fn metric(&self, name: &str) -> Result<Option<f64>> {
        let client = Client::new(&self.url(), None).inside(self.namespace.clone());
        let text = client.get("/metrics")?.body;
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

    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }
}
