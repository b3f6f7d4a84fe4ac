//! I2, I3, I9: sensors that lost their control plane together come back together. Each batch is stored once,
//! and those of one sensor in their order.
#![forbid(unsafe_code)]

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use weir_e2e::Site;
use weir_testbed::http::Client;
use weir_wire::{Batch, Direction, Flow, Point, Totals};

const SENSORS: u32 = 20;
/// What each of them has kept while the control plane was away.
const EPOCHS: u64 = 15;
const FLOWS: u32 = 400;
const PACKETS: u64 = 7;
const OCTETS: u64 = 900;
const DELIVERED_WITHIN: Duration = Duration::from_mins(4);

fn batch(sensor: u32, epoch: u64, began_ns: i64) -> Batch {
    const SECOND: i64 = 1_000_000_000;
    let window_start_ns = began_ns + epoch as i64 * SECOND;
    let flow = |number: u32| Flow {
        ip_version: 4,
        src_low: u64::from(0x0a00_0000 | sensor << 16 | number),
        dst_low: 0xc633_6401,
        protocol: 17,
        src_port: 1024 + number,
        dst_port: 53,
        packets: PACKETS,
        octets: OCTETS,
        last_ns: SECOND / 2,
        point: 1,
        ..Flow::default()
    };
    let all = u64::from(FLOWS);
    let totals = Totals {
        frames: all * PACKETS,
        octets_l2: all * (OCTETS + 14 * PACKETS),
        flow_packets: all * PACKETS,
        flow_octets: all * OCTETS,
        ..Totals::default()
    };
    Batch {
        version: weir_wire::VERSION,
        generation: vec![sensor as u8; 16],
        epoch,
        parts: 1,
        window_start_ns,
        window_end_ns: window_start_ns + SECOND,
        sampling_interval: 1,
        points: vec![Point {
            id: 1,
            interface: "eth0".to_owned(),
            ifindex: 2,
            direction: Direction::Ingress as i32,
            totals: Some(totals),
        }],
        flows: (0..FLOWS).map(flow).collect(),
        ..Batch::default()
    }
}

/// As a sensor does: in order, each until it is taken.
fn deliver(api: &Client, batches: &[Vec<u8>]) {
    let headers =
        [("content-type", weir_wire::CONTENT_TYPE), ("content-encoding", weir_wire::CONTENT_ENCODING)];
    let deadline = Instant::now() + DELIVERED_WITHIN;
    for body in batches {
        loop {
            let answer = api.post("/api/v1/ingest", &headers, body);
            match &answer {
                Ok(answer) if answer.status == 200 => break,
                // Away, or busy; nothing else is to be expected.
                Ok(answer) => assert!(matches!(answer.status, 429 | 503), "{answer:?}"),
                Err(_) => {}
            }
            assert!(Instant::now() < deadline, "not delivered within {DELIVERED_WITHIN:?}: {answer:?}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn every_batch_of_every_sensor_is_stored_once_and_in_order() {
    let site = Site::new().expect("a control plane starts");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    let began_ns = now.as_nanos() as i64 - 300_000_000_000;
    let fleet: Vec<(Client, Vec<Vec<u8>>)> = (0..SENSORS)
        .map(|sensor| {
            let token = site.control_plane.add_sensor(&format!("edge-{sensor}")).expect("a sensor is added");
            let batches = (0..EPOCHS)
                .map(|epoch| weir_wire::encode(&batch(sensor, epoch, began_ns)).expect("a batch is encoded"));
            (site.control_plane.api_as(&token), batches.collect())
        })
        .collect();
    site.control_plane.kill().expect("the control plane is killed");

    let together = Barrier::new(fleet.len() + 1);
    thread::scope(|scope| {
        for (api, batches) in &fleet {
            scope.spawn(|| {
                together.wait();
                deliver(api, batches);
                // The answer to everything was lost once more: all of it comes again.
                deliver(api, batches);
            });
        }
        together.wait();
        site.control_plane.start_again().expect("the control plane starts again");
    });

    let all = u64::from(SENSORS) * EPOCHS;
    let rows = all * u64::from(FLOWS);
    let sums = "SELECT count(*), sum(packets), sum(octets) FROM";
    let sql = |sql: &str| site.sql(sql).expect("the tables are read").trim().to_owned();
    assert_eq!(sql("SELECT count(*), sum(records) FROM batch"), format!("{all}|{rows}"));
    assert_eq!(sql(&format!("{sums} flow")), format!("{rows}|{}|{}", rows * PACKETS, rows * OCTETS));
    assert_eq!(
        sql("SELECT sum(packets), sum(octets) FROM rollup_1m WHERE dimension = 5"),
        format!("{}|{}", rows * PACKETS, rows * OCTETS)
    );
    let out_of_order = sql("SELECT count(*) FROM (
         SELECT epoch, lag(epoch) OVER (PARTITION BY sensor_id ORDER BY batch_id) AS before FROM batch
         ) AS batch WHERE epoch <> coalesce(before, -1) + 1");
    assert_eq!(out_of_order, "0");
    for sensor in 0..SENSORS {
        let ledger = site.control_plane.ledger(&format!("edge-{sensor}")).expect("the ledger is read");
        assert!(ledger.balanced && ledger.kernel_balanced && ledger.gaps.is_empty(), "{ledger:#?}");
        assert_eq!(ledger.batches, EPOCHS);
    }
}
