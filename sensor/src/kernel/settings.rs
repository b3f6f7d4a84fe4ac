//! What the kernel programs can be told, and how it lies in memory.

use std::{net::IpAddr, ops::RangeInclusive};

use weir_sensor_common as layout;

use super::{EventSettings, KernelError};

/// Most filter rules that fit.
pub const MAX_FILTER_RULES: usize = layout::filter::MAX_RULES as usize;

/// Slots of each table in one region; every CPU has one region in each half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSizes {
    /// Power of two, 16 to 2^24. A slot takes 64 bytes.
    pub ipv4_slots: u32,
    /// Power of two, 16 to 2^24. A slot takes 128 bytes.
    pub ipv6_slots: u32,
}

impl Default for TableSizes {
    /// 8 MiB and 4 MiB for each CPU and half: 60,000 busy IPv4 flows a CPU and epoch at half load.
    fn default() -> Self {
        Self { ipv4_slots: 131_072, ipv6_slots: 32_768 }
    }
}

/// What happens to a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FilterAction {
    #[default]
    Allow,
    Deny,
}

/// One rule; the first that matches decides. It matches a flow when every part that is given does, on
/// either side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterRule {
    pub action: FilterAction,
    pub cidr: Option<(IpAddr, u8)>,
    pub ports: Option<RangeInclusive<u16>>,
    pub protocol: Option<u8>,
}

/// Which of the kernel programs' own messages are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KernelLog {
    /// The verifier removes the messages: they cost nothing.
    Off,
    /// The first frame at each point.
    #[default]
    Info,
    /// Malformed frames and others that are not counted into flows, too.
    Debug,
}

impl KernelLog {
    /// aya's numbers; 0 is below every level.
    pub(super) const fn level(self) -> u8 {
        match self {
            Self::Off => 0,
            Self::Info => 3,
            Self::Debug => 4,
        }
    }
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Settings {
    pub tables: TableSizes,
    /// Count one packet in this many, at random; 1 is every packet.
    pub sampling_interval: u32,
    pub filter: Vec<FilterRule>,
    pub filter_default: FilterAction,
    pub log_level: KernelLog,
    pub events: EventSettings,
    /// Observation points, two for an interface; 2 to 254.
    pub max_points: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tables: TableSizes::default(),
            sampling_interval: 1,
            filter: Vec::new(),
            filter_default: FilterAction::Allow,
            log_level: KernelLog::default(),
            events: EventSettings::default(),
            max_points: 64,
        }
    }
}

impl Settings {
    pub(super) fn validate(&self) -> Result<(), KernelError> {
        let fits = |slots: u32| slots.is_power_of_two() && (16..=1 << 24).contains(&slots);
        let bad = |key, value: String, allowed| Err(KernelError::Setting { key, value, allowed });
        let TableSizes { ipv4_slots, ipv6_slots } = self.tables;
        if !fits(ipv4_slots) {
            return bad("tables.ipv4_slots", ipv4_slots.to_string(), "a power of two from 16 to 16777216");
        }
        if !fits(ipv6_slots) {
            return bad("tables.ipv6_slots", ipv6_slots.to_string(), "a power of two from 16 to 16777216");
        }
        if !(2..=254).contains(&self.max_points) {
            return bad("max_points", self.max_points.to_string(), "2 to 254, two for each interface");
        }
        self.events.validate()?;
        Steering::new(self.sampling_interval, &self.filter, self.filter_default).map(|_| ())
    }
}

/// The settings that may change while the programs run, as the programs read them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Steering {
    pub sampling_interval: u32,
    pub rules: Vec<layout::FilterRule>,
    pub default_action: u32,
}

impl Steering {
    pub fn new(
        sampling_interval: u32,
        rules: &[FilterRule],
        default: FilterAction,
    ) -> Result<Self, KernelError> {
        if sampling_interval == 0 {
            return Err(KernelError::Setting {
                key: "sampling.interval",
                value: "0".to_owned(),
                allowed: "1 (every packet) or more",
            });
        }
        if rules.len() > MAX_FILTER_RULES {
            return Err(KernelError::Setting {
                key: "filter.rules",
                value: format!("{} rules", rules.len()),
                allowed: "at most 64",
            });
        }
        let rules = rules.iter().map(lay_out).collect::<Result<_, _>>()?;
        Ok(Self { sampling_interval, rules, default_action: action(default) })
    }
}

fn lay_out(rule: &FilterRule) -> Result<layout::FilterRule, KernelError> {
    let ports = rule.ports.clone().unwrap_or(0..=u16::MAX);
    if ports.is_empty() {
        return Err(KernelError::Setting {
            key: "filter.rules.ports",
            value: format!("{}-{}", ports.start(), ports.end()),
            allowed: "the lower port first",
        });
    }
    let mut laid_out = layout::FilterRule {
        port_low: *ports.start(),
        port_high: *ports.end(),
        protocol: rule.protocol.map_or(layout::filter::ANY_PROTOCOL, u32::from),
        action: action(rule.action),
        ..layout::FilterRule::default()
    };
    if let Some((address, length)) = rule.cidr {
        let (version, address, mask) = network(address, length).ok_or_else(|| KernelError::Setting {
            key: "filter.rules.cidr",
            value: format!("{address}/{length}"),
            allowed: "a prefix length up to 32 (IPv4) or 128 (IPv6)",
        })?;
        laid_out.ip_version = version;
        laid_out.mask = mask;
        laid_out.network = [address[0] & mask[0], address[1] & mask[1]];
    }
    Ok(laid_out)
}

/// IP version, address and mask as the programs compare them: bytes in network order, in native words.
fn network(address: IpAddr, length: u8) -> Option<(u32, [u64; 2], [u64; 2])> {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32_u32.checked_sub(length.into())?).unwrap_or(0);
            let word = |bytes: [u8; 4]| [u64::from(u32::from_ne_bytes(bytes)), 0];
            Some((4, word(address.octets()), word(mask.to_be_bytes())))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128_u32.checked_sub(length.into())?).unwrap_or(0);
            Some((6, words(address.octets()), words(mask.to_be_bytes())))
        }
    }
}

fn words(bytes: [u8; 16]) -> [u64; 2] {
    let word = |from: usize| u64::from_ne_bytes(std::array::from_fn(|offset| bytes[from + offset]));
    [word(0), word(8)]
}

const fn action(action: FilterAction) -> u32 {
    match action {
        FilterAction::Allow => layout::filter::ALLOW,
        FilterAction::Deny => layout::filter::DENY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(cidr: &str, length: u8) -> FilterRule {
        FilterRule {
            action: FilterAction::Deny,
            cidr: Some((cidr.parse().expect("an address"), length)),
            ports: None,
            protocol: None,
        }
    }

    #[test]
    fn a_network_is_masked_in_network_order() {
        let laid_out = lay_out(&rule("192.0.2.77", 24)).expect("a rule");
        assert_eq!(laid_out.network, [u64::from(u32::from_ne_bytes([192, 0, 2, 0])), 0]);
        assert_eq!(laid_out.mask, [u64::from(u32::from_ne_bytes([255, 255, 255, 0])), 0]);
        let all = lay_out(&rule("0.0.0.0", 0)).expect("a rule");
        assert_eq!((all.network, all.mask), ([0, 0], [0, 0]));
    }

    #[test]
    fn nonsense_is_refused_by_its_key() {
        let error = lay_out(&rule("192.0.2.0", 33)).expect_err("no such prefix").to_string();
        assert!(error.contains("filter.rules.cidr") && error.contains("192.0.2.0/33"), "{error}");
        let error = Steering::new(0, &[], FilterAction::Allow).expect_err("no interval").to_string();
        assert!(error.contains("sampling.interval"), "{error}");
        let many = vec![rule("192.0.2.0", 24); MAX_FILTER_RULES + 1];
        assert!(Steering::new(1, &many, FilterAction::Allow).is_err());
        let odd = Settings { tables: TableSizes { ipv4_slots: 1000, ipv6_slots: 16 }, ..Settings::default() };
        assert!(odd.validate().expect_err("not a power of two").to_string().contains("tables.ipv4_slots"));
    }
}
