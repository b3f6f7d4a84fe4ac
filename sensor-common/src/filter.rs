//! Filter rules, as the kernel programs read them.

pub const ALLOW: u32 = 0;
pub const DENY: u32 = 1;
/// Rules in one half. They are tried one by one when a flow is first seen, not for every packet.
pub const MAX_RULES: u32 = 64;
/// A rule for any protocol.
pub const ANY_PROTOCOL: u32 = 256;

/// One rule; it matches a flow when every part of it does. The first rule that matches decides.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilterRule {
    /// Network byte order; an IPv4 network stands in the first word's low half.
    pub network: [u64; 2],
    /// 0 and 0 for any address.
    pub mask: [u64; 2],
    /// 4 or 6 for a rule with a network, 0 for any.
    pub ip_version: u32,
    /// A flow matches when either side's port lies within; 0 to 65535 is any.
    pub port_low: u16,
    pub port_high: u16,
    /// Or [`ANY_PROTOCOL`].
    pub protocol: u32,
    /// [`ALLOW`] or [`DENY`].
    pub action: u32,
}

const _: () = assert!(size_of::<FilterRule>() == 48);
