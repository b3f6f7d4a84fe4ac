//! Frames on a wire: tcpreplay, with its answer checked. It exits 0 when frames were refused, so the
//! report that it prints is what counts.

use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::netns::Namespace;
use crate::scratch::Scratch;
use crate::{Error, Result};

/// How often the end of a replay is looked for.
const POLL: Duration = Duration::from_millis(5);

/// How fast, how often.
#[derive(Clone, Copy, Debug)]
pub struct Replay {
    pub loops: u32,
    /// Frames a second; `None` is as fast as it goes.
    pub pps: Option<u32>,
    /// An end for a replay that would not come to one, seconds.
    pub at_most_s: u32,
}

impl Default for Replay {
    fn default() -> Self {
        Self { loops: 1, pps: None, at_most_s: 120 }
    }
}

/// What tcpreplay says that it sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    pub frames: u64,
    /// Layer-2 octets.
    pub octets: u64,
    /// Frames sent again because the queue was full: a hook before the queue saw those more than once.
    pub retried: u64,
}

impl Replay {
    /// Sends a capture out of an interface. An error if one frame of it was not sent, for example
    /// because it is larger than the MTU.
    pub fn send(self, from: &Namespace, interface: &str, capture: &Path) -> Result<Sent> {
        let sent = self.send_unless(from, interface, capture, || false)?;
        sent.ok_or_else(|| Error::malformed("tcpreplay", "it was stopped, though nobody asked for it"))
    }

    /// The same, ended early with `None` as soon as `stop` says so.
    pub fn send_unless(
        self,
        from: &Namespace,
        interface: &str,
        capture: &Path,
        stop: impl Fn() -> bool,
    ) -> Result<Option<Sent>> {
        let folder = Scratch::new("replay")?;
        let speed = self.pps.map_or_else(|| "--topspeed".to_owned(), |pps| format!("--pps={pps}"));
        let mut process = from
            .launch("tcpreplay")
            .args(["--preload-pcap", "--no-flow-stats", "--quiet", &speed])
            .arg(format!("--loop={}", self.loops))
            .arg(format!("--duration={}", self.at_most_s))
            .arg(format!("--intf1={interface}"))
            .arg(capture)
            .spawn("tcpreplay", folder.path().join("log"))?;
        let status = loop {
            if let Some(status) = process.try_wait()? {
                break status;
            }
            if stop() {
                return Ok(None);
            }
            thread::sleep(POLL);
        };
        let report = process.log();
        let what = || format!("replay {} on {interface}", capture.display());
        if !status.success() {
            return Err(Error::Ended { what: what(), status: status.to_string(), log: report });
        }
        let (sent, failed) =
            read(&report).ok_or_else(|| Error::malformed("the report of tcpreplay", report.clone()))?;
        if failed > 0 {
            return Err(Error::malformed(what(), format!("{failed} frames were not sent:\n{report}")));
        }
        Ok(Some(sent))
    }
}

/// What was sent, and the number of frames that failed.
fn read(report: &str) -> Option<(Sent, u64)> {
    let number = |label: &str| -> Option<u64> {
        report
            .lines()
            .find_map(|line| line.trim().strip_prefix(label)?.split_whitespace().next()?.parse().ok())
    };
    let octets = report.lines().find_map(|line| {
        let (_, octets) = line.trim().strip_prefix("Actual:")?.split_once('(')?;
        octets.split_whitespace().next()?.parse().ok()
    })?;
    let retried = number("Retried packets (ENOBUFS):")? + number("Retried packets (EAGAIN):")?;
    let sent = Sent { frames: number("Actual:")?, octets, retried };
    Some((sent, number("Failed packets:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_with_its_failures() {
        let report = "Actual: 179 packets (69000 bytes) sent in 0.001 seconds
Rated: 1.0 Bps, 0.0 Mbps, 2.0 pps
Statistics for network device: a
\tSuccessful packets:        179
\tFailed packets:            2
\tTruncated packets:         0
\tRetried packets (ENOBUFS): 3
\tRetried packets (EAGAIN):  1
";
        assert_eq!(read(report), Some((Sent { frames: 179, octets: 69_000, retried: 4 }, 2)));
        assert_eq!(read("Fatal Error: no such interface"), None);
    }
}
