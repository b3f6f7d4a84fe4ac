//! A wall clock that one program sees and a test sets; the machine's own is never touched.
//!
//! libfaketime answers the program's calls from a file that is read at each of them. Monotonic clocks stay
//! true, as they do when an operator or NTP sets a clock.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use crate::scratch::Scratch;
use crate::{Error, Result};

/// Debian's folder; the middle is the machine's architecture.
const FOLDER: &str = "/usr/lib";
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// The clock of the programs that are started with its [environment](Self::env).
#[derive(Debug)]
pub struct Clock {
    library: PathBuf,
    folder: Scratch,
}

impl Clock {
    /// A clock that is right.
    pub fn new() -> Result<Self> {
        let folders = fs::read_dir(FOLDER).map_err(Error::io(format!("list {FOLDER}")))?;
        let library = folders.flatten().map(|folder| folder.path().join(LIBRARY)).find(|path| path.is_file());
        let library = library.ok_or_else(|| Error::Missing {
            program: "libfaketime".to_owned(),
            looked_in: format!("{FOLDER}/*/{LIBRARY}"),
        })?;
        let clock = Self { library, folder: Scratch::new("clock")? };
        clock.set(0)?;
        Ok(clock)
    }

    /// What a program is started with.
    #[must_use]
    pub fn env(&self) -> Vec<(OsString, OsString)> {
        let settings = [
            ("LD_PRELOAD", self.library.clone().into_os_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().into_os_string()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            ("NO_FAKE_STAT", "1".into()),
            // Else each program leaves a segment in /dev/shm when it is killed.
            ("FAKETIME_DISABLE_SHM", "1".into()),
        ];
        settings.map(|(name, value)| (name.into(), value)).into()
    }

    /// Sets the clock so many seconds ahead of the true time, or behind it.
    pub fn set(&self, ahead_s: i64) -> Result<()> {
        // Renamed into place: a program that reads it now sees the old time or the new one.
        let new = self.folder.path().join("new");
        fs::write(&new, format!("{ahead_s:+}\n")).map_err(Error::io(format!("write {}", new.display())))?;
        fs::rename(&new, self.file()).map_err(Error::io(format!("set {}", self.file().display())))
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("offset")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Launch;

    /// Seconds since 1970 as date(1) sees them.
    fn date(clock: &Clock) -> i64 {
        let launch = clock
            .env()
            .into_iter()
            .fold(Launch::new("date"), |launch, (name, value)| launch.env(name, value));
        launch.arg("+%s").run().expect("date runs").trim().parse().expect("a number")
    }

    #[test]
    fn only_the_program_s_clock_is_set() {
        let clock = Clock::new().expect("libfaketime is installed");
        let true_s = || {
            let since = std::time::UNIX_EPOCH.elapsed().expect("it is after 1970");
            i64::try_from(since.as_secs()).expect("it is before the end of time")
        };
        for ahead_s in [0, 3_600, -7_200] {
            clock.set(ahead_s).expect("the clock is set");
            let before = true_s();
            let seen = date(&clock) - ahead_s;
            assert!((before..=true_s()).contains(&seen), "{ahead_s}: {before} {seen}");
        }
    }
}
