//! `weir-sensor enroll` and `weir-sensor rotate`

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;

use super::EXIT_INPUT;
use super::run::Configuration;
use crate::config::{ControlPlane, Secret};
use crate::control::{self, Credential, Enrollment, Fingerprint};

const ENROLL: &str = "Examples:
  weir-sensor enroll https://weir.example.org weir_e_…
      as the enrolment says; the credential goes to /var/lib/weir-sensor/token
  weir-sensor enroll https://10.0.0.5:8443 - --fingerprint 3f2a… < token
      a server with a self-signed certificate; the token does not show in the list of processes
  weir-sensor enroll https://weir.example.org weir_e_… --ca-file /etc/weir/ca.pem --name edge-7
      a private CA, and a name of this host's own

The token works once: ask for it with `POST /api/v1/enrollments`. The configuration gets a [control_plane] section
if it has none.";

const ROTATE: &str = "Examples:
  weir-sensor rotate --config /etc/weir/sensor.toml
      control_plane.token_file has the next credential; a running sensor takes it by itself

The one before works until the next one was used.";

/// Trades a one-time token for a credential of this host's own.
#[derive(Debug, Args)]
#[command(after_help = ENROLL)]
pub(super) struct Enroll {
    /// Where the control plane is, such as `https://weir.example.org`
    url: String,
    /// The enrolment's token, or - to read it from standard input
    token: String,
    /// What this host is to be called, where the enrolment leaves that open; the host's own name unless said
    #[arg(long)]
    name: Option<String>,
    /// PEM certificates to trust in addition to the system's
    #[arg(long, value_name = "FILE", conflicts_with = "fingerprint")]
    ca_file: Option<PathBuf>,
    /// Trust the server whose certificate has this SHA-256 fingerprint, and no other
    #[arg(long, value_name = "HEX")]
    fingerprint: Option<Fingerprint>,
    /// Where the credential goes
    #[arg(long, value_name = "FILE", default_value = "/var/lib/weir-sensor/token")]
    token_file: PathBuf,
    /// The configuration that gets the section
    #[arg(long, short, value_name = "FILE", default_value = "/etc/weir/sensor.toml")]
    config: PathBuf,
    /// Replace the credential that this host has
    #[arg(long)]
    replace: bool,
}

/// Replaces this sensor's credential.
#[derive(Debug, Args)]
#[command(after_help = ROTATE)]
pub(super) struct Rotate {
    #[command(flatten)]
    configuration: Configuration,
}

pub(super) fn enroll(arguments: Enroll) -> anyhow::Result<ExitCode> {
    let token = if arguments.token == "-" { from_input()? } else { arguments.token };
    let pin = arguments
        .fingerprint
        .map(|fingerprint| (fingerprint, arguments.token_file.with_file_name("control-plane.pem")));
    let ca_file = arguments.ca_file.map(std::path::absolute).transpose().context("find --ca-file")?;
    let control_plane = ControlPlane {
        url: arguments.url,
        token: None,
        token_file: Some(std::path::absolute(&arguments.token_file).context("find --token-file")?),
        timeout: ControlPlane::default_timeout(),
        identity_file: None,
        ca_file,
    };
    // Not after the token is used.
    let text = section(&Section {
        ca_file: pin.as_ref().map(|(_, file)| file).or(control_plane.ca_file.as_ref()),
        control_plane: &control_plane,
    });
    let wanted = Enrollment {
        control_plane,
        token: Secret::new(token.trim().to_owned()),
        name: arguments.name,
        own_name: own_name(),
        pin,
        replace: arguments.replace,
    };
    let enrolled = runtime()?.block_on(control::enroll(&wanted))?;
    eprintln!(
        "enrolled as {} (id {}); the credential is in {}",
        enrolled.name,
        enrolled.sensor_id,
        arguments.token_file.display()
    );
    if enrolled.certified {
        eprintln!("it has a certificate, too, which it renews by itself");
    }
    match add_section(&arguments.config, &text) {
        Ok(true) => eprintln!("{} has its [control_plane] now", arguments.config.display()),
        Ok(false) => {
            eprintln!("{} has a [control_plane] already; it should say:", arguments.config.display());
            print!("{text}");
        }
        Err(error) => {
            eprintln!("weir-sensor: {error:#}; put this into the configuration:");
            print!("{text}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn rotate(arguments: &Rotate) -> anyhow::Result<ExitCode> {
    let config = match arguments.configuration.load() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("weir-sensor: {error}");
            return Ok(ExitCode::from(EXIT_INPUT));
        }
    };
    let Some(control_plane) = &config.control_plane else {
        bail!("there is no [control_plane] in the configuration, and so no credential");
    };
    let credential = Credential::open(control_plane)?;
    runtime()?.block_on(control::renew(control_plane, &credential))?;
    eprintln!(
        "the next credential is in control_plane.token_file; the one before ends when this one is used"
    );
    Ok(ExitCode::SUCCESS)
}

struct Section<'a> {
    control_plane: &'a ControlPlane,
    ca_file: Option<&'a PathBuf>,
}

fn section(section: &Section<'_>) -> String {
    // Paths and addresses are quoted as TOML has it.
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let path = |path: &Path| quoted(&path.display().to_string());
    let mut text = format!("[control_plane]\nurl = {}\n", quoted(&section.control_plane.url));
    if let Some(file) = &section.control_plane.token_file {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "token_file = {}", path(file));
    }
    if let Some(file) = section.ca_file {
        let _ = writeln!(text, "ca_file = {}", path(file));
    }
    text
}

/// Adds the section at the end of the file, unless there is one; whether it did.
fn add_section(config: &Path, section: &str) -> anyhow::Result<bool> {
    let text = match std::fs::read_to_string(config) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("read {}", config.display())),
    };
    let table: toml::Table = text.parse().with_context(|| format!("read {}", config.display()))?;
    if table.contains_key("control_plane") {
        return Ok(false);
    }
    let gap = if text.is_empty() || text.ends_with("\n\n") { "" } else { "\n" };
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(config)
        .and_then(|mut file| file.write_all(format!("{end}{gap}{section}").as_bytes()))
        .with_context(|| format!("write {}", config.display()))?;
    Ok(true)
}

fn from_input() -> anyhow::Result<String> {
    let mut text = String::new();
    // A token is far shorter; whatever else stands there is none.
    std::io::stdin().take(4_096).read_to_string(&mut text).context("read the token")?;
    Ok(text)
}

/// The host's own, where it can be a sensor's.
fn own_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// U4: what was there stays, and a section is added once.
    #[test]
    fn u4_a_configuration_gets_its_section_once_and_keeps_its_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("sensor.toml");
        let section = "[control_plane]\nurl = \"https://weir.example\"\ntoken_file = \"/t\"\n";
        std::fs::write(&path, "# mine\nepoch = \"1s\"\n[log]\nlevel = \"info\"").expect("it is written");
        assert!(add_section(&path, section).expect("it is added"));
        assert!(!add_section(&path, section).expect("it is there"));
        let text = std::fs::read_to_string(&path).expect("it is there");
        assert!(text.starts_with("# mine\nepoch = \"1s\"\n"), "{text}");
        let table: toml::Table = text.parse().expect("it is TOML");
        assert_eq!(table["control_plane"]["url"].as_str(), Some("https://weir.example"));

        let new = folder.path().join("new.toml");
        assert!(add_section(&new, section).expect("it is made"));
        assert_eq!(std::fs::read_to_string(&new).expect("it is there"), section);
    }
}
