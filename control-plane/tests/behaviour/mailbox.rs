//! A mail server of a test's own: it speaks SMTP with STARTTLS, and can be told to behave badly.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// What it does to whoever comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Right,
    /// Refuses the second recipient, with a text that would do things to a terminal.
    RefusesRecipient,
    /// Takes the connection and says nothing.
    Hangs,
    /// Says one line, without an end.
    TalksOn,
    /// Says lines without an end.
    ListsOn,
    /// Puts answers behind the one to STARTTLS, in the clear, as somebody in between would.
    SlipsIn,
    /// Does not offer STARTTLS, as if somebody in between had taken the offer out.
    OffersNoTls,
    /// Takes the message and does not answer to QUIT.
    NoGoodbye,
    WrongPassword,
}

/// A message that was taken.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    pub secure: bool,
    /// User and password.
    pub login: Option<(String, String)>,
    pub from: String,
    pub to: Vec<String>,
    pub message: String,
}

#[derive(Clone)]
pub struct Mailbox {
    pub address: SocketAddr,
    /// Its certificate, in PEM.
    pub authority: String,
    manner: Arc<Mutex<Manner>>,
    taken: Arc<Mutex<Vec<Taken>>>,
    /// Connections that came, and each thing that was said in the clear.
    clear: Arc<Mutex<Vec<String>>>,
    acceptor: TlsAcceptor,
    implicit: bool,
}

impl Mailbox {
    /// On a port of its own; `implicit`: TLS from the first octet.
    pub async fn start(implicit: bool) -> Self {
        let key = KeyPair::generate().expect("a key");
        let params =
            CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("names");
        let certificate = params.self_signed(&key).expect("it signs");
        let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .expect("a certificate");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mailbox = Self {
            address: listener.local_addr().expect("an address"),
            authority: certificate.pem(),
            manner: Arc::new(Mutex::new(Manner::Right)),
            taken: Arc::default(),
            clear: Arc::default(),
            acceptor: TlsAcceptor::from(Arc::new(config)),
            implicit,
        };
        let serving = mailbox.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mailbox = serving.clone();
                tokio::spawn(async move { mailbox.serve(stream).await });
            }
        });
        mailbox
    }

    pub fn behave(&self, manner: Manner) {
        *self.manner.lock().expect("not poisoned") = manner;
    }

    pub fn taken(&self) -> Vec<Taken> {
        self.taken.lock().expect("not poisoned").clone()
    }

    pub fn heard_in_the_clear(&self) -> Vec<String> {
        self.clear.lock().expect("not poisoned").clone()
    }

    async fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let manner = *self.manner.lock().expect("not poisoned");
        match manner {
            Manner::Hangs => std::future::pending::<()>().await,
            Manner::TalksOn => loop {
                stream.write_all(&[b'x'; 4_096]).await.ok()?;
            },
            Manner::ListsOn => loop {
                stream.write_all(b"220-and one more line of it\r\n").await.ok()?;
            },
            _ => {}
        }
        if self.implicit {
            let stream = self.acceptor.accept(stream).await.ok()?;
            return self.talk(BufReader::new(stream), manner, true).await.map(drop);
        }
        let upgrade = self.talk(BufReader::new(stream), manner, false).await?;
        let stream = self.acceptor.accept(upgrade.into_inner()).await.ok()?;
        self.talk(BufReader::new(stream), manner, true).await.map(drop)
    }

    /// One conversation; gives the connection back where it is to go on in TLS.
    async fn talk<S>(&self, mut stream: BufReader<S>, manner: Manner, secure: bool) -> Option<BufReader<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if !secure || self.implicit {
            say(&mut stream, "220 test ready").await?;
        }
        let mut taken = Taken { secure, ..Taken::default() };
        loop {
            let line = hear(&mut stream).await?;
            if !secure {
                self.clear.lock().expect("not poisoned").push(line.clone());
            }
            let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
            match word.to_ascii_uppercase().as_str() {
                "EHLO" if secure || manner == Manner::OffersNoTls => {
                    say(&mut stream, "250-test\r\n250-8BITMIME\r\n250 AUTH PLAIN LOGIN").await?;
                }
                "EHLO" => say(&mut stream, "250-test\r\n250 STARTTLS").await?,
                "STARTTLS" if manner == Manner::SlipsIn => {
                    let more = "220 go\r\n250-test\r\n250 AUTH PLAIN\r\n235 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 ok";
                    say(&mut stream, more).await?;
                    return Some(stream);
                }
                "STARTTLS" => {
                    say(&mut stream, "220 go").await?;
                    return Some(stream);
                }
                "AUTH" if manner == Manner::WrongPassword => say(&mut stream, "535 no").await?,
                "AUTH" => {
                    let plain = STANDARD.decode(rest.strip_prefix("PLAIN ")?).ok()?;
                    let mut parts = plain.split(|byte| *byte == 0).skip(1);
                    let mut part = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
                    taken.login = Some((part(), part()));
                    say(&mut stream, "235 welcome").await?;
                }
                "MAIL" => {
                    rest.clone_into(&mut taken.from);
                    say(&mut stream, "250 ok").await?;
                }
                "RCPT" if manner == Manner::RefusesRecipient && !taken.to.is_empty() => {
                    say(&mut stream, "550 \u{1b}[2Jno such \u{202e}user").await?;
                }
                "RCPT" => {
                    taken.to.push(rest.to_owned());
                    say(&mut stream, "250 ok").await?;
                }
                "DATA" => {
                    say(&mut stream, "354 go").await?;
                    loop {
                        let line = hear(&mut stream).await?;
                        if line == "." {
                            break;
                        }
                        taken.message.push_str(line.strip_prefix('.').unwrap_or(&line));
                        taken.message.push_str("\r\n");
                    }
                    self.taken.lock().expect("not poisoned").push(std::mem::take(&mut taken));
                    say(&mut stream, "250 taken").await?;
                }
                "QUIT" if manner == Manner::NoGoodbye => std::future::pending::<()>().await,
                "QUIT" => {
                    say(&mut stream, "221 bye").await?;
                    return None;
                }
                _ => say(&mut stream, "500 what").await?,
            }
        }
    }
}

async fn hear<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufReader<S>) -> Option<String> {
    let mut line = String::new();
    let read = stream.read_line(&mut line).await.ok()?;
    (read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
}

async fn say<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufReader<S>, text: &str) -> Option<()> {
    stream.get_mut().write_all(format!("{text}\r\n").as_bytes()).await.ok()?;
    stream.get_mut().flush().await.ok()
}
