//! The private Postgres: it answers, survives a crash with what was committed, and leaves nothing.
#![forbid(unsafe_code)]

use std::path::Path;

use weir_testbed::postgres::Postgres;

#[test]
fn what_was_committed_survives_a_crash_of_the_server() {
    let postgres = Postgres::start().expect("postgres starts");
    postgres.create_database("weir").expect("a database is made");
    postgres.sql("weir", "CREATE TABLE t (n int); INSERT INTO t VALUES (7)").expect("a row is written");
    postgres.restart_immediate().expect("the server recovers");
    assert_eq!(postgres.sql("weir", "SELECT n FROM t").expect("the row is read").trim(), "7");
}

#[test]
fn a_stopped_server_comes_back_on_the_same_port() {
    let postgres = Postgres::start().expect("postgres starts");
    let url = postgres.database_url("postgres");
    postgres.stop().expect("the server stops");
    assert!(postgres.sql("postgres", "SELECT 1").is_err());
    postgres.start_again().expect("the server starts again");
    assert_eq!(postgres.database_url("postgres"), url);
    assert_eq!(postgres.sql("postgres", "SELECT 1").expect("it answers").trim(), "1");
}

#[test]
fn two_servers_run_side_by_side_and_leave_nothing() {
    let first = Postgres::start().expect("the first starts");
    let second = Postgres::start().expect("the second starts");
    assert_ne!(first.port(), second.port());
    let folder = first.sql("postgres", "SHOW data_directory").expect("it tells its folder");
    let pid = first.sql("postgres", "SELECT pg_backend_pid()").expect("it tells a pid").trim().to_owned();
    drop(first);
    assert!(!Path::new(folder.trim()).exists());
    assert!(!Path::new("/proc").join(pid).exists());
    assert_eq!(second.sql("postgres", "SELECT 1").expect("the second still answers").trim(), "1");
}
