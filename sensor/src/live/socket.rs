//! Epochs over a Unix socket (mode 0600): parts with their lengths before them, until the watcher goes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, broadcast};
use weir_wire::limits::MAX_COMPRESSED;

use super::{Live, Parts};

/// Watchers at once; who comes beyond them is closed.
const WATCHERS: usize = 8;
/// A watcher that takes nothing for so long has gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// The socket in the spool's folder.
#[must_use]
pub fn path(folder: &Path) -> PathBuf {
    folder.join("live.sock")
}

/// Takes the socket; its folder is made, where it is not there (mode 0700).
pub fn bind(folder: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    crate::spool::socket::bind(&path(folder))
}

/// Serves until the process ends.
pub async fn serve(listener: UnixListener, live: Live) {
    let places = Arc::new(Semaphore::new(WATCHERS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: they may be given back.
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let watched = live.watch();
        tokio::spawn(async move {
            // A watcher that has gone is no error.
            let _ = show(stream, watched).await;
            drop(place);
        });
    }
}

async fn show(mut stream: UnixStream, mut epochs: broadcast::Receiver<Parts>) -> io::Result<()> {
    loop {
        let parts = match epochs.recv().await {
            Ok(parts) => parts,
            // It was slow: it goes on with what is there now.
            Err(broadcast::error::RecvError::Lagged(_)) => continue,
            Err(broadcast::error::RecvError::Closed) => return Ok(()),
        };
        let written = async {
            stream.write_u32(parts.len() as u32).await?;
            for part in parts.iter() {
                stream.write_u32(part.len() as u32).await?;
                stream.write_all(part).await?;
            }
            stream.flush().await
        };
        tokio::time::timeout(PATIENCE, written).await.map_err(|_| io::ErrorKind::TimedOut)??;
    }
}

/// What a watcher reads.
pub struct Epochs(UnixStream);

/// Parts of an epoch that a watcher takes: a sensor makes some hundreds of the largest.
const MAX_PARTS: u32 = 4_096;

impl Epochs {
    /// Asks the sensor with this folder.
    pub async fn of(folder: &Path) -> io::Result<Self> {
        UnixStream::connect(path(folder)).await.map(Self)
    }

    /// The next epoch; an error once the sensor has gone.
    pub async fn next(&mut self) -> io::Result<Vec<Bytes>> {
        let count = self.0.read_u32().await?;
        if count > MAX_PARTS {
            return Err(io::Error::other(format!("an epoch of {count} parts")));
        }
        let mut parts = Vec::new();
        for _ in 0..count {
            let octets = self.0.read_u32().await? as usize;
            if octets > MAX_COMPRESSED {
                return Err(io::Error::other(format!("a part of {octets} octets")));
            }
            let mut part = vec![0; octets];
            self.0.read_exact(&mut part).await?;
            parts.push(part.into());
        }
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_watches_gets_every_epoch_from_then_on_and_nobody_waits_for_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let live = Live::default();
        let listener = bind(&folder.path().join("made")).expect("the socket");
        tokio::spawn(serve(listener, live.clone()));
        let epoch = |number: u8| Parts::from([Bytes::from(vec![number; 70_000]), Bytes::new()]);
        let mut watcher = Epochs::of(&folder.path().join("made")).await.expect("it answers");
        // Whether the server has taken it is known by its place among the watchers alone.
        while live.0.receiver_count() == 0 {
            tokio::task::yield_now().await;
        }
        for number in 0..3 {
            live.0.send(epoch(number)).expect("one watches");
        }
        for number in 0..3 {
            let parts = watcher.next().await.expect("an epoch");
            assert_eq!(parts, epoch(number).to_vec());
        }
        // A watcher that reads nothing misses epochs; who shows them does not notice. It goes on with the newest.
        for number in 0..200 {
            live.0.send(epoch(number)).expect("one watches");
        }
        let mut seen = Vec::new();
        while seen.last() != Some(&199) {
            seen.push(watcher.next().await.expect("an epoch")[0][0]);
        }
        assert!(seen.is_sorted() && seen.len() < 100, "{seen:?}");
    }
}
