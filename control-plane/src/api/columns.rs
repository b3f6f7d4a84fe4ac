//! Flows as Parquet: a column each, in row groups, so that memory holds one group and no file.
//!
//! The columns are those of the CSV, typed: times are timestamps in UTC, what may be absent is null. Lists are
//! joined by `|` there and here.

use std::io;
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;

use super::render;
use crate::store::flows::{Flow, Point};

/// Flows of a row group: some 20 MB while it is made, and enough that columns compress well.
pub const ROW_GROUP: usize = 32_768;

/// How a column's value is got from a flow.
enum Value {
    Int64(fn(&Flow) -> i64),
    Int32(fn(&Flow) -> i32),
    Bool(fn(&Flow) -> bool),
    Text(fn(&Flow) -> String),
    OptionalInt64(fn(&Flow) -> Option<i64>),
    OptionalInt32(fn(&Flow) -> Option<i32>),
    OptionalText(fn(&Flow) -> Option<String>),
}

use Value::{Bool, Int32, Int64, OptionalInt32, OptionalInt64, OptionalText, Text};

const NANOSECONDS: &str = "(TIMESTAMP(NANOS,true))";
const MICROSECONDS: &str = "(TIMESTAMP(MICROS,true))";

const COLUMNS: &[(&str, &str, Value)] = &[
    ("sensor", "", Text(|flow| flow.sensor.clone())),
    ("sensor_id", "", Int32(|flow| flow.position.sensor_id)),
    ("window_start", MICROSECONDS, Int64(|flow| flow.position.window_start_us)),
    ("start", NANOSECONDS, Int64(|flow| flow.start_ns)),
    ("first", NANOSECONDS, Int64(|flow| flow.first_ns)),
    ("last", NANOSECONDS, Int64(|flow| flow.last_ns)),
    ("src", "", Text(|flow| flow.src.to_string())),
    ("dst", "", Text(|flow| flow.dst.to_string())),
    ("protocol", "", Int32(|flow| flow.protocol.into())),
    ("src_port", "", Int32(|flow| flow.src_port)),
    ("dst_port", "", Int32(|flow| flow.dst_port)),
    ("packets", "", Int64(|flow| flow.packets)),
    ("octets", "", Int64(|flow| flow.octets)),
    ("reverse_packets", "", Int64(|flow| flow.reverse_packets)),
    ("reverse_octets", "", Int64(|flow| flow.reverse_octets)),
    ("tcp_flags", "", Int32(|flow| flow.tcp_flags.into())),
    ("reverse_tcp_flags", "", Int32(|flow| flow.reverse_tcp_flags.into())),
    ("tcp_state", "", Text(|flow| render::tcp_state(flow.tcp_state).to_owned())),
    ("end_reason", "", Text(|flow| render::end_reason(flow.end_reason).to_owned())),
    ("handshake_rtt_us", "", OptionalInt32(|flow| flow.handshake_rtt_us)),
    ("fragment", "", Bool(|flow| flow.fragment)),
    ("icmp_type", "", Int32(|flow| flow.icmp_type.into())),
    ("icmp_code", "", Int32(|flow| flow.icmp_code.into())),
    ("interface", "", Text(|flow| flow.point.interface.clone())),
    ("direction", "", Text(|flow| render::direction(flow.point.direction).to_owned())),
    ("link", "", Text(|flow| render::links(&flow.link).join("|"))),
    ("path", "", Text(|flow| flow.path.iter().map(crossed).collect::<Vec<_>>().join("|"))),
    ("sampling_interval", "", Int32(|flow| flow.sampling_interval)),
    ("retransmits", "", Int32(|flow| flow.retransmits)),
    ("name", "", OptionalText(|flow| flow.name.clone())),
    ("name_source", "", OptionalText(name_source)),
    ("src_country", "", OptionalText(|flow| flow.src_place.country.clone())),
    ("dst_country", "", OptionalText(|flow| flow.dst_place.country.clone())),
    ("src_asn", "", OptionalInt64(|flow| flow.src_place.asn)),
    ("dst_asn", "", OptionalInt64(|flow| flow.dst_place.asn)),
    ("src_organisation", "", OptionalText(|flow| flow.src_place.organisation.clone())),
    ("dst_organisation", "", OptionalText(|flow| flow.dst_place.organisation.clone())),
    ("src_process", "", OptionalText(|flow| flow.src_process.known(|process| &process.name))),
    ("src_executable", "", OptionalText(|flow| flow.src_process.known(|process| &process.executable))),
    ("src_container", "", OptionalText(|flow| flow.src_process.known(|process| &process.container))),
    ("src_unit", "", OptionalText(|flow| flow.src_process.known(|process| &process.unit))),
    ("dst_process", "", OptionalText(|flow| flow.dst_process.known(|process| &process.name))),
    ("dst_executable", "", OptionalText(|flow| flow.dst_process.known(|process| &process.executable))),
    ("dst_container", "", OptionalText(|flow| flow.dst_process.known(|process| &process.container))),
    ("dst_unit", "", OptionalText(|flow| flow.dst_process.known(|process| &process.unit))),
    ("src_device", "", OptionalText(|flow| flow.src_device.as_ref().and_then(|device| device.name.clone()))),
    ("src_device_id", "", OptionalInt64(|flow| flow.src_device.as_ref().map(|device| device.device_id))),
    ("dst_device", "", OptionalText(|flow| flow.dst_device.as_ref().and_then(|device| device.name.clone()))),
    ("dst_device_id", "", OptionalInt64(|flow| flow.dst_device.as_ref().map(|device| device.device_id))),
    ("src_network", "", OptionalText(|flow| flow.src_network.clone())),
    ("dst_network", "", OptionalText(|flow| flow.dst_network.clone())),
    ("scope", "", Text(|flow| flow.scope.word().to_owned())),
    ("service", "", OptionalText(|flow| flow.service.clone())),
];

fn crossed(point: &Point) -> String {
    format!("{}:{}", point.interface, render::direction(point.direction))
}

fn name_source(flow: &Flow) -> Option<String> {
    let source = flow.name.as_ref().and(flow.name_source)?;
    Some(render::name_source(source).to_owned())
}

impl Value {
    /// As a message type of Parquet writes it.
    fn physical(&self) -> (&'static str, &'static str) {
        match self {
            Int64(_) => ("REQUIRED", "INT64"),
            Int32(_) => ("REQUIRED", "INT32"),
            Bool(_) => ("REQUIRED", "BOOLEAN"),
            Text(_) => ("REQUIRED", "BYTE_ARRAY"),
            OptionalInt64(_) => ("OPTIONAL", "INT64"),
            OptionalInt32(_) => ("OPTIONAL", "INT32"),
            OptionalText(_) => ("OPTIONAL", "BYTE_ARRAY"),
        }
    }

    fn write(&self, column: &mut SerializedColumnWriter<'_>, flows: &[Flow]) -> Result<(), ParquetError> {
        match self {
            Int64(of) => required::<Int64Type>(column, &flows.iter().map(of).collect::<Vec<_>>()),
            Int32(of) => required::<Int32Type>(column, &flows.iter().map(of).collect::<Vec<_>>()),
            Bool(of) => required::<BoolType>(column, &flows.iter().map(of).collect::<Vec<_>>()),
            Text(of) => required::<ByteArrayType>(
                column,
                &flows.iter().map(|flow| bytes(of(flow))).collect::<Vec<_>>(),
            ),
            OptionalInt64(of) => optional::<Int64Type>(column, flows.iter().map(of)),
            OptionalInt32(of) => optional::<Int32Type>(column, flows.iter().map(of)),
            OptionalText(of) => {
                optional::<ByteArrayType>(column, flows.iter().map(|flow| of(flow).map(bytes)))
            }
        }
    }
}

fn bytes(text: String) -> ByteArray {
    ByteArray::from(text.into_bytes())
}

fn required<T: DataType>(
    column: &mut SerializedColumnWriter<'_>,
    values: &[T::T],
) -> Result<(), ParquetError> {
    column.typed::<T>().write_batch(values, None, None).map(|_| ())
}

/// Absent values have definition level 0 and no place among the values.
fn optional<T: DataType>(
    column: &mut SerializedColumnWriter<'_>,
    values: impl Iterator<Item = Option<T::T>>,
) -> Result<(), ParquetError> {
    let (mut present, mut levels) = (Vec::new(), Vec::new());
    for value in values {
        levels.push(i16::from(value.is_some()));
        present.extend(value);
    }
    column.typed::<T>().write_batch(&present, Some(&levels), None).map(|_| ())
}

/// A file in the making. What was written is taken piece by piece; the last piece is its footer, without which
/// no reader takes it for a file.
pub struct Columns {
    writer: SerializedFileWriter<Vec<u8>>,
}

impl Columns {
    pub fn new() -> io::Result<Self> {
        let fields: Vec<String> = COLUMNS
            .iter()
            .map(|(name, logical, value)| {
                let (repetition, physical) = value.physical();
                let logical = if physical == "BYTE_ARRAY" { "(STRING)" } else { logical };
                format!("{repetition} {physical} {name} {logical};\n")
            })
            .collect();
        let schema =
            parse_message_type(&format!("message flow {{\n{}}}", fields.concat())).map_err(failed)?;
        let level = ZstdLevel::try_new(3).map_err(failed)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(level))
            .set_created_by(concat!("weir-control-plane ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let writer = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::new(properties));
        Ok(Self { writer: writer.map_err(failed)? })
    }

    /// A row group of these flows: what to send next.
    pub fn group(&mut self, flows: &[Flow]) -> io::Result<Vec<u8>> {
        self.write(flows).map_err(failed)?;
        self.writer.flush()?;
        // The writer counts its bytes itself: it does not miss those that are taken.
        Ok(std::mem::take(self.writer.inner_mut()))
    }

    fn write(&mut self, flows: &[Flow]) -> Result<(), ParquetError> {
        let mut group = self.writer.next_row_group()?;
        for (_, _, value) in COLUMNS {
            let Some(mut column) = group.next_column()? else { break };
            value.write(&mut column, flows)?;
            column.close()?;
        }
        group.close().map(|_| ())
    }

    /// The footer, which makes it a file.
    pub fn finish(self) -> io::Result<Vec<u8>> {
        self.writer.into_inner().map_err(failed)
    }
}

fn failed(error: ParquetError) -> io::Error {
    io::Error::other(error)
}
