//! The spool's file under redb: locked against a second process, and readable where it cannot be written.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use redb::StorageBackend;

const BLOCK: u64 = 4096;

/// A file that only one process has open.
#[derive(Debug)]
pub(super) struct Disk(File);

impl Disk {
    /// Opens or creates it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        lock(&file)?;
        Ok(Self(file))
    }
}

/// A process that is ending, or one between its fork and its exec, has the lock a moment longer.
const PATIENCE: Duration = Duration::from_secs(5);

fn lock(file: &File) -> io::Result<()> {
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if began.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    "another process has the spool open",
                ));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}

/// The file as it is, with all writes kept in memory and forgotten: what recovery has to put right in a
/// file that cannot be written is put right here. Only for reading: what a reader writes is a page or two.
#[derive(Debug)]
pub(super) struct Overlay {
    file: File,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    len: u64,
    blocks: HashMap<u64, Box<[u8; BLOCK as usize]>>,
}

impl Overlay {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        lock(&file)?;
        let len = file.metadata()?.len();
        Ok(Self { file, written: Mutex::new(Written { len, blocks: HashMap::new() }) })
    }

    /// A block of the file, zeros beyond its end.
    fn block(&self, number: u64) -> io::Result<Box<[u8; BLOCK as usize]>> {
        let mut block = Box::new([0; BLOCK as usize]);
        let mut filled = 0;
        while filled < block.len() {
            match self.file.read_at(&mut block[filled..], number * BLOCK + filled as u64)? {
                0 => break,
                read => filled += read,
            }
        }
        Ok(block)
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written.lock().unwrap_or_else(PoisonError::into_inner).len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if offset + out.len() as u64 > written.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        while done < out.len() {
            let at = offset + done as u64;
            let (number, within) = (at / BLOCK, (at % BLOCK) as usize);
            let take = (out.len() - done).min(BLOCK as usize - within);
            let target = &mut out[done..done + take];
            match written.blocks.get(&number) {
                Some(block) => target.copy_from_slice(&block[within..within + take]),
                None => target.copy_from_slice(&self.block(number)?[within..within + take]),
            }
            done += take;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let (number, within) = (at / BLOCK, (at % BLOCK) as usize);
            let take = (data.len() - done).min(BLOCK as usize - within);
            let block = match written.blocks.entry(number) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(vacant) => vacant.insert(self.block(number)?),
            };
            block[within..within + take].copy_from_slice(&data[done..done + take]);
            done += take;
        }
        written.len = written.len.max(offset + data.len() as u64);
        Ok(())
    }
}
