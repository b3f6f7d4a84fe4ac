//! `/api/v1/jobs`: what the server does by itself, when it did so last, and a way to have it done now.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::access::Caller;
use super::error::{Category, Problem};
use super::params::{NoParams, Query};
use super::{ApiError, AppState, render};
use crate::store::jobs::{self, Requested, Standing};

/// A background job.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "name": "partitions", "interval_s": 60.0, "deadline_s": 900.0, "state": "waiting",
    "next_at": "2026-01-31T12:01:00.000000000Z", "last_done_at": "2026-01-31T12:00:00.000000000Z", "failures": 0,
    "last_run": {"number": 712, "instance": "2b0c1d34-5e6f-4a7b-8c9d-0e1f2a3b4c5d", "requested": false,
                 "started_at": "2026-01-31T12:00:00.000000000Z", "ended_at": "2026-01-31T12:00:00.045000000Z",
                 "duration_ms": 45.0, "outcome": "done", "error": null}
}))]
pub struct Job {
    pub name: &'static str,
    /// From the beginning of one run to that of the next
    pub interval_s: f64,
    /// A run that takes longer is cut off
    pub deadline_s: f64,
    /// `waiting`, `requested` or `running`
    pub state: &'static str,
    pub next_at: String,
    /// Beginning of the last run that came to its end
    pub last_done_at: Option<String>,
    /// Runs in a row that failed
    pub failures: i32,
    pub last_run: Option<Run>,
}

/// All jobs, by name.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobList {
    pub items: Vec<Job>,
}

/// One run of a job.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "number": 712, "instance": "2b0c1d34-5e6f-4a7b-8c9d-0e1f2a3b4c5d", "requested": false,
    "started_at": "2026-01-31T12:00:00.000000000Z", "ended_at": "2026-01-31T12:00:00.045000000Z", "duration_ms": 45.0,
    "outcome": "done", "error": null
}))]
pub struct Run {
    /// Counts up
    pub number: i64,
    /// Which process; new with each start of a server
    pub instance: String,
    /// Somebody asked for it
    pub requested: bool,
    pub started_at: String,
    pub ended_at: Option<String>,
    pub duration_ms: Option<f64>,
    /// `done`, `failed`, `overran` (cut off at its deadline), `stopped` (with the server), `lost` (its instance
    /// was not heard of any more); null while it runs
    pub outcome: Option<&'static str>,
    pub error: Option<String>,
}

/// The last runs of a job, the newest first; no more are remembered.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunList {
    pub items: Vec<Run>,
}

/// A run that will be.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"name": "partitions", "state": "requested"}))]
pub struct RequestedRun {
    pub name: String,
    /// `requested`: an instance takes it within moments
    pub state: &'static str,
}

impl From<jobs::Run> for Run {
    fn from(run: jobs::Run) -> Self {
        let took = run.ended_at.and_then(|ended| ended.duration_since(run.started_at).ok());
        Self {
            number: run.fence,
            instance: run.instance.to_string(),
            requested: run.requested,
            started_at: render::system_time(run.started_at),
            ended_at: run.ended_at.map(render::system_time),
            duration_ms: took.map(|took| took.as_secs_f64() * 1e3),
            outcome: run.outcome.map(jobs::Outcome::name),
            error: run.error,
        }
    }
}

/// List background jobs
#[utoipa::path(
    get,
    path = "/api/v1/jobs",
    tag = "operations",
    responses((status = 200, body = JobList, description = "All jobs"))
)]
pub async fn list(State(state): State<AppState>, _: Query<NoParams>) -> Result<Json<JobList>, ApiError> {
    let board = state.jobs.board().await?;
    let mut last = jobs::runs(&state.pool, None, 1).await?;
    let mut items: Vec<Job> = state
        .jobs
        .all()
        .iter()
        .filter_map(|job| {
            let standing = board.iter().find(|standing| standing.name == job.name)?;
            let last_run = last.iter().position(|run| run.name == job.name).map(|at| last.swap_remove(at));
            Some(Job {
                name: job.name,
                interval_s: job.interval.as_secs_f64(),
                deadline_s: job.deadline.as_secs_f64(),
                state: word(standing),
                next_at: render::system_time(standing.next_at),
                last_done_at: standing.last_done_at.map(render::system_time),
                failures: standing.failures,
                last_run: last_run.map(Run::from),
            })
        })
        .collect();
    items.sort_by_key(|job| job.name);
    Ok(Json(JobList { items }))
}

fn word(standing: &Standing) -> &'static str {
    match (standing.running, standing.requested_at) {
        (true, _) => "running",
        (false, Some(_)) => "requested",
        (false, None) => "waiting",
    }
}

/// Show a job's last runs
#[utoipa::path(
    get,
    path = "/api/v1/jobs/{job}/runs",
    tag = "operations",
    params(("job" = String, Path, description = "Job's name", example = "partitions")),
    responses(
        (status = 200, body = RunList, description = "The runs that are remembered"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such job"),
    )
)]
pub async fn runs(
    State(state): State<AppState>,
    Path(job): Path<String>,
    _: Query<NoParams>,
) -> Result<Json<RunList>, ApiError> {
    if !state.jobs.all().iter().any(|known| known.name == job) {
        return Err(unknown());
    }
    let found = jobs::runs(&state.pool, Some(&job), jobs::HISTORY).await?;
    Ok(Json(RunList { items: found.into_iter().map(Run::from).collect() }))
}

/// Run a job now
///
/// One instance takes it within moments; `GET /api/v1/jobs/{job}/runs` shows how it went.
#[utoipa::path(
    post,
    path = "/api/v1/jobs/{job}/runs",
    tag = "operations",
    params(("job" = String, Path, description = "Job's name", example = "partitions")),
    responses(
        (status = 202, body = RequestedRun, description = "It will run"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such job"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It runs, or was asked for"),
    )
)]
pub async fn run(
    State(state): State<AppState>,
    caller: Caller,
    Path(job): Path<String>,
    _: Query<NoParams>,
) -> Result<(StatusCode, Json<RequestedRun>), ApiError> {
    match state.jobs.request(&caller.author(), &job).await? {
        Requested::Taken => Ok((StatusCode::ACCEPTED, Json(RequestedRun { name: job, state: "requested" }))),
        Requested::Unknown => Err(unknown()),
        Requested::Busy => Err(ApiError::new(
            StatusCode::CONFLICT,
            Category::Conflict,
            "job-busy",
            "The job is busy",
            "the job runs now, or a run was asked for that did not begin yet",
        )),
    }
}

fn unknown() -> ApiError {
    ApiError::not_found("no job has this name")
}
