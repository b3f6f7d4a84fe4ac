//! `GET /api/v1/flows/export`: all flows of a filter as a file, streamed.

use std::io;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use utoipa::IntoParams;

use super::columns::{Columns, ROW_GROUP};
use super::error::{Category, Problem};
use super::flows::Flow;
use super::params::{FromParams, Params, Query};
use super::table::Table;
use super::window::FilterParams;
use super::{ApiError, AppState};
use crate::store::{self, StoreError, export};
use crate::telemetry::Metrics;

const MAX_FLOWS: u64 = 100_000_000;
/// Seconds after which a place may be free.
const RETRY_AFTER: u32 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Format {
    #[default]
    Ndjson,
    Csv,
    Parquet,
}

impl Format {
    /// Content type and the file's name.
    fn head(self) -> (&'static str, &'static str) {
        match self {
            Self::Ndjson => ("application/x-ndjson", "attachment; filename=\"weir-flows.ndjson\""),
            Self::Csv => ("text/csv; charset=utf-8", "attachment; filename=\"weir-flows.csv\""),
            Self::Parquet => {
                ("application/vnd.apache.parquet", "attachment; filename=\"weir-flows.parquet\"")
            }
        }
    }
}

/// How the file is written.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct FileParams {
    /// `ndjson` (a JSON object a line, as in `/flows`), `csv` (with a header; nested values are joined by `|`) or
    /// `parquet` (the columns of the CSV with their types, zstd)
    #[param(value_type = Option<String>, example = "csv", pattern = "^(ndjson|csv|parquet)$")]
    pub format: Option<Format>,
    /// At most this many flows, the newest
    #[param(minimum = 1, maximum = 100_000_000, example = 100_000)]
    pub limit: Option<u64>,
}

/// All parameters of the route.
pub struct ExportParams {
    filter: FilterParams,
    file: FileParams,
}

impl FromParams for ExportParams {
    fn read(params: &mut Params) -> Self {
        let filter = FilterParams::read(params);
        let formats = [("ndjson", Format::Ndjson), ("csv", Format::Csv), ("parquet", Format::Parquet)];
        let format = params.choice("format", &formats);
        let limit = params.number("limit", 1..=MAX_FLOWS);
        Self { filter, file: FileParams { format, limit } }
    }
}

/// Export flows
///
/// All flows of the window, newest first, from one snapshot. The answer is streamed: a failure after its
/// beginning ends the connection before the file is complete.
#[utoipa::path(
    get,
    path = "/api/v1/flows/export",
    tag = "flows",
    params(FilterParams, FileParams),
    responses(
        (status = 200, description = "The file", content(
            (Flow = "application/x-ndjson"),
            (String = "text/csv"),
            (Vec<u8> = "application/vnd.apache.parquet"),
        )),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "Too many exports at once"),
    )
)]
pub async fn export(
    State(state): State<AppState>,
    Query { value: params, .. }: Query<ExportParams>,
) -> Result<Response, ApiError> {
    let window = params.filter.window()?;
    let filter = params.filter.filter(&state, window, true).await?;
    let place = std::sync::Arc::clone(&state.exports).try_acquire_owned().map_err(|_| busy())?;
    let limit = params.file.limit.unwrap_or(MAX_FLOWS) as i64;
    let mut pages = export::export(state.pool.clone(), filter, limit);
    // Until the first page the answer can still be an error.
    let first =
        pages.recv().await.ok_or_else(|| ApiError::from_status(StatusCode::INTERNAL_SERVER_ERROR))??;
    let format = params.file.format.unwrap_or_default();
    let writer = match format {
        Format::Ndjson => Writer::Lines,
        Format::Csv => Writer::Table(Table::default()),
        Format::Parquet => Writer::Columns(Some(Box::new(Columns::new().map_err(|error| {
            let mut problem = ApiError::from_status(StatusCode::INTERNAL_SERVER_ERROR);
            problem.internal = Some(error.to_string());
            problem
        })?))),
    };
    state.metrics.exports_in_flight.inc();
    let file = File { writer, first: Some(first), pages, metrics: state.metrics.clone(), _place: place };
    let (kind, name) = format.head();
    let body = Body::from_stream(stream::unfold(file, |mut file| async {
        let bytes = file.next().await?;
        Some((bytes, file))
    }));
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::CONTENT_DISPOSITION, HeaderValue::from_static(name));
    Ok(response)
}

fn busy() -> ApiError {
    let mut error = ApiError::new(
        StatusCode::TOO_MANY_REQUESTS,
        Category::RateLimit,
        "too-many-exports",
        "Too many exports at once",
        "each holds a connection to the database; wait for one to end",
    );
    error.retry_after = Some(RETRY_AFTER);
    error
}

/// What the pages are written as.
enum Writer {
    Lines,
    Table(Table),
    /// None after its last piece.
    Columns(Option<Box<Columns>>),
}

/// A file in the making; dropping it ends the question behind it.
struct File {
    writer: Writer,
    first: Option<Vec<store::flows::Flow>>,
    pages: mpsc::Receiver<Result<Vec<store::flows::Flow>, StoreError>>,
    metrics: Metrics,
    _place: OwnedSemaphorePermit,
}

impl File {
    async fn next(&mut self) -> Option<Result<Bytes, io::Error>> {
        let written = match &mut self.writer {
            Writer::Columns(columns) => {
                let columns = columns.take()?;
                return Some(self.group(columns).await.map(Bytes::from));
            }
            Writer::Lines => self.page().await?.and_then(|page| lines(page.into_iter().map(Flow::from))),
            Writer::Table(_) => {
                let page = self.page().await?;
                let Writer::Table(table) = &mut self.writer else { return None };
                page.and_then(|page| table.page(page.into_iter().map(Flow::from)))
            }
        };
        Some(written.map(Bytes::from))
    }

    /// The next flows; none after the last.
    async fn page(&mut self) -> Option<Result<Vec<store::flows::Flow>, io::Error>> {
        let page = match self.first.take() {
            Some(first) => first,
            None => match self.pages.recv().await? {
                Ok(page) => page,
                Err(error) => {
                    tracing::error!(%error, "an export ended before its end");
                    return Some(Err(io::Error::other("the database failed")));
                }
            },
        };
        self.metrics.export_rows.inc_by(page.len() as u64);
        Some(Ok(page))
    }

    /// A row group, and the footer after the last one. Away from the threads that answer: encoding a group
    /// keeps one busy for long.
    async fn group(&mut self, mut columns: Box<Columns>) -> Result<Vec<u8>, io::Error> {
        let mut flows = Vec::new();
        let mut ended = false;
        while flows.len() < ROW_GROUP && !ended {
            match self.page().await {
                Some(page) => flows.extend(page?),
                None => ended = true,
            }
        }
        let work = tokio::task::spawn_blocking(move || {
            let mut written = if flows.is_empty() { Vec::new() } else { columns.group(&flows)? };
            if ended {
                written.extend(columns.finish()?);
                return Ok((written, None));
            }
            Ok::<_, io::Error>((written, Some(columns)))
        });
        let (written, columns) = work.await.map_err(io::Error::other)??;
        self.writer = Writer::Columns(columns);
        Ok(written)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.metrics.exports_in_flight.dec();
    }
}

fn lines(flows: impl Iterator<Item = Flow>) -> Result<Vec<u8>, io::Error> {
    let mut text = Vec::new();
    for flow in flows {
        serde_json::to_writer(&mut text, &flow)?;
        text.push(b'\n');
    }
    Ok(text)
}
