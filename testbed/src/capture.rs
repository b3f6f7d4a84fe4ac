//! Real captures with independent truth. They lie beside the workspace (`../shared/pcaps`), or where
//! `WEIR_PCAPS` says. How a frame becomes a flow there is written in their README.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{Error, Result};

/// A capture and its truth.
#[derive(Clone, Debug)]
pub struct Capture {
    pub name: String,
    pub pcap: PathBuf,
    pub truth: Truth,
}

/// What a capture holds, as two independent parsers agree.
#[derive(Clone, Debug, Deserialize)]
pub struct Truth {
    pub totals: Totals,
    pub replay: ReplayNeeds,
    /// One direction each.
    pub flows: Vec<FlowTruth>,
    /// Frames that two parsers read differently.
    pub disputed: Vec<serde_json::Value>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Totals {
    pub frames: u64,
    /// Original lengths, without the frame check sequence.
    pub l2_bytes: u64,
    /// Captured lengths: what a replay sends.
    pub l2_bytes_cap: u64,
    pub ipv4: u64,
    pub ipv6: u64,
    pub arp: u64,
    pub other: u64,
    /// Why frames have no flow, or a header that lies; empty where nothing is odd.
    pub parse_notes: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct ReplayNeeds {
    /// The link MTU with which every frame can be sent.
    pub mtu_needed: i64,
}

#[derive(Clone, Debug, Deserialize)]
pub struct FlowTruth {
    pub src: String,
    pub dst: String,
    pub proto: u8,
    pub sport: u16,
    pub dport: u16,
    /// Link stack, outermost first; empty for a bare frame.
    #[serde(default)]
    pub l2: Vec<String>,
    pub packets: u64,
    pub l3_bytes: u64,
    /// Packets whose header gives a length that cannot be.
    #[serde(default)]
    pub l3_len_anomalies: u64,
}

impl Capture {
    /// The capture `NAME.pcap` with its `NAME.truth.json`.
    pub fn named(name: &str) -> Result<Self> {
        let folder = folder()?;
        let path = folder.join(format!("{name}.truth.json"));
        let json = fs::read(&path).map_err(Error::io(format!("read {}", path.display())))?;
        let truth = serde_json::from_slice(&json)
            .map_err(|error| Error::malformed(path.display().to_string(), error.to_string()))?;
        Ok(Self { name: name.to_owned(), pcap: folder.join(format!("{name}.pcap")), truth })
    }

    /// Every capture, by name. An error if there is none.
    pub fn all() -> Result<Vec<Self>> {
        names()?.iter().map(|name| Self::named(name)).collect()
    }

    /// Whether every frame can be sent whole over a link of this MTU.
    #[must_use]
    pub fn fits(&self, mtu: u32) -> bool {
        self.truth.replay.mtu_needed <= i64::from(mtu)
    }
}

/// The captures' names, in order. An error if there is none.
pub fn names() -> Result<Vec<String>> {
    let folder = folder()?;
    let entries = fs::read_dir(&folder).map_err(Error::io(format!("list {}", folder.display())))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".truth.json")?.to_owned()))
        .collect();
    names.sort();
    if names.is_empty() {
        return Err(Error::malformed(folder.display().to_string(), "no captures are in it"));
    }
    Ok(names)
}

/// Each capture's truth, for those that read another part of it than [`Truth`].
pub fn truths() -> Result<Vec<PathBuf>> {
    let folder = folder()?;
    Ok(names()?.iter().map(|name| folder.join(format!("{name}.truth.json"))).collect())
}

/// Where the captures are.
pub fn folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("WEIR_PCAPS") {
        return Ok(folder.into());
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().and_then(Path::parent);
    let folder = workspace.map(|outside| outside.join("shared/pcaps/open")).filter(|path| path.is_dir());
    folder.ok_or_else(|| Error::Missing {
        program: "the set of test captures".to_owned(),
        looked_in: "../shared/pcaps/open beside the workspace; or set WEIR_PCAPS to its folder".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_truth_of_every_capture_adds_up() {
        for capture in Capture::all().expect("the captures are there") {
            let Totals { frames, ipv4, ipv6, arp, other, .. } = capture.truth.totals;
            assert_eq!(frames, ipv4 + ipv6 + arp + other, "{}", capture.name);
            assert!(capture.pcap.is_file(), "{}", capture.name);
        }
    }
}
