//! Why a stream ends, in the words and numbers that its client gets.

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its buffer is full: the client takes less than what happens.
    Behind,
    /// The server stops.
    Stopping,
    /// The credential or its role does not hold any more.
    Revoked,
    /// The credential's time is over.
    Expired,
    /// Nothing was heard of the client for too long.
    Idle,
    /// What came next is past its retention.
    Pruned,
    /// The database did not answer for too long.
    Failed,
    /// The client sent what this stream does not take.
    Unwanted,
    /// The client went away.
    Left,
}

impl End {
    pub const ALL: [Self; 9] = [
        Self::Behind,
        Self::Stopping,
        Self::Revoked,
        Self::Expired,
        Self::Idle,
        Self::Pruned,
        Self::Failed,
        Self::Unwanted,
        Self::Left,
    ];

    /// For metrics, and the first word of a close reason.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Behind => "behind",
            Self::Stopping => "stopping",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Idle => "idle",
            Self::Pruned => "pruned",
            Self::Failed => "failed",
            Self::Unwanted => "unwanted",
            Self::Left => "left",
        }
    }

    /// Code of the WebSocket's close frame (RFC 6455; from 4000 on ours).
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Behind | Self::Idle => 1008,
            Self::Stopping => 1001,
            Self::Unwanted => 1003,
            Self::Failed => 1011,
            Self::Left => 1000,
            Self::Revoked | Self::Expired => 4401,
            Self::Pruned => 4410,
        }
    }

    /// At most 123 bytes, as a close frame has them.
    #[must_use]
    pub fn reason(self, cursor: i64) -> String {
        let words = match self {
            Self::Behind => "events came faster than you took them; resume with",
            Self::Stopping => "this server stops; resume with",
            Self::Revoked => "the credential does not hold any more; with another, resume with",
            Self::Expired => "the credential's time is over; with a new one, resume with",
            Self::Idle => "nothing was heard of you; resume with",
            Self::Pruned => "events after your cursor are past their retention; go on with",
            Self::Failed => "the database does not answer; later, resume with",
            Self::Unwanted => "this stream takes no messages; resume with",
            Self::Left => "goodbye; resume with",
        };
        format!("{}: {words} after={cursor}", self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_fits_a_close_frame_and_names_the_cursor() {
        for end in End::ALL {
            let reason = end.reason(i64::MAX);
            assert!(reason.len() <= 123, "{} bytes: {reason}", reason.len());
            assert!(reason.starts_with(end.name()) && reason.ends_with(&format!("after={}", i64::MAX)));
        }
    }
}
