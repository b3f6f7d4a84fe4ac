//! Flows in one direction, as the truth of a capture lists them: one per key and link stack.

use std::collections::HashMap;

use crate::kernel::{Drained, FlowKey, Listed, fragment};

/// One flow of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) key: FlowKey,
    /// Headers between Ethernet and IP, outermost first.
    pub(super) link: Vec<u32>,
    pub(super) packets: u64,
    pub(super) octets: u64,
    pub(super) tcp_flags: u8,
    pub(super) fragment: bool,
    pub(super) icmp_type: u8,
    pub(super) icmp_code: u8,
    pub(super) listed: Listed,
    pub(super) first_ns: i64,
    pub(super) last_ns: i64,
}

/// Joins what the slots of several CPUs and points hold of the same flow; in order of time.
pub(super) fn flows(drained: &Drained) -> Vec<Flow> {
    let bare = Vec::new();
    let mut places: HashMap<(FlowKey, &Vec<u32>), usize> = HashMap::new();
    let mut flows: Vec<Flow> = Vec::new();
    for seen in &drained.flows {
        let link =
            (seen.link as usize).checked_sub(1).and_then(|index| drained.links.get(index)).unwrap_or(&bare);
        let fragment = seen.fragments & (fragment::FIRST | fragment::LATER) != 0;
        let place = *places.entry((seen.key, link)).or_insert(flows.len());
        let Some(flow) = flows.get_mut(place) else {
            flows.push(Flow {
                key: seen.key,
                link: link.clone(),
                packets: seen.packets,
                octets: seen.octets,
                tcp_flags: seen.tcp_flags,
                fragment,
                icmp_type: seen.icmp_type,
                icmp_code: seen.icmp_code,
                listed: seen.listed,
                first_ns: seen.first_ns,
                last_ns: seen.last_ns,
            });
            continue;
        };
        flow.packets += seen.packets;
        flow.octets += seen.octets;
        flow.tcp_flags |= seen.tcp_flags;
        flow.fragment |= fragment;
        flow.listed = flow.listed.or(seen.listed);
        flow.last_ns = flow.last_ns.max(seen.last_ns);
        if seen.first_ns < flow.first_ns {
            flow.first_ns = seen.first_ns;
            (flow.icmp_type, flow.icmp_code) = (seen.icmp_type, seen.icmp_code);
        }
    }
    flows.sort_by(|a, b| (a.first_ns, a.key, &a.link).cmp(&(b.first_ns, b.key, &b.link)));
    flows
}
