//! `networks`: what networks are called.

use serde_json::{Value, json};

use super::{Caller, Headings};
use crate::cli::NetworksCommand;
use crate::client::shapes::Network;
use crate::client::{ClientError, route};
use crate::show;

pub async fn networks(caller: &Caller, command: NetworksCommand) -> Result<(), ClientError> {
    let (done, answer): (&str, Value) = match command {
        NetworksCommand::List(page) => {
            let headings: Headings =
                (&["ID", "NAME", "PREFIXES", "SENSOR", "OURS", "DESCRIPTION"], "no networks");
            let row = |network: Network| {
                [
                    network.id.to_string(),
                    network.name,
                    network.prefixes.join(" "),
                    network.sensor.unwrap_or_default(),
                    if network.internal { "yes" } else { "no" }.to_owned(),
                    network.description,
                ]
            };
            return caller.list(route::NETWORKS, Vec::new(), &page, headings, row).await;
        }
        NetworksCommand::Add { name, prefixes, sensor, external, description } => {
            let body = json!({
                "name": name, "prefixes": prefixes, "sensor": sensor, "internal": !external,
                "description": description,
            });
            ("named", caller.client.ask(route::ADD_NETWORK, "", &Vec::new(), Some(&body)).await?)
        }
        NetworksCommand::Remove { network } => {
            ("removed", caller.client.ask(route::REMOVE_NETWORK, &network, &Vec::new(), None).await?)
        }
    };
    if caller.json {
        return show::json(&answer);
    }
    let name = answer["name"].as_str().unwrap_or_default();
    show::line(&show::safe(&format!("network {name} is {done}")))
}
