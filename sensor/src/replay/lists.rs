//! Threat lists for a capture: files in the plain format, each a list by its name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use tokio::sync::watch;

use crate::config::ListFormat;
use crate::kernel::{self, ListedPrefix};
use crate::threat::{Domain, Known, ListId, Shape, Source, compile, parse};

/// What the programs are given, and what the numbers mean.
#[derive(Clone, Debug, Default)]
pub struct ReplayLists {
    names: Vec<String>,
    pub(super) prefixes: Vec<ListedPrefix>,
    domains: Arc<Known>,
}

impl ReplayLists {
    /// Reads them.
    pub fn read(files: &[PathBuf]) -> anyhow::Result<Self> {
        if files.len() > kernel::MAX_LISTS {
            bail!("{} lists are named; {} are allowed", files.len(), kernel::MAX_LISTS);
        }
        let mut names = Vec::new();
        let mut parsed = Vec::new();
        for file in files {
            let shown = file.display();
            let bytes = std::fs::read(file).with_context(|| format!("read threat list {shown}"))?;
            let shape = Shape { format: ListFormat::Plain, column: None, max_entries: kernel::MAX_PREFIXES };
            parsed.push(parse(&bytes, &shape).with_context(|| format!("read threat list {shown}"))?);
            let name = file.file_stem().unwrap_or_else(|| Path::new(file).as_os_str());
            names.push(name.to_string_lossy().into_owned());
        }
        let source = |(number, parsed): (u8, _)| {
            let parsed: &crate::threat::Parsed = parsed;
            Source { list: ListId(number), drops: false, prefixes: &parsed.prefixes }
        };
        let sources: Vec<Source<'_>> = (1..).zip(&parsed).map(source).collect();
        let prefixes = compile(&sources, &[], &[]);
        let domains: Vec<(String, &[Domain])> =
            names.iter().cloned().zip(parsed.iter().map(|parsed| parsed.domains.as_slice())).collect();
        let domains = Arc::new(Known::of(&domains));
        Ok(Self { names, prefixes, domains })
    }

    /// What the lists are called, by number from 1.
    pub(super) fn names(&self) -> Arc<[String]> {
        self.names.iter().cloned().collect()
    }

    /// What they say of names; `None` where no list is named.
    pub(super) fn known(&self) -> Option<watch::Receiver<Arc<Known>>> {
        // Nothing changes them: the last value stays without its sender.
        (!self.names.is_empty()).then(|| watch::channel(Arc::clone(&self.domains)).1)
    }

    /// What a list is called.
    pub(super) fn name(&self, list: u8) -> Option<&str> {
        usize::from(list).checked_sub(1).and_then(|place| self.names.get(place)).map(String::as_str)
    }
}
