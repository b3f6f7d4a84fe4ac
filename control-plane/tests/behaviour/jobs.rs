//! I8: background jobs run once across instances, end when they must, and are taken over when an instance dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Method;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;
use weir_control_plane::config;
use weir_control_plane::jobs::{Job, JobError, Jobs};
use weir_control_plane::store::jobs::{self, Outcome, Requested, Turn};
use weir_control_plane::store::{Class, Isolation, Pool, audit::Author};
use weir_control_plane::telemetry::{Metrics, Registered};

use crate::support::{ADMIN_TOKEN, Plane, eventually};

const LONG: Duration = Duration::from_hours(24);

/// An instance of its own on the plane's database, with these jobs and no HTTP.
struct Instance {
    metrics: Metrics,
    jobs: Jobs,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

fn pool(plane: &Plane<'_>) -> (Pool, Metrics) {
    let metrics = Registered::new();
    let url = SecretString::from(plane.postgres.database_url(&plane.database));
    let settings = config::Database { pool_size: 8, ..config::Database::default() };
    (Pool::new(&settings, &url, Arc::clone(&metrics)).expect("a pool"), metrics)
}

impl Instance {
    async fn start(plane: &Plane<'_>, jobs: impl FnOnce(&Pool) -> Vec<Job>) -> Self {
        let (pool, metrics) = pool(plane);
        let settings = config::Jobs { poll_ms: 20, lease_s: 30 };
        let list = jobs(&pool);
        let jobs = Jobs::new(pool, Arc::clone(&metrics), settings, list, Vec::new()).await.expect("a board");
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(jobs.clone().run(stopped));
        Self { metrics, jobs, stop, task }
    }

    async fn stop(self) {
        self.stop.send(true).expect("it listens");
        self.task.await.expect("it ends");
    }
}

fn outcomes(plane: &Plane<'_>, job: &str) -> Vec<String> {
    let sql = format!("SELECT coalesce(outcome, 'running') FROM job_run WHERE name = '{job}' ORDER BY fence");
    plane.sql(&sql).lines().map(str::to_owned).collect()
}

async fn take(plane: &Plane<'_>, name: &'static str, lease: Duration) -> Option<Turn> {
    jobs::take(plane.pool(), name, Uuid::new_v4(), lease, true).await.expect("the database answers")
}

#[tokio::test(flavor = "multi_thread")]
async fn i8_two_instances_run_a_job_once_a_tick() {
    let plane = Plane::start().await;
    let ran = Arc::new(AtomicU64::new(0));
    let counter = || {
        let ran = Arc::clone(&ran);
        move |_: &Pool| {
            vec![Job::new("counter", Duration::from_millis(120), LONG, move |_| {
                let ran = Arc::clone(&ran);
                async move {
                    ran.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(30)).await;
                    Ok(())
                }
            })]
        }
    };
    let instances = [Instance::start(&plane, counter()).await, Instance::start(&plane, counter()).await];
    eventually("twenty ticks", || async { ran.load(Ordering::SeqCst) >= 20 }).await;
    for instance in instances {
        instance.stop().await;
    }
    let runs = outcomes(&plane, "counter");
    let done = runs.iter().filter(|outcome| *outcome == "done").count();
    // The end of an instance may cut off the run that it has, before or after its first step.
    let stopped = runs.iter().filter(|outcome| *outcome == "stopped").count();
    assert!(done + stopped == runs.len() && stopped <= 2, "{runs:?}");
    let ran = ran.load(Ordering::SeqCst);
    assert!(
        (done as u64..=runs.len() as u64).contains(&ran),
        "{ran} ran of {runs:?}: one for each tick and no other"
    );
    let sql = "SELECT count(*) FROM (
                   SELECT started_at, fence, lag(started_at) OVER by_fence AS before, lag(ended_at) OVER by_fence AS ended,
                          lag(fence) OVER by_fence AS last, lag(outcome) OVER by_fence AS how
                   FROM job_run WHERE name = 'counter' WINDOW by_fence AS (ORDER BY fence)) AS runs
               WHERE how = 'done' AND (started_at < before + interval '120 ms' OR started_at < ended OR fence <> last + 1)";
    assert_eq!(plane.sql(sql), "0", "no run begins before its time or beside another");
}

#[tokio::test(flavor = "multi_thread")]
async fn i8_the_job_of_an_instance_that_died_is_taken_over() {
    let plane = Plane::start().await;
    // Registered, and at once held by somebody who is not heard of again.
    let (lease, ran) = (Duration::from_millis(700), Arc::new(AtomicU64::new(0)));
    jobs::register(plane.pool(), &[("watch", LONG)]).await.expect("registered");
    let dead = take(&plane, "watch", lease).await.expect("nobody has it");
    assert_eq!(take(&plane, "watch", lease).await, None, "it is taken");
    let instance = Instance::start(&plane, |_| {
        let ran = Arc::clone(&ran);
        vec![Job::new("watch", LONG, LONG, move |run| {
            let ran = Arc::clone(&ran);
            async move {
                ran.fetch_add(run.turn.map_or(0, |turn| turn.fence.cast_unsigned()), Ordering::SeqCst);
                Ok(())
            }
        })]
    })
    .await;
    eventually("it is done by another", || async { outcomes(&plane, "watch") == ["lost", "done"] }).await;
    assert_eq!(ran.load(Ordering::SeqCst), 2, "run number 2, once");
    // Who only seemed dead can neither go on nor write an end.
    assert!(!jobs::renew(plane.pool(), &dead, lease).await.expect("asked"));
    assert!(
        !jobs::end(plane.pool(), &dead, Outcome::Done, None, Duration::ZERO).await.expect("asked"),
        "a late end changes nothing"
    );
    let held = async {
        let lease = plane.pool().begin(Class::Admin, Isolation::ReadCommitted, "test").await?;
        let held = jobs::hold(&lease, &dead).await;
        lease.finish(held).await
    };
    assert!(!held.await.expect("asked"));
    assert_eq!(outcomes(&plane, "watch"), ["lost", "done"]);
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i8_a_run_that_overruns_is_cut_off_down_to_its_statement() {
    let plane = Plane::start().await;
    let instance = Instance::start(&plane, |pool| {
        let pool = pool.clone();
        vec![Job::new("sleeper", LONG, Duration::from_millis(300), move |_| {
            let pool = pool.clone();
            async move {
                let lease = pool.begin(Class::Maintenance, Isolation::ReadCommitted, "sleeper").await?;
                let slept = lease.client().batch_execute("SELECT pg_sleep(600)").await;
                Ok(lease.finish(slept.map_err(Into::into)).await?)
            }
        })]
    })
    .await;
    eventually("it is cut off", || async {
        outcomes(&plane, "sleeper").first().is_some_and(|o| o == "overran")
    })
    .await;
    instance.stop().await;
    eventually("nothing sleeps in the database", || async {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
        plane.sql(sql) == "0"
    })
    .await;
    let runs = plane.sql("SELECT error FROM job_run WHERE name = 'sleeper' ORDER BY fence LIMIT 1");
    assert_eq!(runs, "it took more than 0.3 s and was cut off");
}

#[tokio::test(flavor = "multi_thread")]
async fn i8_what_fails_or_panics_is_written_down_tried_again_and_stops_no_other() {
    let plane = Plane::start().await;
    let every = Duration::from_millis(40);
    let instance = Instance::start(&plane, |_| {
        vec![
            Job::new("fails", every, LONG, |run| async move {
                let before = run.turn.map_or(0, |turn| turn.failures);
                if before == 2 { Ok(()) } else { Err(JobError::Failed(format!("failure {before}"))) }
            }),
            Job::new("panics", every, LONG, |_| async { panic!("on purpose") }),
            Job::new("works", every, LONG, |_| async { Ok(()) }),
        ]
    })
    .await;
    eventually("all of them ran a few times", || async {
        ["fails", "panics", "works"].iter().all(|job| outcomes(&plane, job).len() >= 4)
    })
    .await;
    instance.jobs.wake();
    let text = instance.metrics.render(plane.pool().state());
    instance.stop().await;
    assert_eq!(outcomes(&plane, "fails")[..4], ["failed", "failed", "done", "failed"]);
    assert!(outcomes(&plane, "panics")[..4].iter().all(|outcome| outcome == "failed"));
    assert!(outcomes(&plane, "works")[..3].iter().all(|outcome| outcome == "done"));
    let errors = plane.sql("SELECT error FROM job_run WHERE name = 'fails' ORDER BY fence LIMIT 3");
    assert_eq!(errors, "failure 0\nfailure 1");
    assert!(!text.contains("weir_job_runs_total{job=\"fails\",outcome=\"failed\"} 0"), "{text}");
    assert!(!text.contains("weir_job_last_success_timestamp_seconds{job=\"works\"} 0"), "{text}");
    assert!(text.contains("weir_job_last_success_timestamp_seconds{job=\"panics\"} 0"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn i8_a_server_that_stops_leaves_its_job_to_another_at_once() {
    let plane = Plane::start().await;
    let endless = |_: &Pool| vec![Job::new("endless", LONG, LONG, |_| std::future::pending())];
    let first = Instance::start(&plane, endless).await;
    eventually("it runs", || async { outcomes(&plane, "endless") == ["running"] }).await;
    let second = Instance::start(&plane, endless).await;
    // Its lease of 30 s is not waited for.
    first.stop().await;
    eventually("the other one has it", || async { outcomes(&plane, "endless") == ["stopped", "running"] })
        .await;
    second.stop().await;
    assert_eq!(outcomes(&plane, "endless"), ["stopped", "stopped"]);
    assert_eq!(plane.sql("SELECT failures FROM job WHERE name = 'endless'"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn i8_jobs_are_shown_and_run_when_asked() {
    let plane = Plane::start().await;
    let call = async |method: Method, path: &str| plane.call(method, path, ADMIN_TOKEN, &Value::Null).await;
    let runs = async || {
        let (_, body) = call(Method::GET, "/api/v1/jobs/partitions/runs").await;
        let outcome = |run: &Value| format!("{} {} {}", run["number"], run["requested"], run["outcome"]);
        body["items"].as_array().expect("items").iter().map(outcome).collect::<Vec<_>>()
    };
    let (status, list) = call(Method::GET, "/api/v1/jobs").await;
    assert_eq!(status, 200);
    let names: Vec<_> =
        list["items"].as_array().expect("items").iter().map(|job| job["name"].clone()).collect();
    for job in ["erasure", "index-summaries", "ledger-retention", "partitions", "rollups"] {
        assert!(names.contains(&json!(job)), "{names:?}");
    }
    let job = &list["items"][names.iter().position(|name| name == "partitions").expect("it is there")];
    assert_eq!(
        (&job["state"], &job["failures"], &job["last_run"]["outcome"]),
        (&json!("waiting"), &json!(0), &json!("done"))
    );
    assert_eq!(runs().await, ["1 false \"done\""]);

    let (status, body) = call(Method::POST, "/api/v1/jobs/partitions/runs").await;
    assert_eq!((status, body), (202, json!({"name": "partitions", "state": "requested"})));
    eventually("it ran", || async { runs().await == ["2 true \"done\"", "1 false \"done\""] }).await;
    // While it runs, nobody can ask for another run.
    let turn = take(&plane, "partitions", LONG).await.expect("nobody has it");
    let (status, problem) = call(Method::POST, "/api/v1/jobs/partitions/runs").await;
    assert_eq!((status, &problem["type"]), (409, &json!("urn:weir:problem:job-busy")));
    assert_eq!(runs().await[0], "3 false null");
    assert!(!plane.jobs().round(jiff::Timestamp::now()).await.expect("the others run"), "one is taken");
    assert!(jobs::end(plane.pool(), &turn, Outcome::Done, None, LONG).await.expect("ended"));
    for method in [Method::GET, Method::POST] {
        assert_eq!(call(method, "/api/v1/jobs/none/runs").await.0, 404);
    }
    assert_eq!(plane.audited().await, ["job.run"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn i8_the_history_of_a_job_is_bounded() {
    let plane = Plane::start().await;
    for _ in 0..jobs::HISTORY + 5 {
        let turn = take(&plane, "rollups", LONG).await.expect("nobody has it");
        jobs::end(plane.pool(), &turn, Outcome::Failed, Some(&"x".repeat(9_000)), LONG).await.expect("ended");
    }
    let sql = "SELECT count(*), max(length(error)), max(fence) - min(fence) + 1 FROM job_run WHERE name = 'rollups'";
    assert_eq!(plane.sql(sql), format!("{0}|500|{0}", jobs::HISTORY));
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_a_failure_at_any_statement_leaves_the_board_as_it_was() {
    let plane = Plane::start().await;
    let name = "rollups";
    let contents = || {
        ["job", "job_run", "audit"].map(|table| {
            plane.sql(&format!(
                "SELECT coalesce(string_agg(t::text, '/' ORDER BY t::text), '') FROM {table} AS t"
            ))
        })
    };
    let author = Author::command_line();
    let ask = async || jobs::request(plane.pool(), &author, name).await;
    let begin = async || jobs::take(plane.pool(), name, Uuid::from_u128(7), LONG, true).await;
    let before = contents();
    for (table, operation) in [("job", "UPDATE"), ("audit", "INSERT")] {
        plane.arm(table, operation);
        ask().await.expect_err("injected");
        plane.disarm();
        assert_eq!(contents(), before, "{table} {operation}");
    }
    assert_eq!(ask().await.expect("asked"), Requested::Taken);
    let before = contents();
    for (table, operation) in [("job", "UPDATE"), ("job_run", "INSERT"), ("job_run", "DELETE")] {
        plane.arm(table, operation);
        begin().await.expect_err("injected");
        plane.disarm();
        assert_eq!(contents(), before, "{table} {operation}");
    }
    let turn = begin().await.expect("asked").expect("nobody has it");
    let before = contents();
    for table in ["job_run", "job"] {
        plane.arm(table, "UPDATE");
        jobs::end(plane.pool(), &turn, Outcome::Done, None, LONG).await.expect_err("injected");
        plane.disarm();
        assert_eq!(contents(), before, "{table}");
    }
    assert!(jobs::end(plane.pool(), &turn, Outcome::Done, None, LONG).await.expect("ended"));
}
