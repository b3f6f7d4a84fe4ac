//! Request heads of HTTP/1 (RFC 9112), and SSDP, which borrows their form (UPnP Device Architecture 2.0).
//!
//! Of a request its method, host and user agent are kept: no path, no query, no cookie, no body.

use serde::Serialize;

use super::text::{self, Name};

/// A request's head.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Http {
    pub method: String,
    /// With the port, where the client names it.
    pub host: Option<Name>,
    pub user_agent: Option<String>,
}

/// A discovery message: `method` is absent of an answer to a search.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Ssdp {
    pub method: Option<String>,
    /// `ST` or `NT`: what is looked for, or announced.
    pub target: Option<String>,
    /// `NTS`: `ssdp:alive`, `ssdp:byebye`, `ssdp:update`.
    pub subtype: Option<String>,
    /// `USN`: names the device for good.
    pub unique_name: Option<String>,
    /// `LOCATION`: where the device describes itself.
    pub location: Option<String>,
    pub server: Option<String>,
    pub user_agent: Option<String>,
}

/// What became of the bytes at hand.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress<T> {
    /// So many octets were read.
    Done(T, usize),
    /// The head goes on.
    More,
    /// It is something else.
    Other,
}

/// Header lines that are read of a head.
const MAX_HEADERS: usize = 128;
/// The longest methods that are registered with IANA have 17 letters.
const MAX_METHOD: usize = 20;

/// Whether a request begins here, as far as the bytes say.
pub(super) fn is_request(bytes: &[u8]) -> bool {
    let method = bytes.iter().take(MAX_METHOD).take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-');
    let octets = method.count();
    match &bytes[octets..] {
        // Some clients send the method alone, and the rest of the line in another segment.
        [] => METHODS.contains(&bytes),
        [b' '] => METHODS.contains(&&bytes[..octets]),
        // An absolute path, a URI, an authority, or an asterisk.
        [b' ', target, ..] => {
            octets >= 3 && target.is_ascii_graphic() && line(bytes).is_none_or(is_versioned)
        }
        _ => false,
    }
}

/// Whether the bytes are the beginning of a method and nothing else.
pub(super) fn may_become_request(bytes: &[u8]) -> bool {
    METHODS.iter().any(|method| method.starts_with(bytes))
}

/// What a stream that has no more yet must begin with.
const METHODS: [&[u8]; 8] = [b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"CONNECT", b"PATCH"];

/// The first line, if it is there whole.
fn line(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some(bytes[..end].trim_ascii_end())
}

fn is_versioned(line: &[u8]) -> bool {
    line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0")
}

/// Reads the head of a request. Its target is not kept, and so need not be well-formed.
pub(super) fn read(bytes: &[u8]) -> Progress<Http> {
    let Some((method, headers)) = split(bytes) else {
        return if bytes.contains(&b'\n') { Progress::Other } else { Progress::More };
    };
    let head = [STAND_IN, headers].concat();
    let mut room = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut room);
    match tolerant().parse_request(&mut request, &head) {
        Ok(httparse::Status::Complete(octets)) => {
            let value = |name| header(request.headers, name);
            let http = Http {
                method: text::clean(method),
                host: value("host").map(Name::from_dotted),
                user_agent: value("user-agent").map(text::clean),
            };
            Progress::Done(http, octets + bytes.len() - head.len())
        }
        Ok(httparse::Status::Partial) => Progress::More,
        Err(_) => Progress::Other,
    }
}

/// What stands for a request's first line, or a response's, while its headers are read.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\n";

/// The method, and what follows the first line. `None` where that is not there whole, or not a request's.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = line(bytes).filter(|line| is_versioned(line))?;
    let method = line.split(|byte| *byte == b' ').next()?;
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((method, &bytes[end + 1..]))
}

/// A line that is no header is passed over, as servers do.
fn tolerant() -> httparse::ParserConfig {
    let mut config = httparse::ParserConfig::default();
    config.ignore_invalid_headers_in_requests(true);
    config
}

/// Reads a datagram of SSDP. A head whose last empty line is missing is read, too.
pub(super) fn ssdp(bytes: &[u8]) -> Option<Ssdp> {
    let (method, headers) = match split(bytes) {
        Some((method, headers)) if method.first().is_some_and(u8::is_ascii_uppercase) => {
            (Some(method), headers)
        }
        _ if bytes.starts_with(b"HTTP/1.") => {
            (None, &bytes[bytes.iter().position(|byte| *byte == b'\n')? + 1..])
        }
        _ => return None,
    };
    let head = [STAND_IN, headers, b"\r\n\r\n"].concat();
    let mut room = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut room);
    tolerant().parse_request(&mut request, &head).ok()?.is_complete().then_some(())?;
    Some(discovery(method, request.headers))
}

fn discovery(method: Option<&[u8]>, headers: &[httparse::Header<'_>]) -> Ssdp {
    let value = |name| header(headers, name).map(text::clean);
    Ssdp {
        method: method.map(text::clean),
        target: value("st").or_else(|| value("nt")),
        subtype: value("nts"),
        unique_name: value("usn"),
        location: value("location"),
        server: value("server"),
        user_agent: value("user-agent"),
    }
}

/// The first header of a name.
fn header<'a>(headers: &[httparse::Header<'a>], name: &str) -> Option<&'a [u8]> {
    headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case(name))
        .map(|header| header.value.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_gives_its_host_and_agent_and_nothing_else() {
        let bytes = b"GET /secret?token=1 HTTP/1.1\r\nhost: Example.org\r\nCookie: a=b\r\nUSER-AGENT: x\x1b[31m\r\n\r\nbody";
        let http =
            Http { method: "GET".into(), host: Some(Name::from_dotted(b"example.org")), user_agent: None };
        assert!(is_request(bytes));
        // A header with a control character is no header.
        assert_eq!(read(bytes), Progress::Done(http, bytes.len() - 4));
        assert_eq!(read(&bytes[..40]), Progress::More);
        let scan = b"GET /?q=<a b> HTTP/1.1\r\nHost: x\r\nno header\r\n\r\n";
        let http = Http { method: "GET".into(), host: Some(Name::from_dotted(b"x")), user_agent: None };
        assert_eq!(read(scan), Progress::Done(http, scan.len()));
        assert!(is_request(b"POST ") && is_request(b"GET") && !is_request(b"PORT "));
        for other in
            [b"get / HTTP/1.1\r\n".as_slice(), b"GET / HTTP/2.0\r\n", b"GE", b"\x16\x03\x01", b"SSH-2.0-x"]
        {
            assert!(!is_request(other), "{other:?}");
        }
    }
}
