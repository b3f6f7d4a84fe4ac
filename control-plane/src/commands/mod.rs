//! The commands of the command line: each loads its settings, does its work and reports.

pub mod ca;
pub mod erase;
pub mod migrate;
pub mod openapi;
pub mod sensor;
pub mod serve;
pub mod user;

use weir_control_plane::config::{self, Config, Overrides};
use weir_control_plane::store::{Pool, migrations};
use weir_control_plane::{server, telemetry};

fn settings(flags: &Overrides) -> anyhow::Result<Config> {
    Ok(config::load(flags, std::env::vars())?)
}

/// For commands beside the server: a pool, with a log that keeps quiet unless something is wrong.
fn connect(flags: &Overrides) -> anyhow::Result<Pool> {
    let mut config = settings(flags)?;
    if flags.log_level.is_none() {
        "warn".clone_into(&mut config.log.level);
    }
    if flags.log_format.is_none() {
        config.log.format = config::LogFormat::Text;
    }
    telemetry::init_log(&config.log);
    server::connect(&config, &telemetry::Registered::new())
}

/// A pool to a database whose schema is this program's.
async fn connect_migrated(flags: &Overrides) -> anyhow::Result<Pool> {
    let pool = connect(flags)?;
    migrations::migrate(&pool, migrations::latest(), false).await?;
    Ok(pool)
}
