//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use weir_control_plane::auth::Role;
use weir_control_plane::config::Overrides;

/// Keeps the counts of Weir's sensors in Postgres and answers for them.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    after_help = "\
Settings come from --config FILE (TOML), then from the environment \
(WEIR_CONTROL_PLANE__DATABASE__URL sets database.url), then from flags.

Examples:
  weir-control-plane serve --config /etc/weir/control-plane.toml
  weir-control-plane sensor add edge-1 --config /etc/weir/control-plane.toml
  weir-control-plane serve --print-config"
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server
    #[command(after_help = "\
Examples:
  weir-control-plane serve --config /etc/weir/control-plane.toml
  WEIR_CONTROL_PLANE__DATABASE__URL=postgres://weir@/weir?host=/run/postgresql \\
    weir-control-plane serve --admin-token-file admin.token --listen 127.0.0.1:0 --listen-file address

  weir-control-plane serve --config control-plane.toml --tls-self-signed     # logs its fingerprint

SIGTERM and SIGINT end it: requests in flight have shutdown_deadline_ms to finish.
SIGHUP: tls.certificate and tls.key are read again (as they are when the files change).")]
    Serve(Serve),
    /// Bring the schema to a version: the newest, or another one
    #[command(after_help = "\
Examples:
  weir-control-plane migrate --config /etc/weir/control-plane.toml
  weir-control-plane migrate --to 3 --roll-back      # drops what later versions hold; back up first")]
    Migrate(Migrate),
    /// Add, list, revoke and remove sensors
    #[command(after_help = "\
Examples:
  weir-control-plane sensor add edge-1            # prints the token, once
  weir-control-plane sensor add edge-1 --json | jq -r .token > /etc/weir/sensor.token
  weir-control-plane sensor list
  weir-control-plane sensor revoke edge-1
  weir-control-plane sensor remove edge-1         # says what would go: it and all that it sent
  weir-control-plane sensor remove edge-1 --yes")]
    Sensor(Sensor),
    /// Add, list, change and remove users
    #[command(after_help = "\
Examples:
  weir-control-plane user add ann --role admin                  # asks for a password
  weir-control-plane user add bob --role viewer --password-file bob.password
  pass show weir/bob | weir-control-plane user passwd bob       # ends bob's sessions
  weir-control-plane user disable bob
  weir-control-plane user list")]
    User(User),
    /// Print a token that makes the first admin, once
    #[command(after_help = "Examples:\n  weir-control-plane setup-link --url https://weir.example")]
    SetupLink(SetupLink),
    /// Rotate the keys that sign access tokens
    #[command(after_help = "\
Examples:
  weir-control-plane keys rotate          # the old key verifies until its tokens have ended
  weir-control-plane keys rotate --now    # a key leaked: its tokens are void")]
    Keys(Keys),
    /// Show or rotate the authority that signs sensors' certificates
    #[command(after_help = "\
Examples:
  weir-control-plane ca show
  weir-control-plane ca rotate          # what the old one signed holds until its end
  weir-control-plane ca rotate --now    # its key leaked: sensors' certificates are void, and they get new ones")]
    Ca(Ca),
    /// Print the OpenAPI document
    #[command(after_help = "Example:\n  weir-control-plane openapi > openapi.json")]
    Openapi,
}

#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    pub settings: Overrides,
    /// Once the server listens, write its address (`127.0.0.1:8080`) to this file
    #[arg(long, value_name = "PATH")]
    pub listen_file: Option<PathBuf>,
    /// Print the settings as they would be used, secrets hidden, and exit
    #[arg(long)]
    pub print_config: bool,
}

#[derive(Debug, Args)]
pub struct Migrate {
    #[command(flatten)]
    pub settings: Overrides,
    /// Version to go to; 0 is an empty database
    #[arg(long, value_name = "VERSION")]
    pub to: Option<i32>,
    /// Allow going back, which drops tables and what they hold
    #[arg(long)]
    pub roll_back: bool,
}

#[derive(Debug, Args)]
pub struct Sensor {
    #[command(subcommand)]
    pub command: SensorCommand,
}

#[derive(Debug, Subcommand)]
pub enum SensorCommand {
    /// Add a sensor and print its token, which is not shown again
    Add(NamedSensor),
    /// List sensors
    List(ListSensors),
    /// Revoke a sensor: its batches are refused from now on, what it sent stays
    Revoke(NamedSensor),
    /// Erase a sensor and all that it sent: says what would go, and with `--yes` begins
    Remove(RemoveSensor),
}

#[derive(Debug, Args)]
pub struct RemoveSensor {
    /// The sensor's id or name
    pub name: String,
    #[command(flatten)]
    pub settings: Overrides,
    #[command(flatten)]
    pub how: Erase,
}

#[derive(Debug, Args)]
pub struct Erase {
    /// Do it; without it only what would go is said
    #[arg(long)]
    pub yes: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct NamedSensor {
    /// 1 to 63 letters, digits, `.`, `_` or `-`, not only digits
    pub name: String,
    #[command(flatten)]
    pub settings: Overrides,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ListSensors {
    #[command(flatten)]
    pub settings: Overrides,
    /// Print JSON, a line for each sensor
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct User {
    #[command(subcommand)]
    pub command: UserCommand,
}

#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Add a user; the password is asked for, or read from a pipe or a file
    Add(AddUser),
    /// List users
    List(ListUsers),
    /// Set a user's password and end their sessions
    Passwd(SetUserPassword),
    /// Give a user another role
    Role(SetUserRole),
    /// Keep a user from logging in, and end their sessions
    Disable(NamedUser),
    /// Let a user log in again
    Enable(NamedUser),
    /// Erase a user: says what would go, and with `--yes` begins; the audit log keeps what was done, without the name
    Remove(RemoveUser),
}

#[derive(Debug, Args)]
pub struct RemoveUser {
    /// The user's id or name
    pub name: String,
    #[command(flatten)]
    pub settings: Overrides,
    #[command(flatten)]
    pub how: Erase,
}

#[derive(Debug, Args)]
pub struct NamedUser {
    /// 1 to 63 letters, digits, `.`, `_`, `-` or `@`, not only digits; or an id
    pub name: String,
    #[command(flatten)]
    pub settings: Overrides,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct AddUser {
    #[command(flatten)]
    pub user: NamedUser,
    /// What the user may do
    #[arg(long, value_enum)]
    pub role: Role,
    /// File that holds the password
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct SetUserPassword {
    #[command(flatten)]
    pub user: NamedUser,
    /// File that holds the password
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct SetUserRole {
    #[command(flatten)]
    pub user: NamedUser,
    /// What the user may do
    #[arg(long, value_enum)]
    pub role: Role,
}

#[derive(Debug, Args)]
pub struct ListUsers {
    #[command(flatten)]
    pub settings: Overrides,
    /// Print JSON, a line for each user
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct SetupLink {
    #[command(flatten)]
    pub settings: Overrides,
    /// Where people reach the API
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Keys {
    #[command(subcommand)]
    pub command: KeysCommand,
}

#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a new key
    Rotate(RotateKeys),
}

#[derive(Debug, Args)]
pub struct RotateKeys {
    #[command(flatten)]
    pub settings: Overrides,
    /// Delete the old ones at once, because one leaked
    #[arg(long)]
    pub now: bool,
}

#[derive(Debug, Args)]
pub struct Ca {
    #[command(subcommand)]
    pub command: CaCommand,
}

#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Print the authorities that are trusted: fingerprint, end, certificate in PEM
    Show(ShowCa),
    /// Make a new one
    Rotate(RotateCa),
}

#[derive(Debug, Args)]
pub struct ShowCa {
    #[command(flatten)]
    pub settings: Overrides,
    /// Print JSON, a line for each
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct RotateCa {
    #[command(flatten)]
    pub settings: Overrides,
    /// Trust the old ones no more, because a key leaked
    #[arg(long)]
    pub now: bool,
    /// Print JSON, a line for each
    #[arg(long)]
    pub json: bool,
}
