//! A collector of traces: takes OTLP over HTTP as protobuf, as OpenTelemetry's own messages have it.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1 as otlp;
use prost::Message as _;

use crate::{Error, Result};

/// A span as it came; ids in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub service: String,
    pub trace: String,
    pub id: String,
    /// Empty where there is none.
    pub parent: String,
    pub name: String,
    /// `SPAN_KIND_SERVER` and so on.
    pub kind: &'static str,
    pub attributes: BTreeMap<String, String>,
    /// What its status says of its failure, if it is one.
    pub failure: Option<String>,
}

/// A running collector. It ends with the process.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    spans: Vec<Span>,
    /// `Authorization` of the last request.
    authorization: String,
}

impl Collector {
    pub fn start() -> Result<Self> {
        let failed = || Error::io("start a collector");
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(failed())?;
        let address = listener.local_addr().map_err(failed())?;
        let taken: Arc<Mutex<Taken>> = Arc::default();
        let all = Arc::clone(&taken);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let taken = Arc::clone(&all);
                thread::spawn(move || serve(&stream, &taken));
            }
        });
        Ok(Self { address, taken })
    }

    /// For `traces.endpoint`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}/v1/traces", self.address)
    }

    /// All that came.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        lock(&self.taken).spans.clone()
    }

    #[must_use]
    pub fn authorization(&self) -> String {
        lock(&self.taken).authorization.clone()
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection, one request after the other.
fn serve(stream: &TcpStream, taken: &Mutex<Taken>) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = BTreeMap::new();
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let request = line.trim_end().to_owned();
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            head.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let header = |name: &str| head.get(name).cloned().unwrap_or_default();
        let mut body = vec![0; header("content-length").parse().unwrap_or_default()];
        reader.read_exact(&mut body)?;
        let right =
            request == "POST /v1/traces HTTP/1.1" && header("content-type") == "application/x-protobuf";
        let status = match ExportTraceServiceRequest::decode(&*body) {
            Ok(request) if right => {
                let mut taken = lock(taken);
                taken.spans.extend(spans(request));
                taken.authorization = header("authorization");
                "200 OK"
            }
            _ => "400 Bad Request",
        };
        let mut stream = stream;
        stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes())?;
    }
}

fn spans(request: ExportTraceServiceRequest) -> Vec<Span> {
    let mut all = Vec::new();
    for resource in request.resource_spans {
        let of = attributes(resource.resource.map(|resource| resource.attributes).unwrap_or_default());
        let service = of.get("service.name").cloned().unwrap_or_default();
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            let status = span.status.clone().unwrap_or_default();
            let failed = status.code() == otlp::status::StatusCode::Error;
            all.push(Span {
                service: service.clone(),
                trace: hexadecimal(&span.trace_id),
                id: hexadecimal(&span.span_id),
                parent: hexadecimal(&span.parent_span_id),
                kind: span.kind().as_str_name(),
                name: span.name,
                attributes: attributes(span.attributes),
                failure: failed.then_some(status.message),
            });
        }
    }
    all
}

fn attributes(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<Value>| match value {
        Some(Value::StringValue(value)) => value,
        Some(Value::IntValue(value)) => value.to_string(),
        other => format!("{other:?}"),
    };
    pairs.into_iter().map(|pair| (pair.key, text(pair.value.and_then(|value| value.value)))).collect()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
