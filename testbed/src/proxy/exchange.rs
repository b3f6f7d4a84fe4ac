//! Requests and answers on their way through, and what is done to them.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use super::{Mischief, REMEMBERED, Shared};

/// No message of either program is larger by far.
const MAX_MESSAGE: usize = 64 << 20;
/// So often a thread that waits for a client's next request looks whether the proxy has ended.
const LOOK: Duration = Duration::from_millis(200);
/// An answer takes no longer, even from a control plane that waits for its database.
const ANSWER_WITHIN: Duration = Duration::from_mins(1);

/// What a held request is answered with.
const ACKNOWLEDGED: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 31\r\n\r\n\
                              {\"status\":\"stored\",\"records\":0}";

/// Serves one client until either side ends.
pub(super) fn serve(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut upstream = None;
    loop {
        if shared.mischief() == Mischief::StallRequest {
            shared.touch();
            shared.outlast(Mischief::StallRequest);
            return Ok(());
        }
        let Some(request) = next_request(&mut client, shared)? else { return Ok(()) };
        // Seen after the request has come: the mischief may have begun meanwhile.
        let mischief = shared.mischief();
        if mischief != Mischief::None {
            shared.touch();
        }
        match mischief {
            Mischief::None => {}
            Mischief::StallRequest => {
                shared.outlast(mischief);
                return Ok(());
            }
            Mischief::StallAnswer => {
                deliver(&mut upstream, shared, &request)?;
                shared.outlast(mischief);
                return Ok(());
            }
            Mischief::ResetRequest => return reset(&client),
            Mischief::ResetAnswer => {
                deliver(&mut upstream, shared, &request)?;
                return reset(&client);
            }
            Mischief::TruncateRequest(permille) => {
                let mut upstream = connect(shared)?;
                upstream.write_all(part(&request, permille))?;
                return upstream.shutdown(Shutdown::Both);
            }
            Mischief::TruncateAnswer(permille) => {
                let answer = deliver(&mut upstream, shared, &request)?;
                client.write_all(part(&answer, permille))?;
                return client.shutdown(Shutdown::Both);
            }
            Mischief::Delay(delay) => thread::sleep(delay),
            Mischief::Twice => {
                let (other, copy) = (shared.upstream, request.clone());
                // Its answer is nobody's.
                thread::spawn(move || ask(other, &copy));
            }
            Mischief::Hold => {
                shared.state().held.push(request);
                client.write_all(ACKNOWLEDGED)?;
                continue;
            }
        }
        let answer = deliver(&mut upstream, shared, &request)?;
        if status(&answer) == Some(200) {
            remember(shared, request);
        }
        if let Mischief::Delay(delay) = mischief {
            thread::sleep(delay);
        }
        client.write_all(&answer)?;
    }
}

/// One request on a connection of its own, and its answer.
pub(super) fn ask(upstream: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    exchange(&mut open(upstream)?, request)
}

/// The status in an answer's first line.
pub(super) fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|&byte| byte == b'\r').next()?;
    str::from_utf8(line).ok()?.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.parse().ok()
}

fn remember(shared: &Shared, request: Vec<u8>) {
    let mut state = shared.state();
    if state.remembered.len() == REMEMBERED {
        state.remembered.pop_front();
    }
    state.remembered.push_back(request);
}

/// Over the connection that is open already, or a new one.
fn deliver(upstream: &mut Option<TcpStream>, shared: &Shared, request: &[u8]) -> io::Result<Vec<u8>> {
    if let Some(open) = upstream {
        // The control plane may have closed it, or be another one by now: a new one is tried.
        if let Ok(answer) = exchange(open, request) {
            return Ok(answer);
        }
    }
    exchange(upstream.insert(connect(shared)?), request)
}

fn connect(shared: &Shared) -> io::Result<TcpStream> {
    open(shared.upstream)
}

fn open(upstream: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(upstream)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    Ok(stream)
}

fn exchange(upstream: &mut TcpStream, request: &[u8]) -> io::Result<Vec<u8>> {
    upstream.write_all(request)?;
    let answer = message(upstream, Vec::new(), || false)?;
    answer.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// The next request of a client; none when it has hung up, or a mischief for the waiting began.
fn next_request(client: &mut TcpStream, shared: &Shared) -> io::Result<Option<Vec<u8>>> {
    client.set_read_timeout(Some(LOOK))?;
    message(client, Vec::new(), || shared.ended.load(Ordering::Relaxed))
}

/// Reads a head and the body that its length announces. Neither program sends chunks.
fn message(from: &mut impl Read, mut bytes: Vec<u8>, gone: impl Fn() -> bool) -> io::Result<Option<Vec<u8>>> {
    let mut whole = None;
    let mut buffer = vec![0; 64 << 10];
    loop {
        if whole.is_none() {
            whole = length(&bytes)?;
        }
        if whole.is_some_and(|whole| bytes.len() >= whole) {
            return Ok(Some(bytes));
        }
        match from.read(&mut buffer) {
            Ok(0) if bytes.is_empty() => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                if gone() {
                    return Ok(None);
                }
            }
            Err(error) => return Err(error),
        }
        if bytes.len() > MAX_MESSAGE {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
    }
}

/// Bytes of the message that begins here, as soon as its head is complete.
fn length(bytes: &[u8]) -> io::Result<Option<usize>> {
    const END: &[u8] = b"\r\n\r\n";
    let Some(end) = bytes.windows(END.len()).position(|window| window == END) else { return Ok(None) };
    let head = str::from_utf8(&bytes[..end]).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    let header = |line: &str| -> Option<usize> {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    };
    Ok(Some(end + END.len() + head.lines().find_map(header).unwrap_or(0)))
}

/// So many thousandths of a message: never all of it, never nothing.
fn part(message: &[u8], permille: u16) -> &[u8] {
    let length = message.len() * usize::from(permille) / 1000;
    &message[..length.clamp(1, message.len() - 1)]
}

/// Ends a connection with RST instead of FIN.
fn reset(client: &TcpStream) -> io::Result<()> {
    let now = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&client.as_fd(), sockopt::Linger, &now)?;
    Ok(())
}
