//! Names that are given at the time of the question, in SQL. Services are ports. Networks of addresses: the pieces that `naming` has them in are bound once in a statement, and a search
//! in them labels each row.
//!
//! `width_bucket` gives the place of an address among the beginnings of the pieces; what a sensor's own networks say
//! is the greater value where it is more specific.

use std::fmt::Write as _;
use std::sync::Arc;

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::expression::either;
use super::filter::Sql;
use super::top::End;
use crate::expression::Field;
use crate::naming::{Kind, LABEL_MASK, Naming, Partition, Question, Scope};

/// The places of what is bound: of the networks, and of the kinds.
#[derive(Default)]
pub(super) struct Labels {
    networks: Option<Places>,
    kinds: Option<Places>,
}

/// Of all sensors, and of some of their own.
#[derive(Clone)]
struct Places {
    general: Bound,
    of_sensors: Vec<(String, Bound)>,
}

/// A partition's lists: where pieces begin, and their values.
#[derive(Clone)]
struct Bound {
    v4: (String, String),
    v6: (String, String),
}

impl Bound {
    /// The value of a side's address. Numbers and UUIDs have one length, so that the search halves the list; a list of
    /// `inet` would be walked through.
    fn value(&self, side: &str) -> String {
        let Self { v4: (bounds4, values4), v6: (bounds6, values6) } = self;
        format!(
            "CASE family({side}) WHEN 4 THEN ({values4})[width_bucket({side} - '0.0.0.0'::inet, {bounds4})]
             ELSE ({values6})[width_bucket(encode(substring(inet_send({side}) FROM 5), 'hex')::uuid, {bounds6})] END"
        )
    }
}

impl Sql {
    /// The label of a side's address: a number, 0 for none.
    pub(super) fn label(&mut self, question: Question, side: &str) -> String {
        let places = self.places(question);
        if places.of_sensors.is_empty() {
            return format!("(({}) & {LABEL_MASK})", places.general.value(side));
        }
        let mut own = String::new();
        for (sensor_id, of_sensor) in &places.of_sensors {
            // `write!` to a String cannot fail.
            let _ = write!(own, " WHEN {sensor_id} THEN {}", of_sensor.value(side));
        }
        format!("(greatest({}, CASE sensor_id{own} END) & {LABEL_MASK})", places.general.value(side))
    }

    fn places(&mut self, question: Question) -> Places {
        let known = match question {
            Question::Network => &self.labels.networks,
            Question::Kind => &self.labels.kinds,
        };
        if let Some(places) = known {
            return places.clone();
        }
        let naming = Arc::clone(&self.naming);
        let pieces = naming.networks.pieces(question);
        let mut both = |partition: &Partition| {
            let ((v4, of_v4), (v6, of_v6)) = (partition.v4(), partition.v6());
            let v4: Vec<i64> = v4.into_iter().map(i64::from).collect();
            let v6: Vec<Uuid> = v6.into_iter().map(Uuid::from_u128).collect();
            Bound {
                v4: (self.bind(v4, Type::INT8_ARRAY), self.bind(of_v4, Type::INT4_ARRAY)),
                v6: (self.bind(v6, Type::UUID_ARRAY), self.bind(of_v6, Type::INT4_ARRAY)),
            }
        };
        let general = both(&pieces.general);
        let own: Vec<_> = pieces.of_sensors.iter().map(|(id, own)| (*id, both(own))).collect();
        let of_sensors = own.into_iter().map(|(id, own)| (self.bind(id, Type::INT4), own)).collect();
        let places = Places { general, of_sensors };
        let known = match question {
            Question::Network => &mut self.labels.networks,
            Question::Kind => &mut self.labels.kinds,
        };
        known.insert(places).clone()
    }

    /// What the network of an end is called, as a column `label`; nothing where it has no name, or stands for the others
    /// of a rollup.
    pub(super) fn network(&mut self, naming: &Arc<Naming>, end: End) -> String {
        self.naming = Arc::clone(naming);
        let names: Vec<String> = naming.networks.named().iter().map(|named| named.name.clone()).collect();
        let names = self.bind(names, Type::TEXT_ARRAY);
        let side = end.column();
        let label = self.label(Question::Network, side);
        format!("CASE WHEN {side} = '::/0' THEN '' ELSE coalesce(({names})[{label}], '') END AS label")
    }

    /// Flows with one of the names that are meant.
    pub(super) fn given(&mut self, field: Field, is_meant: impl Fn(&str) -> bool) -> String {
        if field == Field::Service { self.at_services(is_meant) } else { self.in_networks(field, is_meant) }
    }

    fn at_services(&mut self, is_meant: impl Fn(&str) -> bool) -> String {
        let naming = Arc::clone(&self.naming);
        let tests: Vec<String> = naming
            .services
            .ports(is_meant)
            .into_iter()
            .map(|(protocol, ports)| {
                let protocol = self.bind(i16::from(protocol), Type::INT2);
                let ports: Vec<i32> = ports.into_iter().map(i32::from).collect();
                format!("(protocol = {protocol} AND dst_port = ANY ({}))", self.bind(ports, Type::INT4_ARRAY))
            })
            .collect();
        if tests.is_empty() { "FALSE".to_owned() } else { tests.join(" OR ") }
    }

    /// Flows that a side of is in one of the networks that are meant.
    fn in_networks(&mut self, field: Field, is_meant: impl Fn(&str) -> bool) -> String {
        let naming = Arc::clone(&self.naming);
        let labels = naming.networks.labels(is_meant);
        if labels.is_empty() {
            return "FALSE".to_owned();
        }
        let Some(terms) = naming.networks.terms(&labels) else {
            let labels: Vec<i32> = labels.into_iter().map(i32::from).collect();
            let labels = self.bind(labels, Type::INT4_ARRAY);
            return either(field, |side| format!("{} = ANY ({labels})", self.label(Question::Network, side)));
        };
        let mut bound = |network: crate::store::filter::Network| {
            let operator = network.operator();
            format!("{operator} {}", self.bind(network, Type::INET))
        };
        let terms: Vec<(String, Vec<String>)> = terms
            .into_iter()
            .map(|(network, holes)| (bound(network), holes.into_iter().map(&mut bound).collect()))
            .collect();
        either(field, |side| {
            let of_term = |(within, holes): &(String, Vec<String>)| {
                let holes: String =
                    holes.iter().fold(String::new(), |text, hole| text + &format!(" AND NOT {side} {hole}"));
                format!("({side} {within}{holes})")
            };
            terms.iter().map(of_term).collect::<Vec<_>>().join(" OR ")
        })
    }

    /// Flows of a [`Scope`], by its number.
    pub(super) fn in_scope(&mut self, number: u64) -> String {
        let Some(scope) = Scope::ALL.into_iter().find(|scope| *scope as u64 == number) else {
            return "FALSE".to_owned();
        };
        let mut is =
            |side: &str, kind: Kind| format!("{} = {}", self.label(Question::Kind, side), kind as u16);
        match scope {
            Scope::Multicast => is("dst", Kind::Multicast),
            Scope::Broadcast => is("dst", Kind::Broadcast),
            Scope::Internal => format!("({} AND {})", is("src", Kind::Internal), is("dst", Kind::Internal)),
            Scope::Outbound => format!("({} AND {})", is("src", Kind::Internal), is("dst", Kind::External)),
            Scope::Inbound => {
                format!("({} AND NOT {})", is("dst", Kind::Internal), is("src", Kind::Internal))
            }
            Scope::External => {
                format!("({} AND NOT {})", is("dst", Kind::External), is("src", Kind::Internal))
            }
        }
    }
}
