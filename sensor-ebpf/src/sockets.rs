//! Which process a local socket belongs to. Attached to the root of the control groups, so to every process.
//!
//! A socket is told apart by its cookie. Who makes one is noted when it is made, in that process; its addresses
//! are known only when it sends, and then whoever sends is often the kernel itself: the first packet (TCP: the
//! one with SYN, from either side; UDP: the first to another destination) joins the two.
//! That needs no offset into a structure of the kernel. Nothing here may fail a call or hold back a packet.
#![no_std]
#![no_main]
#![allow(clippy::inline_always, reason = "the kernel programs must inline what they call per packet")]

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, generated::bpf_get_socket_cookie},
    macros::{cgroup_skb, cgroup_sock, map},
    maps::{LruHashMap, PerCpuArray, RingBuf},
    programs::{SkBuffContext, SockContext},
};
use weir_sensor_common::{Join, Owner, SentTuple};

/// What a program of a control group answers: go on.
const ALLOW: i32 = 1;
const ETHERTYPE_IPV4: u32 = 0x0800;
const ETHERTYPE_IPV6: u32 = 0x86dd;
const TCP: u8 = 6;
const UDP: u8 = 17;
const TCP_SYN: u8 = 2;

/// A socket and what it last sent to.
#[repr(C)]
#[derive(Clone, Copy)]
struct Socket {
    owner: Owner,
    /// The last that was told, zeros before the first: a socket that goes on to one peer is joined once.
    last: SentTuple,
}

/// Sockets by cookie. The least recently used go first. Sizes are placeholders: the sensor sets them.
#[map]
static WEIR_SOCKETS: LruHashMap<u64, Socket> = LruHashMap::with_max_entries(1, 0);

/// What was joined, for a sensor that looks at the process while it lives. Of the size that it says.
#[map]
static WEIR_JOINS: RingBuf = RingBuf::with_byte_size(4096, 0);

/// One element: joins that the ring had no room for.
#[map]
static WEIR_UNTOLD: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

#[cgroup_sock(sock_create)]
pub fn weir_sock_create(context: SockContext) -> i32 {
    // SAFETY: the context is the program's own.
    let cookie = unsafe { bpf_get_socket_cookie(context.as_ptr()) };
    let Ok(name) = bpf_get_current_comm() else { return ALLOW };
    let owner = Owner { pid: (bpf_get_current_pid_tgid() >> 32) as u32, name };
    // A full table gives its oldest up; what still fails leaves a flow without a process, and no more.
    let _ = WEIR_SOCKETS.insert(cookie, Socket { owner, last: SentTuple::default() }, 0);
    ALLOW
}

#[cgroup_sock(sock_release)]
pub fn weir_sock_release(context: SockContext) -> i32 {
    // SAFETY: the context is the program's own.
    let cookie = unsafe { bpf_get_socket_cookie(context.as_ptr()) };
    let _ = WEIR_SOCKETS.remove(cookie);
    ALLOW
}

#[cgroup_skb(egress)]
pub fn weir_sock_egress(context: SkBuffContext) -> i32 {
    let _ = join(&context);
    ALLOW
}

/// Notes whose packets these are, if they begin something.
#[inline(always)]
fn join(context: &SkBuffContext) -> Option<()> {
    let skb = context.skb.skb;
    // SAFETY: the verifier knows the fields of the context.
    let ethertype = u32::from(u16::from_be(unsafe { (*skb).protocol } as u16));
    let mut tuple = SentTuple::default();
    let transport = match ethertype {
        ETHERTYPE_IPV4 => {
            let header: [u32; 5] = context.load(0).ok()?;
            let [.., high, low] = header[1].to_ne_bytes();
            // Later fragments have no ports.
            if u16::from_be_bytes([high, low]) & 0x1fff != 0 {
                return None;
            }
            tuple.protocol = header[2].to_ne_bytes()[1];
            tuple.src = mapped(header[3]);
            tuple.dst = mapped(header[4]);
            usize::from(header[0].to_ne_bytes()[0] & 0xf) * 4
        }
        ETHERTYPE_IPV6 => {
            // Local sockets put extension headers before a transport header on request only.
            let header: [u32; 10] = context.load(0).ok()?;
            tuple.protocol = header[1].to_ne_bytes()[2];
            tuple.src = [header[2], header[3], header[4], header[5]];
            tuple.dst = [header[6], header[7], header[8], header[9]];
            40
        }
        _ => return None,
    };
    match tuple.protocol {
        TCP => {
            let flags: u8 = context.load(transport + 13).ok()?;
            if flags & TCP_SYN == 0 {
                return None;
            }
        }
        UDP => {}
        _ => return None,
    }
    let ports: [u8; 4] = context.load(transport).ok()?;
    tuple.src_port = u16::from_be_bytes([ports[0], ports[1]]);
    tuple.dst_port = u16::from_be_bytes([ports[2], ports[3]]);
    // SAFETY: the context is the program's own.
    let cookie = unsafe { bpf_get_socket_cookie(skb.cast()) };
    let socket = WEIR_SOCKETS.get_ptr_mut(cookie)?;
    // SAFETY: a map value that stays readable while the program runs.
    let socket = unsafe { &mut *socket };
    if same(&socket.last, &tuple) {
        return None;
    }
    if WEIR_JOINS.output::<Join>(Join { tuple, owner: socket.owner }, 0).is_ok() {
        socket.last = tuple;
    } else if let Some(untold) = WEIR_UNTOLD.get_ptr_mut(0) {
        // SAFETY: this CPU's own element.
        unsafe { *untold += 1 };
    }
    Some(())
}

#[inline(always)]
const fn mapped(address: u32) -> [u32; 4] {
    [0, 0, 0xffff_u32.to_be(), address]
}

/// Word by word: a comparison of whole arrays may become a call that the kernel does not know.
#[inline(always)]
const fn same(a: &SentTuple, b: &SentTuple) -> bool {
    a.src_port == b.src_port
        && a.dst_port == b.dst_port
        && a.protocol == b.protocol
        && words_same(a.dst, b.dst)
        && words_same(a.src, b.src)
}

#[inline(always)]
const fn words_same(a: [u32; 4], b: [u32; 4]) -> bool {
    a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3]
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // The verifier refuses a program that could come here, and nothing that is linked can.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
