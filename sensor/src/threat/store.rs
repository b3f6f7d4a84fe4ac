//! The last good copy of every list, on disk: a sensor that starts without a network has its lists.
//!
//! One file a list, `NAME.list`: a line of JSON that says what follows, then the bytes as they came. It is
//! written beside, made durable, and renamed; so there is always a whole one. One whose bytes do not have its
//! checksum is no copy.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What is known of the bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Of the bytes, in hexadecimal: the version of the list.
    pub sha256: String,
    /// Nanoseconds since the Unix epoch.
    pub fetched_ns: i64,
    /// Where they came from: another source's copy is not this list's.
    pub source: String,
    /// What the server wants to hear when it is asked again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_modified: Option<String>,
}

/// The folder.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

/// SHA-256 in hexadecimal.
#[must_use]
pub fn checksum(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Store {
    /// Makes the folder if it must.
    pub fn open(folder: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// To read what is there, if anything is.
    #[must_use]
    pub fn existing(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.list"))
    }

    /// The last good copy, if there is a sound one.
    #[must_use]
    pub fn load(&self, name: &str) -> Option<(Origin, Vec<u8>)> {
        let mut bytes = fs::read(self.path(name)).ok()?;
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let origin: Origin = serde_json::from_slice(&bytes[..end]).ok()?;
        bytes.drain(..=end);
        (checksum(&bytes) == origin.sha256).then_some((origin, bytes))
    }

    /// Replaces it.
    pub fn keep(&self, name: &str, origin: &Origin, bytes: &[u8]) -> io::Result<()> {
        let beside = self.folder.join(format!(".{name}.new"));
        let mut file = File::create(&beside)?;
        serde_json::to_writer(&mut file, origin)?;
        file.write_all(b"\n")?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, self.path(name))?;
        File::open(&self.folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i7_a_copy_is_whole_or_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("lists")).expect("it is made");
        assert_eq!(store.load("a"), None);
        let bytes = b"192.0.2.1\n198.51.100.0/24\n";
        let origin = Origin { sha256: checksum(bytes), etag: Some("\"x\"".to_owned()), ..Origin::default() };
        store.keep("a", &origin, bytes).expect("it is kept");
        assert_eq!(store.load("a"), Some((origin.clone(), bytes.to_vec())));
        // What a power cut or a hand leaves behind.
        let path = store.path("a");
        let whole = fs::read(&path).expect("it is there");
        for cut in [0, 5, whole.len() - 1] {
            fs::write(&path, &whole[..cut]).expect("it is written");
            assert_eq!(store.load("a"), None, "cut at {cut}");
        }
        fs::write(folder.path().join("lists/.a.new"), &whole[..9]).expect("it is written");
        store.keep("a", &origin, bytes).expect("it is kept");
        assert_eq!(store.load("a"), Some((origin, bytes.to_vec())));
    }
}
