//! A real Prometheus with rules of ours, and the tools that check such rules.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::http::Client;
use crate::netns::Namespace;
use crate::process::{Launch, Process};
use crate::scratch::Scratch;
use crate::{Error, Result};

const READY_WITHIN: Duration = Duration::from_mins(1);

/// `promtool`, `amtool` or `prometheus`: where `cargo xtask setup` put it, else from PATH.
pub fn tool(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe().map_err(Error::io("find this test's own file"))?;
    let ours = test.ancestors().map(|folder| folder.join("tools/bin").join(name));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = std::env::split_paths(&path).map(|folder| folder.join(name));
    ours.chain(system)
        .find(|path| path.is_file())
        .ok_or_else(|| Error::malformed(name, "it is not there; run `cargo xtask setup`"))
}

/// A server that scrapes every second; dropping it ends it.
pub struct Prometheus {
    // Declared before the folder: the process ends before its files go.
    process: Process,
    client: Client,
    _folder: Scratch,
}

impl Prometheus {
    /// Starts one in a namespace, with a file of rules and the addresses of each job.
    pub fn start(namespace: &Namespace, rules: &Path, jobs: &[(&str, &str)]) -> Result<Self> {
        let folder = Scratch::new("prometheus")?;
        let targets: Vec<String> = jobs
            .iter()
            .map(|(job, address)| {
                format!("  - job_name: {job}\n    static_configs: [{{targets: [\"{address}\"]}}]\n")
            })
            .collect();
        let targets = targets.concat();
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
             rule_files: [\"{}\"]\nscrape_configs:\n{targets}",
            rules.display()
        );
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, config).map_err(Error::io(format!("write {}", file.display())))?;
        // The namespace is this test's alone: nothing else listens there.
        let listen = "127.0.0.1:9090";
        let launch = Launch::new(tool("prometheus")?)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={listen}"))
            .in_namespace(namespace.path());
        let mut process = launch.spawn("prometheus", folder.path().join("log"))?;
        let client = Client::new(&format!("http://{listen}"), None).inside(Some(namespace.path().to_owned()));
        process.wait_until("it is ready", READY_WITHIN, || client.is_ok("/-/ready"))?;
        Ok(Self { process, client, _folder: folder })
    }

    /// Whether there is a sample of this name now.
    pub fn has(&self, metric: &str) -> Result<bool> {
        let answer = self.client.json(&format!("/api/v1/query?query=count({metric})"))?;
        Ok(answer["data"]["result"].as_array().is_some_and(|samples| !samples.is_empty()))
    }

    /// All alert rules, as the server has them.
    pub fn rules(&self) -> Result<Vec<Value>> {
        let answer = self.client.json("/api/v1/rules?type=alert")?;
        let groups = answer["data"]["groups"].as_array().cloned().unwrap_or_default();
        Ok(groups
            .into_iter()
            .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default())
            .collect())
    }

    #[must_use]
    pub fn log(&self) -> String {
        self.process.log_tail()
    }
}
