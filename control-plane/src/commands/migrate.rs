//! `migrate`: the schema, up or down.

use weir_control_plane::store::migrations;

use crate::cli::Migrate;

pub async fn run(arguments: Migrate) -> anyhow::Result<()> {
    let pool = super::connect(&arguments.settings)?;
    let target = arguments.to.unwrap_or_else(migrations::latest);
    let (before, after) = migrations::migrate(&pool, target, arguments.roll_back).await?;
    if before == after {
        println!("schema version {after}: nothing to do");
    } else {
        println!("schema version {before} -> {after}");
    }
    Ok(())
}
