//! S12: settings are pushed, shown and taken back from a terminal.

use serde_json::json;

use crate::program::Program;
use crate::support::Plane;

#[tokio::test(flavor = "multi_thread")]
async fn s12_settings_are_pushed_by_key_and_taken_back_by_version() {
    let plane = Plane::start().await;
    plane.sensor("edge-1").await;
    plane.sql("UPDATE sensor SET group_name = 'edge'");
    let program = Program::of(&plane);
    let run = async |arguments: &[&str]| {
        let ended = program.admin(&[&["settings"], arguments].concat()).await;
        assert_eq!(ended.code, 0, "{arguments:?}: {ended:?}");
        ended
    };
    let empty = run(&["show", "edge-1"]).await;
    assert_eq!((empty.out.as_str(), empty.err.as_str()), ("", "edge-1: none\nnothing is pushed\n"));

    run(&["set", "group:edge", "epoch=3s", "sampling.interval=2"]).await;
    let set =
        run(&["set", "edge-1", "epoch=2s", "detect.port_scan.hosts=40", "--comment", "more scans"]).await;
    assert_eq!(set.out, "edge-1 has version 1 with its next heartbeat\n");
    run(&["set", "edge-1", "detect.syn_flood.allow=[\"10.0.0.0/8\"]", "--unset", "detect.port_scan.hosts"])
        .await;
    let shown = run(&["show", "edge-1"]).await;
    let rows: Vec<Vec<&str>> = shown.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        rows,
        [
            vec!["KEY", "VALUE", "FROM"],
            vec!["detect.syn_flood.allow", "[\"10.0.0.0/8\"]", "sensor,", "version", "2"],
            vec!["epoch", "2s", "sensor,", "version", "2"],
            vec!["sampling.interval", "2", "group", "edge,", "version", "1"],
        ]
    );
    assert_eq!(shown.err, "edge-1: pending\n");

    run(&["roll-back", "edge-1"]).await;
    let versions = run(&["versions", "edge-1", "--json"]).await.json();
    let told: Vec<_> = versions
        .iter()
        .map(|it| (it["version"].clone(), it["restores"].clone(), it["settings"].clone()))
        .collect();
    let first = json!({"epoch": "2s", "detect.port_scan.hosts": 40});
    let second = json!({"epoch": "2s", "detect.syn_flood.allow": ["10.0.0.0/8"]});
    assert_eq!(
        told,
        [
            (json!(3), json!(1), first.clone()),
            (json!(2), json!(null), second),
            (json!(1), json!(null), first)
        ]
    );
    assert_eq!(run(&["versions", "edge-1"]).await.out.lines().count(), 4);
    let shown = run(&["show", "edge-1", "--json"]).await.json();
    assert_eq!(shown[0], plane.json("/api/v1/sensors/edge-1/configuration").await);

    for (arguments, code) in [
        (&["set", "edge-1", "epoch"][..], 2),
        (&["set", "edge-1"], 2),
        (&["set", "edge-1", "epoch=soon"], 2),
        (&["set", "edge-1", "--unset", "spool.max_bytes"], 2),
        (&["show", "nobody"], 4),
        (&["roll-back", "edge-1", "--to", "77"], 4),
    ] {
        let ended = program.admin(&[&["settings"], arguments].concat()).await;
        assert_eq!(ended.code, code, "{arguments:?}: {ended:?}");
    }
}
