//! `settings`: what is pushed to sensors and groups.

use serde_json::{Map, Value, json};

use super::{Caller, Headings};
use crate::cli::{SettingsCommand, Whose};
use crate::client::route::{self, Route};
use crate::client::shapes::{GroupSettings, SensorSettings, SettingsVersion};
use crate::client::{ClientError, Query};
use crate::show::{self, safe, time};

/// What is asked of a sensor, or of a group.
struct Routes {
    show: Route,
    put: Route,
    versions: Route,
    back: Route,
}

const OF_SENSOR: Routes = Routes {
    show: route::SENSOR_SETTINGS,
    put: route::PUT_SENSOR_SETTINGS,
    versions: route::SENSOR_VERSIONS,
    back: route::SENSOR_BACK,
};
const OF_GROUP: Routes = Routes {
    show: route::GROUP_SETTINGS,
    put: route::PUT_GROUP_SETTINGS,
    versions: route::GROUP_VERSIONS,
    back: route::GROUP_BACK,
};

fn routes(whose: &Whose) -> (Routes, &str) {
    match whose {
        Whose::Sensor(name) => (OF_SENSOR, name),
        Whose::Group(name) => (OF_GROUP, name),
    }
}

pub async fn settings(caller: &Caller, command: SettingsCommand) -> Result<(), ClientError> {
    match command {
        SettingsCommand::Show { whose } => show(caller, &whose).await,
        SettingsCommand::Set { whose, pairs, unset, comment } => {
            let (routes, name) = routes(&whose);
            let newest = newest(caller, &whose).await?;
            let expected = newest.as_ref().map_or(0, |newest| newest.version);
            let settings = changed(newest.map(|newest| newest.settings), &pairs, &unset)?;
            // Whoever changed them meanwhile is not overwritten.
            let body = json!({"settings": settings, "comment": comment, "expected_version": expected});
            made(caller, &whose, &caller.client.ask(routes.put, name, &Vec::new(), Some(&body)).await?)
        }
        SettingsCommand::RollBack { whose, to, comment } => {
            let (routes, name) = routes(&whose);
            let body = json!({"version": to, "comment": comment});
            made(caller, &whose, &caller.client.ask(routes.back, name, &Vec::new(), Some(&body)).await?)
        }
        SettingsCommand::Versions { whose, page } => {
            let (routes, name) = routes(&whose);
            let headings: Headings =
                (&["VERSION", "MADE (UTC)", "BY", "RESTORES", "SETTINGS", "COMMENT"], "no versions");
            let row = |version: SettingsVersion| {
                [
                    version.version.to_string(),
                    time(&version.created_at),
                    version.author,
                    version.restores.map(|restored| restored.to_string()).unwrap_or_default(),
                    version.settings.to_string(),
                    version.comment,
                ]
            };
            caller.list_of((routes.versions, name), Query::new(), &page, headings, row).await
        }
    }
}

async fn show(caller: &Caller, whose: &Whose) -> Result<(), ClientError> {
    let (routes, name) = routes(whose);
    if caller.json {
        let all: Value = caller.client.ask(routes.show, name, &Vec::new(), None).await?;
        return show::json(&all);
    }
    let mut table = show::Table::new(&["KEY", "VALUE", "FROM"]);
    let mut rows = |settings: &Value, from: &dyn Fn(&str) -> String| {
        for (key, value) in settings.as_object().into_iter().flatten() {
            table.row([key.clone(), plain(value), from(key)]);
        }
    };
    match whose {
        Whose::Group(_) => {
            let group: GroupSettings = caller.client.ask(routes.show, name, &Vec::new(), None).await?;
            if let Some(newest) = &group.newest {
                rows(&newest.settings, &|_| format!("version {}", newest.version));
            }
        }
        Whose::Sensor(_) => {
            let all: SensorSettings = caller.client.ask(routes.show, name, &Vec::new(), None).await?;
            let own = |key: &str| all.sensor.as_ref().is_some_and(|own| own.settings.get(key).is_some());
            let group = all.group.as_ref().map(|group| group.group.clone()).unwrap_or_default();
            rows(&all.wanted.settings, &|key| {
                if own(key) {
                    format!("sensor, version {}", all.wanted.sensor_version)
                } else {
                    format!("group {group}, version {}", all.wanted.group_version)
                }
            });
            let reason = all.reported.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            show::note(&format!("{name}: {}{reason}", all.reported.state));
        }
    }
    table.print("nothing is pushed")
}

/// The newest version of one's own; what a group adds is the group's.
async fn newest(caller: &Caller, whose: &Whose) -> Result<Option<SettingsVersion>, ClientError> {
    let (routes, name) = routes(whose);
    let nothing = Vec::new();
    Ok(match whose {
        Whose::Sensor(_) => {
            caller.client.ask::<SensorSettings>(routes.show, name, &nothing, None).await?.sensor
        }
        Whose::Group(_) => {
            caller.client.ask::<GroupSettings>(routes.show, name, &nothing, None).await?.newest
        }
    })
}

/// With each `KEY=VALUE` in its place, and without what is unset.
fn changed(
    settings: Option<Value>,
    pairs: &[(String, Value)],
    unset: &[String],
) -> Result<Map<String, Value>, ClientError> {
    let mut settings = match settings {
        Some(Value::Object(settings)) => settings,
        _ => Map::new(),
    };
    for key in unset {
        if settings.remove(key).is_none() {
            return Err(ClientError::Usage(format!("`{key}` is not pushed")));
        }
    }
    settings.extend(pairs.iter().cloned());
    Ok(settings)
}

fn made(caller: &Caller, whose: &Whose, version: &Value) -> Result<(), ClientError> {
    if caller.json {
        return show::json(version);
    }
    let (_, name) = routes(whose);
    show::line(&safe(&format!("{name} has version {} with its next heartbeat", version["version"])))
}

/// A text without its quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s12_what_is_not_named_stays_as_it_was_pushed() {
        let before = json!({"epoch": "1s", "detect.port_scan.hosts": 40});
        let pairs =
            [("epoch".to_owned(), json!("2s")), ("detect.beaconing.enabled".to_owned(), json!(false))];
        let after = changed(Some(before.clone()), &pairs, &["detect.port_scan.hosts".to_owned()]);
        assert_eq!(
            Value::Object(after.expect("it is pushed")),
            json!({"epoch": "2s", "detect.beaconing.enabled": false})
        );
        changed(Some(before), &[], &["sampling.interval".to_owned()]).expect_err("it is not pushed");
        assert!(changed(None, &[], &[]).expect("nothing").is_empty());
    }
}
