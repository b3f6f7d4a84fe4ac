//! The headers between Ethernet and IP, as 32-bit numbers: the kind in the top byte, the value below.

/// 802.1Q or 802.1ad tag; the value is the VLAN identifier.
pub const VLAN: u32 = 1 << 24;
/// PPPoE session; no value.
pub const PPPOE: u32 = 2 << 24;
/// MPLS label; the value is the 20-bit label.
pub const MPLS: u32 = 3 << 24;
/// 802.2 LLC/SNAP; no value.
pub const SNAP: u32 = 4 << 24;

const VALUE: u32 = 0x00ff_ffff;

/// The text form that API, NDJSON and tables use: `vlan:10`, `pppoe`, `mpls:16`, `snap`. `None` for a
/// number that no sensor of this version makes.
#[must_use]
pub fn label(header: u32) -> Option<String> {
    let value = header & VALUE;
    match header & !VALUE {
        VLAN if value <= 0xfff => Some(format!("vlan:{value}")),
        PPPOE if value == 0 => Some("pppoe".to_owned()),
        MPLS if value <= 0xf_ffff => Some(format!("mpls:{value}")),
        SNAP if value == 0 => Some("snap".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_the_text_of_their_header() {
        assert_eq!(label(VLAN | 10).as_deref(), Some("vlan:10"));
        assert_eq!(label(PPPOE).as_deref(), Some("pppoe"));
        assert_eq!(label(MPLS | 0xf_ffff).as_deref(), Some("mpls:1048575"));
        assert_eq!(label(SNAP).as_deref(), Some("snap"));
        assert_eq!(label(0), None);
        assert_eq!(label(VLAN | 0x1000), None);
        assert_eq!(label(9 << 24), None);
    }
}
