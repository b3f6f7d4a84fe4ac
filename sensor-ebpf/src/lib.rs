//! The packet parser of Weir's kernel programs, as a library that also compiles for the host.
//!
//! The programs themselves are the binary beside this library (`src/main.rs`, built for BPF only). They
//! read a frame as a pipeline, `link -> network -> transport`, and so do the host's unit tests, property
//! tests and fuzzers: there is one parser.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![allow(clippy::inline_always, reason = "the kernel programs must inline what they call per packet")]

mod gso;
mod hash;
mod parse;

pub use gso::{Segmented, Segments};
pub use hash::{hash4, hash6};
pub use parse::{
    Chain, Headers, Hello, Ipv4, Ipv6, Ipv6Start, Link, Network, Prefix, Reject, TransportStart, Walk,
    Window, beside_ip, bounded, extensions, hello, ipv4, ipv6, ipv6_start, is_dns, is_extension, is_vlan,
    layer3, link, of_datagram, of_ports, of_segment, prefix, stacked, transport_start,
};
