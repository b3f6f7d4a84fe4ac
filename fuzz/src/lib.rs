//! What several fuzz targets need.
#![forbid(unsafe_code)]

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};

thread_local! {
    static FILE: OnceCell<PathBuf> = const { OnceCell::new() };
}

/// Puts text into a file in memory, the same one each time, and gives its path: configurations are read
/// from files.
pub fn file(text: &str) -> PathBuf {
    FILE.with(|file| {
        let path = file.get_or_init(|| {
            let name = format!("weir-fuzz-{}.toml", std::process::id());
            let memory = Path::new("/dev/shm");
            if memory.is_dir() { memory.join(name) } else { std::env::temp_dir().join(name) }
        });
        fs::write(path, text).expect("a file of a few kilobytes can be written");
        path.clone()
    })
}
