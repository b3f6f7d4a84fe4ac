//! An expression as SQL over `flow`: columns and operators are ours, every value is bound.

use tokio_postgres::types::Type;
use weir_wire::{NameSource, link};

use super::filter::{Held, Sql};
use crate::expression::{Comparison, Expression, Field, Kind, Test, Value, matches};

impl Sql {
    /// A condition over `flow`, in parentheses.
    pub fn push_expression(&mut self, expression: &Expression) {
        match expression {
            Expression::All(parts) => self.push_joined(parts, " AND "),
            Expression::Any(parts) => self.push_joined(parts, " OR "),
            // What is unknown passes no test, so it passes every negated one.
            Expression::Not(inner) => {
                self.push("(");
                self.push_expression(inner);
                self.push(" IS NOT TRUE)");
            }
            Expression::Test(test) => self.push_test(test),
        }
    }

    fn push_joined(&mut self, parts: &[Expression], joiner: &str) {
        self.push("(");
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                self.push(joiner);
            }
            self.push_expression(part);
        }
        self.push(")");
    }

    fn push_test(&mut self, Test { field, comparison }: &Test) {
        let conditions: Vec<String> = match comparison {
            Comparison::Is(values) => values.iter().map(|value| self.is(*field, value)).collect(),
            Comparison::Below(bound) => vec![self.compared(*field, "<", *bound)],
            Comparison::AtMost(bound) => vec![self.compared(*field, "<=", *bound)],
            Comparison::Above(bound) => vec![self.compared(*field, ">", *bound)],
            Comparison::AtLeast(bound) => vec![self.compared(*field, ">=", *bound)],
            Comparison::Like(pattern) => {
                if is_given(*field) {
                    vec![self.given(*field, |name| matches(pattern, name))]
                } else {
                    let pattern = self.bind(like(&spelled(*field, pattern)), Type::TEXT);
                    vec![named(*field, &format!("LIKE {pattern}"))]
                }
            }
            Comparison::Held(held) => vec![self.held(*field, held)],
        };
        self.push(&format!("({})", conditions.join(" OR ")));
    }

    fn is(&mut self, field: Field, value: &Value) -> String {
        match value {
            Value::Network(network) => {
                let (value, operator) = (self.bind(*network, Type::INET), network.operator());
                either(field, |column| format!("{column} {operator} {value}"))
            }
            Value::Text(name) if is_given(field) => self.given(field, |given| given == name),
            Value::Text(name) => {
                let name = self.bind(spelled(field, name), Type::TEXT);
                match field.kind() {
                    Kind::Country => either(field, |column| format!("{column} = {name}")),
                    _ => named(field, &format!("= {name}")),
                }
            }
            Value::Number(number) => match (field, field.kind()) {
                (Field::Vlan, _) => self.in_stack(link::VLAN, *number),
                (Field::Scope, _) => self.in_scope(*number),
                (Field::Mpls, _) => self.in_stack(link::MPLS, *number),
                (Field::Direction, _) => {
                    let direction = self.bind(*number as i16, Type::INT2);
                    of_point(&format!("direction = {direction}"))
                }
                (_, Kind::Flag) if *number == 0 => format!("NOT {}", columns(field)[0]),
                (_, Kind::Flag) => columns(field)[0].to_owned(),
                _ => self.compared(field, "=", *number),
            },
            Value::Range(low, high) => {
                let (low, high) = (self.number(*low), self.number(*high));
                either(field, |column| format!("{column} BETWEEN {low} AND {high}"))
            }
        }
    }

    fn compared(&mut self, field: Field, operator: &str, bound: u64) -> String {
        let bound = self.number(bound);
        either(field, |column| format!("{column} {operator} {bound}"))
    }

    /// Every number fits: the largest that a field takes is that of a bigint.
    fn number(&mut self, number: u64) -> String {
        self.bind(i64::try_from(number).unwrap_or(i64::MAX), Type::INT8)
    }

    /// Flows with one of these addresses, while it was somebody's. The list of addresses is looked up in a hash; few
    /// flows get as far as the times.
    fn held(&mut self, field: Field, held: &[Held]) -> String {
        if held.is_empty() {
            return "FALSE".to_owned();
        }
        let addresses = self.bind(held.iter().map(|it| it.address).collect::<Vec<_>>(), Type::INET_ARRAY);
        let sensors = self.bind(held.iter().map(|it| it.sensor_id).collect::<Vec<_>>(), Type::INT4_ARRAY);
        let from = self.bind(held.iter().map(|it| it.from_ns).collect::<Vec<_>>(), Type::INT8_ARRAY);
        let until = self.bind(held.iter().map(|it| it.until_ns).collect::<Vec<_>>(), Type::INT8_ARRAY);
        let of_end = |end: &str| {
            format!(
                "({end} = ANY ({addresses}) AND EXISTS (
                     SELECT FROM unnest({sensors}, {addresses}, {from}, {until})
                                 AS held (sensor, address, from_ns, until_ns)
                     WHERE address = {end} AND sensor = sensor_id AND first_ns >= from_ns AND first_ns < until_ns))"
            )
        };
        either(field, of_end)
    }

    fn in_stack(&mut self, kind: u32, value: u64) -> String {
        let header = self.bind((kind | value as u32) as i32, Type::INT4);
        format!("link @> ARRAY[{header}]")
    }
}

/// The test over each column that a field stands for.
pub(super) fn either(field: Field, test: impl FnMut(&str) -> String) -> String {
    columns(field).iter().copied().map(test).collect::<Vec<_>>().join(" OR ")
}

const fn columns(field: Field) -> &'static [&'static str] {
    match field {
        Field::Src | Field::SrcDevice | Field::SrcNetwork => &["src"],
        Field::Dst | Field::DstDevice | Field::DstNetwork => &["dst"],
        Field::Address | Field::Device | Field::Network | Field::Scope => &["src", "dst"],
        Field::SrcPort => &["src_port"],
        Field::DstPort | Field::Service => &["dst_port"],
        Field::Port => &["src_port", "dst_port"],
        Field::Protocol => &["protocol"],
        Field::Packets => &["packets"],
        Field::Octets => &["octets"],
        Field::ReversePackets => &["reverse_packets"],
        Field::ReverseOctets => &["reverse_octets"],
        // Two counts of 63 bits may add up to more than a bigint holds.
        Field::TotalPackets => &["(packets::numeric + reverse_packets)"],
        Field::TotalOctets => &["(octets::numeric + reverse_octets)"],
        Field::TcpState => &["tcp_state"],
        Field::EndReason => &["end_reason"],
        Field::HandshakeRttUs => &["handshake_rtt_us"],
        Field::Fragment => &["fragment"],
        Field::IcmpType => &["icmp_type"],
        Field::IcmpCode => &["icmp_code"],
        Field::SamplingInterval => &["sampling_interval"],
        Field::Vlan | Field::Mpls => &["link"],
        Field::Sensor => &["sensor_id"],
        Field::Interface | Field::Direction => &["point_id"],
        Field::Name | Field::Sni => &["domain_id"],
        Field::NameSource => &["name_source"],
        Field::Country => &["src_country", "dst_country"],
        Field::SrcCountry => &["src_country"],
        Field::DstCountry => &["dst_country"],
        Field::Asn => &["src_asn", "dst_asn"],
        Field::SrcAsn => &["src_asn"],
        Field::DstAsn => &["dst_asn"],
        Field::Process | Field::Executable | Field::Container | Field::Unit => {
            &["src_process_id", "dst_process_id"]
        }
        Field::SrcProcess => &["src_process_id"],
        Field::DstProcess => &["dst_process_id"],
    }
}

/// Whether its names are given at the time of the question, and Postgres knows none of them.
const fn is_given(field: Field) -> bool {
    matches!(field, Field::SrcNetwork | Field::DstNetwork | Field::Network | Field::Service)
}

/// A name as it is stored: those of domains in small letters.
fn spelled(field: Field, name: &str) -> String {
    if matches!(field, Field::Name | Field::Sni) { name.to_lowercase() } else { name.to_owned() }
}

/// Flows whose sensor, interface or responder has a name that passes the test.
fn named(field: Field, test: &str) -> String {
    let domain = format!("domain_id IN (SELECT domain_id FROM domain WHERE name {test})");
    match field {
        Field::Name => domain,
        Field::Sni => {
            let (tls, quic) = (NameSource::Tls as i16, NameSource::Quic as i16);
            format!("({domain} AND name_source IN ({tls}, {quic}))")
        }
        Field::Sensor => format!("sensor_id IN (SELECT sensor_id FROM sensor WHERE name {test})"),
        Field::Process | Field::SrcProcess | Field::DstProcess => of_process(field, "name", test),
        Field::Executable => of_process(field, "executable", test),
        Field::Container => of_process(field, "container", test),
        Field::Unit => of_process(field, "unit", test),
        // A resolved expression has what these had in their place.
        Field::Device | Field::SrcDevice | Field::DstDevice => "FALSE".to_owned(),
        _ => of_point(&format!("interface {test}")),
    }
}

fn of_process(field: Field, column: &str, test: &str) -> String {
    let processes = format!("(SELECT process_id FROM process WHERE {column} {test})");
    either(field, |side| format!("{side} IN {processes}"))
}

fn of_point(test: &str) -> String {
    format!("(sensor_id, point_id) IN (SELECT sensor_id, point_id FROM observation_point WHERE {test})")
}

/// A pattern of ours as one of SQL's: `*` is `%`, and SQL's own signs mean themselves.
pub(super) fn like(pattern: &str) -> String {
    let mut like = String::with_capacity(pattern.len());
    for char in pattern.chars() {
        match char {
            '*' => like.push('%'),
            '%' | '_' | '\\' => like.extend(['\\', char]),
            _ => like.push(char),
        }
    }
    like
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::parse;

    fn sql(text: &str) -> (String, usize) {
        let mut sql = Sql::new("");
        sql.push_expression(&parse(text).expect(text));
        let parameters = sql.parameters().len();
        (sql.text, parameters)
    }

    #[test]
    fn values_are_bound_and_never_written() {
        assert_eq!(
            sql("dst_port = 443 and not (sensor ~ \"a'; --*\" or vlan = 10)"),
            (
                "((dst_port = $1) AND (((sensor_id IN (SELECT sensor_id FROM sensor WHERE name LIKE $2)) OR \
                 (link @> ARRAY[$3])) IS NOT TRUE))"
                    .to_owned(),
                3
            )
        );
        assert_eq!(
            sql("port in (53, 60..70)").0,
            "(src_port = $1 OR dst_port = $1 OR src_port BETWEEN $2 AND $3 OR dst_port BETWEEN $2 AND $3)"
        );
    }

    #[test]
    fn patterns_mean_only_what_ours_mean() {
        assert_eq!(like(r"50%_a\*"), r"50\%\_a\\%");
    }
}
