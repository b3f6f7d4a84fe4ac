//! `serve`: start, wait for a signal, stop.

use std::path::Path;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use weir_control_plane::{server, telemetry};

use crate::cli::Serve;

pub async fn run(arguments: Serve) -> anyhow::Result<()> {
    let config = super::settings(&arguments.settings)?;
    if arguments.print_config {
        print!("{}", toml::to_string(&config).context("print the settings")?);
        return Ok(());
    }
    telemetry::init_log(&config.log);
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut hangup = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let server = tokio::select! {
        server = server::start(&config) => server?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    if let Some(path) = &arguments.listen_file {
        write_whole(path, &server.address.to_string())?;
    }
    loop {
        tokio::select! {
            _ = terminate.recv() => {
                tracing::info!(signal = "SIGTERM", "stopping");
                break;
            }
            _ = interrupt.recv() => {
                tracing::info!(signal = "SIGINT", "stopping");
                break;
            }
            _ = hangup.recv() => {
                if let Some(tls) = &server.tls {
                    tls.reload();
                }
            }
        }
    }
    server.stop().await;
    Ok(())
}

/// A reader sees no file or the whole line.
fn write_whole(path: &Path, line: &str) -> anyhow::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let unfinished = path.with_file_name(name);
    std::fs::write(&unfinished, format!("{line}\n"))
        .and_then(|()| std::fs::rename(&unfinished, path))
        .with_context(|| format!("write {}", path.display()))
}
