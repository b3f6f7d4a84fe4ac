//! Requests and mail that the server sends to addresses that somebody typed in: alert receivers, feeds.
//!
//! Whoever may name a target must not get a hand into the network that the server stands in. So a name is
//! resolved once, every address of the answer is judged ([`judge`]), and the connection goes to those very
//! addresses: a name that resolves to something else a moment later gains nothing. Redirects are answers and
//! are not followed, proxies of the environment are not used, and answers are bounded in size and time.

mod judge;
pub mod mail;
mod roots;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use reqwest::{Method, Url};
use tokio::net::TcpStream;
use url::Host;

use crate::config;
use crate::store::filter::Network;

pub use judge::Refusal;

/// Bytes of an answer that are read for callers who only want to know how it went.
const MAX_SHORT: usize = 4 << 10;
const AGENT: &str = concat!("weir-control-plane/", env!("CARGO_PKG_VERSION"));

/// Makes requests to the outside. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Outbound {
    allowed: Vec<Network>,
    timeout: Duration,
    plain_mail: bool,
    /// Authorities of requests beside the system's, and all of those of mail.
    authorities: Vec<reqwest::Certificate>,
    tls: Arc<rustls::ClientConfig>,
}

/// A request.
#[derive(Debug)]
pub struct Outgoing {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// A longer answer is an error.
    pub max_answer: usize,
}

impl Outgoing {
    /// A JSON body, for an answer that is only looked at.
    #[must_use]
    pub fn post(url: Url, headers: HeaderMap, body: Vec<u8>) -> Self {
        Self { method: Method::POST, url, headers, body, max_answer: MAX_SHORT }
    }
}

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    #[error("`{0}` is not a URL of the form http[s]://host[:port]/path without user and password")]
    NotAUrl(String),
    #[error("resolve `{host}`: {error}")]
    Resolve { host: String, error: std::io::Error },
    #[error("`{0}` has no address")]
    NoAddress(String),
    #[error(
        "`{host}` is {address}, which is {refusal}; if that is meant, add its network to `outbound.allow`"
    )]
    Refused { host: String, address: std::net::IpAddr, refusal: Refusal },
    #[error("{host}: no answer within {} ms", .after.as_millis())]
    Timeout { host: String, after: Duration },
    #[error("{host}: {what}")]
    Failed { host: String, what: String },
    #[error("{host}: the answer is longer than {max} bytes")]
    TooLong { host: String, max: usize },
    #[error("outbound.ca_file: {}: {error}", .path.display())]
    Authorities { path: PathBuf, error: String },
}

/// A URL that may be asked later: its form is right; where it leads is looked at then.
pub fn url(text: &str) -> Result<Url, OutboundError> {
    let wrong = || OutboundError::NotAUrl(text.chars().take(80).collect());
    let url = Url::parse(text).map_err(|_| wrong())?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.host().is_some()
        && url.username().is_empty()
        && url.password().is_none();
    if plain { Ok(url) } else { Err(wrong()) }
}

impl Outbound {
    pub fn new(settings: &config::Outbound) -> Result<Self, OutboundError> {
        let roots = roots::read(settings.ca_file.as_deref())?;
        Ok(Self {
            allowed: settings.networks(),
            timeout: Duration::from_millis(settings.timeout_ms),
            plain_mail: settings.allow_plain_mail,
            authorities: roots.http,
            tls: roots.tls,
        })
    }

    /// The addresses of a host that may be connected to. One that may not makes all of them void: a name that
    /// leads inside and outside is a trick or a mistake.
    pub async fn resolve(&self, host: &Host<&str>, port: u16) -> Result<Vec<SocketAddr>, OutboundError> {
        let addresses: Vec<SocketAddr> = match host {
            Host::Ipv4(address) => vec![SocketAddr::from((*address, port))],
            Host::Ipv6(address) => vec![SocketAddr::from((*address, port))],
            Host::Domain(name) => {
                let found = tokio::time::timeout(self.timeout, tokio::net::lookup_host((*name, port))).await;
                let host = (*name).to_owned();
                match found {
                    Ok(Ok(found)) => found.collect(),
                    Ok(Err(error)) => return Err(OutboundError::Resolve { host, error }),
                    Err(_) => return Err(OutboundError::Timeout { host, after: self.timeout }),
                }
            }
        };
        if addresses.is_empty() {
            return Err(OutboundError::NoAddress(host.to_string()));
        }
        for address in &addresses {
            judge::judge(address.ip(), &self.allowed).map_err(|refusal| OutboundError::Refused {
                host: host.to_string(),
                address: address.ip(),
                refusal,
            })?;
        }
        Ok(addresses)
    }

    /// Connects to a host at an address that was judged.
    async fn connect(&self, host: &Host, port: u16) -> Result<TcpStream, OutboundError> {
        let addresses = self.resolve(&borrowed(host), port).await?;
        let connected = TcpStream::connect(&*addresses).await;
        connected.map_err(|error| OutboundError::Failed { host: host.to_string(), what: error.to_string() })
    }

    /// Sends a request and reads its answer, all within the time limit.
    pub async fn send(&self, outgoing: Outgoing) -> Result<Answer, OutboundError> {
        let host = outgoing.url.host_str().unwrap_or_default().to_owned();
        match tokio::time::timeout(self.timeout, self.exchange(outgoing)).await {
            Ok(result) => result,
            Err(_) => Err(OutboundError::Timeout { host, after: self.timeout }),
        }
    }

    async fn exchange(&self, outgoing: Outgoing) -> Result<Answer, OutboundError> {
        let Outgoing { method, url, headers, body, max_answer } = outgoing;
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err(OutboundError::NotAUrl(url.to_string()));
        };
        let addresses = self.resolve(&host, port).await?;
        let host = host.to_string();
        let failed = |error: reqwest::Error| {
            // The URL may hold a secret.
            let error = error.without_url();
            let mut what = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(inner) = source {
                what = format!("{what}: {inner}");
                source = inner.source();
            }
            OutboundError::Failed { host: host.clone(), what }
        };
        // A client for each request: what it may connect to is of this request only.
        let client = reqwest::Client::builder().no_proxy();
        let client =
            self.authorities.iter().cloned().fold(client, reqwest::ClientBuilder::add_root_certificate);
        let client = client
            .redirect(Policy::none())
            .user_agent(AGENT)
            .resolve_to_addrs(&host, &addresses)
            .build()
            .map_err(failed)?;
        let request = client.request(method, url).headers(headers).body(body);
        let mut response = request.send().await.map_err(failed)?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > max_answer {
                return Err(OutboundError::TooLong { host, max: max_answer });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, headers, body })
    }
}

fn borrowed(host: &Host) -> Host<&str> {
    match host {
        Host::Domain(name) => Host::Domain(name),
        Host::Ipv4(address) => Host::Ipv4(*address),
        Host::Ipv6(address) => Host::Ipv6(*address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i6_only_plain_http_urls_are_taken() {
        for right in ["http://a.example/x?y=z", "https://192.0.2.1:8443", "http://[2001:db8::1]/"] {
            assert!(url(right).is_ok(), "{right}");
        }
        for wrong in [
            "",
            "a.example",
            "ftp://a.example",
            "file:///etc/passwd",
            "gopher://a.example",
            "unix:/run/docker.sock",
            "http://user@a.example",
            "https://user:secret@a.example",
            "http://",
            "javascript:alert(1)",
        ] {
            assert!(url(wrong).is_err(), "{wrong}");
        }
    }

    /// However an address is written, it is the address that is judged.
    #[tokio::test]
    async fn i6_addresses_in_disguise_are_refused() {
        let outbound = Outbound::new(&config::Outbound::default()).expect("it has no file");
        for disguise in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://localhost/",
            "http://0/",
            "http://[::1]/",
            "http://[::]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:a9fe:a9fe]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://[2002:7f00:1::]/",
            "http://169.254.169.254/latest/meta-data/",
            "http://10.0.0.1/",
            "http://[fd00::1]/",
            "http://[fe80::1]/",
            "http://224.0.0.1/",
            "http://255.255.255.255/",
        ] {
            let url = url(disguise).expect(disguise);
            let error = outbound.send(Outgoing::post(url, HeaderMap::new(), Vec::new())).await;
            assert!(matches!(error, Err(OutboundError::Refused { .. })), "{disguise}: {error:?}");
        }
    }
}
