//! Pins seen from outside: what `weir-sensor detach` removes and `weir-sensor check` explains.

use std::{path::PathBuf, time::Duration};

use weir_sensor_common::LAYOUT_VERSION;
use weir_wire::Direction;

use super::{
    Folder, Generation, PinnedHook, Pinning, discard, generation_folders, holder, hooks::interface_name,
    on_bpffs,
};
use crate::kernel::{
    FilterAction, Finding, Geometry, KernelError, Settings, Verdict,
    attach::{filter_handle, remove_filter},
    check::finding,
    clock::WallClock,
    datapath::adopt_tables,
    grace::Grace,
    identity::namespace,
    object::Maps,
    pins::{HookKind, Hooks, LINKS},
    settings::Steering,
};

/// What `weir-sensor detach` removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// A line for each hook that a program was on.
    pub hooks: Vec<String>,
    /// Generations of tables.
    pub generations: usize,
    /// Packets that were counted and in no released epoch: some of them may be safe in the spool. `None`
    /// where tables of another layout, or damaged ones, could not be read.
    pub undrained_packets: Option<u64>,
}

impl Removed {
    /// Whether there was anything.
    pub fn is_nothing(&self) -> bool {
        self.hooks.is_empty() && self.generations == 0
    }
}

/// Takes a sensor's programs off all interfaces and removes its maps and its folder. Refused while a sensor
/// runs there.
pub fn remove(pinning: &Pinning) -> Result<Removed, KernelError> {
    let Some(folder) = Folder::lock_existing(pinning)? else {
        return Ok(Removed { undrained_packets: Some(0), ..Removed::default() });
    };
    let mut removed = Removed { undrained_packets: Some(0), ..Removed::default() };
    for hook in folder.hooks().list()? {
        if hook.kind == HookKind::Clsact {
            remove_filter(hook.ifindex, hook.direction, filter_handle(Some(folder.path())))?;
        }
        hook.remove()?;
        removed.hooks.push(shown(&hook));
    }
    // No program counts from here on.
    Grace::find()?.wait()?;
    for path in generation_folders(folder.path())? {
        let undrained = Generation::open(path.clone()).and_then(Generation::known).and_then(undrained);
        removed.undrained_packets =
            removed.undrained_packets.zip(undrained.ok()).map(|(sum, more)| sum + more);
        discard(&path)?;
        removed.generations += 1;
    }
    folder.remove()?;
    Ok(removed)
}

fn undrained(generation: Generation) -> Result<u64, KernelError> {
    let Generation { path, identity } = generation;
    let steering = Steering::new(1, &[], FilterAction::Allow)?;
    let (tables, _) = adopt_tables(Maps::Pins(&path), &path, identity, steering)?;
    Ok(tables.undrained_frames())
}

fn shown(hook: &PinnedHook) -> String {
    let way = match hook.direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    };
    let name = interface_name(hook.ifindex).unwrap_or_else(|| "an interface that is gone".to_owned());
    format!("{name} (index {}) {way}, {}", hook.ifindex, hook.kind.shown())
}

/// What is pinned, what it is good for, and what is stale. Nothing is changed.
pub fn check_pins(pinning: &Pinning, settings: &Settings, interfaces: &[String]) -> Vec<Finding> {
    let path = pinning.path();
    let subject = "pins";
    if let Err(error) = on_bpffs(&path) {
        let remedy =
            Some("mount one there, or set `pins.enabled = false`: then counting ends with the sensor");
        return vec![finding(subject, Verdict::Missing, error.to_string(), remedy)];
    }
    let folders = match generation_folders(&path) {
        Ok(folders) => folders,
        Err(_) if !path.exists() => {
            let detail = format!("nothing is pinned in {}", path.display());
            return vec![finding(subject, Verdict::Ok, detail, None)];
        }
        Err(error) => {
            let remedy = Some("run as the owner of the folder");
            return vec![finding(subject, Verdict::Missing, error.to_string(), remedy)];
        }
    };
    let running = holder(&path);
    let mut findings = vec![match running {
        Some(pid) => finding(subject, Verdict::Ok, format!("a sensor is running (pid {pid})"), None),
        None if folders.is_empty() => {
            let detail = format!("no tables are pinned in {}", path.display());
            finding(subject, Verdict::Ok, detail, None)
        }
        None => finding(
            subject,
            Verdict::Warning,
            "programs count and no sensor drains them: tables fill, and then packets count as overflow",
            Some("start the sensor, which takes over; or `weir-sensor detach`"),
        ),
    }];
    let mut generations = Vec::new();
    for folder in folders {
        match Generation::open(folder.clone()).and_then(Generation::known) {
            Ok(generation) => generations.push(generation),
            Err(error) => findings.push(stale(&folder, &error)),
        }
    }
    generations.sort_by_key(|generation| generation.identity.read().sequence);
    let geometry = Geometry::new(settings).ok();
    let count = generations.len();
    for (place, generation) in generations.iter().enumerate() {
        findings.push(explain(generation, place + 1 == count, geometry));
    }
    findings.extend(hooks(&path, interfaces, running.is_some()));
    findings
}

fn stale(folder: &std::path::Path, error: &KernelError) -> Finding {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let remedy = match error {
        KernelError::OtherLayout { .. } => {
            "start the version that made them once, which drains them; or `weir-sensor detach`: what is not \
             drained is lost"
        }
        _ => "`weir-sensor detach` removes them; what is not drained is lost",
    };
    finding(&format!("tables {name}"), Verdict::Missing, error.to_string(), Some(remedy))
}

fn explain(generation: &Generation, is_last: bool, geometry: Option<Geometry>) -> Finding {
    let identity = generation.identity.read();
    let age = |since_ns: i64| {
        Duration::from_secs(
            Duration::from_nanos((WallClock::measure().now() - since_ns).max(0) as u64).as_secs(),
        )
    };
    let held = identity.zeroing.max(identity.released);
    let began = identity.began.iter().max_by_key(|began| began.epoch);
    let mut detail = format!(
        "layout {LAYOUT_VERSION}, made {:?} ago, {held} epochs drained; the one that is counted began {:?} ago",
        age(identity.made_ns),
        age(began.map_or(identity.made_ns, |began| began.wall_ns)),
    );
    let subject = format!("tables {}", generation.identity.generation().simple());
    if identity.namespace != namespace() {
        detail.push_str("; made in another network namespace");
        let remedy = Some("run the sensor there, or give it a name of its own (pins.name)");
        return finding(&subject, Verdict::Warning, detail, remedy);
    }
    if is_last && geometry.is_none_or(|geometry| generation.suits(geometry)) {
        detail.push_str("; a sensor takes them over");
        return finding(&subject, Verdict::Ok, detail, None);
    }
    detail.push_str(
        "; of other sizes than configured, or older: a sensor drains and removes them when it starts",
    );
    finding(&subject, Verdict::Ok, detail, None)
}

fn hooks(path: &std::path::Path, interfaces: &[String], is_running: bool) -> Vec<Finding> {
    let folder: PathBuf = path.join(LINKS);
    let Ok(hooks) = Hooks::new(folder).list() else { return Vec::new() };
    hooks
        .into_iter()
        .map(|hook| {
            let (subject, detail) = ("pinned hook", shown(&hook));
            let name = interface_name(hook.ifindex);
            if !hook.is_alive().unwrap_or(false) {
                let remedy =
                    Some("nothing: the next sensor that starts removes it, and so does `weir-sensor detach`");
                return finding(
                    subject,
                    Verdict::Warning,
                    format!("{detail}: stale, its interface is gone"),
                    remedy,
                );
            }
            if !is_running && !interfaces.is_empty() && name.is_none_or(|name| !interfaces.contains(&name)) {
                let remedy = Some("nothing, if that is meant: the next sensor that starts takes it off");
                let detail = format!("{detail}: its interface is not configured any more");
                return finding(subject, Verdict::Warning, detail, remedy);
            }
            finding(subject, Verdict::Ok, detail, None)
        })
        .collect()
}
