//! Link stacks: the headers between Ethernet and IP.
//!
//! A flow key holds a 16-bit link number: 0 for a bare frame, [`SINGLE_VLAN`] plus the VLAN
//! identifier for one tag alone (the common cases cost no lookup), and from [`FIRST_INTERNED`] a
//! number that the kernel gave to a whole stack in this half. Interned numbers live as long as their half:
//! the drain resolves them and forgets them, so that a stranger's tags can never fill them for good.

/// No header between Ethernet and IP.
pub const BARE: u16 = 0;
/// One VLAN tag: this plus its 12-bit identifier.
pub const SINGLE_VLAN: u16 = 1;
/// The first number for an interned stack.
pub const FIRST_INTERNED: u16 = SINGLE_VLAN + 4096;
/// Interned stacks in one half; further ones count as overflow.
pub const MAX_INTERNED: u32 = 4096;

/// Headers in a stack; a frame with more is not IP to us.
pub const MAX_DEPTH: usize = 12;

/// The kind of a header is in its top byte, its value below.
pub const VLAN: u32 = 1 << 24;
pub const PPPOE: u32 = 2 << 24;
pub const MPLS: u32 = 3 << 24;
pub const SNAP: u32 = 4 << 24;

/// The key of the interning map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStack {
    /// 0 or 1: the half in which the number counts.
    pub half: u32,
    /// Headers in use.
    pub depth: u32,
    /// Outermost first; the rest is zero.
    pub headers: [u32; MAX_DEPTH],
}

const _: () = assert!(size_of::<LinkStack>() == 56);
