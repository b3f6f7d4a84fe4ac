//! Who made a network card: the IEEE registry, built in, or an operator's newer one.
//!
//! The built-in one is made by `cargo xtask vendors` of Debian's `ieee-data`. A newer one is IEEE's own listing as
//! CSV (`oui.csv`, `mam.csv`, `oui36.csv`), which then takes the place of all of the built-in one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::observe::Mac;

const BUILT_IN: &[u8] = include_bytes!("../../data/vendors.zst");
/// Octets of the built-in registry, unpacked, and of an operator's files together: it has one million now.
const MAX_BYTES: usize = 64 << 20;
/// Octets of an organisation's name.
const MAX_NAME: usize = 128;
/// Lengths of a prefix in bits, longest first: MA-S and IAB, MA-M, MA-L.
const LENGTHS: [u32; 3] = [36, 28, 24];

/// Why a registry cannot be used.
#[derive(Debug, Error)]
pub enum VendorsError {
    #[error("read devices.vendors = {path}: {source}")]
    Read { path: PathBuf, source: csv::Error },
    #[error(
        "devices.vendors = {path} has no assignment; IEEE's CSV is expected (Registry,Assignment,Organization Name,…)"
    )]
    Empty { path: PathBuf },
    #[error("devices.vendors: the files have more than {MAX_BYTES} octets together")]
    TooLarge,
    #[error("the built-in registry of vendors is damaged: {0}")]
    BuiltIn(std::io::Error),
}

/// A registry.
#[derive(Debug, Default)]
pub struct Vendors {
    /// By prefix and its length in bits.
    prefixes: HashMap<(u64, u32), u32>,
    names: Vec<Box<str>>,
}

impl Vendors {
    /// The built-in registry, or that of these files.
    pub fn load(files: &[PathBuf]) -> Result<Self, VendorsError> {
        if files.is_empty() { Self::built_in() } else { Self::read(files) }
    }

    fn built_in() -> Result<Self, VendorsError> {
        let text = zstd::bulk::decompress(BUILT_IN, MAX_BYTES).map_err(VendorsError::BuiltIn)?;
        let mut vendors = Self::default();
        for line in String::from_utf8_lossy(&text).lines() {
            let (name, prefixes) = line.split_once('\t').unwrap_or((line, ""));
            let number = vendors.name(name);
            prefixes.split(' ').for_each(|prefix| vendors.add(prefix, number));
        }
        Ok(vendors)
    }

    fn read(files: &[PathBuf]) -> Result<Self, VendorsError> {
        let (mut vendors, mut numbers, mut octets) = (Self::default(), HashMap::new(), 0);
        for path in files {
            let failed = |source| VendorsError::Read { path: path.clone(), source };
            let before = vendors.prefixes.len();
            let mut reader = csv::ReaderBuilder::new().flexible(true).from_path(path).map_err(failed)?;
            for row in reader.byte_records() {
                let row = row.map_err(failed)?;
                octets += row.as_slice().len();
                if octets > MAX_BYTES {
                    return Err(VendorsError::TooLarge);
                }
                let field = |at| String::from_utf8_lossy(row.get(at).unwrap_or_default());
                let name = crate::observe::text::clean(field(2).trim().as_bytes());
                let number = *numbers.entry(name.clone()).or_insert_with(|| vendors.name(&name));
                vendors.add(&field(1), number);
            }
            if vendors.prefixes.len() == before {
                return Err(VendorsError::Empty { path: Path::to_path_buf(path) });
            }
        }
        Ok(vendors)
    }

    fn name(&mut self, name: &str) -> u32 {
        let end = name.floor_char_boundary(MAX_NAME);
        self.names.push(name[..end].into());
        self.names.len() as u32 - 1
    }

    /// What is no prefix of a known length is passed over.
    fn add(&mut self, prefix: &str, number: u32) {
        let bits = prefix.len() as u32 * 4;
        if let (true, Ok(value)) = (LENGTHS.contains(&bits), u64::from_str_radix(prefix, 16)) {
            self.prefixes.insert((value, bits), number);
        }
    }

    /// The organisation that a card's address was assigned to. None for an address that a device made up.
    #[must_use]
    pub fn of(&self, mac: Mac) -> Option<&str> {
        if mac.is_locally_administered() || mac.is_group() {
            return None;
        }
        let value = mac.0.iter().fold(0_u64, |value, octet| value << 8 | u64::from(*octet));
        let found = LENGTHS.iter().find_map(|bits| self.prefixes.get(&(value >> (48 - bits), *bits)))?;
        // IEEE registers itself for a range that it gives away in pieces, and a name that is not told as this.
        let name = &*self.names[*found as usize];
        (name != "Private" && name != "IEEE Registration Authority").then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_names_the_vendor() {
        let vendors = Vendors::load(&[]).expect("the built-in registry reads");
        assert!(vendors.prefixes.len() > 40_000, "{}", vendors.prefixes.len());
        let of = |octets| vendors.of(Mac(octets));
        assert_eq!(of([0xb0, 0xc5, 0x54, 1, 2, 3]), Some("D-Link International"));
        assert_eq!(of([0x70, 0xb3, 0xd5, 0x71, 0x9a, 0xbc]), Some("2M Technology"), "36 bits");
        assert_eq!(of([0x20, 0x85, 0x93, 0xb1, 0x23, 0x45]), Some("IOG Products LLC"), "28 bits");
        assert_eq!(of([0x74, 0x1a, 0xe0, 0x91, 0, 0]), None, "registered, but not told to whom");
        assert_eq!(of([0xb2, 0xc5, 0x54, 1, 2, 3]), None, "made up");
        assert_eq!(of([0xff; 6]), None);
    }

    #[test]
    fn an_operators_registry_takes_the_place_of_the_built_in_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("oui.csv");
        std::fs::write(
            &path,
            "Registry,Assignment,Organization Name,Organization Address\nMA-L,B0C554,\"Acme, \u{1b}Inc\",x\n",
        )
        .expect("it writes");
        let vendors = Vendors::load(std::slice::from_ref(&path)).expect("it reads");
        assert_eq!(vendors.of(Mac([0xb0, 0xc5, 0x54, 0, 0, 0])), Some("Acme, \\u{1b}Inc"));
        assert_eq!(vendors.of(Mac([0, 0, 0x0c, 0, 0, 0])), None);
        std::fs::write(&path, "a,b,c\n1,2,3\n").expect("it writes");
        let error = Vendors::load(std::slice::from_ref(&path)).expect_err("no registry");
        assert!(error.to_string().contains("oui.csv"), "{error}");
        assert!(Vendors::load(&[folder.path().join("none.csv")]).is_err());
    }
}
