//! `weir-sensor lists`

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use reqwest::Client;

use super::render;
use super::run::Configuration;
use super::{EXIT_FAILED, EXIT_INPUT};
use crate::config::Threats;
use crate::threat::socket::Which;
use crate::threat::{ListStanding, Standing, stored};

const EXAMPLES: &str = "Examples:
  weir-sensor lists --config /etc/weir/sensor.toml
      each list: version, entries, lines that could not be read, packets hit, dropped, or that would have been
  weir-sensor lists refresh --config /etc/weir/sensor.toml spamhaus-drop
      fetches a list now; without a name all of them
  weir-sensor lists lift --config /etc/weir/sensor.toml
      drops nothing more until the sensor is started again
  weir-sensor lists --json | jq '.lists[] | select(.stale)'

Asks the running sensor by the socket in threats.folder; without one, it shows what stands on disk.
Exit code 1 if a list is stale or was never fetched.";

/// Threat lists of the configuration.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = false)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    configuration: Configuration,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Fetch lists now
    Refresh(Refresh),
    /// Drop nothing more until the sensor is started again
    Lift(Common),
}

#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    configuration: Configuration,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Refresh {
    /// One list; all without it
    #[arg(value_name = "LIST")]
    name: Option<String>,
    /// Take a list also if it has lost more than half of its entries
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (configuration, json) = match &arguments.action {
        None => (&arguments.configuration, arguments.json),
        Some(Action::Refresh(Refresh { common, .. }) | Action::Lift(common)) => {
            (&common.configuration, common.json)
        }
    };
    let config = match configuration.load() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("weir-sensor: {error}");
            return Ok(ExitCode::from(EXIT_INPUT));
        }
    };
    let threats = &config.threats;
    let standing = match &arguments.action {
        None => ask(threats, "lists", None)?.unwrap_or_else(|| stored(threats)),
        Some(Action::Refresh(Refresh { name, force, .. })) => {
            if let Some(name) = name
                && threats.lists.iter().all(|list| list.name != *name)
            {
                eprintln!("weir-sensor: no list is named {name} in the configuration");
                return Ok(ExitCode::from(EXIT_INPUT));
            }
            order(threats, "refresh", &Which { name: name.clone(), force: *force })?
        }
        Some(Action::Lift(_)) => order(threats, "lift", &Which::default())?,
    };
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, &standing).context("write how the lists stand")?;
        writeln!(out).context("write how the lists stand")?;
    } else {
        print(&standing, &mut out).context("write how the lists stand")?;
    }
    let bad = |list: &ListStanding| list.stale || list.version.is_empty();
    Ok(if standing.lists.iter().any(bad) { ExitCode::from(EXIT_FAILED) } else { ExitCode::SUCCESS })
}

/// What only a running sensor can do.
fn order(threats: &Threats, path: &str, which: &Which) -> anyhow::Result<Standing> {
    match ask(threats, path, Some(which))? {
        Some(standing) => Ok(standing),
        None => bail!(
            "no sensor with threat lists answers on {}: is it running, and threats.folder right?",
            threats.socket().display()
        ),
    }
}

/// Asks the running sensor; `None` where there is none.
fn ask(threats: &Threats, path: &str, which: Option<&Which>) -> anyhow::Result<Option<Standing>> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    let socket = threats.socket();
    runtime.block_on(async {
        if tokio::net::UnixStream::connect(&socket).await.is_err() {
            return Ok(None);
        }
        let client = Client::builder().unix_socket(socket).build().context("make the HTTP client")?;
        let url = format!("http://sensor/{path}");
        let request = match which {
            Some(which) => client.post(url).query(which),
            None => client.get(url),
        };
        let response = request.send().await.context("ask the sensor")?;
        if !response.status().is_success() {
            bail!("the sensor answers: {}", response.text().await?);
        }
        response.json().await.context("read the sensor's answer").map(Some)
    })
}

fn print(standing: &Standing, out: &mut impl Write) -> std::io::Result<()> {
    if !standing.running {
        writeln!(out, "no sensor runs: this is what stands on disk")?;
    } else if standing.enforced {
        writeln!(out, "packets are DROPPED on behalf of lists whose action is drop")?;
    } else {
        let why = if standing.enforce { "enforcement is lifted" } else { "threats.enforce is off" };
        writeln!(out, "nothing is dropped ({why})")?;
    }
    if standing.running {
        writeln!(
            out,
            "in the kernel: {} prefixes, beside them {} domains, since {}",
            standing.prefixes,
            standing.domains,
            time(standing.installed_ns)
        )?;
    }
    if let Some(error) = &standing.error {
        writeln!(out, "-> {error}")?;
    }
    for list in &standing.lists {
        let action = if list.drops { "drop" } else { "observe" };
        writeln!(out, "\n{}  {action}  {}", list.name, list.source)?;
        let version = list.version.get(..12).unwrap_or("none");
        let stale = if list.stale { "  STALE" } else { "" };
        writeln!(
            out,
            "  version   {version} of {}, checked {}{stale}",
            time(list.fetched_ns),
            time(list.checked_ns)
        )?;
        writeln!(
            out,
            "  entries   {} prefixes, {} domains, {} lines not read",
            list.prefixes, list.domains, list.errors.count
        )?;
        writeln!(
            out,
            "  packets   {} hit, {} dropped, {} would have been dropped",
            list.hits, list.dropped, list.would_drop
        )?;
        if let Some(error) = &list.error {
            writeln!(out, "  -> {} refreshes failed, the last: {error}", list.failures)?;
        }
        for error in &list.errors.shown {
            writeln!(out, "  line {}: {}: {}", error.line, error.reason, error.text)?;
        }
    }
    out.flush()
}

fn time(ns: i64) -> String {
    if ns == 0 { "never".to_owned() } else { render::time(ns) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::threat::{LineError, LineErrors};

    #[test]
    fn a_list_is_shown_with_what_is_wrong_with_it() {
        let list = ListStanding {
            name: "feed".to_owned(),
            drops: true,
            version: "0123456789abcdef".to_owned(),
            prefixes: 7,
            errors: LineErrors {
                count: 1,
                shown: vec![LineError { line: 9, text: "x".to_owned(), reason: "no entry".to_owned() }],
            },
            stale: true,
            would_drop: 42,
            failures: 3,
            error: Some("no route".to_owned()),
            ..ListStanding::default()
        };
        let standing = Standing { running: true, lists: vec![list], ..Standing::default() };
        let mut out = Vec::new();
        print(&standing, &mut out).expect("a Vec takes everything");
        let text = String::from_utf8(out).expect("UTF-8");
        for part in [
            "nothing is dropped",
            "0123456789ab of never",
            "STALE",
            "42 would have been",
            "line 9:",
            "3 refreshes failed, the last: no route",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
