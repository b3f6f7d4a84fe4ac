//! What a process holds at this moment, as the kernel tells it: memory, descriptors, BPF objects.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::{Error, Result};

/// One look at a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory, kB; maps of BPF tables are part of it.
    pub rss_kb: u64,
    /// The part of it that is no file and no map: heap and stacks.
    pub anonymous_kb: u64,
    pub threads: u64,
    pub descriptors: u64,
    pub sockets: u64,
    /// Different BPF maps, programs and links that it holds open.
    pub maps: u64,
    pub programs: u64,
    pub links: u64,
}

impl Usage {
    /// Of the process with this id.
    pub fn of(pid: u32) -> Result<Self> {
        let process = Path::new("/proc").join(pid.to_string());
        let failed = |what: &str| Error::io(format!("read {what} of process {pid}"));
        let status = fs::read_to_string(process.join("status")).map_err(failed("the status"))?;
        let number = |label: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(label)?.strip_prefix(':'));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
        };
        let mut usage = Self {
            rss_kb: number("VmRSS"),
            anonymous_kb: number("RssAnon"),
            threads: number("Threads"),
            ..Self::default()
        };
        let (mut maps, mut programs, mut links) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for entry in fs::read_dir(process.join("fd")).map_err(failed("the descriptors"))?.flatten() {
            // It may be closed by now.
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            usage.descriptors += 1;
            usage.sockets += u64::from(target.to_string_lossy().starts_with("socket:"));
            let Ok(details) = fs::read_to_string(process.join("fdinfo").join(entry.file_name())) else {
                continue;
            };
            let id = |label: &str| -> Option<u64> {
                details.lines().find_map(|line| line.strip_prefix(label)?.trim().parse().ok())
            };
            // A link's details name its program, too.
            match (id("link_id:"), id("prog_id:"), id("map_id:")) {
                (Some(link), _, _) => links.insert(link),
                (_, Some(program), _) => programs.insert(program),
                (_, _, Some(map)) => maps.insert(map),
                _ => false,
            };
        }
        (usage.maps, usage.programs, usage.links) =
            (maps.len() as u64, programs.len() as u64, links.len() as u64);
        Ok(usage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_more_is_seen() {
        let pid = std::process::id();
        let before = Usage::of(pid).expect("this process is there");
        assert!(before.rss_kb >= before.anonymous_kb && before.anonymous_kb > 0, "{before:?}");
        // Other tests of this process open files, too: enough of them to stand out.
        let files: Vec<_> =
            (0..200).map(|_| fs::File::open("/proc/self/status").expect("it opens")).collect();
        let with = Usage::of(pid).expect("this process is there");
        assert!(with.descriptors >= before.descriptors + 150, "{before:?} {with:?}");
        drop(files);
    }
}
