//! TCP as flags tell it: who began, and where the connection stands.

use weir_wire::{EndReason, TcpState};

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;

/// IPFIX protocolIdentifier of TCP.
pub(super) const PROTOCOL: u8 = 6;

/// Whether flags are those of a connection's first packet.
pub(super) fn is_syn(flags: u8) -> bool {
    flags & (SYN | ACK) == SYN
}

/// Whether flags are those of the answer to a connection's first packet.
pub(super) fn is_syn_ack(flags: u8) -> bool {
    flags & (SYN | ACK) == SYN | ACK
}

/// Where a connection stands, from all flags that its initiator and its responder have sent.
///
/// Flags come as a union, not as a sequence, so a state is what that union proves; one side may be unseen.
pub(super) fn state(initiator: u8, responder: u8) -> TcpState {
    let both = initiator | responder;
    if initiator & responder & FIN != 0 {
        TcpState::Closed
    } else if both & RST != 0 {
        TcpState::Reset
    } else if both & FIN != 0 {
        TcpState::Closing
    } else if initiator & ACK != 0 || responder & PSH != 0 || (responder & ACK != 0 && both & SYN == 0) {
        // The initiator's first ACK ends the handshake; responders push only after it.
        TcpState::Established
    } else if is_syn_ack(responder) {
        TcpState::SynReceived
    } else if initiator & SYN != 0 {
        TcpState::SynSent
    } else {
        TcpState::Unknown
    }
}

/// Whether a connection in this state has ended.
pub(super) fn has_ended(state: TcpState) -> bool {
    matches!(state, TcpState::Closed | TcpState::Reset)
}

/// IPFIX flowEndReason of a record that leaves a connection in this state.
pub(super) fn end_reason(state: TcpState) -> EndReason {
    if has_ended(state) { EndReason::EndOfFlow } else { EndReason::ActiveTimeout }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_follow_the_union_of_flags() {
        assert_eq!(state(SYN, 0), TcpState::SynSent);
        assert_eq!(state(SYN, SYN | ACK), TcpState::SynReceived);
        assert_eq!(state(SYN | ACK, SYN | ACK), TcpState::Established);
        assert_eq!(state(0, ACK), TcpState::Established);
        assert_eq!(state(SYN | ACK | FIN, SYN | ACK), TcpState::Closing);
        assert_eq!(state(SYN | ACK | FIN, SYN | ACK | FIN), TcpState::Closed);
        assert_eq!(state(SYN | ACK | FIN | RST, SYN | ACK | FIN), TcpState::Closed);
        assert_eq!(state(SYN, RST | ACK), TcpState::Reset);
        assert_eq!(state(0, 0), TcpState::Unknown);
    }
}
