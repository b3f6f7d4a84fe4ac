//! `GET /api/v1/flows/timeseries`: sums over equal steps of time.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::params::{FromParams, Params, Query};
use super::render::{self, Sums};
use super::window::FilterParams;
use super::{ApiError, AppState};
use crate::store::timeseries::{self, Source};

/// Steps in one answer.
const MAX_STEPS: i64 = 2_000;
/// Steps that the default aims at.
const GOOD_STEPS: i64 = 200;
const MAX_STEP_S: i64 = 31 * 86_400;
/// Steps that people read easily; the default is one of them.
const ROUND_STEPS_S: &[i64] =
    &[10, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 21_600, 43_200, 86_400, 7 * 86_400, MAX_STEP_S];

/// How fine.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StepParams {
    /// Length of a step: seconds, or a number with `s`, `m`, `h` or `d`; 1 s to 31 d. Whole minutes and
    /// hours are answered from rollups. Default: such that there are some 200 steps
    #[param(value_type = Option<String>, example = "1m", pattern = "^[0-9]{1,7}[smhd]?$")]
    pub step: Option<i64>,
}

/// All parameters of the route.
pub struct TimeseriesParams {
    filter: FilterParams,
    step: StepParams,
}

impl FromParams for TimeseriesParams {
    fn read(params: &mut Params) -> Self {
        let filter = FilterParams::read(params);
        let step = params.parsed("step", "a length of 1 s to 31 d, such as 60, 30s, 1m, 1h or 1d", step_s);
        Self { filter, step: StepParams { step } }
    }
}

fn step_s(text: &str) -> Option<i64> {
    let digits = text.trim_end_matches(['s', 'm', 'h', 'd']);
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    if digits.is_empty() || digits.len() > 7 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds = digits.parse::<i64>().ok()? * unit;
    (1..=MAX_STEP_S).contains(&seconds).then_some(seconds)
}

/// The sums of each step.
#[derive(Debug, Serialize, ToSchema)]
pub struct Timeseries {
    #[schema(example = 60)]
    pub step_seconds: i64,
    /// What was read: `flows`, `rollup_1m` or `rollup_1h`
    #[schema(example = "rollup_1m")]
    pub source: &'static str,
    /// Every step that touches the window, in order; steps without traffic too
    pub points: Vec<Step>,
}

/// A step, counted whole even where the window begins or ends within it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Step {
    #[schema(example = "2026-01-31T12:00:00.000000000Z")]
    pub start: String,
    #[serde(flatten)]
    pub sums: Sums,
}

/// Traffic over time
///
/// A flow belongs to the step in which its epoch began.
#[utoipa::path(
    get,
    path = "/api/v1/flows/timeseries",
    tag = "flows",
    params(FilterParams, StepParams),
    responses(
        (status = 200, body = Timeseries, description = "The steps"),
    )
)]
pub async fn timeseries(
    State(state): State<AppState>,
    Query { value: params, .. }: Query<TimeseriesParams>,
) -> Result<Json<Timeseries>, ApiError> {
    let window = params.filter.window()?;
    let length = window.to.duration_since(window.from).as_secs();
    let step = params.step.step.unwrap_or_else(|| {
        let fits = |step: &&i64| length / **step <= GOOD_STEPS;
        ROUND_STEPS_S.iter().find(fits).copied().unwrap_or(MAX_STEP_S)
    });
    if length / step > MAX_STEPS {
        let message = format!("makes more than {MAX_STEPS} steps of this window");
        return Err(ApiError::parameter("step", message));
    }
    let filter = params.filter.filter(&state, window).await?;
    let series = timeseries::timeseries(&state.pool, &filter, step).await?;
    let points = series
        .points
        .into_iter()
        .map(|point| Step { start: render::time(point.start), sums: Sums::from(point.sums) })
        .collect();
    let source = match series.source {
        Source::Flows => "flows",
        Source::Minutes => "rollup_1m",
        Source::Hours => "rollup_1h",
    };
    Ok(Json(Timeseries { step_seconds: step, source, points }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_have_units_and_bounds() {
        assert_eq!(step_s("90"), Some(90));
        assert_eq!(step_s("5m"), Some(300));
        assert_eq!(step_s("31d"), Some(MAX_STEP_S));
        for wrong in
            ["", "m", "0", "0s", "32d", "-1", "1.5h", "1hm", "1w", "9999999d", "99999999", "1 m", "é"]
        {
            assert_eq!(step_s(wrong), None, "{wrong:?}");
        }
    }
}
