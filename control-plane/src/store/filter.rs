//! Which flows a question is about, and how that reads in SQL.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{BufMut, BytesMut};
use jiff::{SignedDuration, Timestamp};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use super::devices::Resolved;
use super::labels::Labels;
use crate::naming::Naming;

/// An address, or all addresses of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// `192.0.2.7`, `10.0.0.0/8`, `2001:db8::/32`; bits after the prefix are cleared.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            None => (text, None),
            Some((address, prefix)) => (address, Some(prefix)),
        };
        let address: IpAddr = address.parse().ok()?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => width,
            Some(digits) if (1..=3).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().ok().filter(|prefix| *prefix <= width)?
            }
            Some(_) => return None,
        };
        let host_bits = u32::from(width - prefix);
        let address = match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
            }
        };
        Some(Self { address, prefix })
    }

    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4()
            && Self::parse(&format!("{address}/{}", self.prefix)).is_some_and(|network| network == *self)
    }

    fn is_host(&self) -> bool {
        self.prefix == if self.address.is_ipv4() { 32 } else { 128 }
    }

    /// Bits that all its addresses have in common.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    #[must_use]
    pub fn first(&self) -> IpAddr {
        self.address
    }

    #[must_use]
    pub fn last(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(first) => {
                let hosts = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                Ipv4Addr::from_bits(first.to_bits() | hosts).into()
            }
            IpAddr::V6(first) => {
                let hosts = u128::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                Ipv6Addr::from_bits(first.to_bits() | hosts).into()
            }
        }
    }

    /// Equality for a single address, because that is what its index answers.
    pub(super) fn operator(&self) -> &'static str {
        if self.is_host() { "=" } else { "<<=" }
    }
}

/// A network of weir-wire's lists.
impl From<(IpAddr, u8)> for Network {
    fn from((address, prefix): (IpAddr, u8)) -> Self {
        Self { address, prefix }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl ToSql for Network {
    fn to_sql(
        &self,
        _ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self.address {
            IpAddr::V4(v4) => {
                out.put_slice(&[2, self.prefix, 0, 4]);
                out.put_slice(&v4.octets());
            }
            IpAddr::V6(v6) => {
                out.put_slice(&[3, self.prefix, 0, 16]);
                out.put_slice(&v6.octets());
            }
        }
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::INET
    }

    to_sql_checked!();
}

/// An address that was somebody's at a sensor, from a time until before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    pub sensor_id: i32,
    pub address: IpAddr,
    pub from_ns: i64,
    pub until_ns: i64,
}

/// Flows whose window starts in `from..to`, and that pass every given test.
#[derive(Clone, Debug)]
pub struct Filter {
    pub from: Timestamp,
    pub to: Timestamp,
    pub sensor_id: Option<i32>,
    pub src: Option<Network>,
    pub dst: Option<Network>,
    pub address: Option<Network>,
    pub port: Option<u16>,
    pub src_port: Option<u16>,
    pub dst_port: Option<u16>,
    pub protocol: Option<u8>,
    pub min_octets: Option<u64>,
    pub expression: Option<Resolved>,
    /// What networks are called in it, and in the flows that it finds.
    pub naming: Arc<Naming>,
}

impl Filter {
    /// The same of an earlier window.
    #[must_use]
    pub fn moved_back(&self, by: SignedDuration) -> Self {
        let earlier = |time: Timestamp| time.checked_sub(by).unwrap_or(Timestamp::MIN);
        Self { from: earlier(self.from), to: earlier(self.to), ..self.clone() }
    }

    /// Whether rollups can answer: they know sensors and, in two dimensions, protocols.
    pub(super) fn only_by_sensor(&self) -> bool {
        self.src.is_none()
            && self.dst.is_none()
            && self.address.is_none()
            && self.port.is_none()
            && self.src_port.is_none()
            && self.dst_port.is_none()
            && self.min_octets.is_none()
            && self.expression.is_none()
    }
}

/// A statement in the making: its text and its bound parameters.
#[derive(Default)]
pub(super) struct Sql {
    pub text: String,
    parameters: Vec<(Box<dyn ToSql + Sync + Send>, Type)>,
    /// Of the filter.
    pub naming: Arc<Naming>,
    /// Tables of labels that are bound already.
    pub(super) labels: Labels,
}

impl Sql {
    pub fn new(text: &str) -> Self {
        Self { text: text.to_owned(), ..Self::default() }
    }

    pub fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Adds a parameter and gives its place, `$n`.
    pub fn bind(&mut self, value: impl ToSql + Sync + Send + 'static, ty: Type) -> String {
        self.parameters.push((Box::new(value), ty));
        format!("${}", self.parameters.len())
    }

    pub fn parameters(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        self.parameters.iter().map(|(value, ty)| (&**value as &(dyn ToSql + Sync), ty.clone())).collect()
    }

    /// ` WHERE …` over `flow`.
    pub fn push_filter(&mut self, filter: &Filter) {
        let from = self.bind(SystemTime::from(filter.from), Type::TIMESTAMPTZ);
        let to = self.bind(SystemTime::from(filter.to), Type::TIMESTAMPTZ);
        // `write!` to a String cannot fail.
        let _ = write!(self.text, " WHERE window_start >= {from} AND window_start < {to}");
        if let Some(sensor_id) = filter.sensor_id {
            let sensor_id = self.bind(sensor_id, Type::INT4);
            let _ = write!(self.text, " AND sensor_id = {sensor_id}");
        }
        for (column, network) in [("src", filter.src), ("dst", filter.dst)] {
            if let Some(network) = network {
                let value = self.bind(network, Type::INET);
                let _ = write!(self.text, " AND {column} {} {value}", network.operator());
            }
        }
        if let Some(network) = filter.address {
            let (value, operator) = (self.bind(network, Type::INET), network.operator());
            let _ = write!(self.text, " AND (src {operator} {value} OR dst {operator} {value})");
        }
        for (column, port) in [("src_port", filter.src_port), ("dst_port", filter.dst_port)] {
            if let Some(port) = port {
                let value = self.bind(i32::from(port), Type::INT4);
                let _ = write!(self.text, " AND {column} = {value}");
            }
        }
        if let Some(port) = filter.port {
            let value = self.bind(i32::from(port), Type::INT4);
            let _ = write!(self.text, " AND (src_port = {value} OR dst_port = {value})");
        }
        if let Some(protocol) = filter.protocol {
            let value = self.bind(i16::from(protocol), Type::INT2);
            let _ = write!(self.text, " AND protocol = {value}");
        }
        if let Some(octets) = filter.min_octets {
            let value = self.bind(octets as i64, Type::INT8);
            let _ = write!(self.text, " AND octets::numeric + reverse_octets >= {value}");
        }
        self.naming = Arc::clone(&filter.naming);
        if let Some(expression) = &filter.expression {
            self.push(" AND ");
            self.push_expression(expression.expression());
        }
    }
}

/// A sum of 64-bit counts as a 64-bit count: what would not fit is shown as the largest that does.
pub(super) fn sum(expression: &str) -> String {
    format!("LEAST(coalesce(sum({expression}), 0), 9223372036854775807)::bigint")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_parse_and_lose_their_host_bits() {
        assert_eq!(Network::parse("10.1.2.3/8"), Network::parse("10.0.0.0/8"));
        assert_eq!(Network::parse("10.1.2.3"), Network::parse("10.1.2.3/32"));
        assert_eq!(Network::parse("2001:db8::1/32"), Network::parse("2001:db8::/32"));
        assert!(Network::parse("0.0.0.0/0").is_some() && Network::parse("::/0").is_some());
        let ends = |text: &str| {
            let network = Network::parse(text).expect(text);
            [network.first(), network.last()].map(|end| end.to_string())
        };
        assert_eq!(ends("10.1.2.3/8"), ["10.0.0.0", "10.255.255.255"]);
        assert_eq!(ends("0.0.0.0/0"), ["0.0.0.0", "255.255.255.255"]);
        assert_eq!(ends("192.0.2.7"), ["192.0.2.7", "192.0.2.7"]);
        assert_eq!(ends("2001:db8::/33"), ["2001:db8::", "2001:db8:7fff:ffff:ffff:ffff:ffff:ffff"]);
        assert_eq!(ends("::/0")[1], "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        for wrong in
            ["", "10.1.2", "10.1.2.3/33", "10.1.2.3/", "10.1.2.3/+8", "::/129", "::/-1", "a", "::1%lo"]
        {
            assert_eq!(Network::parse(wrong), None, "{wrong:?}");
        }
    }
}
