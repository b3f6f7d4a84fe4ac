//! `ca show`, `ca rotate`: the authority that signs sensors' certificates.

use std::time::SystemTime;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use serde_json::json;
use weir_control_plane::authority::{self, Authority};
use weir_control_plane::listener::fingerprint;
use weir_control_plane::store::audit::Author;
use weir_control_plane::store::authority as store;

use crate::cli::{Ca as Arguments, CaCommand, RotateCa, ShowCa};

pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        CaCommand::Show(arguments) => show(arguments).await,
        CaCommand::Rotate(arguments) => rotate(arguments).await,
    }
}

async fn show(arguments: ShowCa) -> anyhow::Result<()> {
    let pool = super::connect_migrated(&arguments.settings).await?;
    let found = store::trusted(&pool).await.context("read the authorities")?;
    if found.is_empty() {
        bail!("there is no authority: the server makes one when it starts with tls.client_auth");
    }
    for authority in &found {
        print(authority, arguments.json);
    }
    Ok(())
}

async fn rotate(arguments: RotateCa) -> anyhow::Result<()> {
    let settings = super::settings(&arguments.settings)?;
    let pool = super::connect_migrated(&arguments.settings).await?;
    let offered = authority::make(settings.tls.client_ca_lasts()).context("make an authority")?;
    let author = Author::command_line();
    let lead = if arguments.now { Authority::LEAD_NOW } else { Authority::LEAD };
    let trusted = store::rotate(&pool, &author, &offered, lead, arguments.now)
        .await
        .context("put the authority in its place")?;
    for authority in &trusted {
        print(authority, arguments.json);
    }
    Ok(())
}

fn print(authority: &store::Authority, as_json: bool) {
    let fingerprint = fingerprint(&authority.certificate);
    let pem = authority::pem(&authority.certificate);
    let time =
        |at: SystemTime| Timestamp::try_from(at).map_or_else(|_| "?".to_owned(), |at| format!("{at:.0}"));
    let state = match (authority.followed, authority.signs_from <= SystemTime::now()) {
        (true, _) => "trusted",
        (false, true) => "signs",
        (false, false) => "next",
    };
    if as_json {
        let line = json!({
            "id": authority.ca_id, "state": state, "fingerprint": fingerprint,
            "created_at": time(authority.created_at), "signs_from": time(authority.signs_from),
            "expires_at": time(authority.expires_at), "trusted_until": authority.trusted_until.map(time),
            "certificate": pem,
        });
        println!("{line}");
        return;
    }
    println!("authority {} ({state})", authority.ca_id);
    println!("  SHA-256  {fingerprint}");
    println!("  signs    from {}", time(authority.signs_from));
    println!("  ends     {}", time(authority.expires_at));
    if let (true, Some(until)) = (authority.followed, authority.trusted_until) {
        println!("  trusted  until {}, the end of the last certificate that it signed", time(until));
    }
    print!("{pem}");
}
