//! `sensor add`, `sensor list`, `sensor revoke`, `sensor remove`.

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use serde_json::json;
use weir_control_plane::auth::SensorToken;
use weir_control_plane::store::audit::Author;
use weir_control_plane::store::erasure::Subject;
use weir_control_plane::store::sensors::{self, Sensor, Which, is_name};

use crate::cli::{ListSensors, NamedSensor, RemoveSensor, Sensor as Arguments, SensorCommand};

/// Sensors read at once.
const PAGE: i64 = 1_000;

pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        SensorCommand::Add(arguments) => add(arguments).await,
        SensorCommand::List(arguments) => list(arguments).await,
        SensorCommand::Revoke(arguments) => revoke(arguments).await,
        SensorCommand::Remove(arguments) => remove(arguments).await,
    }
}

async fn add(arguments: NamedSensor) -> anyhow::Result<()> {
    let name = arguments.name;
    if !is_name(&name) {
        bail!(
            "`{name}` cannot be a sensor's name: use 1 to 63 letters, digits, `.`, `_` or `-`, not only digits"
        );
    }
    let pool = super::connect_migrated(&arguments.settings).await?;
    let token = SensorToken::generate().context("make a token")?;
    let id = sensors::add(&pool, &Author::command_line(), &name, &token.sha256())
        .await
        .with_context(|| format!("add {name}"))?;
    if arguments.json {
        println!("{}", json!({"id": id, "name": name, "token": token.expose()}));
    } else {
        eprintln!("sensor {name} (id {id}); its token, which is not shown again:");
        println!("{}", token.expose());
    }
    Ok(())
}

async fn list(arguments: ListSensors) -> anyhow::Result<()> {
    let pool = super::connect_migrated(&arguments.settings).await?;
    if !arguments.json {
        println!("{:>6}  {:<32} {:<8} {:<20} {:>10}", "ID", "NAME", "STATE", "LAST SEEN", "BATCHES");
    }
    let mut after = 0;
    loop {
        let page = sensors::list(&pool, &Which::default(), after, PAGE).await.context("list sensors")?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.sensor_id;
        for sensor in &page {
            print_sensor(sensor, arguments.json);
        }
    }
}

fn print_sensor(sensor: &Sensor, as_json: bool) {
    let status = sensor.status.as_ref();
    let state = sensor.state();
    let seen = status.and_then(|status| Timestamp::try_from(status.last_seen_at).ok());
    let seen = seen.map(|seen| format!("{seen:.0}"));
    let batches = status.map_or(0, |status| status.batches);
    if as_json {
        let line = json!({
            "id": sensor.sensor_id, "name": sensor.name, "state": state, "last_seen_at": seen, "batches": batches,
        });
        println!("{line}");
    } else {
        let seen = seen.unwrap_or_else(|| "never".to_owned());
        println!("{:>6}  {:<32} {state:<8} {seen:<20} {batches:>10}", sensor.sensor_id, sensor.name);
    }
}

async fn revoke(arguments: NamedSensor) -> anyhow::Result<()> {
    let Some(sensor) = sensors::named(&arguments.name) else {
        bail!("`{}` is neither a sensor's id nor a name", arguments.name);
    };
    let pool = super::connect_migrated(&arguments.settings).await?;
    let Some((id, name)) =
        sensors::revoke(&pool, &Author::command_line(), &sensor).await.context("revoke")?
    else {
        bail!("no sensor has the id or name `{}`", arguments.name);
    };
    if arguments.json {
        println!("{}", json!({"id": id, "name": name, "state": "revoked"}));
    } else {
        println!("sensor {name} (id {id}) is revoked");
    }
    Ok(())
}

async fn remove(RemoveSensor { name, settings, how }: RemoveSensor) -> anyhow::Result<()> {
    let Some(sensor) = sensors::named(&name) else {
        bail!("`{name}` is neither a sensor's id nor a name");
    };
    super::erase::run(&settings, Subject::Sensor(sensor), &how).await
}
