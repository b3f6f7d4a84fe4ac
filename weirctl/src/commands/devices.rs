//! `devices`: who is on the networks, and what is said of them.

use serde_json::{Map, Value, json};

use super::{Caller, Headings};
use crate::cli::{DeviceArgs, DeviceCommand, DeviceFilter, DeviceWords};
use crate::client::shapes::{
    Device, DeviceFact, DeviceMerge, DeviceWhole, Erasure, ErasurePlan, PlannedPlace, SplitDevices,
};
use crate::client::{ClientError, Query, route};
use crate::show::{self, safe, time};

pub async fn devices(caller: &Caller, args: DeviceArgs) -> Result<(), ClientError> {
    match args.command {
        None => list(caller, args.filter, &args.page).await,
        Some(DeviceCommand::List { filter, page }) => list(caller, filter, &page).await,
        Some(DeviceCommand::Show { id }) => whole(caller, id).await,
        Some(DeviceCommand::Set { id, words, clear }) => {
            let body = said(words, &clear)?;
            changed(
                caller,
                caller.client.ask(route::SET_DEVICE, &id.to_string(), &Vec::new(), Some(&body)).await?,
            )
        }
        Some(DeviceCommand::Merge { id, other }) => {
            let body = json!({"other": other});
            changed(
                caller,
                caller.client.ask(route::MERGE_DEVICES, &id.to_string(), &Vec::new(), Some(&body)).await?,
            )
        }
        Some(DeviceCommand::Split { id, merge }) => {
            let body = json!({"merge": merge});
            let both: Value =
                caller.client.ask(route::SPLIT_DEVICE, &id.to_string(), &Vec::new(), Some(&body)).await?;
            if caller.json {
                return show::json(&both);
            }
            let SplitDevices { device, other } = caller.read(both)?;
            said_now(device)?;
            said_now(other)
        }
        Some(DeviceCommand::Erase { id, confirmation, yes }) => erase(caller, id, confirmation, yes).await,
    }
}

async fn list(caller: &Caller, filter: DeviceFilter, page: &crate::cli::PageArgs) -> Result<(), ClientError> {
    let DeviceFilter { site, sensor, r#type, vendor, name, address } = filter;
    let given = [
        ("site", site),
        ("sensor", sensor),
        ("type", r#type),
        ("vendor", vendor),
        ("name", name),
        ("address", address),
    ];
    let query: Query = given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let headings: Headings =
        (&["ID", "NAME", "TYPE", "VENDOR", "SITE", "ADDRESS", "OWNER", "LAST SEEN (UTC)"], "no devices");
    let row = |device: Device| {
        [
            device.id.to_string(),
            device.name.unwrap_or_default(),
            device.r#type.unwrap_or_default(),
            device.vendor.unwrap_or_default(),
            device.site.unwrap_or_default(),
            device.addresses.first().map(plain).unwrap_or_default(),
            device.owner.unwrap_or_default(),
            time(&device.last_seen),
        ]
    };
    caller.list(route::DEVICES, query, page, headings, row).await
}

async fn whole(caller: &Caller, id: u64) -> Result<(), ClientError> {
    let answer: Value = caller.client.ask(route::DEVICE, &id.to_string(), &Vec::new(), None).await?;
    if caller.json {
        return show::json(&answer);
    }
    let device: Device = caller.read(answer.clone())?;
    let DeviceWhole { facts, merges } = caller.read(answer)?;
    let rows = [
        ("name", device.name),
        ("type", device.r#type),
        ("vendor", device.vendor),
        ("site", device.site),
        ("owner", device.owner),
        ("notes", device.notes),
        ("first seen", Some(time(&device.first_seen))),
        ("last seen", Some(time(&device.last_seen))),
    ];
    for (what, value) in rows {
        if let Some(value) = value {
            show::line(&format!("{what}: {}", safe(&value)))?;
        }
    }
    for merge in merges {
        let DeviceMerge { id: merge, other, at } = caller.read(merge)?;
        show::line(&safe(&format!("merge {merge}: of {other}, {}", time(&at))))?;
    }
    let mut table =
        show::Table::new(&["FACT", "SAID BY", "VALUE", "WEIGHT", "FIRST SEEN (UTC)", "LAST SEEN (UTC)"]);
    for fact in facts {
        let fact: DeviceFact = caller.read(fact)?;
        table.row([
            fact.kind,
            fact.source,
            fact.value,
            fact.weight.map(|weight| weight.to_string()).unwrap_or_default(),
            time(&fact.first_seen),
            time(&fact.last_seen),
        ]);
    }
    table.print("nothing was told of it")
}

/// What is said; what is cleared is null.
fn said(words: DeviceWords, clear: &[String]) -> Result<Value, ClientError> {
    let DeviceWords { name, r#type, owner, notes } = words;
    let given = [("name", name), ("type", r#type), ("owner", owner), ("notes", notes)];
    let mut body: Map<String, Value> =
        given.into_iter().filter_map(|(word, value)| Some((word.to_owned(), value?.into()))).collect();
    for word in clear {
        if body.insert(word.clone(), Value::Null).is_some() {
            return Err(ClientError::Usage(format!("`{word}` is said and cleared at once")));
        }
    }
    Ok(Value::Object(body))
}

fn changed(caller: &Caller, now: Value) -> Result<(), ClientError> {
    if caller.json {
        return show::json(&now);
    }
    said_now(caller.read(now)?)
}

fn said_now(device: Device) -> Result<(), ClientError> {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    show::line(&safe(&format!(
        "device {}: name {}, type {}, owner {}",
        device.id,
        or_none(device.name),
        or_none(device.r#type),
        or_none(device.owner),
    )))
}

/// First what would go, with a confirmation of that; then, with the confirmation, it goes.
async fn erase(caller: &Caller, id: u64, confirmation: Option<String>, yes: bool) -> Result<(), ClientError> {
    let place = id.to_string();
    let mut query: Query = vec![("erase", "true".to_owned())];
    let confirmation = if let Some(confirmation) = confirmation {
        confirmation
    } else {
        let answer: Value = caller.client.ask(route::PLAN_ERASURE, &place, &query, None).await?;
        if caller.json && !yes {
            return show::json(&answer);
        }
        let plan: ErasurePlan = caller.read(answer)?;
        if !yes {
            return planned(caller, id, plan);
        }
        plan.confirmation
    };
    query.push(("confirmation", confirmation));
    let begun: Value = caller.client.ask(route::ERASE_DEVICE, &place, &query, None).await?;
    if caller.json {
        return show::json(&begun);
    }
    let begun: Erasure = caller.read(begun)?;
    show::line(&safe(&format!("device {id} is gone; erasure {} is {}", begun.id, begun.state)))
}

fn planned(caller: &Caller, id: u64, plan: ErasurePlan) -> Result<(), ClientError> {
    let mut table = show::Table::new(&["PLACE", "ROWS"]);
    for place in plan.places {
        let place: PlannedPlace = caller.read(place)?;
        table.row([place.name, place.count.map_or_else(|| "?".to_owned(), |count| count.to_string())]);
    }
    table.print("nothing is stored of it")?;
    show::note(&format!(
        "nothing is erased yet: this is what would go of `{}`. Until {}:\n  weirctl devices erase {id} --confirmation {}",
        plan.name,
        time(&plan.expires_at),
        plan.confirmation,
    ));
    Ok(())
}

/// A text without its quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s4_what_is_not_said_is_left_out_and_what_is_cleared_is_null() {
        let words = DeviceWords { name: Some("printer".to_owned()), r#type: None, owner: None, notes: None };
        let body = said(words.clone(), &["notes".to_owned()]).expect("both can be done");
        assert_eq!(body, json!({"name": "printer", "notes": null}));
        said(words, &["name".to_owned()]).expect_err("said and cleared");
    }
}
