//! Messages of DNS that tests send by themselves: questions to a resolver, and what a device says of itself by
//! multicast.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use weir_testbed::netns::Namespace;
use weir_testbed::{Error, Result};

const POINTER: u16 = 12;
const ADDRESS: u16 = 1;

/// A question for the address of `name`.
#[must_use]
pub fn question(id: u16, name: &str) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    message.extend(labels(name));
    message.extend([0, 1, 0, 1]);
    message
}

/// Asks, and waits for an answer up to `patience`; whether one came.
pub fn ask(
    client: &Namespace,
    resolver: SocketAddr,
    id: u16,
    name: &str,
    patience: Duration,
) -> Result<bool> {
    let any: IpAddr =
        if resolver.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let asked = client.enter(|| -> io::Result<bool> {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(resolver)?;
        socket.set_read_timeout(Some(patience))?;
        socket.send(&question(id, name))?;
        Ok(socket.recv(&mut [0; 512]).is_ok())
    })?;
    asked.map_err(Error::io(format!("ask {resolver} for {name}")))
}

/// What a device says of a service that it offers (RFC 6762, 8.3): `service` and `host` without `.local`.
#[must_use]
pub fn announcement(service: &str, instance: &str, host: &str, address: Ipv4Addr) -> Vec<u8> {
    let service = format!("{service}.local");
    let mut message = vec![0, 0, 0x84, 0, 0, 0, 0, 2, 0, 0, 0, 0];
    let name = [&[instance.len() as u8][..], instance.as_bytes(), &labels(&service)].concat();
    message.extend(record(&service, POINTER, &name));
    message.extend(record(&format!("{host}.local"), ADDRESS, &address.octets()));
    message
}

/// One that holds for two minutes.
fn record(name: &str, kind: u16, value: &[u8]) -> Vec<u8> {
    let mut record = labels(name);
    record.extend(kind.to_be_bytes());
    record.extend([0, 1, 0, 0, 0, 120]);
    record.extend((value.len() as u16).to_be_bytes());
    record.extend(value);
    record
}

/// With the root's at the end.
fn labels(name: &str) -> Vec<u8> {
    let labels = name.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat());
    labels.chain([0]).collect()
}
