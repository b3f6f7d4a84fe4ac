//! How attempts at TCP connections end.
//!
//! Several detectors ask which connections came to be. A handshake that an epoch cuts is judged in the next
//! one. The initiator's flags alone tell: who completed a handshake has sent an ACK, even where the other
//! direction is not observed.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::flow::Record;
use crate::kernel::FlowKey;

pub(super) const TCP: u8 = 6;
pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;

/// A handshake may take so long before it counts as unanswered.
const PATIENCE_NS: i64 = 1_000_000_000;
/// Handshakes that wait for the next epoch. Under a flood the rest counts as unanswered at once, which it is.
const MAX_WAITING: usize = 4_096;

/// An attempt at a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub port: u16,
    pub at_ns: i64,
    /// The initiator completed the handshake.
    pub completed: bool,
}

/// Judges attempts, and remembers those that an epoch cuts.
#[derive(Default)]
pub(super) struct Attempts {
    waiting: HashMap<FlowKey, i64>,
    /// Of this epoch, for the next one.
    cut: HashMap<FlowKey, i64>,
}

impl Attempts {
    /// What a record says of an attempt, if anything.
    pub(super) fn judge(&mut self, record: &Record, window_end_ns: i64) -> Option<Attempt> {
        let key = &record.key;
        // Without ports it is no attempt: a fragment, or a header that is cut short.
        if key.protocol != TCP || key.dst_port == 0 || record.fragment || record.packets == 0 {
            return None;
        }
        let completed = record.tcp_flags & ACK != 0;
        let attempt = |at_ns| Attempt { src: key.src, dst: key.dst, port: key.dst_port, at_ns, completed };
        if record.start_ns != record.first_ns {
            return self.waiting.remove(key).map(attempt);
        }
        let stealth = record.tcp_flags & (SYN | ACK | RST) == 0;
        if record.tcp_flags & SYN == 0 && !stealth {
            // Picked up in the middle.
            return None;
        }
        let ended = (record.tcp_flags | record.reverse_tcp_flags) & RST != 0;
        let young = record.start_ns > window_end_ns.saturating_sub(PATIENCE_NS);
        if young && !completed && !ended && !stealth && self.cut.len() < MAX_WAITING {
            self.cut.insert(*key, record.start_ns);
            return None;
        }
        Some(attempt(record.start_ns))
    }

    /// The epoch's records are through: what waited for them was in vain.
    pub(super) fn settle(&mut self) -> Vec<Attempt> {
        let vain = std::mem::replace(&mut self.waiting, std::mem::take(&mut self.cut));
        let mut vain: Vec<_> = vain.into_iter().map(vain_attempt).collect();
        // A table has no order; what is found should not depend on that.
        vain.sort_unstable_by_key(|attempt| (attempt.at_ns, attempt.src, attempt.dst, attempt.port));
        vain
    }
}

fn vain_attempt((key, at_ns): (FlowKey, i64)) -> Attempt {
    Attempt { src: key.src, dst: key.dst, port: key.dst_port, at_ns, completed: false }
}
