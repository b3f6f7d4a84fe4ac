//! `GET /api/v1/flows/filter`: what may come next in a filter, and what is wrong with it.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::params::{FromParams, Params, Query};
use super::{ApiError, AppState};
use crate::expression::{self, Field};
use crate::store::names::{self, Names};

/// Names that are offered at once.
const MAX_NAMES: i64 = 20;

/// A filter that is being typed.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct CompletionParams {
    /// The text so far
    #[param(value_type = Option<String>, max_length = 4096, example = "dst_port = 443 and proto")]
    pub filter: String,
    /// Where the cursor stands, in characters from the start. Default: the end
    #[param(minimum = 0, maximum = 4096, example = 24)]
    pub cursor: Option<u16>,
}

impl FromParams for CompletionParams {
    fn read(params: &mut Params) -> Self {
        let filter = params.text("filter").unwrap_or_default();
        if filter.len() > expression::MAX_TEXT {
            params.fault("filter", format!("has more than {} bytes", expression::MAX_TEXT));
        }
        let cursor = params.number("cursor", 0..=expression::MAX_TEXT as u64).map(|cursor| cursor as u16);
        Self { filter, cursor }
    }
}

/// What is known of a filter.
#[derive(Debug, Serialize, ToSchema)]
pub struct Completion {
    /// Whether `/flows` would take the text as it is
    #[schema(example = false)]
    pub valid: bool,
    /// Why not; null where it is valid or empty
    pub fault: Option<Fault>,
    /// What may stand at the cursor
    pub candidates: Vec<Candidate>,
    /// A candidate takes the place of the characters from here
    #[schema(example = 19)]
    pub replace_from: usize,
    /// to here
    #[schema(example = 24)]
    pub replace_to: usize,
}

/// The first thing that is wrong with a filter.
#[derive(Debug, Serialize, ToSchema)]
pub struct Fault {
    /// In characters from the start
    #[schema(example = 24)]
    pub at: usize,
    #[schema(example = "expected one of = != in not in after `protocol`")]
    pub message: String,
}

/// Something that may stand at the cursor.
#[derive(Debug, Serialize, ToSchema)]
pub struct Candidate {
    #[schema(example = "protocol")]
    pub text: String,
    /// Empty where the text says it all
    #[schema(example = "IP protocol, by number or name")]
    pub description: &'static str,
}

/// Complete a filter
///
/// For input fields: what may stand at the cursor, names of sensors, devices, interfaces and domains among it, and the first
/// fault of the text.
#[utoipa::path(
    get,
    path = "/api/v1/flows/filter",
    tag = "flows",
    params(CompletionParams),
    responses(
        (status = 200, body = Completion, description = "Candidates, maybe none"),
    )
)]
pub async fn complete(
    State(state): State<AppState>,
    Query { value: params, .. }: Query<CompletionParams>,
) -> Result<Json<Completion>, ApiError> {
    let CompletionParams { filter, cursor } = params;
    let cursor = cursor.map_or(usize::MAX, usize::from);
    let completion = expression::complete(&filter, cursor);
    let mut candidates: Vec<Candidate> = completion
        .candidates
        .into_iter()
        .map(|candidate| Candidate { text: candidate.text, description: candidate.description })
        .collect();
    if completion.names_of == Some(Field::Service) {
        let names = state.services.beginning_with(&completion.prefix);
        let candidate = |text: &str| Candidate { text: text.to_owned(), description: "" };
        candidates.extend(names.into_iter().take(MAX_NAMES as usize).map(candidate));
    } else if let Some(field) = completion.names_of {
        let names = match field {
            Field::Sensor => Names::Sensors,
            Field::Name | Field::Sni => Names::Domains,
            Field::Process | Field::SrcProcess | Field::DstProcess => Names::Processes,
            Field::Executable => Names::Executables,
            Field::Container => Names::Containers,
            Field::Unit => Names::Units,
            Field::Device | Field::SrcDevice | Field::DstDevice => Names::Devices,
            Field::Network | Field::SrcNetwork | Field::DstNetwork => Names::Networks,
            _ => Names::Interfaces,
        };
        let names = names::beginning_with(&state.pool, names, &completion.prefix, MAX_NAMES).await?;
        candidates.extend(
            names.into_iter().map(|text| Candidate { text: expression::quoted(&text), description: "" }),
        );
    }
    let parsed = expression::parse(&filter);
    let valid = parsed.is_ok();
    let fault = parsed.err().filter(|_| !filter.trim().is_empty());
    Ok(Json(Completion {
        valid,
        fault: fault.map(|error| Fault { at: error.at, message: error.message }),
        candidates,
        replace_from: completion.replace.start,
        replace_to: completion.replace.end,
    }))
}
