//! What a sensor learned about flows beyond their counts, made fit to be kept.
//!
//! Names come from packets, so from strangers. A name that cannot be kept as it is is cleaned or dropped and
//! never makes a batch refused: counts are worth more than names.

use weir_wire::text::is_hostile;
use weir_wire::{Flow, NameSource, Place, limits};

use super::validate::Invalid;
use crate::store::processes::Process;

/// Names and places that flows of a batch refer to.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// By the index that flows hold (less one); an empty one is no name.
    pub names: Vec<String>,
    pub places: Vec<Place>,
    /// By the index that flows hold (less one); one without a name is none.
    pub processes: Vec<Process>,
}

impl Context {
    /// Cleans what there is; too many of them are refused, as no sensor sends them.
    pub(super) fn check(
        names: &[String],
        places: Vec<Place>,
        processes: &[weir_wire::Process],
    ) -> Result<Self, Invalid> {
        for (field, length, most) in [
            ("names", names.len(), limits::MAX_NAMES),
            ("places", places.len(), limits::MAX_PLACES),
            ("processes", processes.len(), limits::MAX_PROCESSES),
        ] {
            if length > most {
                return Err(Invalid {
                    field: field.to_owned(),
                    message: format!("{length} are more than {most}"),
                });
            }
        }
        let names = names.iter().map(|name| clean(name, limits::MAX_NAME).to_lowercase()).collect();
        let places = places.into_iter().map(cleaned).collect();
        let processes = processes.iter().map(process).collect();
        Ok(Self { names, places, processes })
    }

    /// The name that a flow holds.
    #[must_use]
    pub fn name(&self, flow: &Flow) -> Option<(usize, NameSource)> {
        let index = (flow.name as usize).checked_sub(1)?;
        self.names.get(index).filter(|name| !name.is_empty())?;
        Some((index, NameSource::try_from(flow.name_source).unwrap_or(NameSource::Unknown)))
    }

    /// The place that a flow's number stands for.
    #[must_use]
    pub fn place(&self, number: u32) -> Option<&Place> {
        (number as usize).checked_sub(1).and_then(|index| self.places.get(index))
    }
}

/// Refuses numbers that stand for nothing.
pub(super) fn check_flow(flow: &Flow, context: &Context) -> Result<(), (&'static str, String)> {
    let Context { names, places, processes } = context;
    for (field, number, most) in [
        ("name", flow.name, names.len()),
        ("src_place", flow.src_place, places.len()),
        ("dst_place", flow.dst_place, places.len()),
        ("src_process", flow.src_process, processes.len()),
        ("dst_process", flow.dst_process, processes.len()),
    ] {
        if number as usize > most {
            return Err((field, format!("{number} is more than {most}")));
        }
    }
    Ok(())
}

fn process(process: &weir_wire::Process) -> Process {
    Process {
        name: clean(&process.name, limits::MAX_PROCESS_NAME),
        executable: clean(&process.executable, limits::MAX_EXECUTABLE),
        container: clean(&process.container, limits::MAX_CONTAINER),
        unit: clean(&process.unit, limits::MAX_UNIT),
    }
}

fn cleaned(place: Place) -> Place {
    let is_code = place.country.len() == 2 && place.country.bytes().all(|byte| byte.is_ascii_uppercase());
    Place {
        country: if is_code { place.country } else { String::new() },
        asn: place.asn,
        organisation: clean(&place.organisation, limits::MAX_ORGANISATION),
    }
}

/// At most `most` bytes, without characters that move a cursor or turn the direction of a line.
pub(super) fn clean(text: &str, most: usize) -> String {
    let mut clean = String::with_capacity(text.len().min(most));
    for char in text.chars().map(|char| if is_hostile(char) { char::REPLACEMENT_CHARACTER } else { char }) {
        if clean.len() + char.len_utf8() > most {
            break;
        }
        clean.push(char);
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i6_names_are_cleaned_and_bounded() {
        let long = "é".repeat(200);
        let names = ["WWW.Example.ORG", "a\x1b[31m\0b", "x\u{202e}y", &long, ""].map(str::to_owned).to_vec();
        let context = Context::check(&names, Vec::new(), &[]).expect("few names");
        assert_eq!(context.names[..3], ["www.example.org", "a\u{fffd}[31m\u{fffd}b", "x\u{fffd}y"]);
        assert_eq!(context.names[3].len(), 254, "cut between characters");
        assert_eq!(context.name(&Flow { name: 5, ..Flow::default() }), None, "an empty name is none");
        assert_eq!(context.name(&Flow::default()), None);
    }

    #[test]
    fn i6_a_country_is_a_code_or_nothing() {
        let place =
            |country: &str| Place { country: country.to_owned(), asn: 1, organisation: "O\n".to_owned() };
        let context = Context::check(&[], ["NL", "nl", "N\0", "NLD"].map(place).to_vec(), &[]).expect("few");
        let countries: Vec<&str> = context.places.iter().map(|place| place.country.as_str()).collect();
        assert_eq!(countries, ["NL", "", "", ""]);
        assert_eq!(context.places[0].organisation, "O\u{fffd}");
    }
}
