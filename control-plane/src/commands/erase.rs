//! `user remove` and `sensor remove`: both steps of an erasure, the second one only if it is meant.

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};
use weir_control_plane::auth::EraseToken;
use weir_control_plane::store::audit::Author;
use weir_control_plane::store::erasure::{self, Confirmation, EraseError, Subject};

use weir_control_plane::config::Overrides;

use crate::cli::Erase;

/// Says what would go; with `--yes` begins, and the server does the rest.
pub async fn run(settings: &Overrides, subject: Subject, how: &Erase) -> anyhow::Result<()> {
    let pool = super::connect_migrated(settings).await?;
    let author = Author::command_line();
    let kind = subject.kind().name();
    let token = EraseToken::generate().context("make a confirmation")?;
    let plan = match erasure::plan(&pool, &author, &subject, &token.sha256()).await {
        Err(EraseError::Running(id)) => bail!("the {kind} is being erased already (erasure {id})"),
        planned => planned.with_context(|| format!("remove the {kind}"))?,
    };
    let (name, id) = (&plan.name, plan.subject_id);
    if !how.yes {
        if how.json {
            let places: Map<String, Value> =
                plan.places.iter().map(|(place, count)| ((*place).to_owned(), json!(count))).collect();
            println!("{}", json!({"id": id, "name": name, "state": "not removed", "places": places}));
        } else {
            println!("{kind} {name} (id {id}) is not removed; this would go:");
            for (place, count) in &plan.places {
                let count = count.map_or_else(|| "not counted".to_owned(), |count| count.to_string());
                println!("  {place:<20} {count:>12}");
            }
            println!("add --yes to remove it");
        }
        return Ok(());
    }
    let confirmation = Confirmation { token_sha256: &token.sha256() };
    let begun = erasure::begin(&pool, &author, &subject, confirmation)
        .await
        .with_context(|| format!("remove {kind} {name}"))?;
    let erasure_id = begun.erasure.erasure_id;
    if how.json {
        println!("{}", json!({"id": id, "name": name, "state": "deleting", "erasure": erasure_id}));
    } else {
        println!("{kind} {name} (id {id}) is removed; the server erases the rest (erasure {erasure_id})");
    }
    Ok(())
}
