//! What addresses and ports are called: networks that operators named, whether an address is ours, services.
//!
//! Rows have addresses; names are put to them when they are asked for (`docs/decisions/0161-names-at-query-time.md`).
//! A [`Naming`] is what things are called at one moment: `store::networks` reads it, a question has one, and its
//! filter, its columns and its ranking go by that. Pure: no database, no HTTP.

mod networks;
mod partition;
mod scope;
mod services;

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

pub use networks::{Named, Networks, Pieces, Question, Term};
pub use partition::{LABEL_MASK, Partition};
pub use scope::{Kind, Scope};
pub use services::{Services, is_service, protocol_and_port};

/// What everything is called.
#[derive(Clone, Debug, Default)]
pub struct Naming {
    pub networks: Networks,
    pub services: Arc<Services>,
}

impl Naming {
    /// The same as long as everything is called the same: answers are kept by it.
    #[must_use]
    pub fn edition(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(format!("{:?} {:?}", self.networks.named(), self.services));
        hash.finalize().into()
    }
}
