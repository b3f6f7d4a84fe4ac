//! What the ports that flows go to are called: by IANA's registry, and by operators.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::expression::protocol_number;

/// IANA's names, a choice.
const REGISTERED: &str = include_str!("services.txt");

/// Names by protocol and port.
#[derive(Clone, Debug)]
pub struct Services {
    names: BTreeMap<(u8, u16), Cow<'static, str>>,
}

impl Default for Services {
    fn default() -> Self {
        Self::new(&BTreeMap::new())
    }
}

/// Whether a name may be a service's: 1 to 63 small letters, digits, `.`, `_`, `-`; not only digits.
#[must_use]
pub fn is_service(name: &str) -> bool {
    crate::store::networks::is_name(name)
}

/// What a key such as `tcp/8443` stands for.
#[must_use]
pub fn protocol_and_port(text: &str) -> Option<(u8, u16)> {
    let (protocol, port) = text.split_once('/')?;
    let port = port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok()).flatten()?;
    Some((protocol_number(protocol)?, port))
}

impl Services {
    /// Those that are registered, and an operator's own by keys such as `tcp/8443`, which hold before them.
    #[must_use]
    pub fn new(own: &BTreeMap<String, String>) -> Self {
        let lines = REGISTERED.lines().filter(|line| !line.starts_with('#'));
        let registered = lines.flat_map(|line| {
            let mut words = line.split(' ');
            let name = words.next().unwrap_or_default();
            let port: Option<u16> = words.next().and_then(|port| port.parse().ok());
            let protocols = words.filter_map(protocol_number);
            protocols.filter_map(move |protocol| Some(((protocol, port?), Cow::Borrowed(name))))
        });
        let own =
            own.iter().filter_map(|(key, name)| Some((protocol_and_port(key)?, Cow::Owned(name.clone()))));
        Self { names: registered.chain(own).collect() }
    }

    /// What flows of this protocol to this port are called.
    #[must_use]
    pub fn name(&self, protocol: u8, port: u16) -> Option<&str> {
        self.names.get(&(protocol, port)).map(AsRef::as_ref)
    }

    /// The same of numbers as the database has them.
    #[must_use]
    pub fn of_row(&self, protocol: i16, port: i32) -> Option<&str> {
        self.name(protocol.try_into().ok()?, port.try_into().ok()?)
    }

    /// The ports with these names, by protocol.
    #[must_use]
    pub fn ports(&self, is_meant: impl Fn(&str) -> bool) -> BTreeMap<u8, Vec<u16>> {
        let mut ports: BTreeMap<u8, Vec<u16>> = BTreeMap::new();
        for ((protocol, port), name) in &self.names {
            if is_meant(name) {
                ports.entry(*protocol).or_default().push(*port);
            }
        }
        ports
    }

    /// Names that begin so, each once, in order.
    #[must_use]
    pub fn beginning_with(&self, prefix: &str) -> Vec<&str> {
        let mut names: Vec<&str> = self.names.values().map(AsRef::as_ref).collect();
        names.retain(|name| name.starts_with(prefix));
        names.sort_unstable();
        names.dedup();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S5: ports are called as IANA registered them; an operator's own names hold before those.
    #[test]
    fn s5_a_port_has_its_registered_name_unless_an_operator_says_another() {
        let services = Services::default();
        assert_eq!(services.name(6, 443), Some("https"));
        assert_eq!(services.name(17, 53), Some("domain"));
        assert_eq!((services.name(6, 514), services.name(17, 514)), (Some("shell"), Some("syslog")));
        assert_eq!((services.name(1, 443), services.name(6, 49_999)), (None, None));
        let own = [("tcp/443", "front"), ("udp/50000", "front"), ("132/7", "seven")];
        let services = Services::new(&own.map(|(key, name)| (key.to_owned(), name.to_owned())).into());
        assert_eq!(services.name(6, 443), Some("front"));
        assert_eq!(services.name(17, 443), Some("https"));
        assert_eq!(services.name(132, 7), Some("seven"));
        assert_eq!(services.ports(|name| name == "front"), [(6, vec![443]), (17, vec![50_000])].into());
        assert_eq!(services.beginning_with("fr"), ["front"]);
        assert_eq!((services.of_row(17, 53), services.of_row(-1, 53)), (Some("domain"), None));
    }

    #[test]
    fn every_registered_line_is_a_name_a_port_and_protocols() {
        let lines: Vec<&str> = REGISTERED.lines().filter(|line| !line.starts_with('#')).collect();
        let mut ports = 0;
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            assert!(words.len() >= 3 && is_service(words[0]), "{line}");
            assert!(words[1].parse::<u16>().is_ok(), "{line}");
            assert!(words[2..].iter().all(|protocol| protocol_number(protocol).is_some()), "{line}");
            ports += words.len() - 2;
        }
        assert_eq!(Services::default().names.len(), ports, "no port has two names");
    }
}
