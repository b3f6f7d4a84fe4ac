//! What each command asks and shows.

mod devices;
mod export;
mod lists;
mod login;
mod networks;
mod settings;
mod tail;
mod top;

use std::process::ExitCode;

use clap::CommandFactory as _;
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cli::{Cli, Command, PageArgs, ServerArgs, WindowArgs};
use crate::client::route::Route;
use crate::client::{Client, ClientError, Query, Server};
use crate::session::Session;
use crate::show;

/// Of a table, and what is said where it has no rows.
type Headings = (&'static [&'static str], &'static str);

/// A client with its credential, and where the next one comes from.
struct Caller {
    client: Client,
    server: Server,
    /// `None` with a token of the caller's own.
    session: Option<Session>,
    json: bool,
}

pub async fn run(cli: Cli) -> ExitCode {
    match dispatch(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        // `weirctl … | head` is no failure.
        Err(ClientError::Write(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            show::error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

async fn dispatch(cli: Cli) -> Result<(), ClientError> {
    match cli.command {
        Command::Login(args) => return login::login(&cli.server, args).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "weirctl", &mut std::io::stdout());
            return Ok(());
        }
        Command::Man => {
            return clap_mangen::Man::new(Cli::command())
                .render(&mut std::io::stdout())
                .map_err(ClientError::Write);
        }
        _ => {}
    }
    let caller = Caller::new(&cli.server, cli.json).await?;
    match cli.command {
        Command::Logout => login::logout(&caller).await,
        Command::Whoami => login::whoami(&caller).await,
        Command::Sensors(page) => lists::sensors(&caller, &page).await,
        Command::Flows(args) => lists::flows(&caller, &args).await,
        Command::Top(args) => top::top(&caller, &args).await,
        Command::Detections(args) => lists::detections(&caller, args).await,
        Command::Devices(args) => devices::devices(&caller, args).await,
        Command::Domains(args) => lists::domains(&caller, args).await,
        Command::Alerts(args) => lists::alerts(&caller, args).await,
        Command::Networks { command } => networks::networks(&caller, command).await,
        Command::Settings { command } => settings::settings(&caller, command).await,
        Command::Tail(args) => tail::tail(caller, &args).await,
        Command::Export(args) => export::export(&caller, &args).await,
        Command::Login(_) | Command::Completions { .. } | Command::Man => Ok(()),
    }
}

impl Caller {
    async fn new(args: &ServerArgs, json: bool) -> Result<Self, ClientError> {
        let session = Session::locate();
        let known = session.as_ref().ok().map(Session::server).transpose()?.flatten();
        let url = args.url.clone().map(|url| url.trim_end_matches('/').to_owned());
        // What was trusted at the login is trusted for that server only.
        let known = known.filter(|known| url.as_ref().is_none_or(|url| *url == known.url));
        let mut server = known
            .or_else(|| url.map(|url| Server { url, ..Server::default() }))
            .ok_or(ClientError::NoSession)?;
        if args.ca_file.is_some() || args.fingerprint.is_some() {
            (server.ca_file, server.fingerprint) = (args.ca_file.clone(), args.fingerprint.clone());
        }
        let client = Client::new(&server)?;
        let mut caller = Self { client, server, session: None, json };
        if let Some(path) = &args.token_file {
            let failed = |error| ClientError::File { path: path.clone(), error };
            let text = std::fs::read_to_string(path).map_err(failed)?;
            let token = text.trim();
            if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(ClientError::Content { path: path.clone(), error: "has no token".to_owned() });
            }
            caller.client.authorize(SecretString::from(token.to_owned()));
        } else {
            caller.session = Some(session?);
            caller.renew().await?;
        }
        Ok(caller)
    }

    /// A credential that lasts for a while.
    async fn renew(&mut self) -> Result<(), ClientError> {
        if let Some(session) = &self.session {
            let token = session.token(&self.client, &self.server.url).await?;
            self.client.authorize(token);
        }
        Ok(())
    }

    /// An answer as far as it is shown.
    fn read<T: DeserializeOwned>(&self, answer: Value) -> Result<T, ClientError> {
        serde_json::from_value(answer).map_err(|error| ClientError::Unexpected {
            url: self.server.url.clone(),
            error: error.to_string(),
        })
    }

    /// Every item of a list: as it came for programs, as a row for people.
    async fn list<T: DeserializeOwned, const N: usize>(
        &self,
        route: Route,
        query: Query,
        page: &PageArgs,
        headings: Headings,
        row: impl Fn(T) -> [String; N],
    ) -> Result<(), ClientError> {
        self.list_of((route, ""), query, page, headings, row).await
    }

    /// The same where something stands in the path's braces.
    async fn list_of<T: DeserializeOwned, const N: usize>(
        &self,
        route: (Route, &str),
        query: Query,
        page: &PageArgs,
        (headings, none): Headings,
        row: impl Fn(T) -> [String; N],
    ) -> Result<(), ClientError> {
        let limit = (!page.all).then_some(page.limit);
        if self.json {
            return self.client.pages(route, query, limit, |item: Value| show::json(&item)).await.map(drop);
        }
        let mut table = show::Table::new(headings);
        let took = self.client.pages(route, query, limit, |item: T| {
            table.row(row(item));
            Ok(())
        });
        took.await?;
        table.print(none)
    }
}

/// A window as parameters. Its end is left to the server, so that what arrives meanwhile is in it.
fn window(args: &WindowArgs) -> Query {
    let since = || jiff::Timestamp::now().checked_sub(args.since).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let mut query = vec![("from", format!("{:.3}", args.from.unwrap_or_else(since)))];
    query.extend(args.to.map(|to| ("to", format!("{to:.3}"))));
    query.extend(args.filter.clone().map(|filter| ("filter", filter)));
    query.extend(args.sensor.clone().map(|sensor| ("sensor", sensor)));
    query
}
