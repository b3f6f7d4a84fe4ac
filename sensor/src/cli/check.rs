//! `weir-sensor check`

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::run::Configuration;
use super::{EXIT_FAILED, EXIT_INPUT};
use crate::kernel::{self, Finding, Pinning, Verdict};

const EXAMPLES: &str = "Examples:
  weir-sensor check --interface eth0
      what this kernel and this process have for the sensor, and what stands in eth0's way
  weir-sensor check --config /etc/weir/sensor.toml --json | jq 'select(.verdict != \"ok\")'
      one JSON object a finding

Exit code 1 if something is missing that the sensor needs. Needs the same privileges as `run` (CAP_BPF,
CAP_NET_ADMIN, CAP_PERFMON, or root): whether they are there is one of the findings.";

/// Kernel features, privileges and interfaces, each with a verdict and a remedy.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    configuration: Configuration,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    subject: &'a str,
    verdict: &'static str,
    detail: &'a str,
    remedy: Option<&'a str>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = match arguments.configuration.load() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("weir-sensor: {error}");
            return Ok(ExitCode::from(EXIT_INPUT));
        }
    };
    let mut findings = kernel::check();
    // Also with pins off: what is there from before counts on, and nobody drains it.
    let pinning = Pinning::new(&config.pins.folder, &config.pins.name);
    if config.pins.enabled || pinning.path().exists() {
        let interfaces: Vec<String> =
            config.interfaces.iter().map(|interface| interface.name.clone()).collect();
        findings.extend(kernel::check_pins(&pinning, &config.kernel_settings(), &interfaces));
    }
    for interface in &config.interfaces {
        findings.extend(kernel::check_interface(&interface.name));
    }
    findings.extend(crate::threat::check(&config.threats));
    let mut out = std::io::stdout().lock();
    print(&findings, arguments.json, &mut out).context("write the findings")?;
    let missing = findings.iter().any(|finding| finding.verdict == Verdict::Missing);
    Ok(if missing { ExitCode::from(EXIT_FAILED) } else { ExitCode::SUCCESS })
}

fn print(findings: &[Finding], json: bool, out: &mut impl Write) -> std::io::Result<()> {
    let width = findings.iter().map(|finding| finding.subject.chars().count()).max().unwrap_or(0);
    for Finding { subject, verdict, detail, remedy } in findings {
        let verdict = word(*verdict);
        if json {
            let line = Line { subject, verdict, detail, remedy: remedy.as_deref() };
            serde_json::to_writer(&mut *out, &line)?;
            writeln!(out)?;
        } else {
            writeln!(out, "{verdict:<7}  {subject:<width$}  {detail}")?;
            if let Some(remedy) = remedy {
                writeln!(out, "{:<7}  {:<width$}  -> {remedy}", "", "")?;
            }
        }
    }
    out.flush()
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Warning => "warning",
        Verdict::Missing => "missing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(json: bool) -> String {
        let finding = |subject: &str, verdict, remedy: Option<&str>| Finding {
            subject: subject.to_owned(),
            verdict,
            detail: "what was found".to_owned(),
            remedy: remedy.map(str::to_owned),
        };
        let findings = [
            finding("kernel", Verdict::Ok, None),
            finding("interface eth0", Verdict::Missing, Some("plug it in")),
        ];
        let mut out = Vec::new();
        print(&findings, json, &mut out).expect("a Vec takes everything");
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn findings_have_a_verdict_and_a_remedy() {
        let expected = "ok       kernel          what was found\n\
                        missing  interface eth0  what was found\n                         -> plug it in\n";
        assert_eq!(printed(false), expected);
    }

    #[test]
    fn findings_are_lines_of_json() {
        let lines: Vec<serde_json::Value> =
            printed(true).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines[0]["remedy"], serde_json::Value::Null);
        assert_eq!((&lines[1]["verdict"], &lines[1]["remedy"]), (&"missing".into(), &"plug it in".into()));
    }
}
