//! A list's bytes from where it is: a file or an HTTP(S) server. Bounded in bytes and time.
//!
//! Where a list is, is the operator's word, and may be this host. Where a server redirects to, is a stranger's:
//! never to loopback, link-local (which has the credentials of clouds) or other local addresses, never from
//! HTTPS to HTTP.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, SystemTime};

use reqwest::{Client, StatusCode, Url, header, redirect};
use thiserror::Error;

use super::store::Origin;

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 5;

/// Where a list is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    File(std::path::PathBuf),
    Url(Url),
}

/// Bounds of one request.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub bytes: u64,
    /// From connecting to the last byte.
    pub time: Duration,
}

/// What came.
#[derive(Debug)]
pub enum Fetched {
    /// What is at hand is what is there.
    Unchanged,
    Bytes {
        bytes: Vec<u8>,
        etag: Option<String>,
        last_modified: Option<String>,
    },
}

/// Why nothing came.
#[derive(Debug, Error)]
pub enum FetchError {
    #[error("read {path}: {source}")]
    File { path: String, source: std::io::Error },
    #[error("it is larger than {0} bytes (`max_bytes`)")]
    TooLarge(u64),
    #[error("it did not come within {0:?} (`timeout`)")]
    Timeout(Duration),
    #[error("the server answers {0}")]
    Status(StatusCode),
    #[error("{0}")]
    Http(String),
    #[error("it is redirected more than {MAX_REDIRECTS} times")]
    Redirects,
    #[error("it is redirected to {0}, which is refused: {1}")]
    Redirect(String, &'static str),
}

/// Fetches a list, unless it is what `known` is of.
pub async fn fetch(place: &Place, bounds: Bounds, known: Option<&Origin>) -> Result<Fetched, FetchError> {
    match place {
        Place::File(path) => {
            let path = path.clone();
            let read = tokio::task::spawn_blocking(move || read(&path, bounds.bytes));
            read.await.map_err(|error| FetchError::Http(error.to_string()))?
        }
        Place::Url(url) => tokio::time::timeout(bounds.time, download(url.clone(), bounds.bytes, known))
            .await
            .map_err(|_| FetchError::Timeout(bounds.time))?,
    }
}

fn read(path: &Path, most: u64) -> Result<Fetched, FetchError> {
    let failed = |source| FetchError::File { path: path.display().to_string(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(std::io::Error::other("it is not a file")));
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > most {
        return Err(FetchError::TooLarge(most));
    }
    Ok(Fetched::Bytes { bytes, etag: None, last_modified: None })
}

async fn download(url: Url, most: u64, known: Option<&Origin>) -> Result<Fetched, FetchError> {
    let mut at = url;
    let mut pinned: Option<(String, Vec<SocketAddr>)> = None;
    for _ in 0..=MAX_REDIRECTS {
        let mut client = Client::builder()
            .redirect(redirect::Policy::none())
            .user_agent(concat!("weir-sensor/", env!("CARGO_PKG_VERSION")));
        if let Some((host, addresses)) = &pinned {
            // Looked up once: what was judged is what is connected to.
            client = client.resolve_to_addrs(host, addresses).no_proxy();
        }
        let mut request = client.build().map_err(|error| http(&error))?.get(at.clone());
        if let Some(Origin { etag, last_modified, .. }) = known {
            if let Some(etag) = etag {
                request = request.header(header::IF_NONE_MATCH, etag);
            }
            if let Some(time) = last_modified {
                request = request.header(header::IF_MODIFIED_SINCE, time);
            }
        }
        let response = request.send().await.map_err(|error| http(&error))?;
        let status = response.status();
        if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
            let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            let next = location.and_then(|location| at.join(location).ok());
            let next = next.ok_or_else(|| FetchError::Http("a redirect to nowhere".to_owned()))?;
            pinned = judge(&at, &next).await?;
            at = next;
            continue;
        }
        return match status {
            StatusCode::NOT_MODIFIED if known.is_some() => Ok(Fetched::Unchanged),
            StatusCode::OK => body(response, most).await,
            status => Err(FetchError::Status(status)),
        };
    }
    Err(FetchError::Redirects)
}

async fn body(mut response: reqwest::Response, most: u64) -> Result<Fetched, FetchError> {
    if response.content_length().is_some_and(|length| length > most) {
        return Err(FetchError::TooLarge(most));
    }
    let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (etag, last_modified) = (text(header::ETAG), text(header::LAST_MODIFIED));
    let mut bytes = Vec::new();
    // A body that ends before its length is an error here.
    while let Some(chunk) = response.chunk().await.map_err(|error| http(&error))? {
        if (bytes.len() + chunk.len()) as u64 > most {
            return Err(FetchError::TooLarge(most));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Fetched::Bytes { bytes, etag, last_modified })
}

/// Whether a redirect may be followed, and to which addresses.
async fn judge(from: &Url, to: &Url) -> Result<Option<(String, Vec<SocketAddr>)>, FetchError> {
    let refuse = |why| FetchError::Redirect(to.to_string(), why);
    if !matches!(to.scheme(), "http" | "https") {
        return Err(refuse("it is not HTTP"));
    }
    if from.scheme() == "https" && to.scheme() == "http" {
        return Err(refuse("it leaves HTTPS"));
    }
    let (Some(host), Some(port)) = (to.host_str(), to.port_or_known_default()) else {
        return Err(refuse("it has no host"));
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((bare, port))
        .await
        .map_err(|error| FetchError::Http(format!("look up {host}: {error}")))?
        .collect();
    if addresses.iter().any(|address| is_local(address.ip())) {
        return Err(refuse("it is a local address"));
    }
    Ok(Some((host.to_owned(), addresses)))
}

/// Addresses that mean this host or its link.
fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            address.is_loopback()
                || address.is_link_local()
                || address.is_unspecified()
                || address.is_broadcast()
                || address.is_multicast()
        }
        IpAddr::V6(address) => {
            address.to_ipv4_mapped().is_some_and(|address| is_local(address.into()))
                || address.is_loopback()
                || address.is_unicast_link_local()
                || address.is_unspecified()
                || address.is_multicast()
        }
    }
}

/// The error with its causes; URLs may hold a key, so they are left out.
fn http(error: &reqwest::Error) -> FetchError {
    use std::error::Error as _;
    let mut text = if error.is_body() || error.is_decode() {
        "the body ended early".to_owned()
    } else {
        "the request failed".to_owned()
    };
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    FetchError::Http(text)
}

/// Now, nanoseconds since the Unix epoch.
#[must_use]
pub fn now_ns() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn redirects_to_what_is_local_or_less_safe_are_refused() {
        let url = |text: &str| Url::parse(text).expect("a URL");
        let from = url("https://feeds.example.org/x");
        for to in [
            "http://feeds.example.org/x",
            "ftp://feeds.example.org/x",
            "https://127.0.0.1/x",
            "https://[::1]/x",
            "https://[::ffff:127.0.0.1]/x",
            "https://169.254.169.254/latest/meta-data",
            "https://[fe80::1]/x",
            "https://0.0.0.0/x",
            "https://localhost/x",
        ] {
            let judged = judge(&from, &url(to)).await;
            assert!(matches!(judged, Err(FetchError::Redirect(..))), "{to}: {judged:?}");
        }
        let (host, addresses) = judge(&from, &url("https://198.51.100.7/x"))
            .await
            .expect("it may be followed")
            .expect("addresses");
        assert_eq!((host.as_str(), addresses[0].to_string().as_str()), ("198.51.100.7", "198.51.100.7:443"));
    }
}
