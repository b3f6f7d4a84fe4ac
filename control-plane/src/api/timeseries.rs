//! `GET /api/v1/flows/timeseries`: sums over equal steps of time.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use jiff::SignedDuration;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::answers::{self, Question};
use super::params::{FromParams, Params, Query};
use super::render::{self, Sums};
use super::window::{Compare, CompareParams, FilterParams, Window};
use super::{ApiError, AppState};
use crate::store::filter::Filter;
use crate::store::resolution::{ceil, floor};
use crate::store::timeseries::{self, Point, Source};

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
    compare: CompareParams,
}

impl FromParams for TimeseriesParams {
    fn read(params: &mut Params) -> Self {
        let filter = FilterParams::read(params);
        let step = params.parsed("step", "a length of 1 s to 31 d, such as 60, 30s, 1m, 1h or 1d", step_s);
        Self { filter, step: StepParams { step }, compare: CompareParams::read(params) }
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
    /// With `compare=previous`: as many steps right before these, the first for the first
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<Vec<Step>>,
}

/// A step, counted whole even where the window begins or ends within it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Step {
    #[schema(example = "2026-01-31T12:00:00.000000000Z")]
    pub start: String,
    #[serde(flatten)]
    pub sums: Sums,
}

impl From<Point> for Step {
    fn from(point: Point) -> Self {
        Self { start: render::time(point.start), sums: Sums::from(point.sums) }
    }
}

/// Traffic over time
///
/// A flow belongs to the step in which its epoch began. Where `from` and `to` are given, the answer has an `ETag`
/// that changes with the flows of the window.
#[utoipa::path(
    get,
    path = "/api/v1/flows/timeseries",
    tag = "flows",
    params(FilterParams, StepParams, CompareParams, answers::IfNoneMatch),
    responses(
        (status = 200, body = Timeseries, description = "The steps"),
        (status = 304, description = "As it was when it had this `ETag`"),
    )
)]
pub async fn timeseries(
    State(state): State<AppState>,
    headers: HeaderMap,
    Query { value: params, given }: Query<TimeseriesParams>,
) -> Result<Response, ApiError> {
    let window = params.filter.window()?;
    let step = params.step.of(window)?;
    let filter = params.filter.filter(&state, window, false).await?;
    let mut all = Filter { from: floor(filter.from, step), to: ceil(filter.to, step), ..filter.clone() };
    if params.compare.compare.is_some() {
        all.from = all.moved_back(all.to.duration_since(all.from)).from;
    }
    let question = Question { route: "timeseries", given: &given, filter: &all, headers: &headers };
    answers::answer(&state, question, series(&state, params.compare.compare, &filter, step)).await
}

async fn series(
    state: &AppState,
    compare: Option<Compare>,
    filter: &Filter,
    step: i64,
) -> Result<Timeseries, ApiError> {
    let series = timeseries::timeseries(&state.pool, filter, step).await?;
    let previous = match compare {
        None => None,
        Some(Compare::Previous) => {
            let length = SignedDuration::from_secs(step * series.points.len() as i64);
            Some(timeseries::timeseries(&state.pool, &filter.moved_back(length), step).await?)
        }
    };
    let source = match series.source {
        Source::Flows => "flows",
        Source::Minutes => "rollup_1m",
        Source::Hours => "rollup_1h",
    };
    Ok(Timeseries {
        step_seconds: step,
        source,
        points: series.points.into_iter().map(Step::from).collect(),
        previous: previous.map(|previous| previous.points.into_iter().map(Step::from).collect()),
    })
}

impl StepParams {
    /// The length of a step in seconds: the one that was given if there are not too many, or a good one.
    fn of(&self, window: Window) -> Result<i64, ApiError> {
        let length = window.to.duration_since(window.from).as_secs();
        let step = self.step.unwrap_or_else(|| {
            let fits = |step: &&i64| length / **step <= GOOD_STEPS;
            ROUND_STEPS_S.iter().find(fits).copied().unwrap_or(MAX_STEP_S)
        });
        if length / step > MAX_STEPS {
            let message = format!("makes more than {MAX_STEPS} steps of this window");
            return Err(ApiError::parameter("step", message));
        }
        Ok(step)
    }
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
