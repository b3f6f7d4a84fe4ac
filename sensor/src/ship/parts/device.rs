//! Devices as they travel.

use weir_wire::{DeviceAddress, DeviceFact, DeviceReason};

use super::bytes_of;
use crate::device::Device;

/// All that is known of a device, in times relative to the window.
pub(super) fn device(device: &Device, window_start_ns: i64) -> weir_wire::Device {
    let relative = |time_ns: i64| time_ns.saturating_sub(window_start_ns);
    let fact = |source: &str, value: String, first_ns: i64, last_ns: i64| DeviceFact {
        source: source.to_owned(),
        value,
        first_ns: relative(first_ns),
        last_ns: relative(last_ns),
    };
    let keys = device.identifiers.iter();
    let names = device.names.iter();
    weir_wire::Device {
        keys: keys.map(|it| fact(it.value.kind(), it.value.to_string(), it.first_ns, it.last_ns)).collect(),
        addresses: device
            .addresses
            .iter()
            .map(|it| DeviceAddress {
                address: bytes_of(it.value),
                first_ns: relative(it.first_ns),
                last_ns: relative(it.last_ns),
            })
            .collect(),
        names: names.map(|it| fact(it.value.0.word(), it.value.1.clone(), it.first_ns, it.last_ns)).collect(),
        reasons: device
            .reasons
            .iter()
            .take(weir_wire::limits::MAX_DEVICE_REASONS)
            .map(|it| DeviceReason {
                rule: it.rule().word.clone(),
                device_type: it.rule().r#type.into(),
                weight: it.rule().weight,
                detail: it.detail.clone(),
                first_ns: relative(it.first_ns),
                last_ns: relative(it.last_ns),
            })
            .collect(),
        vendor: device.vendor.clone().unwrap_or_default(),
        first_ns: relative(device.first_ns),
        last_ns: relative(device.last_ns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::device::Devices;
    use crate::observe::{Arp, Mac, Observation, Origin, Seen};

    #[test]
    fn a_device_travels_whole() {
        let mut devices = Devices::new(&config::Devices::default()).expect("the registry reads");
        let message = Arp {
            operation: 1,
            sender: Mac([0xb0, 0xc5, 0x54, 1, 2, 3]),
            sender_ip: [10, 0, 0, 5].into(),
            target: Mac([0; 6]),
            target_ip: [10, 0, 0, 1].into(),
        };
        devices.observe(&Observation { time_ns: 700, origin: Origin::default(), seen: Seen::Arp(message) });
        let told = devices.take(1, 1_000);
        let travels = device(&told[0], 1_000);
        let key = DeviceFact {
            source: "mac".to_owned(),
            value: "b0:c5:54:01:02:03".to_owned(),
            first_ns: -300,
            last_ns: -300,
        };
        assert_eq!(
            travels,
            weir_wire::Device {
                keys: vec![key],
                addresses: vec![DeviceAddress { address: vec![10, 0, 0, 5], first_ns: -300, last_ns: -300 }],
                vendor: "D-Link International".to_owned(),
                first_ns: -300,
                last_ns: -300,
                ..weir_wire::Device::default()
            }
        );
    }
}
