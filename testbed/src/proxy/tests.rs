//! Against a server that counts what reaches it.

use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;

use super::*;
use crate::netns::Namespace;

const REQUEST: &[u8] = b"POST /x HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A namespace with a server in it, the proxy before the server, and what the server has received whole.
struct Bench {
    proxy: Proxy,
    namespace: Namespace,
    received: Arc<AtomicU64>,
}

impl Bench {
    fn new() -> Self {
        let namespace = Namespace::new("proxy").expect("root makes namespaces");
        let received = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&received);
        let address = namespace.enter(|| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            let address = listener.local_addr().expect("it is bound");
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let counter = Arc::clone(&counter);
                    thread::spawn(move || answer(stream, &counter));
                }
            });
            address
        });
        let upstream = address.expect("the namespace is entered");
        let proxy = Proxy::start(namespace.path().to_owned(), upstream).expect("the proxy starts");
        Self { proxy, namespace, received }
    }

    /// What comes back for one request.
    fn ask(&self) -> io::Result<Vec<u8>> {
        let ask = || {
            let mut stream = TcpStream::connect(self.proxy.address)?;
            stream.write_all(REQUEST)?;
            let mut answer = vec![0; ANSWER.len()];
            stream.read_exact(&mut answer)?;
            Ok(answer)
        };
        self.namespace.enter(ask).expect("the namespace is entered")
    }

    fn received(&self, count: u64) {
        let deadline = Instant::now() + Duration::from_mins(1);
        while self.received.load(Ordering::Relaxed) < count {
            assert!(Instant::now() < deadline, "{} of {count}", self.received.load(Ordering::Relaxed));
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(self.received.load(Ordering::Relaxed), count);
    }
}

fn answer(mut stream: TcpStream, received: &AtomicU64) -> io::Result<()> {
    let mut request = vec![0; REQUEST.len()];
    loop {
        stream.read_exact(&mut request)?;
        assert_eq!(request, REQUEST);
        received.fetch_add(1, Ordering::Relaxed);
        stream.write_all(ANSWER)?;
    }
}

#[test]
fn without_mischief_it_is_not_there() {
    let bench = Bench::new();
    for count in 1..=3 {
        assert_eq!(bench.ask().expect("an answer"), ANSWER);
        bench.received(count);
    }
    assert_eq!(bench.proxy.touched(), 0);
}

#[test]
fn what_is_cut_before_the_server_never_reaches_it() {
    let bench = Bench::new();
    for mischief in [Mischief::ResetRequest, Mischief::TruncateRequest(999), Mischief::TruncateRequest(0)] {
        bench.proxy.set(mischief);
        assert!(bench.ask().is_err(), "{mischief:?}");
    }
    assert_eq!(bench.proxy.touched(), 3);
    bench.received(0);
}

#[test]
fn what_is_cut_after_the_server_has_reached_it() {
    let bench = Bench::new();
    for (count, mischief) in (1..).zip([Mischief::ResetAnswer, Mischief::TruncateAnswer(700)]) {
        bench.proxy.set(mischief);
        assert!(bench.ask().is_err(), "{mischief:?}");
        bench.received(count);
    }
}

#[test]
fn what_is_stalled_ends_with_the_mischief() {
    let bench = Bench::new();
    for (mischief, reaches) in [(Mischief::StallRequest, 0), (Mischief::StallAnswer, 1)] {
        bench.proxy.set(mischief);
        let before = bench.proxy.touched();
        thread::scope(|scope| {
            let asked = scope.spawn(|| bench.ask());
            while bench.proxy.touched() == before {
                thread::sleep(Duration::from_millis(5));
            }
            bench.received(reaches);
            assert!(!asked.is_finished(), "{mischief:?}");
            bench.proxy.set(Mischief::None);
            assert!(asked.join().expect("no panic").is_err(), "{mischief:?}");
        });
    }
}

#[test]
fn requests_are_delivered_twice_late_and_again() {
    let bench = Bench::new();
    bench.proxy.set(Mischief::Twice);
    assert_eq!(bench.ask().expect("an answer"), ANSWER);
    bench.received(2);
    bench.proxy.set(Mischief::Hold);
    assert!(bench.ask().expect("an answer").starts_with(b"HTTP/1.1 200"));
    bench.received(2);
    assert_eq!(bench.proxy.release().expect("it is taken"), 1);
    bench.received(3);
    // What was held is not remembered: it was delivered by the release.
    assert_eq!(bench.proxy.repeat(|requests| requests.reverse()).expect("it is taken"), 1);
    bench.received(4);
    assert_eq!(bench.proxy.release().expect("nothing is held"), 0);
}
