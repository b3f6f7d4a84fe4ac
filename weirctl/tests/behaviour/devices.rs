//! S4, U5: devices are shown, named, merged and erased from a terminal.

use serde_json::json;
use weir_wire::{Batch, Device, DeviceAddress, DeviceFact};

use crate::program::Program;
use crate::support::{Plane, SECOND, batch, recent_minute_ns};

fn card(mac: &str, name: &str, address: [u8; 4]) -> Device {
    let fact = |source: &str, value: &str| DeviceFact {
        source: source.to_owned(),
        value: value.to_owned(),
        first_ns: 0,
        last_ns: SECOND,
    };
    Device {
        keys: vec![fact("mac", mac)],
        names: vec![fact("mdns", name)],
        addresses: vec![DeviceAddress { address: address.to_vec(), first_ns: 0, last_ns: SECOND }],
        last_ns: SECOND,
        ..Device::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_u5_devices_are_shown_named_merged_and_erased_in_two_steps() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let devices = vec![
        card("b0:c5:54:25:5b:0e", "EPSON\u{1b}[2J", [10, 0, 0, 5]),
        card("b0:c5:54:00:00:01", "laptop", [10, 0, 0, 6]),
    ];
    plane.store(&token, &Batch { devices, ..batch(1, 1, recent_minute_ns(), Vec::new()) }).await;
    let program = Program::of(&plane);
    let run = async |arguments: &[&str], code: i32| {
        let ended = program.admin(&[&["devices"], arguments].concat()).await;
        assert_eq!(ended.code, code, "{arguments:?}: {ended:?}");
        ended
    };
    let all = run(&["--json"], 0).await.json();
    assert_eq!(all.len(), 2);
    assert_eq!(run(&["list", "--name", "lap*"], 0).await.out.lines().count(), 2);
    assert_eq!(run(&["--address", "10.0.9.0/24"], 0).await.err, "no devices\n");
    let of = |name: &str| {
        let found = all.iter().find(|it| it["name"].as_str().is_some_and(|it| it.starts_with(name)));
        found.expect("it is there")["id"].to_string()
    };
    let (printer, laptop) = (of("EPSON"), of("laptop"));

    let set = run(&["set", &printer, "--name", "front desk", "--type", "printer", "--notes", "x"], 0).await;
    assert_eq!(set.out, format!("device {printer}: name front desk, type printer, owner -\n"));
    run(&["set", &printer, "--owner", "facilities", "--clear", "notes,type"], 0).await;
    let shown = run(&["show", &printer, "--json"], 0).await.json();
    assert_eq!(
        (&shown[0]["name"], &shown[0]["type"], &shown[0]["owner"], &shown[0]["notes"]),
        (&json!("front desk"), &json!(null), &json!("facilities"), &json!(null))
    );
    let shown = run(&["show", &printer], 0).await;
    assert!(shown.out.starts_with("name: front desk\n") && shown.out.contains("10.0.0.5"), "{shown:?}");
    assert!(shown.out.contains("EPSON\u{fffd}[2J"), "{shown:?}");

    run(&["merge", &printer, &laptop], 0).await;
    assert_eq!(run(&["--json"], 0).await.json().len(), 1);
    run(&["show", &laptop], 4).await;
    let merge = run(&["show", &printer, "--json"], 0).await.json()[0]["merges"][0]["id"].to_string();
    let whole = run(&["show", &printer], 0).await.out;
    assert!(whole.contains(&format!("merge {merge}: of {laptop}, ")), "{whole}");
    let split = run(&["split", &printer, &merge], 0).await;
    assert!(split.out.contains(&format!("device {laptop}: name laptop, ")), "{split:?}");
    run(&["split", &printer, &merge], 4).await;
    assert_eq!(run(&["--json"], 0).await.json().len(), 2);
    run(&["merge", &printer, &laptop], 0).await;
    run(&["merge", &printer, &laptop], 4).await;
    run(&["set", &printer, "--type", "toaster"], 2).await;
    run(&["set", &printer, "--name", "x", "--clear", "name"], 2).await;

    // The first step changes nothing and says how to go on.
    let plan = run(&["erase", &printer], 0).await;
    assert!(plan.out.starts_with("PLACE") && plan.err.contains("front desk"), "{plan:?}");
    assert_eq!(run(&["--json"], 0).await.json().len(), 1);
    let last = plan.err.lines().last().expect("how to go on").trim();
    let command: Vec<&str> = last.split(' ').skip(2).collect();
    run(&["erase", &printer, "--confirmation", "weir_x_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"], 5)
        .await;
    let begun = run(&command, 0).await;
    assert!(begun.out.starts_with(&format!("device {printer} is gone; erasure ")), "{begun:?}");
    assert_eq!(run(&[], 0).await.err, "no devices\n");
    run(&["erase", &printer, "--yes"], 4).await;
}
