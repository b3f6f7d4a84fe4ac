//! What operators call ports that no registry names, or names otherwise.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::naming::{is_service, protocol_and_port};

/// Names of ports that can be given.
const MAX_SERVICES: usize = 1_000;

/// Names by keys such as `tcp/8443`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Services(pub BTreeMap<String, String>);

impl Services {
    pub(super) fn validate(&self, broken: &mut Vec<String>) {
        if self.0.len() > MAX_SERVICES {
            broken.push(format!("services: {} names are more than {MAX_SERVICES}", self.0.len()));
        }
        let mut seen = BTreeMap::new();
        for (key, name) in &self.0 {
            let Some(port) = protocol_and_port(key) else {
                broken.push(format!(
                    "services: `{key}` is not a protocol and a port, such as \"tcp/8443\" or \"132/2905\""
                ));
                continue;
            };
            if let Some(other) = seen.insert(port, key) {
                broken.push(format!("services: `{key}` is the same port as `{other}`"));
            }
            if !is_service(name) {
                broken.push(format!(
                    "services.\"{key}\": `{name}` is not 1 to 63 small letters, digits, `.`, `_`, `-`, not only digits"
                ));
            }
        }
    }
}
