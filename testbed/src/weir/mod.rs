//! Weir itself, as an operator would run it: both programs, configured by files, spoken to by their API.

mod control_plane;
mod ledger;
mod sensor;

use std::path::{Path, PathBuf};

pub use control_plane::{ControlPlane, Place};
pub use ledger::{Dropped, Flow, Ledger, PathPoint, Point, Totals, Waiting};
pub use sensor::{Sensor, Watch};

use crate::{Error, Result};

/// The built programs.
#[derive(Clone, Debug)]
pub struct Programs {
    pub sensor: PathBuf,
    pub control_plane: PathBuf,
}

impl Programs {
    /// Those of a folder that cargo builds to (`target/debug`, `target/release`).
    pub fn in_folder(folder: &Path) -> Result<Self> {
        let program = |name: &str| {
            let path = folder.join(name);
            if path.is_file() {
                return Ok(path);
            }
            Err(Error::malformed(path.display().to_string(), "it is not built; run `cargo xtask build`"))
        };
        Ok(Self { sensor: program("weir-sensor")?, control_plane: program("weir-control-plane")? })
    }

    /// Those built together with the program that asks: tests run from `target/PROFILE/deps`, others from the folder
    /// above it.
    pub fn beside_this_one() -> Result<Self> {
        let this = std::env::current_exe().map_err(Error::io("find this program's own file"))?;
        let mut folder = this.parent();
        if let Some(deps) = folder.filter(|folder| folder.ends_with("deps")) {
            folder = deps.parent();
        }
        let folder = folder.ok_or_else(|| {
            Error::malformed(this.display().to_string(), "it is not in a folder of cargo's")
        })?;
        Self::in_folder(folder)
    }
}
