//! How the command line reaches a spool: the running sensor's socket, else the file.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use reqwest::{Client, Response, StatusCode};
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;

use crate::spool::socket::{self, Again, Between, From, Moved};
use crate::spool::{Ledger, Listed, Range, Reader, Settings, Spool, Standing, StoreError};

/// One way or the other.
pub(super) struct Access {
    way: Way,
    settings: Settings,
    runtime: Runtime,
}

enum Way {
    Sensor(Client),
    File(Reader),
}

impl Access {
    /// Asks for a running sensor first: only one process can have the file.
    pub(super) fn open(settings: Settings) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start the runtime")?;
        let socket = settings.socket();
        if runtime.block_on(tokio::net::UnixStream::connect(&socket)).is_ok() {
            let client = Client::builder().unix_socket(socket).build().context("make the HTTP client")?;
            return Ok(Self { way: Way::Sensor(client), settings, runtime });
        }
        let file = settings.file();
        if !file.exists() {
            bail!("there is no spool in {}: is spool.folder right?", settings.folder.display());
        }
        let reader = Reader::open(&settings).map_err(|error| match error {
            StoreError::InUse => anyhow::anyhow!(
                "a sensor has {} open and does not answer on {}",
                file.display(),
                settings.socket().display()
            ),
            error => anyhow::Error::new(error).context(format!("open {}", file.display())),
        })?;
        Ok(Self { way: Way::File(reader), settings, runtime })
    }

    pub(super) fn standing(&self) -> anyhow::Result<Standing> {
        match &self.way {
            Way::Sensor(client) => self.get(client, "standing", &()),
            Way::File(reader) => Ok(reader.standing()?),
        }
    }

    /// Every batch in the spool, page by page.
    pub(super) fn each(&self, mut seen: impl FnMut(Listed) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let mut from = 0;
        loop {
            let page: Vec<Listed> = match &self.way {
                Way::Sensor(client) => self.get(client, "batches", &From { from })?,
                Way::File(reader) => reader.list(from, socket::PAGE)?,
            };
            let Some(last) = page.last() else { return Ok(()) };
            from = last.number + 1;
            page.into_iter().try_for_each(&mut seen)?;
        }
    }

    /// A batch's body, compressed; `None` where it is not what was stored, or has been delivered meanwhile.
    pub(super) fn body(&self, number: u64) -> anyhow::Result<Option<Vec<u8>>> {
        let client = match &self.way {
            Way::Sensor(client) => client,
            Way::File(reader) => return Ok(reader.body(number)?),
        };
        self.runtime.block_on(async {
            let response = client.get(format!("http://sensor/batches/{number}/body")).send().await?;
            if response.status() == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            Ok(Some(checked(response).await?.bytes().await?.to_vec()))
        })
    }

    pub(super) fn ledger(&self, range: Range) -> anyhow::Result<Ledger> {
        match &self.way {
            Way::Sensor(client) => {
                let Range { from_ns, to_ns } = range;
                self.get(client, "ledger", &Between { from_ns, to_ns })
            }
            Way::File(reader) => Ok(reader.ledger(range)?),
        }
    }

    /// These batches of the quarantine, or all, wait again; how many.
    pub(super) fn retry(self, numbers: Option<Vec<u64>>) -> anyhow::Result<u64> {
        let Self { way, settings, runtime } = self;
        match way {
            Way::Sensor(client) => runtime.block_on(async {
                let request = client.post("http://sensor/quarantine/retry").json(&Again { numbers });
                Ok(checked(request.send().await?).await?.json::<Moved>().await?.batches)
            }),
            Way::File(reader) => {
                // Closed first: the file is locked.
                drop(reader);
                let metrics = std::sync::Arc::new(crate::metrics::Metrics::new()?);
                let (spool, _) = Spool::open(settings, metrics)?;
                runtime.block_on(async {
                    let moved = spool.retry(numbers).await;
                    spool.close().await;
                    Ok(moved?)
                })
            }
        }
    }

    fn get<T: DeserializeOwned>(
        &self,
        client: &Client,
        path: &str,
        query: &impl serde::Serialize,
    ) -> anyhow::Result<T> {
        self.runtime.block_on(async {
            let request = client.get(format!("http://sensor/{path}")).query(query);
            Ok(checked(request.send().await?).await?.json().await?)
        })
    }

    /// Where the spool is, for messages.
    pub(super) fn folder(&self) -> PathBuf {
        self.settings.folder.clone()
    }
}

async fn checked(response: Response) -> anyhow::Result<Response> {
    if response.status().is_success() {
        return Ok(response);
    }
    bail!("the sensor answers: {}", response.text().await?)
}
