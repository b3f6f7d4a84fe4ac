//! The packet parser of the kernel programs, as the host builds it.
//!
//! Nothing is read beyond the frame (the address sanitizer sees it); no length is believed that the frame
//! does not have; a tag before a packet changes its link stack and nothing else.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_sensor_common::{LinkStack, link};
use weir_sensor_ebpf::{Headers, Link, Network, Reject, Window, ipv4, ipv6, layer3, link as first, stacked};

/// Octets of the addresses, link stack, headers, and where the packet begins.
type Packet = (Vec<u64>, Vec<u32>, Headers, u32);

fuzz_target!(|input: &[u8]| {
    let Some((mode, frame)) = input.split_first() else { return };
    let offloaded = (mode & 2 != 0).then_some(0x2005);
    let ethernet = mode & 1 == 0;
    // On the heap with nothing behind it: a read past the end is seen.
    let frame = frame.to_vec().into_boxed_slice();
    let parsed = parse(&frame, ethernet, offloaded);
    if let Ok((_, stack, headers, begin)) = &parsed {
        assert!(*begin as usize <= frame.len(), "the packet begins in the frame");
        assert!(headers.octets as usize <= frame.len() - *begin as usize, "no more octets than there are");
        assert!(stack.len() <= link::MAX_DEPTH);
        assert!(ethernet || stack.is_empty());
    }
    if ethernet && offloaded.is_none() && frame.len() >= 14 {
        tagged(&frame, parsed);
    }
});

/// The same frame behind one more tag.
fn tagged(frame: &[u8], plain: Result<Packet, Reject>) {
    let behind = [&frame[..12], &[0x81, 0x00, 0x60, 0x07], &frame[12..]].concat();
    let tag = link::VLAN | 7;
    match (plain, parse(&behind, true, None)) {
        (Ok((addresses, stack, headers, begin)), Ok((addresses2, stack2, headers2, begin2))) => {
            assert_eq!((addresses, headers, begin + 4), (addresses2, headers2, begin2));
            assert_eq!([&[tag], stack.as_slice()].concat(), stack2);
        }
        // One header more than is followed.
        (Ok((_, stack, _, _)), Err(Reject::NonIp)) => assert_eq!(stack.len(), link::MAX_DEPTH),
        (Err(plain), Err(behind)) => {
            // A stack that is too deep by the tag may be found so before what else is wrong with it.
            assert!(plain == behind || behind == Reject::NonIp, "{plain:?} became {behind:?}");
        }
        (plain, behind) => panic!("{plain:?} became {behind:?}"),
    }
}

fn parse(frame: &[u8], ethernet: bool, offloaded: Option<u16>) -> Result<Packet, Reject> {
    let mut window = Window::new(frame);
    let named = |number| match number {
        link::BARE => Vec::new(),
        tag => vec![link::VLAN | u32::from(tag - link::SINGLE_VLAN)],
    };
    let begin = if ethernet { first(&mut window, offloaded)? } else { layer3(&window)? };
    let (network, stack) = match begin {
        Link::V4(number) => (Network::V4, named(number)),
        Link::V6(number) => (Network::V6, named(number)),
        Link::Stacked => {
            let mut stack = LinkStack::default();
            window = Window::new(frame);
            let network = stacked(&mut window, offloaded, &mut stack)?;
            (network, stack.headers[..stack.depth as usize].to_vec())
        }
    };
    let begin = window.taken();
    // The kernel program has the same difference of two numbers.
    let left = (frame.len() as u32).wrapping_sub(begin);
    Ok(match network {
        Network::V4 => {
            let packet = ipv4(&mut window, left)?;
            (vec![packet.src.into(), packet.dst.into()], stack, packet.headers, begin)
        }
        Network::V6 => {
            let packet = ipv6(&mut window, left)?;
            ([packet.src, packet.dst].concat(), stack, packet.headers, begin)
        }
    })
}
