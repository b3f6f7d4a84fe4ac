//! S7, S8, S11: the spool on real disks: killed at any instant, full, damaged; and the command line on it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tempfile::TempDir;
use uuid::Uuid;
use weir_sensor::metrics::Metrics;
use weir_sensor::ship::{Outbox as _, Packed};
use weir_sensor::spool::{Bounds, Range, Settings, Settlement, Spool, socket};
use weir_wire::{Batch, Direction, DropReason, Flow, Point, Totals};

/// Tells a copy of this program that it is the one to be killed, and where its spool is.
const CHILD: &str = "WEIR_TEST_SPOOL_CHILD";
const PARTS: u32 = 3;
const GENERATION: u128 = 7;

type Key = (u64, u32);

fn settings(folder: &Path) -> Settings {
    let bounds = Bounds {
        bytes: 1 << 30,
        age: Duration::from_hours(1),
        quarantine_bytes: 1 << 20,
        quarantine_batches: 1_000,
        epochs: 100_000,
        tombstones: 1_000,
    };
    Settings { folder: folder.to_owned(), bounds }
}

struct Opened {
    spool: Spool,
    last: Option<u64>,
    metrics: Arc<Metrics>,
}

fn open(folder: &Path) -> Opened {
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    let (spool, spooled) = Spool::open(settings(folder), Arc::clone(&metrics)).expect("it opens");
    Opened { spool, last: spooled.get(&Uuid::from_u128(GENERATION)).copied(), metrics }
}

/// A part of an epoch, the same whenever it is made; compression does not help it.
fn batch(epoch: u64, part: u32, flows: usize) -> Batch {
    let mut random = StdRng::seed_from_u64(epoch << 8 | u64::from(part));
    let flows: Vec<Flow> = (0..flows)
        .map(|_| Flow {
            ip_version: 6,
            src_high: random.random(),
            src_low: random.random(),
            dst_low: random.random(),
            packets: u64::from(random.random::<u16>()),
            octets: 1,
            ..Flow::default()
        })
        .collect();
    // Of this part: the ledger of an epoch stands in part 0, and each part here is as good as an epoch.
    let packets: u64 = flows.iter().map(|flow| flow.packets).sum();
    Batch {
        version: weir_wire::VERSION,
        generation: Uuid::from_u128(GENERATION).as_bytes().to_vec(),
        epoch,
        part,
        parts: PARTS,
        window_start_ns: 1_767_225_600_000_000_000 + epoch as i64 * 5_000_000_000,
        window_end_ns: 1_767_225_605_000_000_000 + epoch as i64 * 5_000_000_000,
        sampling_interval: 1,
        points: vec![Point {
            id: 1,
            interface: "eth0".to_owned(),
            ifindex: 2,
            direction: Direction::Ingress.into(),
            totals: Some(Totals { frames: packets, flow_packets: packets, ..Totals::default() }),
        }],
        flows,
        ..Batch::default()
    }
}

fn epoch(number: u64, flows: usize) -> Vec<Packed> {
    let parts: Vec<Batch> = (0..PARTS).map(|part| batch(number, part, flows)).collect();
    let total: u64 = parts.iter().filter_map(|part| part.points[0].totals).map(|totals| totals.frames).sum();
    parts
        .into_iter()
        .map(|mut batch| {
            batch.points[0].totals = (batch.part == 0).then_some(Totals {
                frames: total,
                flow_packets: total,
                ..Totals::default()
            });
            Packed::new(batch).expect("it encodes")
        })
        .collect()
}

fn bodies(numbers: impl IntoIterator<Item = u64>, flows: usize) -> BTreeMap<Key, Packed> {
    let packed = numbers.into_iter().flat_map(|number| epoch(number, flows));
    packed.map(|packed| ((packed.epoch, packed.part), packed)).collect()
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..6_000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("a minute has passed: {what}");
}

/// The process that is killed: puts epochs, and delivers batches to its standard output.
#[tokio::main(flavor = "current_thread")]
async fn child(folder: &Path) {
    let Opened { spool, last, .. } = open(folder);
    let mut intake = spool.intake();
    for number in last.map_or(0, |last| last + 1).. {
        intake.put(epoch(number, 300)).await.expect("the spool runs");
        println!("safe {number} 0");
        // Slower than they come, so that some wait when the end comes.
        for _ in 0..PARTS - 1 {
            let Some(offer) = spool.first(0).await.expect("the spool runs") else { break };
            assert_eq!(offer.batch.body, epoch(offer.batch.epoch, 300)[offer.batch.part as usize].body);
            println!("stored {} {}", offer.batch.epoch, offer.batch.part);
            spool.settle(offer.number, Settlement::Shipped).await.expect("the spool runs");
        }
    }
}

/// S8: killed at any instant, nothing that was called safe is lost, and an epoch is there whole or not at all.
#[test]
fn a_spool_that_is_killed_at_any_instant_has_every_safe_epoch_once() {
    if let Some(folder) = std::env::var_os(CHILD) {
        return child(Path::new(&folder));
    }
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let folder = TempDir::new().expect("a folder");
    let mut stored: BTreeSet<Key> = BTreeSet::new();
    let mut safe: BTreeSet<u64> = BTreeSet::new();
    for round in 0..15 {
        let mut process = Command::new(std::env::current_exe().expect("this program"))
            .args([
                "--exact",
                "a_spool_that_is_killed_at_any_instant_has_every_safe_epoch_once",
                "--nocapture",
            ])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        // Some lines, and then some time: the kill falls anywhere in a write.
        let wait = random.random_range(0..40);
        let mut seen: Vec<String> = Vec::new();
        while seen.len() < wait {
            seen.push(lines.next().expect("the child runs").expect("text"));
        }
        std::thread::sleep(Duration::from_micros(random.random_range(0..20_000)));
        process.kill().expect("it runs");
        process.wait().expect("it ends");
        // What it said before.
        seen.extend(lines.map_while(Result::ok));
        for line in seen {
            let words: Vec<&str> = line.split(' ').collect();
            if let [word @ ("safe" | "stored"), epoch, part] = words[..] {
                // A line that the kill has cut short has not been said.
                let (Ok(epoch), Ok(part)) = (epoch.parse(), part.parse()) else { continue };
                if word == "safe" {
                    safe.insert(epoch);
                } else {
                    stored.insert((epoch, part));
                }
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let Opened { spool, last, metrics } = open(folder.path());
            assert_eq!(metrics.spool_damaged.get(), 0, "a kill is no damage");
            let last_safe = safe.last().copied();
            assert!(last >= last_safe, "round {round}: {last:?} is known, {last_safe:?} was safe");
            let waiting: BTreeSet<Key> = spool
                .list(0, 1_000_000)
                .await
                .expect("it reads")
                .iter()
                .map(|batch| (batch.epoch, batch.part))
                .collect();
            let expected: BTreeSet<Key> = (0..last.map_or(0, |last| last + 1))
                .flat_map(|epoch| (0..PARTS).map(move |part| (epoch, part)))
                .collect();
            let there: BTreeSet<Key> = waiting.union(&stored).copied().collect();
            assert_eq!(there, expected, "round {round}: nothing more and nothing less");
            let ledger = spool.ledger(Range::default()).await.expect("it reads");
            assert!(ledger.adds_up, "round {round}: {ledger:?}");
            spool.close().await;
        });
    }
    println!("{} epochs were safe, {} parts stored", safe.len(), stored.len());
}

/// A small disk of its own, unmounted at the end.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new(bytes: usize) -> Self {
        use nix::mount::{MsFlags, mount};
        let folder = TempDir::new().expect("a folder");
        let options = format!("size={bytes}");
        mount(Some("weir"), folder.path(), Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .expect("mount a tmpfs; the test needs CAP_SYS_ADMIN");
        Self(folder)
    }

    fn filler(&self) -> PathBuf {
        self.0.path().join("filler")
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.filler()).expect("it is made");
        // In small pieces: nothing is left at the end.
        while file.write_all(&[1; 4096]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.filler()).expect("it goes");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

/// S7: a full disk holds the epoch back, and nothing else; what waits is still delivered.
#[tokio::test]
async fn a_full_disk_holds_an_epoch_back_until_there_is_room() {
    let disk = SmallDisk::new(24 << 20);
    let Opened { spool, metrics, .. } = open(&disk.0.path().join("spool"));
    let mut intake = spool.intake();
    for number in 0..2 {
        intake.put(epoch(number, 100)).await.expect("safe");
    }
    disk.fill();
    // Some 3 MB: more than the file has room for.
    let held = tokio::spawn(async move {
        intake.put(epoch(2, 30_000)).await.expect("the spool runs");
        intake
    });
    until("the spool is degraded", async || spool.standing().degraded.is_some()).await;
    assert_eq!((metrics.spool_degraded.get(), spool.standing().held_batches), (1, 3));
    assert!(!held.is_finished());
    // What is on the disk is read and delivered all the same.
    for part in 0..PARTS {
        let offer = spool.first(0).await.expect("it runs").expect("a batch");
        assert_eq!((offer.batch.epoch, offer.batch.part), (0, part));
        spool.settle(offer.number, Settlement::Shipped).await.expect("it runs");
    }
    assert!(!held.is_finished(), "the epoch is not safe");
    disk.free();
    until("there is room and the epoch is safe", async || held.is_finished()).await;
    let mut intake = held.await.expect("no panic");
    assert_eq!((spool.standing().degraded, spool.standing().held_batches), (None, 0));

    // The same again; this time the control plane takes the epoch before the disk does.
    disk.fill();
    let held = tokio::spawn(async move { intake.put(epoch(3, 30_000)).await.expect("the spool runs") });
    until("the spool is degraded", async || spool.standing().degraded.is_some()).await;
    let mut taken = BTreeMap::new();
    while let Some(Offer { key, number, body }) = next(&spool).await {
        taken.insert(key, body);
        spool.settle(number, Settlement::Shipped).await.expect("it runs");
    }
    held.await.expect("acknowledged is as safe as written");
    let mut expected = bodies([1], 100);
    expected.extend(bodies([2, 3], 30_000));
    let expected: BTreeMap<_, _> = expected.into_iter().map(|(key, packed)| (key, packed.body)).collect();
    assert_eq!(taken, expected);
    assert!(spool.standing().degraded.is_some());
    disk.free();
    until("the disk is back", async || spool.standing().degraded.is_none()).await;
    let ledger = spool.ledger(Range::default()).await.expect("it reads");
    assert_eq!((ledger.epochs, ledger.waiting, ledger.adds_up), (4, 0, true), "{ledger:?}");
    spool.close().await;
    let Opened { spool, last, .. } = open(&disk.0.path().join("spool"));
    assert_eq!((last, spool.standing().batches), (Some(3), 0));
}

struct Offer {
    key: Key,
    number: u64,
    body: axum::body::Bytes,
}

async fn next(spool: &Spool) -> Option<Offer> {
    let offer = spool.first(0).await.expect("the spool runs")?;
    Some(Offer { key: (offer.batch.epoch, offer.batch.part), number: offer.number, body: offer.batch.body })
}

/// A disk that fails while the sensor dies: what was delivered is delivered again, and nothing is missing.
#[tokio::test]
async fn a_degraded_spool_that_ends_repeats_and_loses_nothing() {
    let disk = SmallDisk::new(16 << 20);
    let Opened { spool, .. } = open(&disk.0.path().join("spool"));
    let mut intake = spool.intake();
    intake.put(epoch(0, 100)).await.expect("safe");
    disk.fill();
    let held = tokio::spawn(async move { intake.put(epoch(1, 20_000)).await });
    until("the spool is degraded", async || spool.standing().degraded.is_some()).await;
    let offer = next(&spool).await.expect("a batch");
    spool.settle(offer.number, Settlement::Shipped).await.expect("it runs");
    spool.close().await;
    assert!(held.await.expect("no panic").is_err(), "never called safe: the kernel's half is still there");
    disk.free();
    let Opened { spool, last, .. } = open(&disk.0.path().join("spool"));
    assert_eq!((last, spool.standing().batches), (Some(0), 3));
    assert_eq!(next(&spool).await.map(|offer| offer.key), Some((0, 0)));
}

/// S7: a file that is damaged anywhere is survived; what comes out of it is what was put in, or its tombstone.
#[tokio::test]
async fn a_damaged_file_yields_true_batches_or_tombstones() {
    const EPOCHS: u64 = 12;
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let source = TempDir::new().expect("a folder");
    let Opened { spool, .. } = open(source.path());
    let mut intake = spool.intake();
    for number in 0..EPOCHS {
        intake.put(epoch(number, 200)).await.expect("safe");
    }
    spool.close().await;
    let whole = std::fs::read(source.path().join("spool.redb")).expect("the file");
    let expected = bodies(0..EPOCHS, 200);
    let (mut replaced, mut tombstones, mut missing) = (0, 0, 0);
    for round in 0..40 {
        let folder = TempDir::new().expect("a folder");
        let file = folder.path().join("spool.redb");
        let mut bytes = whole.clone();
        for _ in 0..random.random_range(1..=30) {
            let bit = random.random_range(0..bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        if round % 8 == 7 {
            bytes.truncate(random.random_range(0..bytes.len()));
        }
        // Damaged before it is opened, or behind the back of the process that has it open.
        let under_way = round % 2 == 1;
        std::fs::write(&file, if under_way { &whole } else { &bytes }).expect("it is written");
        let Opened { spool, metrics, .. } = open(folder.path());
        if under_way {
            std::fs::write(&file, &bytes).expect("it is written");
        }
        let mut seen = BTreeMap::new();
        while let Some(Offer { key, number, body }) = next(&spool).await {
            seen.insert(key, weir_wire::decode(&body).expect("what is offered decodes"));
            spool.settle(number, Settlement::Shipped).await.expect("it runs");
        }
        for (key, batch) in &seen {
            let packed = &expected[key];
            let Some(dropped) = batch.dropped else {
                assert_eq!(weir_wire::encode(batch).expect("it encodes"), packed.body, "round {round}");
                continue;
            };
            tombstones += 1;
            assert_eq!(dropped.reason(), DropReason::Corrupt);
            assert_eq!((dropped.records, dropped.packets), (packed.records, packed.packets));
            let husk = Batch { dropped: None, ..batch.clone() };
            assert_eq!(husk, *packed.husk, "round {round}: the kernel's totals are as they were");
        }
        missing += expected.len() - seen.len();
        replaced += metrics.spool_damaged.get();
        // And it works on.
        let mut intake = spool.intake();
        intake.put(epoch(99, 10)).await.expect("safe");
        assert_eq!(next(&spool).await.map(|offer| offer.key), Some((99, 0)), "round {round}");
        spool.close().await;
    }
    println!("{replaced} files replaced, {tombstones} tombstones, {missing} batches missing");
    assert!(replaced > 0);
}

fn sensor(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir-sensor"))
        .args(arguments)
        .args(["--set", &format!("spool.folder={}", folder.display())])
        .output()
        .expect("it runs")
}

fn text(output: &Output) -> String {
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

/// S11: the same answers from the file and from a running sensor.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_reads_the_file_and_asks_a_running_sensor() {
    let folder = TempDir::new().expect("a folder");
    let empty = sensor(folder.path(), &["spool", "ls"]);
    assert_eq!(empty.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&empty.stderr).contains("there is no spool"));

    let Opened { spool, .. } = open(folder.path());
    let mut intake = spool.intake();
    for number in [0, 1, 3] {
        intake.put(epoch(number, 2)).await.expect("safe");
    }
    let offer = next(&spool).await.expect("a batch");
    let refused = Settlement::Refused { status: 422, detail: "no".to_owned() };
    spool.settle(offer.number, refused).await.expect("it runs");
    let listener = socket::bind(&folder.path().join("weir-sensor.sock")).expect("it binds");
    let server = tokio::spawn(socket::serve(listener, spool.clone()));
    let ask = || {
        let run = |arguments: &[&str]| sensor(folder.path(), arguments);
        let ages = |line: &str| {
            let mut value: serde_json::Value = serde_json::from_str(line).expect("JSON");
            value["age_seconds"].take();
            value["flows"].as_array().map(Vec::len);
            value
        };
        let lines = |output: &Output| text(output).lines().map(ages).collect::<Vec<_>>();
        let ledger = run(&["ledger", "--json"]);
        assert_eq!(ledger.status.code(), Some(1), "an epoch is missing");
        let early = run(&["ledger", "--to", "2026-01-01T00:00:07Z"]);
        assert_eq!(early.status.code(), Some(0), "{}", text(&early));
        assert!(text(&early).contains("it adds up"));
        (
            lines(&run(&["spool", "ls", "--json"])),
            lines(&run(&["spool", "export"])),
            lines(&run(&["spool", "quarantine", "ls", "--json"])),
            lines(&ledger),
        )
    };
    let from_sensor = tokio::task::block_in_place(ask);
    let table = text(&sensor(folder.path(), &["spool", "ls"]));
    assert_eq!(table.lines().count(), 1 + 9, "{table}");
    assert!(text(&sensor(folder.path(), &["spool", "stat"])).contains("8 batches"));
    server.abort();
    let _ = server.await;
    std::fs::remove_file(folder.path().join("weir-sensor.sock")).expect("it goes");
    spool.close().await;
    let from_file = tokio::task::block_in_place(ask);
    assert_eq!(from_sensor, from_file);
    let (listed, exported, quarantined, ledger) = from_file;
    assert_eq!((listed.len(), exported.len(), quarantined.len()), (9, 9, 1));
    assert_eq!(quarantined[0]["refused"]["status"], 422);
    assert_eq!(exported[0]["flows"].as_array().map(Vec::len), Some(2));
    assert_eq!((&ledger[0]["missing_epochs"], &ledger[0]["gaps"][0]["first"]), (&1.into(), &2.into()));

    let raw = folder.path().join("raw");
    let written = sensor(folder.path(), &["spool", "export", "--raw", raw.to_str().expect("UTF-8")]);
    assert_eq!(written.status.code(), Some(0));
    assert_eq!(std::fs::read_dir(&raw).expect("the folder").count(), 9);
    let again = text(&sensor(folder.path(), &["spool", "quarantine", "retry", "--all"]));
    assert_eq!(again, "1 batches wait for delivery again\n");
    assert_eq!(open(folder.path()).spool.standing().batches, 9);
}
