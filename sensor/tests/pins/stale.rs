//! Pins that are left over, half made, damaged, or another version's; and how they are explained and removed.

use std::{
    fs,
    process::{Command, Output},
};

use aya::{
    Pod,
    maps::{Array, Map, MapData},
};
use weir_sensor::kernel::{Datapath, EgressMode, IngressMode, KernelError, Verdict, check_pins, pins};
use weir_sensor_common::pins::Identity;

use super::{
    ledger::{Ledger, Modes, attach, settings},
    room::{ip, pinning, room, send},
};

const MODES: Modes = Modes { ingress: IngressMode::Native, egress: EgressMode::Clsact };

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Words([u64; 32]);

#[expect(unsafe_code, reason = "aya asks for a promise")]
// SAFETY: plain numbers.
unsafe impl Pod for Words {}

/// Changes the identity of the only generation, as a sensor that was killed or is of another version might
/// have left it.
fn change_identity(change: impl FnOnce(&mut [u64; 32])) {
    assert_eq!(size_of::<Identity>(), size_of::<Words>());
    let map = MapData::from_pin(generation().join("IDENTITY")).expect("the identity is pinned");
    let mut map: Array<_, Words> = Map::Array(map).try_into().expect("it is an array");
    let mut words = map.get(&0, 0).expect("it is read").0;
    change(&mut words);
    map.set(0, Words(words), 0).expect("it is written");
}

const LAYOUT: usize = std::mem::offset_of!(Identity, layout) / 8;
const NAMESPACE: usize = std::mem::offset_of!(Identity, namespace) / 8;
const ZEROING: usize = std::mem::offset_of!(Identity, zeroing) / 8;

fn generation() -> std::path::PathBuf {
    let entries = fs::read_dir(pinning().path()).expect("the folder is there");
    let mut folders: Vec<_> = entries.map(|entry| entry.expect("it is listed").path()).collect();
    folders.retain(|path| path.file_name().is_some_and(|name| name.len() == 32));
    assert_eq!(folders.len(), 1, "{folders:?}");
    folders.remove(0)
}

fn weir_sensor(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir-sensor"))
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .output()
        .expect("the binary was built for this test")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn s8_detach_removes_everything_and_says_what_went() {
    room(|| {
        let nothing = weir_sensor(&["detach"]);
        assert_eq!(text(&nothing.stdout), "nothing is pinned in /sys/fs/bpf/weir/main\n");
        assert!(nothing.status.success());

        let mut ledger = Ledger::default();
        let mut datapath = ledger.take_over(&settings(), &pinning(), MODES);
        send(100);
        ledger.drain(&mut datapath);
        send(40);
        datapath.flip().expect("the epoch ends");
        send(2);
        let refused = weir_sensor(&["detach"]);
        let message = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{message}");
        assert!(message.contains(&format!("(pid {})", std::process::id())), "{message}");
        datapath.leave();

        let detached = weir_sensor(&["detach", "--json"]);
        assert!(detached.status.success(), "{}", text(&detached.stderr));
        let line: serde_json::Value = serde_json::from_slice(&detached.stdout).expect("JSON");
        assert_eq!((line["generations"].as_u64(), line["undrained_packets"].as_u64()), (Some(1), Some(84)));
        let hooks = line["hooks"].to_string();
        assert!(hooks.contains("rx (index") && hooks.contains("tx (index"), "{hooks}");
        assert!(!std::path::Path::new("/sys/fs/bpf/weir").exists(), "no folder is left");
        let links = ip(&["-details", "link", "show"]);
        assert!(!links.contains("prog/xdp"), "{links}");
        let filters = Command::new("tc").args(["filter", "show", "dev", "tx", "egress"]).output();
        assert_eq!(text(&filters.expect("iproute2 is installed").stdout), "");
    });
}

#[test]
fn s8_what_is_half_made_or_half_removed_is_cleared_away() {
    room(|| {
        let mut ledger = Ledger::default();
        let mut datapath = ledger.take_over(&settings(), &pinning(), MODES);
        let generation = datapath.generation();
        send(10);
        // A sensor that was killed while it zeroed: some of the half is gone, all of it is spooled.
        let drained = datapath.flip().expect("the epoch ends");
        ledger.commit(generation, &drained);
        drop(datapath);
        change_identity(|words| words[ZEROING] += 1);
        let pins = pinning().path();
        for folder in ["making", "discarded"] {
            fs::create_dir(pins.join(folder)).expect("it is made");
            let map = MapData::from_pin(self::generation().join("WEIR_REGIONS")).expect("it is pinned");
            map.pin(pins.join(folder).join("WEIR_REGIONS")).expect("it is pinned again");
        }
        send(10);
        let mut datapath = Datapath::open(&settings(), Some(&pinning())).expect("it opens").datapath;
        attach(&mut datapath, MODES);
        // Even where the spool has lost it: reading a half that is partly zeroed would be wrong.
        assert!(datapath.resume(None).expect("it is zeroed").is_none());
        assert!(!pins.join("making").exists() && !pins.join("discarded").exists());
        ledger.drain(&mut datapath);
        ledger.settle();
    });
}

#[test]
fn s8_pins_that_cannot_be_taken_over_are_refused_and_explained() {
    room(|| {
        let names = ["rx".to_owned(), "tx".to_owned()];
        let open = || Datapath::open(&settings(), Some(&pinning()));
        let refused = || open().err().expect("it must not open");
        let checked = || check_pins(&pinning(), &settings(), &names);
        let missing = |words: &[&str]| {
            let findings = checked();
            let found = findings.iter().find(|finding| finding.verdict == Verdict::Missing);
            let found = found.unwrap_or_else(|| panic!("something is wrong: {findings:#?}"));
            let remedy = found.remedy.clone().unwrap_or_default();
            let all = format!("{} {remedy}", found.detail);
            assert!(words.iter().all(|word| all.contains(word)), "{all}");
        };
        assert_eq!(checked()[0].detail, "nothing is pinned in /sys/fs/bpf/weir/main");

        let mut datapath = open().expect("it opens").datapath;
        attach(&mut datapath, MODES);
        assert!(checked()[0].detail.contains("a sensor is running"), "{:#?}", checked());
        datapath.leave();
        let findings = checked();
        assert_eq!(findings[0].verdict, Verdict::Warning, "nobody drains: {findings:#?}");
        assert!(findings[1].detail.contains("a sensor takes them over"), "{findings:#?}");

        change_identity(|words| words[LAYOUT] += 1);
        assert!(matches!(refused(), KernelError::OtherLayout { .. }));
        missing(&["layout 2", "weir-sensor detach", "lost"]);
        change_identity(|words| words[LAYOUT] -= 1);

        change_identity(|words| words[NAMESPACE] += 1);
        assert!(matches!(refused(), KernelError::OtherNamespace(_)));
        change_identity(|words| words[NAMESPACE] -= 1);

        let map = generation().join("WEIR_COUNTERS");
        let kept = MapData::from_pin(&map).expect("it is pinned");
        fs::remove_file(&map).expect("it is removed");
        assert!(matches!(refused(), KernelError::DamagedPins { .. }));
        missing(&["WEIR_COUNTERS is missing", "weir-sensor detach"]);
        kept.pin(&map).expect("it is pinned again");
        open().expect("it opens again").datapath.leave();

        ip(&["link", "delete", "rx"]);
        let findings = checked();
        assert!(findings.iter().any(|finding| finding.detail.contains("stale")), "{findings:#?}");
        fs::remove_file(generation().join("IDENTITY")).expect("it is removed");
        missing(&["no identity", "weir-sensor detach"]);
        let removed = pins::remove(&pinning()).expect("whatever it is, it is removed");
        assert_eq!((removed.generations, removed.undrained_packets), (1, None));
        assert_eq!(checked()[0].detail, "nothing is pinned in /sys/fs/bpf/weir/main");
    });
}

#[test]
fn k8_without_a_bpffs_the_way_out_is_named() {
    let nowhere = weir_sensor::kernel::Pinning::new("/tmp/weir-no-bpffs", "main");
    let error = Datapath::open(&settings(), Some(&nowhere)).err().expect("/tmp is no bpffs").to_string();
    assert!(error.contains("mount -t bpf") && error.contains("pins.enabled = false"), "{error}");
    let found = &check_pins(&nowhere, &settings(), &[])[0];
    assert_eq!(found.verdict, Verdict::Missing);
    assert!(!std::path::Path::new("/tmp/weir-no-bpffs").exists(), "nothing is made there");
}
