//! Where a request comes from: the peer's address, or what a trusted proxy says of it.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap};

use super::request::RequestId;
use super::{ApiError, AppState};

/// Address and id of a request, for the audit log and for limits.
#[derive(Clone, Debug)]
pub struct Origin {
    pub address: Option<IpAddr>,
    pub request_id: String,
}

impl FromRequestParts<AppState> for Origin {
    // Never made: handlers answer with an `ApiError`, so their extractors do.
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let request_id = parts.extensions.get::<RequestId>().map_or_else(String::new, |id| id.0.clone());
        Ok(Self { address: address(&parts.headers, &parts.extensions, state), request_id })
    }
}

/// The caller's address; `None` where the listener does not tell.
pub fn address(headers: &HeaderMap, extensions: &Extensions, state: &AppState) -> Option<IpAddr> {
    let peer = extensions.get::<ConnectInfo<SocketAddr>>()?.0.ip().to_canonical();
    Some(client(peer, headers, &state.settings.trusted_proxies))
}

/// The last hop that is no proxy of ours: what stands before it was written by a stranger.
fn client(peer: IpAddr, headers: &HeaderMap, proxies: &[IpAddr]) -> IpAddr {
    let mut address = peer;
    let hops: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    for hop in hops.iter().rev() {
        if !proxies.contains(&address) {
            break;
        }
        match hop.trim().parse::<IpAddr>() {
            Ok(next) => address = next.to_canonical(),
            Err(_) => break,
        }
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forwarded_address_is_believed_from_a_trusted_proxy_only() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", "203.0.113.9, 198.51.100.7".parse().expect("a value"));
        headers.append("x-forwarded-for", "10.0.0.2".parse().expect("a value"));
        let (proxy, inner) = (ip("10.0.0.1"), ip("10.0.0.2"));
        assert_eq!(client(proxy, &headers, &[]), proxy);
        assert_eq!(client(ip("192.0.2.1"), &headers, &[proxy, inner]), ip("192.0.2.1"));
        assert_eq!(client(proxy, &headers, &[proxy]), inner);
        assert_eq!(client(proxy, &headers, &[proxy, inner]), ip("198.51.100.7"));
        headers.append("x-forwarded-for", "nonsense".parse().expect("a value"));
        assert_eq!(client(proxy, &headers, &[proxy, inner]), proxy);
    }
}
