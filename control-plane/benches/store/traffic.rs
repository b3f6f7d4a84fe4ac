//! Batches that look like an edge network's: few busy hosts, many quiet ones, the usual ports.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use weir_wire::{Batch, Direction, EndReason, Flow, Point, TcpState, Totals};

const LOCAL_HOSTS: u32 = 2_000;
const REMOTE_HOSTS: u32 = 100_000;

/// The same traffic in every run.
pub struct Traffic(StdRng);

impl Traffic {
    pub fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// A number below `bound`; small ones come far more often (a power law).
    fn skewed(&mut self, bound: u32) -> u32 {
        let uniform: f64 = self.0.random_range(0.0..1.0);
        (f64::from(bound) * uniform.powi(4)) as u32
    }

    fn flow(&mut self, window_ns: i64) -> Flow {
        let (local, remote) = (self.skewed(LOCAL_HOSTS), self.skewed(REMOTE_HOSTS));
        let udp = self.0.random_bool(0.3);
        let ports: &[u32] =
            if udp { &[53, 443, 123, 3_478] } else { &[443, 443, 443, 80, 22, 8_080, 25, 993] };
        let packets = 1 + u64::from(self.skewed(5_000));
        let first_ns = self.0.random_range(0..window_ns);
        let v6 = self.0.random_bool(0.2);
        let (src_high, src_low, dst_high, dst_low) = if v6 {
            (0x2001_0db8_0000_0000, u64::from(local), 0x2001_0db8_ffff_0000, u64::from(remote))
        } else {
            (0, 0x0a00_0000 + u64::from(local), 0, 0x2d00_0000 + u64::from(remote) * 17)
        };
        Flow {
            ip_version: if v6 { 6 } else { 4 },
            src_high,
            src_low,
            dst_high,
            dst_low,
            protocol: if udp { 17 } else { 6 },
            src_port: self.0.random_range(32_768..61_000),
            dst_port: ports[self.0.random_range(0..ports.len())],
            packets,
            octets: packets * self.0.random_range(60..1_400),
            reverse_packets: packets,
            reverse_octets: packets * self.0.random_range(60..1_400),
            start_ns: first_ns,
            first_ns,
            last_ns: self.0.random_range(first_ns..window_ns),
            tcp_flags: if udp { 0 } else { 0x1b },
            reverse_tcp_flags: if udp { 0 } else { 0x1b },
            handshake_rtt_us: (!udp).then(|| self.0.random_range(200..50_000)),
            tcp_state: if udp { TcpState::Unknown } else { TcpState::Closed } as i32,
            end_reason: EndReason::EndOfFlow as i32,
            point: 1,
            ..Flow::default()
        }
    }

    /// One epoch in one part, whose kernel totals fit its flows.
    pub fn batch(&mut self, epoch: u64, window_start_ns: i64, records: usize) -> Batch {
        let window_ns = 5_000_000_000;
        let flows: Vec<Flow> = (0..records).map(|_| self.flow(window_ns)).collect();
        let packets = flows.iter().map(|flow| flow.packets + flow.reverse_packets).sum();
        let octets = flows.iter().map(|flow| flow.octets + flow.reverse_octets).sum();
        let totals = Totals {
            frames: packets,
            octets_l2: octets + 14 * packets,
            flow_packets: packets,
            flow_octets: octets,
            ..Totals::default()
        };
        Batch {
            version: weir_wire::VERSION,
            generation: vec![1; 16],
            epoch,
            part: 0,
            parts: 1,
            window_start_ns,
            window_end_ns: window_start_ns + window_ns,
            sampling_interval: 1,
            points: vec![Point {
                id: 1,
                interface: "eth0".to_owned(),
                ifindex: 2,
                direction: Direction::Ingress as i32,
                totals: Some(totals),
            }],
            flows,
            ..Batch::default()
        }
    }
}

pub fn now_ns() -> i64 {
    let now = jiff::Timestamp::now().as_nanosecond();
    i64::try_from(now).unwrap_or(i64::MAX)
}
