//! The programs that tell which process a local socket belongs to: an object of their own, so that counting
//! never depends on them. They end with the sensor; what they tell names flows and counts nothing.
//!
//! Called by `enrich::processes`, and by `check`, which tries whether this host takes them.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use aya::maps::{MapData, PerCpuArray, RingBuf};
use aya::programs::{CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock};
use aya::{Ebpf, EbpfLoader};
use tokio::io::{Interest, unix::AsyncFd};
use weir_sensor_common::{Join, Owner, SentTuple};

use super::{FlowKey, KernelError, object};

/// The programs, built by the build script and embedded.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir-kernel-sockets"));

/// Octets of the ring: 3,600 joins, which is what a burst may hold while the sensor reads /proc.
const RING_OCTETS: u32 = 256 << 10;

const CREATE: &str = "weir_sock_create";
const RELEASE: &str = "weir_sock_release";
const EGRESS: &str = "weir_sock_egress";

/// The attached programs.
pub struct Sockets {
    joins: RingBuf<MapData>,
    untold: PerCpuArray<MapData, u64>,
    /// Holds the links.
    _object: Ebpf,
}

impl Sockets {
    /// Loads and attaches them. `sockets` are remembered in the kernel at once.
    pub fn attach(sockets: u32) -> Result<Self, KernelError> {
        let root = cgroup_root()?;
        let group = File::open(&root).map_err(KernelError::system("open the root of the control groups"))?;
        let mut object = EbpfLoader::new()
            .map_max_entries("WEIR_SOCKETS", sockets)
            .map_max_entries("WEIR_JOINS", RING_OCTETS)
            .load(OBJECT)
            .map_err(|error| KernelError::Load(Box::new(error)))?;
        // What joins comes first: a socket that is noted and never joined is a socket less.
        let egress: &mut CgroupSkb = program(&mut object, EGRESS)?;
        let attached = egress
            .load()
            .and_then(|()| egress.attach(&group, CgroupSkbAttachType::Egress, CgroupAttachMode::Single));
        attached.map_err(KernelError::program(EGRESS))?;
        for name in [RELEASE, CREATE] {
            let noted: &mut CgroupSock = program(&mut object, name)?;
            let attached = noted.load().and_then(|()| noted.attach(&group, CgroupAttachMode::Single));
            attached.map_err(KernelError::program(name))?;
        }
        let joins = object::take(&mut object, "WEIR_JOINS")?;
        let untold = object::take(&mut object, "WEIR_UNTOLD")?;
        Ok(Self {
            joins: RingBuf::try_from(joins).map_err(KernelError::map("WEIR_JOINS"))?,
            untold: PerCpuArray::try_from(untold).map_err(KernelError::map("WEIR_UNTOLD"))?,
            _object: object,
        })
    }

    /// What was joined since the last call: the flow from the socket, and its owner. At most `most`.
    pub fn read(&mut self, most: usize, mut each: impl FnMut(FlowKey, Owner)) -> usize {
        let mut read = 0;
        while read < most {
            let Some(item) = self.joins.next() else { break };
            if let Some((key, owner)) = parse(&item) {
                each(key, owner);
            }
            read += 1;
        }
        read
    }

    /// Who waits for joins.
    pub fn readable(&self) -> Result<Readable, KernelError> {
        let watch = KernelError::system("watch the ring buffer of sockets");
        let ring = match self.joins.as_fd().try_clone_to_owned() {
            Ok(ring) => ring,
            Err(error) => return Err(watch(error)),
        };
        // SAFETY: the descriptor is owned by what watches it, and stays open with it.
        unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }
            .map(Readable)
            .map_err(|error| watch(error.into()))
    }

    /// Joins that the ring had no room for, since the programs were attached.
    pub fn untold(&self) -> Result<u64, KernelError> {
        let counts = self.untold.get(&0, 0).map_err(KernelError::map("WEIR_UNTOLD"))?;
        Ok(counts.iter().sum())
    }
}

/// Tells when there is something to read, to whoever does not hold the programs.
pub struct Readable(AsyncFd<OwnedFd>);

impl Readable {
    /// Waits; what is there must be read to its end after this. Must be called within a tokio runtime.
    pub async fn ready(&self) -> io::Result<()> {
        self.0.readable().await?.clear_ready();
        Ok(())
    }
}

fn program<'a, P>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, KernelError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = aya::programs::ProgramError>,
{
    let program = object.program_mut(name).ok_or(KernelError::MissingMap(name))?;
    program.try_into().map_err(KernelError::program(name))
}

/// Where the control groups of version 2 are mounted: alone, or beside those of version 1.
pub fn cgroup_root() -> Result<PathBuf, KernelError> {
    let mounts =
        fs::read_to_string("/proc/self/mounts").map_err(KernelError::system("read /proc/self/mounts"))?;
    let root = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let folder = PathBuf::from(fields.next()?);
        // Another mount may lie over it.
        (fields.next()? == "cgroup2" && folder.join("cgroup.controllers").exists()).then_some(folder)
    });
    root.ok_or_else(|| {
        let missing =
            io::Error::other("no cgroup2 is mounted (`mount -t cgroup2 none /sys/fs/cgroup/unified`)");
        KernelError::system("find the control groups")(missing)
    })
}

fn parse(bytes: &[u8]) -> Option<(FlowKey, Owner)> {
    // SAFETY: any octets of the right number are a join, whose fields are numbers; it is copied, so that its
    // alignment is of no account.
    let Join { owner, tuple } = (bytes.len() >= size_of::<Join>())
        .then(|| unsafe { bytes.as_ptr().cast::<Join>().read_unaligned() })?;
    Some((key(&tuple), owner))
}

fn key(tuple: &SentTuple) -> FlowKey {
    let address = |words: [u32; 4]| {
        let mut octets = [0; 16];
        octets
            .iter_mut()
            .zip(words.iter().flat_map(|word| word.to_ne_bytes()))
            .for_each(|(to, octet)| *to = octet);
        let address = Ipv6Addr::from(octets);
        address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4)
    };
    FlowKey {
        src: address(tuple.src),
        dst: address(tuple.dst),
        protocol: tuple.protocol,
        src_port: tuple.src_port,
        dst_port: tuple.dst_port,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_join_is_read_and_a_short_one_is_none() {
        let mut bytes = [0; 60];
        bytes[..4].copy_from_slice(&42_u32.to_ne_bytes());
        bytes[4..8].copy_from_slice(b"curl");
        bytes[20..36].copy_from_slice(&"::ffff:192.0.2.1".parse::<Ipv6Addr>().expect("an address").octets());
        bytes[36..52].copy_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().expect("an address").octets());
        bytes[52..54].copy_from_slice(&40_000_u16.to_ne_bytes());
        bytes[54..56].copy_from_slice(&443_u16.to_ne_bytes());
        bytes[56] = 6;
        let (key, owner) = parse(&bytes).expect("it is whole");
        assert_eq!((owner.pid, &owner.name[..5]), (42, &b"curl\0"[..]));
        assert_eq!((key.src, key.src_port), ("192.0.2.1".parse().expect("an address"), 40_000));
        assert_eq!((key.dst, key.dst_port), ("2001:db8::1".parse().expect("an address"), 443));
        assert_eq!(parse(&bytes[..59]), None);
    }
}
