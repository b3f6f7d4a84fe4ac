//! Flows as CSV (RFC 4180), safe to open in a spreadsheet.

use super::flows::Flow;

/// Writes the header before the first page.
#[derive(Default)]
pub struct Table {
    begun: bool,
}

const COLUMNS: [&str; 53] = [
    "sensor",
    "sensor_id",
    "window_start",
    "start",
    "first",
    "last",
    "src",
    "dst",
    "protocol",
    "src_port",
    "dst_port",
    "packets",
    "octets",
    "reverse_packets",
    "reverse_octets",
    "tcp_flags",
    "reverse_tcp_flags",
    "tcp_state",
    "end_reason",
    "handshake_rtt_us",
    "fragment",
    "icmp_type",
    "icmp_code",
    "interface",
    "direction",
    "link",
    "path",
    "sampling_interval",
    "retransmits",
    "name",
    "name_source",
    "src_country",
    "dst_country",
    "src_asn",
    "dst_asn",
    "src_organisation",
    "dst_organisation",
    "src_process",
    "src_executable",
    "src_container",
    "src_unit",
    "dst_process",
    "dst_executable",
    "dst_container",
    "dst_unit",
    "src_device",
    "src_device_id",
    "dst_device",
    "dst_device_id",
    "src_network",
    "dst_network",
    "scope",
    "service",
];

impl Table {
    /// Lines for some flows.
    pub fn page(&mut self, flows: impl Iterator<Item = Flow>) -> Result<Vec<u8>, std::io::Error> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        if !std::mem::replace(&mut self.begun, true) {
            writer.write_record(COLUMNS)?;
        }
        for flow in flows {
            writer.write_record(fields(&flow).map(|field| harmless(&field)))?;
        }
        writer.into_inner().map_err(|error| std::io::Error::other(error.to_string()))
    }
}

fn fields(flow: &Flow) -> [String; COLUMNS.len()] {
    let path: Vec<String> =
        flow.path.iter().map(|point| format!("{}:{}", point.interface, point.direction)).collect();
    [
        flow.sensor.clone(),
        flow.sensor_id.to_string(),
        flow.window_start.clone(),
        flow.start.clone(),
        flow.first.clone(),
        flow.last.clone(),
        flow.src.clone(),
        flow.dst.clone(),
        flow.protocol.to_string(),
        flow.src_port.to_string(),
        flow.dst_port.to_string(),
        flow.packets.to_string(),
        flow.octets.to_string(),
        flow.reverse_packets.to_string(),
        flow.reverse_octets.to_string(),
        flow.tcp_flags.to_string(),
        flow.reverse_tcp_flags.to_string(),
        flow.tcp_state.to_owned(),
        flow.end_reason.to_owned(),
        flow.handshake_rtt_us.map(|rtt| rtt.to_string()).unwrap_or_default(),
        flow.fragment.to_string(),
        flow.icmp_type.to_string(),
        flow.icmp_code.to_string(),
        flow.interface.clone(),
        flow.direction.to_owned(),
        flow.link.join("|"),
        path.join("|"),
        flow.sampling_interval.to_string(),
        flow.retransmits.to_string(),
        text(flow.name.as_ref()),
        flow.name_source.unwrap_or_default().to_owned(),
        text(flow.src_country.as_ref()),
        text(flow.dst_country.as_ref()),
        number(flow.src_asn),
        number(flow.dst_asn),
        text(flow.src_organisation.as_ref()),
        text(flow.dst_organisation.as_ref()),
        text(flow.src_process.as_ref()),
        text(flow.src_executable.as_ref()),
        text(flow.src_container.as_ref()),
        text(flow.src_unit.as_ref()),
        text(flow.dst_process.as_ref()),
        text(flow.dst_executable.as_ref()),
        text(flow.dst_container.as_ref()),
        text(flow.dst_unit.as_ref()),
        text(flow.src_device.as_ref()),
        text(flow.src_device_id.map(|id| id.to_string()).as_ref()),
        text(flow.dst_device.as_ref()),
        text(flow.dst_device_id.map(|id| id.to_string()).as_ref()),
        text(flow.src_network.as_ref()),
        text(flow.dst_network.as_ref()),
        flow.scope.to_owned(),
        text(flow.service.as_ref()),
    ]
}

fn text(field: Option<&String>) -> String {
    field.cloned().unwrap_or_default()
}

fn number(field: Option<i64>) -> String {
    field.map(|number| number.to_string()).unwrap_or_default()
}

/// A field that a spreadsheet would take for a formula begins with an apostrophe instead.
fn harmless(field: &str) -> String {
    if field.starts_with(['=', '+', '-', '@', '\t', '\r']) && field.parse::<f64>().is_err() {
        return format!("'{field}");
    }
    field.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name of an interface is up to whoever names interfaces.
    #[test]
    fn formulas_stay_text() {
        for formula in ["=1+1", "+cmd|' /C calc'!A0", "-2+3+cmd", "@SUM(A1)", "\t=1"] {
            assert_eq!(harmless(formula), format!("'{formula}"));
        }
        for plain in ["-12", "eth0", "2001:db8::1", "", "10.0.0.1"] {
            assert_eq!(harmless(plain), plain);
        }
    }
}
