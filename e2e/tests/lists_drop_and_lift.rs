//! K10, K3: packets of a list are dropped where an operator says so, and are counted in their flow all the same;
//! when the sensor is gone, killed or stopped, nothing is dropped any more.
#![forbid(unsafe_code)]

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use weir_e2e::hosts::{Host, introduce};
use weir_e2e::{Site, until, wire};
use weir_testbed::mount::Mount;
use weir_testbed::netns::{Namespace, Veth};
use weir_testbed::process::Launch;
use weir_testbed::scratch::Scratch;
use weir_testbed::weir::{Programs, Sensor, Watch};

const LISTED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const RECEIVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const FREE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);
const GIVE_UP: Duration = Duration::from_mins(1);

/// Sends from one of the sender's addresses; each packet holds its last octet.
fn send(sender: &Namespace, from: Ipv4Addr, packets: usize) {
    let sent = sender.enter(|| -> std::io::Result<()> {
        let socket = UdpSocket::bind((from, 0))?;
        (0..packets).try_for_each(|_| socket.send_to(&[from.octets()[3]], (RECEIVER, 7000)).map(|_| ()))
    });
    sent.expect("the namespace is entered").expect("every packet is sent");
}

/// Waits for so many packets from anyone; whose they are.
fn receive(socket: &UdpSocket, packets: usize) -> Vec<u8> {
    let mut octet = [0];
    (0..packets).map(|_| socket.recv(&mut octet).map(|_| octet[0]).expect("a packet arrives")).collect()
}

fn enforces(sensor: &Sensor) {
    until("the list is in force", || {
        let is = |name: &str, value| sensor.metric(name).is_ok_and(|found| found == Some(value));
        is("weir_sensor_lists_enforced", 1.0) && is("weir_sensor_list_entries", 2.0)
    });
    // What was made before the trie was: a flow keeps its mark for an epoch.
    let drains = || sensor.metric("weir_sensor_drains_total").expect("metrics are served");
    let before = drains();
    until("two epochs have ended", || drains().zip(before).is_some_and(|(now, before)| now >= before + 2.0));
}

#[test]
fn listed_packets_are_dropped_while_the_sensor_lives_and_counted_always() {
    let site = Site::new().expect("a control plane starts");
    let programs = Programs::beside_this_one().expect("the sensor is built");
    let sender = site.member("sender", 0).expect("a member is made");
    let receiver = site.member("receiver", 1).expect("a member is made");
    let veth = Veth { arp: true, ..Veth::default() };
    wire((&sender, "tx"), (&receiver, "rx"), veth).expect("the wire is made");
    introduce(
        Host { namespace: &sender, interface: "tx", address: LISTED },
        Host { namespace: &receiver, interface: "rx", address: RECEIVER },
    )
    .expect("the ends know each other");
    sender.ip(&["addr", "add", &format!("{FREE}/24"), "dev", "tx"]).expect("a second address");
    let socket = receiver
        .enter(|| UdpSocket::bind((RECEIVER, 7000)))
        .expect("the namespace is entered")
        .expect("the port is free");
    socket.set_read_timeout(Some(GIVE_UP)).expect("a deadline is set");

    let pins = Mount::bpffs("lists").expect("a bpffs is mounted");
    let folder = Scratch::new("lists").expect("a folder is made");
    let list = folder.path().join("list.txt");
    // The receiver's own address is listed, too: it is protected.
    fs::write(&list, format!("{LISTED}\n{RECEIVER}\n")).expect("the list is written");
    let threats = format!(
        "[threats]\nenforce = true\ndead_man = \"3s\"\nfolder = \"{}\"\n\
         [[threats.lists]]\nname = \"own\"\nfile = \"{}\"\naction = \"drop\"\n",
        folder.path().join("state").display(),
        list.display()
    );
    let watch = Watch {
        pins: Some(pins.path().to_owned()),
        more: threats,
        ..Watch::interface("rx", "native", "off")
    };
    let mut sensor = site.sensor("receiver", &watch, &receiver).expect("the sensor starts");
    enforces(&sensor);

    send(&sender, LISTED, 500);
    send(&sender, FREE, 100);
    assert_eq!(receive(&socket, 100), vec![3; 100], "the listed ones are dropped");
    let metric = |sensor: &Sensor, name: &str| sensor.metric(name).expect("metrics are served");
    until("the drops are told", || metric(&sensor, "weir_sensor_list_dropped_packets_total") == Some(500.0));
    let ledger = site.ledger_when("receiver", "every packet", |ledger| {
        ledger.balanced && ledger.point("rx", "ingress").flow_packets == 600
    });
    assert_eq!(ledger.point("rx", "ingress").frames, 600, "K3: what is dropped is counted in its flow");
    until("the hits are told", || metric(&sensor, "weir_sensor_list_hits_total") == Some(600.0));

    // What the operator sees.
    let config = sensor.folder().join("config.toml");
    let lists = |arguments: &[&str]| {
        let launch = Launch::new(&programs.sensor).args(["lists"]).args(arguments.iter().copied());
        let text = launch.args(["--json", "--config"]).arg(&config).run().expect("`lists` answers");
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON")
    };
    let standing = lists(&[]);
    assert_eq!((&standing["enforced"], &standing["lists"][0]["dropped"]), (&true.into(), &500.into()));

    // Killed: the programs count on, and drop until the dead man's switch lifts it.
    sensor.kill().expect("the sensor is killed");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a deadline is set");
    until("a listed packet arrives", || {
        send(&sender, LISTED, 1);
        socket.recv(&mut [0]).is_ok()
    });
    socket.set_read_timeout(Some(GIVE_UP)).expect("a deadline is set");

    // Back again it drops again, and takes up the counts of the one before.
    sensor.start_again(&programs.sensor, &watch).expect("the sensor starts again");
    enforces(&sensor);
    let dropped = metric(&sensor, "weir_sensor_list_dropped_packets_total").expect("it is there");
    assert!(dropped >= 500.0, "{dropped}");
    let standing = lists(&["lift"]);
    assert_eq!(standing["enforced"], false, "an operator lifts it");
    send(&sender, LISTED, 10);
    assert_eq!(receive(&socket, 10), vec![1; 10]);

    // Stopped: lifted at once, though the programs stay.
    sensor.stop().expect("the sensor ends");
    sensor.start_again(&programs.sensor, &watch).expect("the sensor starts again");
    enforces(&sensor);
    assert!(sensor.stop().expect("the sensor ends").success(), "{}", sensor.log());
    send(&sender, LISTED, 10);
    assert_eq!(receive(&socket, 10), vec![1; 10]);
}
