//! `cargo xtask generate-capture`: the small capture that the demo replays when it is given no other.
//!
//! It holds one of each thing that the kernel programs tell apart, in documentation addresses only
//! (RFC 5737, RFC 3849), and is the same, byte for byte, on each run. The file is committed; a test here
//! fails when it is not what this code writes.

mod link;
mod network;
mod scenario;

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::cargo;

#[derive(clap::Args)]
#[command(
    about = "Write the demo's capture anew (it is committed; run this after a change of its code)",
    after_help = "Example:
  cargo xtask generate-capture && git diff --stat xtask/assets"
)]
pub struct Args {
    /// Write there instead
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<()> {
    let path = args.output.clone().unwrap_or_else(path);
    std::fs::write(&path, capture()).with_context(|| format!("write {}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

/// The committed file.
pub fn path() -> PathBuf {
    cargo::workspace().join("xtask/assets/sample.pcap")
}

fn capture() -> Vec<u8> {
    let mut wire = link::Wire::default();
    scenario::play(&mut wire);
    wire.into_pcap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_capture_is_what_this_code_writes() {
        let committed = std::fs::read(path()).expect("the capture is committed");
        assert!(committed == capture(), "run `cargo xtask generate-capture` and commit its result");
    }

    #[test]
    fn the_capture_is_small_and_fits_an_ethernet_frame() {
        let pcap = capture();
        assert!(pcap.len() < 200_000, "{} bytes", pcap.len());
        let mut rest = &pcap[link::FILE_HEADER..];
        let mut frames = 0;
        while !rest.is_empty() {
            let (header, after) = rest.split_at(link::FRAME_HEADER);
            let captured = u32::from_le_bytes(header[8..12].try_into().expect("four bytes")) as usize;
            assert!((60..=1514).contains(&captured), "frame {frames} has {captured} bytes");
            rest = &after[captured..];
            frames += 1;
        }
        assert!(frames > 300, "{frames} frames");
    }
}
