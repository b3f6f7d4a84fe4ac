//! Settings that the control plane pushed, as the sensor keeps them: what is in force, what is on trial, and what
//! it would not take.
//!
//! One small file beside the spool, replaced whole. What must stay true: what was in force and well is in force after
//! every start, with the control plane away as well; what a sensor did not come up well with is not tried for ever.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use weir_wire::settings::Settings;

/// In `spool.folder`.
const FILE: &str = "configuration.json";
/// Starts with settings on trial that ended before it was known whether the sensor is well with them: once may be
/// chance.
const MOST_STARTS: u32 = 2;
/// Characters of a reason.
const MAX_REASON: usize = 500;

/// Settings with their identity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pushed {
    pub id: String,
    pub settings: Settings,
}

/// What a heartbeat says of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub in_force: Option<String>,
    pub trial: Option<String>,
    pub refused: Option<String>,
    pub reason: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    /// The sensor was well with them.
    good: Option<Pushed>,
    trial: Option<Trial>,
    refused: Option<Refused>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Trial {
    pushed: Pushed,
    starts: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Refused {
    id: String,
    reason: String,
    /// Another version of the sensor may take them.
    version: String,
}

/// The file with its content.
#[derive(Debug)]
pub struct Book {
    path: PathBuf,
    kept: Kept,
}

impl Book {
    /// Reads what there is. A file that cannot be read counts as none: the sensor's own file is enough to run.
    #[must_use]
    pub fn open(folder: &Path) -> Self {
        let path = folder.join(FILE);
        let kept = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::error!(%error, path = %path.display(), "pushed settings cannot be read; none are in force");
                Kept::default()
            }),
            Err(error) => {
                if error.kind() != std::io::ErrorKind::NotFound {
                    tracing::error!(%error, path = %path.display(), "pushed settings cannot be read; none are in force");
                }
                Kept::default()
            }
        };
        Self { path, kept }
    }

    /// A sensor begins: settings that it did not come up well with before are given up. Whether it begins with a trial.
    pub fn begin(&mut self) -> bool {
        if self.kept.refused.as_ref().is_some_and(|refused| refused.version != env!("CARGO_PKG_VERSION")) {
            self.kept.refused = None;
        }
        let Some(trial) = &mut self.kept.trial else { return false };
        trial.starts += 1;
        let (id, starts) = (trial.pushed.id.clone(), trial.starts - 1);
        if starts >= MOST_STARTS {
            self.refuse(&id, &format!("the sensor ended {starts} times while they were on trial"));
            return false;
        }
        // Not counted, it could be tried for ever.
        if let Err(error) = self.save() {
            self.refuse(&id, &format!("their trial cannot be noted: {error}"));
            return false;
        }
        true
    }

    /// The settings that are to be in force.
    #[must_use]
    pub fn current(&self) -> Option<&Pushed> {
        self.kept.trial.as_ref().map(|trial| &trial.pushed).or(self.kept.good.as_ref())
    }

    /// The settings that are to be in force, by key.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.current().map(|pushed| pushed.settings.clone()).unwrap_or_default()
    }

    /// Notes that settings are put on trial, before they are.
    pub fn attempt(&mut self, pushed: Pushed) -> std::io::Result<()> {
        self.kept.trial = Some(Trial { pushed, starts: 1 });
        self.save().inspect_err(|_| self.kept.trial = None)
    }

    /// The sensor is well with what was on trial.
    pub fn keep(&mut self) {
        if let Some(Trial { pushed, .. }) = self.kept.trial.take() {
            self.kept.good = Some(pushed).filter(|pushed| !pushed.settings.is_empty());
            self.kept.refused = None;
            self.save_or_say();
        }
    }

    /// It is not, or they cannot be taken. What was good before stays.
    pub fn refuse(&mut self, id: &str, reason: &str) {
        if self.kept.trial.as_ref().is_some_and(|trial| trial.pushed.id == id) {
            self.kept.trial = None;
        }
        // Good for an earlier configuration of this sensor's own.
        if self.kept.good.as_ref().is_some_and(|good| good.id == id) {
            self.kept.good = None;
        }
        let reason = reason.chars().filter(|char| *char != '\r').take(MAX_REASON).collect();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        self.kept.refused = Some(Refused { id: id.to_owned(), reason, version });
        self.save_or_say();
    }

    /// The sensor ends because it was told to: that is nobody's fault.
    pub fn leave(&mut self) {
        if let Some(trial) = &mut self.kept.trial {
            trial.starts = trial.starts.saturating_sub(1);
            self.save_or_say();
        }
    }

    #[must_use]
    pub fn report(&self) -> Report {
        let (refused, reason) =
            self.kept.refused.as_ref().map(|refused| (refused.id.clone(), refused.reason.clone())).unzip();
        Report {
            in_force: self.kept.good.as_ref().map(|good| good.id.clone()),
            trial: self.kept.trial.as_ref().map(|trial| trial.pushed.id.clone()),
            refused,
            reason,
        }
    }

    fn save_or_say(&self) {
        if let Err(error) = self.save() {
            tracing::error!(%error, path = %self.path.display(), "pushed settings cannot be noted");
        }
    }

    /// A reader sees the old file or the new one, also after a power cut.
    fn save(&self) -> std::io::Result<()> {
        let unfinished = self.path.with_extension("json.new");
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = File::create(&unfinished)?;
        file.write_all(&serde_json::to_vec_pretty(&self.kept)?)?;
        file.sync_all()?;
        fs::rename(&unfinished, &self.path)?;
        match self.path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pushed(id: &str) -> Pushed {
        let settings = serde_json::from_value(json!({"epoch": "1s"})).expect("settings");
        Pushed { id: id.to_owned(), settings }
    }

    fn in_force(book: &Book) -> Option<&str> {
        book.current().map(|pushed| pushed.id.as_str())
    }

    /// S12: the last good settings are in force after any start; what the sensor twice ended with is given up.
    #[test]
    fn s12_the_last_good_settings_survive_what_the_sensor_does_not_come_up_with() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut book = Book::open(folder.path());
        assert_eq!((book.begin(), in_force(&book)), (false, None));
        book.attempt(pushed("a")).expect("it is noted");
        book.keep();
        book.attempt(pushed("b")).expect("it is noted");
        // Killed: its second start is the second attempt, its third is without.
        let mut book = Book::open(folder.path());
        assert_eq!((book.begin(), in_force(&book)), (true, Some("b")));
        let mut book = Book::open(folder.path());
        assert_eq!((book.begin(), in_force(&book)), (false, Some("a")));
        let Report { in_force: good, trial, refused, reason } = book.report();
        assert_eq!((good.as_deref(), trial, refused.as_deref()), (Some("a"), None, Some("b")));
        assert!(reason.is_some_and(|reason| reason.contains("2 times")));
        // Told to end is not failing, however often.
        book.attempt(pushed("c")).expect("it is noted");
        for _ in 0..5 {
            book.leave();
            book = Book::open(folder.path());
            assert_eq!((book.begin(), in_force(&book)), (true, Some("c")));
        }
        book.keep();
        assert_eq!(book.report().refused, None);
        // Nothing pushed any more.
        book.attempt(Pushed { settings: Settings::new(), ..pushed("none") }).expect("it is noted");
        book.keep();
        assert_eq!(in_force(&Book::open(folder.path())), None);
    }

    #[test]
    fn s12_a_damaged_file_is_none_and_a_folder_that_cannot_be_written_tries_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join(FILE), b"{\"good\": 7").expect("it is written");
        let mut book = Book::open(folder.path());
        assert_eq!((book.begin(), in_force(&book)), (false, None));
        let nowhere = folder.path().join(FILE).join("below-a-file");
        let mut book = Book::open(&nowhere);
        book.attempt(pushed("a")).expect_err("there is no place for it");
        assert_eq!(in_force(&book), None);
    }
}
