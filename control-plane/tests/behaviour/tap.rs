//! A tap on the way to Postgres: it counts the statements of transactions that write, and can cut the connection
//! between any two of them, as a network or the end of a process would.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// More statements than anything has.
const ALL: i64 = i64::MAX / 2;

pub struct Tap {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    /// Statements that still pass.
    left: AtomicI64,
    struck: Notify,
    released: Notify,
}

impl Tap {
    pub async fn start(postgres: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared =
            Arc::new(Shared { left: AtomicI64::new(ALL), struck: Notify::new(), released: Notify::new() });
        let task = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(serve(client, postgres, Arc::clone(&shared)));
                }
            }
        });
        Self { address, shared, task }
    }

    /// Cuts the connection that is about to send one more statement of a writing transaction than so many.
    pub fn cut_after(&self, statements: i64) {
        self.shared.left.store(statements, Ordering::SeqCst);
    }

    pub fn cut_nothing(&self) {
        self.shared.left.store(ALL, Ordering::SeqCst);
    }

    /// Until a statement is held back; its transaction is open until [`Self::release`] ends its connection.
    pub async fn struck(&self) {
        self.shared.struck.notified().await;
    }

    pub fn release(&self) {
        self.shared.released.notify_one();
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(client: TcpStream, postgres: SocketAddr, shared: Arc<Shared>) {
    let Ok(server) = TcpStream::connect(postgres).await else { return };
    for stream in [&client, &server] {
        // Else each small message waits for the acknowledgement of the one before.
        stream.set_nodelay(true).expect("a socket's option");
    }
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let back = async { drop(tokio::io::copy(&mut from_server, &mut to_client).await) };
    // Whoever ends first ends both ways.
    tokio::select! {
        _ = forward(&mut from_client, &mut to_server, &shared) => {}
        () = back => {}
    }
}

/// The frontend's messages (PostgreSQL's protocol 3.0): the first one has no type.
async fn forward(
    client: &mut tokio::net::tcp::OwnedReadHalf,
    server: &mut OwnedWriteHalf,
    shared: &Shared,
) -> std::io::Result<()> {
    let mut tag = None;
    let mut writes = false;
    loop {
        if tag.is_some() {
            tag = Some(client.read_u8().await?);
        }
        let length = client.read_u32().await?;
        let mut body = vec![0; (length as usize).saturating_sub(4)];
        client.read_exact(&mut body).await?;
        let query = (tag == Some(b'Q')).then(|| String::from_utf8_lossy(&body).into_owned());
        match (tag, query.as_deref()) {
            (_, Some(sql)) if sql.starts_with("BEGIN ISOLATION LEVEL READ COMMITTED") => writes = true,
            (_, Some(sql)) if sql.starts_with("ROLLBACK") => writes = false,
            // A plain query, or the execution of a prepared one.
            (Some(b'Q' | b'E'), sql) if writes => {
                if shared.left.fetch_sub(1, Ordering::SeqCst) == 0 {
                    shared.struck.notify_one();
                    shared.released.notified().await;
                    return Ok(());
                }
                writes = !sql.is_some_and(|sql| sql.starts_with("COMMIT"));
            }
            _ => {}
        }
        let mut message: Vec<u8> = tag.into_iter().collect();
        message.extend(length.to_be_bytes());
        message.extend(body);
        server.write_all(&message).await?;
        tag = Some(tag.unwrap_or_default());
    }
}
