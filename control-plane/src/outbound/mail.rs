//! Mail to a server that somebody typed in: the same guard as for requests, and a server that is trusted with
//! nothing but the message.
//!
//! TLS is ours, so that its peer is the host that was named and its address the one that was judged. STARTTLS is
//! asked for octet by octet: what a stranger slips in behind the answer is read as TLS, and is none (RFC 3207, 6).
//! The protocol itself is `lettre`'s, on a stream that ends after [`MAX_ANSWERS`].

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use lettre::address::{Address, Envelope};
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, AsyncTokioStream};
use lettre::transport::smtp::extension::ClientId;
use rustls::pki_types::ServerName;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use url::Host;
use weir_wire::text::is_hostile;

use super::{Outbound, OutboundError};

/// Bytes that a server says in one session; a whole one has some hundreds.
const MAX_ANSWERS: usize = 64 << 10;
/// Bytes of a line, and lines of an answer, before TLS.
const MAX_LINE: usize = 1_000;
const MAX_LINES: usize = 100;
/// After TLS a server says nothing until it is asked; a connection begins with a greeting for whoever reads it.
const GREETING: &[u8] = b"220 \r\n";
/// How long the goodbye may take. The server has the message then, whatever comes of it.
const GOODBYE: Duration = Duration::from_secs(1);

/// How a connection is made safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safety {
    /// TLS from the first octet.
    Implicit,
    /// TLS after a word in the clear, or nothing at all.
    Starttls,
    /// None.
    Plain,
}

/// A message and where it goes.
#[derive(Debug)]
pub struct Mail {
    pub host: String,
    pub port: u16,
    pub safety: Safety,
    pub login: Option<(String, SecretString)>,
    pub from: Address,
    pub to: Vec<Address>,
    pub message: Vec<u8>,
}

/// The host of a mail server, as it is written in a receiver.
pub fn host(text: &str) -> Option<Host> {
    Host::parse(text).ok()
}

impl Outbound {
    /// Whether mail may go without TLS.
    #[must_use]
    pub fn allows_plain_mail(&self) -> bool {
        self.plain_mail
    }

    /// Hands a message over; every recipient is accepted, or it is not sent to any.
    pub async fn mail(&self, mail: &Mail) -> Result<(), OutboundError> {
        let handed = tokio::time::timeout(self.timeout, self.hand_over(mail)).await;
        let timeout = |_| OutboundError::Timeout { host: mail.host.clone(), after: self.timeout };
        let mut connection = handed.map_err(timeout)??;
        let _ = tokio::time::timeout(GOODBYE, connection.quit()).await;
        Ok(())
    }

    async fn hand_over(&self, mail: &Mail) -> Result<AsyncSmtpConnection, OutboundError> {
        let failed = |what: String| OutboundError::Failed { host: mail.host.clone(), what: clean(&what) };
        if mail.safety == Safety::Plain && !self.plain_mail {
            return Err(failed("mail without TLS is not allowed (outbound.allow_plain_mail)".to_owned()));
        }
        let host = host(&mail.host).ok_or_else(|| failed("is not a host".to_owned()))?;
        let mut stream = self.connect(&host, mail.port).await?;
        let own = stream.local_addr().map_err(|error| failed(error.to_string()))?;
        let hello = match own.ip().to_canonical() {
            IpAddr::V4(address) => ClientId::Ipv4(address),
            IpAddr::V6(address) => ClientId::Ipv6(address),
        };
        let wire = match mail.safety {
            Safety::Plain => Wire::new(Inner::Plain(stream), b""),
            Safety::Implicit => Wire::new(self.encrypt(&host, stream).await.map_err(failed)?, b""),
            Safety::Starttls => {
                starttls(&mut stream, &hello).await.map_err(failed)?;
                Wire::new(self.encrypt(&host, stream).await.map_err(failed)?, GREETING)
            }
        };
        let said = |error: lettre::transport::smtp::Error| failed(chain(&error));
        let mut connection =
            AsyncSmtpConnection::connect_with_transport(Box::new(wire), &hello).await.map_err(said)?;
        if let Some((user, password)) = &mail.login {
            let credentials = Credentials::new(user.clone(), password.expose_secret().to_owned());
            connection.auth(&[Mechanism::Plain, Mechanism::Login], &credentials).await.map_err(said)?;
        }
        let envelope = Envelope::new(Some(mail.from.clone()), mail.to.clone())
            .map_err(|error| failed(error.to_string()))?;
        connection.send(&envelope, &mail.message).await.map_err(said)?;
        Ok(connection)
    }

    async fn encrypt(&self, host: &Host, stream: TcpStream) -> Result<Inner, String> {
        let name = match host {
            Host::Domain(name) => ServerName::try_from(name.clone()).map_err(|error| error.to_string())?,
            Host::Ipv4(address) => ServerName::from(IpAddr::from(*address)),
            Host::Ipv6(address) => ServerName::from(IpAddr::from(*address)),
        };
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&self.tls));
        let stream = connector.connect(name, stream).await.map_err(|error| format!("TLS: {error}"))?;
        Ok(Inner::Tls(Box::new(stream)))
    }
}

/// Agrees on TLS.
async fn starttls(stream: &mut TcpStream, hello: &ClientId) -> Result<(), String> {
    answer(stream, "220").await?;
    stream.write_all(format!("EHLO {hello}\r\n").as_bytes()).await.map_err(|error| error.to_string())?;
    let offers = answer(stream, "250").await?;
    if !offers.iter().any(|offer| offer.eq_ignore_ascii_case("STARTTLS")) {
        return Err("the server does not offer STARTTLS".to_owned());
    }
    stream.write_all(b"STARTTLS\r\n").await.map_err(|error| error.to_string())?;
    answer(stream, "220").await.map(|_| ())
}

/// The lines of an answer that must have this code, without it.
async fn answer(stream: &mut TcpStream, code: &str) -> Result<Vec<String>, String> {
    let mut lines = Vec::new();
    while lines.len() < MAX_LINES {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            if line.len() == MAX_LINE {
                return Err(format!("a line of the server is longer than {MAX_LINE} bytes"));
            }
            line.push(stream.read_u8().await.map_err(|error| error.to_string())?);
        }
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        let rest = line.strip_prefix(code).ok_or_else(|| format!("the server says: {line}"))?;
        lines.push(rest.get(1..).unwrap_or_default().to_owned());
        if !rest.starts_with('-') {
            return Ok(lines);
        }
    }
    Err(format!("an answer of the server has more than {MAX_LINES} lines"))
}

/// A server's words, fit for the log and the API.
fn clean(text: &str) -> String {
    text.chars().take(300).map(|char| if is_hostile(char) { ' ' } else { char }).collect()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

#[derive(Debug)]
enum Inner {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection that ends when its server has said too much.
#[derive(Debug)]
struct Wire {
    inner: Inner,
    greeting: &'static [u8],
    left: usize,
}

impl Wire {
    fn new(inner: Inner, greeting: &'static [u8]) -> Self {
        Self { inner, greeting, left: MAX_ANSWERS }
    }

    fn writer(self: Pin<&mut Self>) -> Pin<&mut (dyn AsyncWrite + Send + Unpin)> {
        match &mut self.get_mut().inner {
            Inner::Plain(stream) => Pin::new(stream),
            Inner::Tls(stream) => Pin::new(stream.as_mut()),
        }
    }
}

impl AsyncTokioStream for Wire {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        match &self.inner {
            Inner::Plain(stream) => stream.peer_addr(),
            Inner::Tls(stream) => stream.get_ref().0.peer_addr(),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.greeting.is_empty() {
            let (now, later) = self.greeting.split_at(self.greeting.len().min(buffer.remaining()));
            buffer.put_slice(now);
            self.greeting = later;
            return Poll::Ready(Ok(()));
        }
        if self.left == 0 {
            let text = format!("the server said more than {MAX_ANSWERS} bytes");
            return Poll::Ready(Err(io::Error::other(text)));
        }
        let before = buffer.filled().len();
        ready!(match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Inner::Tls(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
        })?;
        self.left = self.left.saturating_sub(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.writer().poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer().poll_shutdown(context)
    }
}
