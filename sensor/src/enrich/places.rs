//! Where addresses are: country and autonomous system, from databases in the MMDB format.
//!
//! The files are the operator's and are replaced while the sensor runs. Each is read whole into memory and
//! takes the old one's place in one step; one that cannot be read leaves the old one as it was (I7).

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use maxminddb::Reader;
use serde::Deserialize;
use thiserror::Error;
use weir_wire::{Place, limits};

/// Largest file that is read: the largest database that is sold has a quarter of this.
const MAX_BYTES: u64 = 2 << 30;
/// Places that are remembered to be shared; there are some 100,000 autonomous systems.
const SHARED: usize = 1 << 18;

/// Why a database is not used.
#[derive(Debug, Error)]
pub enum PlacesError {
    #[error("read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} has {bytes} bytes; a database has at most {MAX_BYTES}")]
    TooLarge { path: PathBuf, bytes: u64 },
    #[error("{path} is no database of MaxMind's format: {source}")]
    Format { path: PathBuf, source: maxminddb::MaxMindDbError },
}

/// All databases; the first that tells a field wins.
pub struct Places {
    databases: Vec<Database>,
    shared: HashMap<Place, Arc<Place>>,
}

struct Database {
    path: PathBuf,
    looked_at: Look,
    reader: Option<Reader<Vec<u8>>>,
}

/// What was found when a database was last looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Never,
    NoFile,
    /// A file of this time and length, whether or not it could be read.
    File(SystemTime, u64),
}

/// What databases of countries, cities and autonomous systems hold; other fields are left alone.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    country: Option<Country<'a>>,
    #[serde(rename = "autonomous_system_number")]
    asn: Option<u32>,
    #[serde(rename = "autonomous_system_organization")]
    organisation: Option<&'a str>,
}

#[derive(Deserialize)]
struct Country<'a> {
    iso_code: Option<&'a str>,
}

impl Places {
    /// Nothing is read yet: [`Self::refresh`] does.
    #[must_use]
    pub fn new(paths: &[PathBuf]) -> Self {
        let databases =
            paths.iter().map(|path| Database { path: path.clone(), looked_at: Look::Never, reader: None });
        Self { databases: databases.collect(), shared: HashMap::new() }
    }

    /// Reads files that are new or were replaced; gives how it went with each of those. A file that is not
    /// there, or no database, leaves what was read before.
    pub fn refresh(&mut self) -> Vec<Result<&Path, PlacesError>> {
        let mut told = Vec::new();
        for database in &mut self.databases {
            let look = look(&database.path);
            if database.looked_at == look {
                continue;
            }
            database.looked_at = look;
            told.push(read(&database.path).map(|reader| {
                database.reader = Some(reader);
                self.shared.clear();
                database.path.as_path()
            }));
        }
        told
    }

    /// Where an address is; `None` where no database tells.
    pub fn of(&mut self, address: IpAddr) -> Option<Arc<Place>> {
        let mut place = Place::default();
        for reader in self.databases.iter().filter_map(|database| database.reader.as_ref()) {
            // An entry that is broken is one that tells nothing.
            let found = reader.lookup(address).and_then(|found| found.decode::<Entry<'_>>());
            if let Ok(Some(entry)) = found {
                fill(&mut place, &entry);
            }
        }
        if place == Place::default() {
            return None;
        }
        if let Some(shared) = self.shared.get(&place) {
            return Some(Arc::clone(shared));
        }
        if self.shared.len() >= SHARED {
            self.shared.clear();
        }
        let shared = Arc::new(place.clone());
        self.shared.insert(place, Arc::clone(&shared));
        Some(shared)
    }

    /// Whether there is nothing to ask.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.databases.iter().all(|database| database.reader.is_none())
    }
}

fn fill(place: &mut Place, entry: &Entry<'_>) {
    let code = entry.country.as_ref().and_then(|country| country.iso_code).unwrap_or_default();
    if place.country.is_empty() && code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_uppercase()) {
        code.clone_into(&mut place.country);
    }
    if let Some(asn) = entry.asn.filter(|_| place.asn == 0) {
        place.asn = asn;
        let organisation = entry.organisation.unwrap_or_default();
        let end = organisation.floor_char_boundary(limits::MAX_ORGANISATION);
        organisation[..end].clone_into(&mut place.organisation);
    }
}

fn look(path: &Path) -> Look {
    let Ok(metadata) = path.metadata() else { return Look::NoFile };
    Look::File(metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), metadata.len())
}

fn read(path: &Path) -> Result<Reader<Vec<u8>>, PlacesError> {
    let unread = |source| PlacesError::Read { path: path.to_owned(), source };
    let bytes = path.metadata().map_err(unread)?.len();
    if bytes > MAX_BYTES {
        return Err(PlacesError::TooLarge { path: path.to_owned(), bytes });
    }
    let contents = std::fs::read(path).map_err(unread)?;
    Reader::from_source(contents).map_err(|source| PlacesError::Format { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
    }

    fn told(places: &mut Places) -> Vec<bool> {
        places.refresh().iter().map(Result::is_ok).collect()
    }

    fn of(places: &mut Places, address: &str) -> Option<(String, u32, String)> {
        let place = places.of(address.parse().expect("an address"))?;
        Some((place.country.clone(), place.asn, place.organisation.clone()))
    }

    #[test]
    fn s5_countries_and_systems_come_from_whichever_database_tells_them() {
        let mut places = Places::new(&[data("GeoIP2-Country-Test.mmdb"), data("GeoLite2-ASN-Test.mmdb")]);
        assert!(places.is_empty());
        assert_eq!(told(&mut places), [true, true]);
        assert_eq!(told(&mut places), [] as [bool; 0], "what did not change is not read again");
        let sweden = ("SE".to_owned(), 29_518, "Bredband2 AB".to_owned());
        assert_eq!(of(&mut places, "89.160.20.112"), Some(sweden));
        assert_eq!(of(&mut places, "10.1.2.3"), None);
        assert_eq!(of(&mut places, "2001:db8::1"), None);
        let twice = ["1.128.0.1", "1.128.0.2"].map(|address| places.of(address.parse().expect("an address")));
        let [Some(first), Some(second)] = twice else { panic!("both are known") };
        assert!(Arc::ptr_eq(&first, &second), "places are shared");
    }

    #[test]
    fn i7_a_failed_refresh_leaves_the_old_database_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("asn.mmdb");
        let mut places = Places::new(std::slice::from_ref(&path));
        let missing = places.refresh();
        assert!(matches!(missing[..], [Err(PlacesError::Read { .. })]), "{missing:?}");

        let place = |bytes: &[u8]| {
            let new = folder.path().join("new");
            std::fs::write(&new, bytes).expect("write");
            std::fs::rename(&new, &path).expect("rename");
        };
        let whole = std::fs::read(data("GeoLite2-ASN-Test.mmdb")).expect("the database");
        place(&whole);
        assert_eq!(told(&mut places), [true]);
        let known = of(&mut places, "1.128.0.1");
        assert!(known.is_some());
        place(&whole[..whole.len() / 2]);
        let broken = places.refresh();
        assert!(matches!(broken[..], [Err(PlacesError::Format { .. })]), "{broken:?}");
        assert_eq!(of(&mut places, "1.128.0.1"), known);
        assert_eq!(told(&mut places), [] as [bool; 0], "told once");
        std::fs::remove_file(&path).expect("remove");
        assert_eq!((told(&mut places), told(&mut places)), (vec![false], vec![]));
        assert_eq!(of(&mut places, "1.128.0.1"), known, "a database that goes away is still used");
        place(&std::fs::read(data("GeoIP2-Country-Test.mmdb")).expect("the database"));
        assert_eq!(told(&mut places), [true]);
        assert_ne!(of(&mut places, "89.160.20.112"), known);
    }

    #[test]
    fn a_database_that_is_hostile_tells_nothing() {
        let mut places = Places::new(&[data("deep-nesting.mmdb")]);
        let _ = places.refresh();
        for address in ["0.0.0.0", "1.1.1.1", "128.0.0.1", "255.255.255.255", "::", "2001:db8::1"] {
            assert_eq!(of(&mut places, address), None);
        }
    }
}
