//! S3, P1: what packets say reaches everybody who learns from it, and no part of that can end the rest.

use std::sync::Mutex;
use std::sync::mpsc as thread;

use super::super::events::{Queue, queue};
use super::*;
use crate::enrich::names::Limits;
use crate::kernel::EventClass;

/// An Ethernet frame with a question about `name`, or its answer.
fn dns(id: u16, response: bool, name: &str) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([if response { 0x80 } else { 1 }, 0, 0, 1, 0, u8::from(response), 0, 0, 0, 0]);
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    if response {
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 0, 0, 4, 198, 51, 100, 7]);
    }
    let (client, server) = ([192, 0, 2, 1], [192, 0, 2, 53]);
    let ends = if response { [server, client] } else { [client, server] };
    let ports: [u16; 2] = if response { [53, 40_000] } else { [40_000, 53] };
    let datagram = 8 + message.len() as u16;
    let [high, low] = (20 + datagram).to_be_bytes();
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0, high, low, 0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend(ends.concat());
    frame.extend([ports[0].to_be_bytes(), ports[1].to_be_bytes(), datagram.to_be_bytes(), [0; 2]].concat());
    frame.extend(message);
    frame
}

fn event(time_ns: i64, bytes: Vec<u8>) -> Event {
    Event {
        class: EventClass::Dns,
        time_ns,
        point: 1,
        interface: "eth7".into(),
        ifindex: 7,
        direction: Direction::Ingress,
        layer3: false,
        offloaded_vlan: None,
        octets: bytes.len() as u32,
        gso_size: 0,
        frame: 0,
        bytes,
    }
}

/// Notes what it is shown; panics over one name.
struct Noting(Arc<Mutex<Vec<String>>>);

impl Noting {
    fn note(&self, line: String) {
        self.0.lock().expect("nobody panics under it").push(line);
    }
}

impl Witness for Noting {
    fn name(&self) -> &'static str {
        "noting"
    }

    fn observe(&mut self, sighting: &Sighting<'_>) {
        let exchange = sighting.exchange.map(|exchange| exchange.name.to_string());
        assert_ne!(exchange.as_deref(), Some("panic.example"), "as it was told to");
        let Sighting { interface, ifindex, direction, .. } = sighting;
        self.note(format!("{interface} {ifindex} {direction:?} {exchange:?}"));
    }

    fn unanswered(&mut self, exchange: &Exchange) {
        self.note(format!("unanswered {}", exchange.name));
    }

    fn begin_anew(&mut self) {
        self.note("anew".to_owned());
    }
}

/// The thread, which waits to be told to go, and what it has noted.
struct Started {
    queue: Queue,
    go: thread::Sender<()>,
    noted: Arc<Mutex<Vec<String>>>,
    names: SharedNames,
    metrics: Arc<Metrics>,
}

fn started(bound: usize) -> Started {
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    let (queue, queued) = queue(bound);
    let noted = Arc::new(Mutex::new(Vec::new()));
    let names = SharedNames::new(Limits::default());
    let witnesses: Vec<Box<dyn Witness>> =
        (0..2).map(|_| Box::new(Noting(Arc::clone(&noted))) as Box<dyn Witness>).collect();
    let witnessing = Witnessing::new(queued, names.clone(), witnesses, Arc::clone(&metrics));
    let (go, wait) = thread::channel::<()>();
    std::thread::spawn(move || {
        let _ = wait.recv();
        witnessing.run();
    });
    Started { queue, go, noted, names, metrics }
}

fn caught_up(queue: &Queue) {
    let (done, answer) = thread::channel();
    queue.send(Message::UpToHere(done));
    answer.recv_timeout(Duration::from_secs(30)).expect("the thread runs");
}

#[test]
fn every_witness_is_shown_each_observation_and_one_that_panics_begins_anew() {
    let Started { queue, go, noted, names, metrics } = started(1 << 20);
    go.send(()).expect("it waits");
    for (time, id, name) in [(1, 1, "a.example"), (3, 2, "panic.example"), (5, 3, "b.example")] {
        assert!(queue.offer(event(time, dns(id, false, name))));
        assert!(queue.offer(event(time + 1, dns(id, true, name))));
    }
    assert!(queue.offer(event(7, vec![0xff; 60])), "what says nothing is no observation");
    caught_up(&queue);
    let line = |name: Option<&str>| format!("eth7 7 Ingress {name:?}");
    let each = [None, Some("a.example"), None, None, None, Some("b.example")];
    let mut expected: Vec<String> = Vec::new();
    for (place, name) in each.into_iter().enumerate() {
        if place == 3 {
            expected.extend(["anew".to_owned(), "anew".to_owned()]);
        } else {
            expected.extend([line(name), line(name)]);
        }
    }
    assert_eq!(*noted.lock().expect("nobody panics under it"), expected);
    assert_eq!(metrics.observe_panics.with_label_values(&["noting"]).get(), 2);
    assert_eq!(metrics.observations.with_label_values(&["dns"]).get(), 6);
    assert_eq!(metrics.dns_lookups.with_label_values(&["answered"]).get(), 3);
    let key = crate::kernel::FlowKey {
        src: [192, 0, 2, 1].into(),
        dst: [198, 51, 100, 7].into(),
        protocol: 6,
        src_port: 50_000,
        dst_port: 443,
    };
    let name = names.lock().name(&key, 10).map(|name| name.text.to_string());
    assert_eq!(name.as_deref(), Some("b.example"));
}

/// P1: a thread that does not get on costs the octets of the queue, and what does not fit is refused.
#[test]
fn the_queue_is_bounded_in_octets_and_empties_again() {
    const EVENT: usize = 100;
    let each = EVENT + size_of::<Message>();
    let Started { queue, go, .. } = started(10 * each + each / 2);
    let taken = |number: usize| (0..number).filter(|_| queue.offer(event(1, vec![0; EVENT]))).count();
    assert_eq!(taken(25), 10);
    go.send(()).expect("it waits");
    caught_up(&queue);
    assert_eq!(taken(8), 8);
    caught_up(&queue);
}

#[test]
fn a_question_without_an_answer_is_told_by_time() {
    let Started { queue, go, noted, metrics, .. } = started(1 << 20);
    go.send(()).expect("it waits");
    // Asked long ago, by the clock that the thread looks at.
    assert!(queue.offer(event(1, dns(1, false, "silent.example"))));
    let deadline = Instant::now() + Duration::from_secs(30);
    let told = || metrics.dns_lookups.with_label_values(&["timed_out"]).get();
    while told() == 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    caught_up(&queue);
    let noted = noted.lock().expect("nobody panics under it");
    assert_eq!(noted[2..], ["unanswered silent.example", "unanswered silent.example"]);
    assert_eq!(told(), 1);
}
