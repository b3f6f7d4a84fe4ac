//! Whether a flow stays inside, leaves, comes in, or is for a group: by whose its addresses are.

/// Whose an address is. The numbers are labels of [`super::Pieces`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// Not ours.
    External = 0,
    Internal = 1,
    Multicast = 2,
    Broadcast = 3,
}

impl Kind {
    pub(super) fn of_label(label: u16) -> Self {
        match label {
            1 => Self::Internal,
            2 => Self::Multicast,
            3 => Self::Broadcast,
            _ => Self::External,
        }
    }
}

/// Where a flow goes, as its initiator began it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub enum Scope {
    /// From ours to ours
    Internal = 0,
    /// From ours to others'
    Outbound = 1,
    /// From others' to ours
    Inbound = 2,
    /// Neither side is ours
    External = 3,
    /// To a group of hosts
    Multicast = 4,
    /// To all of a link
    Broadcast = 5,
}

impl Scope {
    pub const ALL: [Self; 6] =
        [Self::Internal, Self::Outbound, Self::Inbound, Self::External, Self::Multicast, Self::Broadcast];

    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
            Self::External => "external",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
        }
    }

    /// Of the kinds of both sides.
    #[must_use]
    pub fn of(src: Kind, dst: Kind) -> Self {
        match (src, dst) {
            (_, Kind::Multicast) => Self::Multicast,
            (_, Kind::Broadcast) => Self::Broadcast,
            (Kind::Internal, Kind::Internal) => Self::Internal,
            (Kind::Internal, Kind::External) => Self::Outbound,
            // A group sends nothing: who claims to be one is not ours.
            (_, Kind::Internal) => Self::Inbound,
            (_, Kind::External) => Self::External,
        }
    }
}
