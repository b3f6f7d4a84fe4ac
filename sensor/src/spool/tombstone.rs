//! What stands for a batch whose flows could not be kept.
//!
//! Its husk under the same key: the kernel's totals and what crossed are as they were, and `dropped` says
//! what is missing. So the loss has a name at the control plane, too:
//! `committed + crossing + dropped == flow_packets`.

use weir_wire::{DropReason, Dropped};

use super::record::Header;

/// The tombstone of a batch, and its encoding; `None` where the file does not say enough.
pub(super) fn of(header: &Header, reason: DropReason) -> Option<(Header, Vec<u8>)> {
    let mut husk = header.husk.clone()?;
    husk.dropped = Some(Dropped {
        reason: reason.into(),
        records: header.records,
        packets: header.packets,
        octets: header.octets,
    });
    let body = weir_wire::encode(&husk).ok()?;
    let tombstone = Header {
        bytes: body.len() as u64,
        husk: Some(husk),
        refusal: None,
        // What it counts is dropped, and no longer in it.
        ..header.clone()
    };
    Some((tombstone, body))
}
