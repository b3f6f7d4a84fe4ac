//! I1: every write is whole or not at all, wherever it is cut. Each one is run over a connection that is cut before
//! its first statement, then before its second one, and so on up to its COMMIT; each time nothing of the open
//! transaction is left in any table, and the rollback is counted.
//!
//! Writes of requests are asked for over HTTP ([`routes`]), those of jobs, streams and the command line by their
//! functions ([`programs`]). A transaction that writes in the program's source and is not cut fails the test, and so
//! does a route of the document that changes something and is not called.

mod programs;
mod routes;
mod world;

use std::collections::BTreeSet;
use std::path::Path;

use world::World;

/// What writes without a transaction of [`Pool::begin`]'s, and why.
///
/// [`Pool::begin`]: weir_control_plane::store::Pool::begin
const ALONE: [(&str, &str); 3] = [
    ("drop_partition", "one statement, that refuses to run in a transaction"),
    ("event_publish", "one statement"),
    ("migrate", "each migration is a transaction of its own; `migrations` shows it"),
];

/// The names of the transactions that write in the program's source, and of what writes without one.
fn in_the_source() -> (BTreeSet<String>, BTreeSet<String>) {
    fn read(folder: &Path, text: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                read(&path, text);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push(std::fs::read_to_string(&path).expect("text"));
            }
        }
    }
    fn named(text: &[String], before: &str) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for after in text.iter().flat_map(|text| text.split(before).skip(1)) {
            let after = after.trim_start();
            if after.starts_with("purpose)") {
                // Its callers name it.
                continue;
            }
            let name = after.strip_prefix('"').and_then(|rest| rest.split_once('"'));
            let (name, _) = name.unwrap_or_else(|| panic!("no name after {before}: {after:.60}"));
            assert!(names.insert(name.to_owned()), "{name}: two transactions have this name");
        }
        names
    }
    let mut text = Vec::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
    let mut writes = named(&text, "Isolation::ReadCommitted,");
    writes.extend(named(&text, "delete_unused(pool, sql,"));
    let alone = text.iter().flat_map(|text| text.split(".lease(Class::").skip(1));
    let alone = alone.map(|after| after.split('"').nth(1).expect("a name").to_owned());
    (writes, alone.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_a_write_that_is_cut_at_any_statement_leaves_nothing_and_is_counted() {
    let (writes, alone) = in_the_source();
    assert_eq!(alone, ALONE.map(|(name, _)| name.to_owned()).into(), "without a transaction");
    // Both at once: each waits for Postgres most of the time.
    let requests = async {
        let world = World::new().await;
        let called = routes::cut(&world).await;
        (called, world.cut())
    };
    let programs = async {
        let world = World::new().await;
        programs::cut(&world).await;
        world.cut()
    };
    let ((called, mut cut), by_programs) = tokio::join!(requests, programs);
    assert_eq!(called, routes::that_change(), "called, and in the document");
    cut.extend(by_programs);
    assert_eq!(cut, writes, "cut, and in the source");
}
