//! `GET /api/v1/flows/export`: all flows of a filter as a file, streamed.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use utoipa::IntoParams;

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
}

/// How the file is written.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct FileParams {
    /// `ndjson` (a JSON object a line, as in `/flows`) or `csv` (with a header; nested values are joined by `|`)
    #[param(value_type = Option<String>, example = "csv", pattern = "^(ndjson|csv)$")]
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
        let format = params.choice("format", &[("ndjson", Format::Ndjson), ("csv", Format::Csv)]);
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
        )),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "Too many exports at once"),
    )
)]
pub async fn export(
    State(state): State<AppState>,
    Query { value: params, .. }: Query<ExportParams>,
) -> Result<Response, ApiError> {
    let window = params.filter.window()?;
    let filter = params.filter.filter(&state, window).await?;
    let place = std::sync::Arc::clone(&state.exports).try_acquire_owned().map_err(|_| busy())?;
    let limit = params.file.limit.unwrap_or(MAX_FLOWS) as i64;
    let mut pages = export::export(state.pool.clone(), filter, limit);
    // Until the first page the answer can still be an error.
    let first =
        pages.recv().await.ok_or_else(|| ApiError::from_status(StatusCode::INTERNAL_SERVER_ERROR))??;
    state.metrics.exports_in_flight.inc();
    let file = File {
        table: (params.file.format == Some(Format::Csv)).then(Table::default),
        first: Some(first),
        pages,
        metrics: state.metrics.clone(),
        _place: place,
    };
    let (kind, name) = match file.table {
        Some(_) => ("text/csv; charset=utf-8", "attachment; filename=\"weir-flows.csv\""),
        None => ("application/x-ndjson", "attachment; filename=\"weir-flows.ndjson\""),
    };
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

/// A file in the making; dropping it ends the question behind it.
struct File {
    /// Present for CSV.
    table: Option<Table>,
    first: Option<Vec<store::flows::Flow>>,
    pages: mpsc::Receiver<Result<Vec<store::flows::Flow>, StoreError>>,
    metrics: Metrics,
    _place: OwnedSemaphorePermit,
}

impl File {
    async fn next(&mut self) -> Option<Result<Bytes, std::io::Error>> {
        let page = match self.first.take() {
            Some(first) => first,
            None => match self.pages.recv().await? {
                Ok(page) => page,
                Err(error) => {
                    tracing::error!(%error, "an export ended before its end");
                    return Some(Err(std::io::Error::other("the database failed")));
                }
            },
        };
        self.metrics.export_rows.inc_by(page.len() as u64);
        let flows = page.into_iter().map(Flow::from);
        let written = match &mut self.table {
            Some(table) => table.page(flows),
            None => lines(flows),
        };
        Some(written.map(Bytes::from))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.metrics.exports_in_flight.dec();
    }
}

fn lines(flows: impl Iterator<Item = Flow>) -> Result<Vec<u8>, std::io::Error> {
    let mut text = Vec::new();
    for flow in flows {
        serde_json::to_writer(&mut text, &flow)?;
        text.push(b'\n');
    }
    Ok(text)
}
