//! `cargo bench -p weir-control-plane --bench store -- ingest|query|api [--json]`
//!
//! Measures the whole path of a request against a real Postgres: a private server that writes to disk
//! as in production, or the one that `--database-url` names (an empty database; it is filled).

mod api;
mod ingest;
mod query;
mod traffic;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use secrecy::SecretString;
use weir_control_plane::auth::SensorToken;
use weir_control_plane::config::Config;
use weir_control_plane::server::{self, Server};
use weir_control_plane::store::audit::Author;
use weir_control_plane::store::sensors;
use weir_testbed::postgres::{Options, Postgres};

pub const ADMIN_TOKEN: &str = "a-bench-admin-token-of-33-characters";

#[derive(Debug, Parser)]
#[command(about = "Measures ingest and queries against a real Postgres")]
struct Cli {
    #[command(subcommand)]
    what: Option<What>,
    /// cargo says so to every bench
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Rows a second over HTTP into tables and rollups, beside COPY of a prepared buffer (P4)
    Ingest(ingest::Arguments),
    /// Medians of the dashboard's questions over many rows (P5)
    Query(query::Arguments),
    /// How long questions and live events take beside full ingest (P5, A9)
    Api(api::Arguments),
}

#[derive(Debug, Args)]
pub struct Common {
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
    /// An empty database to use, instead of a private server
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
}

fn main() -> anyhow::Result<()> {
    let Some(what) = Cli::parse().what else {
        // `cargo bench` without arguments reaches every bench.
        println!("say `-- ingest`, `-- query` or `-- api`");
        return Ok(());
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match what {
            What::Ingest(arguments) => ingest::run(arguments).await,
            What::Query(arguments) => query::run(arguments).await,
            What::Api(arguments) => api::run(arguments).await,
        }
    })
}

/// A control plane to measure, with a client.
pub struct Bench {
    pub url: String,
    pub http: reqwest::Client,
    pub server: Server,
    _postgres: Option<Postgres>,
    _folder: tempfile::TempDir,
}

impl Bench {
    pub async fn start(common: &Common) -> anyhow::Result<Self> {
        Self::start_with(common, |_| {}).await
    }

    /// With other settings.
    pub async fn start_with(common: &Common, change: impl FnOnce(&mut Config)) -> anyhow::Result<Self> {
        let (postgres, url) = if let Some(url) = &common.database_url {
            (None, url.clone())
        } else {
            let settings =
                [("shared_buffers", "1GB"), ("max_wal_size", "8GB"), ("checkpoint_timeout", "30min")];
            let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            let options = Options { durable: true, settings, ..Options::default() };
            let postgres = tokio::task::block_in_place(|| Postgres::start_with(options))?;
            postgres.create_database("weir")?;
            let url = postgres.database_url("weir");
            (Some(postgres), url)
        };
        let folder = tempfile::tempdir().context("make a folder")?;
        let token_file = folder.path().join("admin");
        std::fs::write(&token_file, ADMIN_TOKEN).context("write the admin token")?;
        let mut config = Config { listen: ([127, 0, 0, 1], 0).into(), ..Config::default() };
        config.database.url = Some(SecretString::from(url.clone()));
        config.auth.admin_token_file = Some(token_file);
        change(&mut config);
        let server = server::start(&config).await?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { url, http, server, _postgres: postgres, _folder: folder })
    }

    /// Adds a sensor and gives its token.
    pub async fn sensor(&self, name: &str) -> anyhow::Result<String> {
        let token = SensorToken::generate()?;
        sensors::add(&self.server.state.pool, &Author::command_line(), name, &token.sha256()).await?;
        Ok(token.expose().to_owned())
    }

    pub async fn post(&self, token: &str, body: bytes::Bytes) -> anyhow::Result<()> {
        let url = format!("http://{}/api/v1/ingest", self.server.address);
        let request = self
            .http
            .post(url)
            .bearer_auth(token)
            .header("content-type", weir_wire::CONTENT_TYPE)
            .header("content-encoding", weir_wire::CONTENT_ENCODING)
            .body(body);
        let response = request.send().await?;
        let status = response.status();
        let text = response.text().await?;
        anyhow::ensure!(status == 200 && text.contains("stored"), "{status} {text}");
        Ok(())
    }

    /// A connection beside the server's own.
    pub async fn connect(&self) -> anyhow::Result<tokio_postgres::Client> {
        let (client, connection) = tokio_postgres::connect(&self.url, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
