//! `user add|list|passwd|role|disable|enable|remove`, `setup-link` and `keys rotate`: identity from the host
//! itself, which needs no login. Every change is in the audit log as the command line's.

use std::io::{IsTerminal as _, Read as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use weir_control_plane::auth::{Keys, MAX_PASSWORD_BYTES, Passwords, SetupToken, weakness};
use weir_control_plane::store::Reference;
use weir_control_plane::store::audit::Author;
use weir_control_plane::store::erasure::Subject;
use weir_control_plane::store::users::{self, Update, User};
use weir_control_plane::store::{Pool, signing};

use crate::cli::{AddUser, Keys as KeysArguments, KeysCommand, NamedUser, SetUserPassword, SetupLink};
use crate::cli::{ListUsers, RemoveUser, SetUserRole, User as Arguments, UserCommand};

/// Users read at once.
const PAGE: i64 = 1_000;
/// A set-up link works for so long.
const LINK_HOURS: i32 = 24;

pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        UserCommand::Add(arguments) => add(arguments).await,
        UserCommand::List(arguments) => list(arguments).await,
        UserCommand::Passwd(arguments) => passwd(arguments).await,
        UserCommand::Role(SetUserRole { user, role }) => {
            update(user, Update { role: Some(role), ..Update::default() }).await
        }
        UserCommand::Disable(user) => {
            update(user, Update { disabled: Some(true), ..Update::default() }).await
        }
        UserCommand::Enable(user) => {
            update(user, Update { disabled: Some(false), ..Update::default() }).await
        }
        UserCommand::Remove(user) => remove(user).await,
    }
}

async fn add(arguments: AddUser) -> anyhow::Result<()> {
    let name = arguments.user.name.to_lowercase();
    if !users::is_name(&name) {
        bail!(
            "`{name}` cannot be a user's name: use 1 to 63 letters, digits, `.`, `_`, `-` or `@`, not only digits"
        );
    }
    let password = password(arguments.password_file.as_deref(), &name)?;
    let pool = super::connect_migrated(&arguments.user.settings).await?;
    let hash = Passwords::new()?.hash(password).await?;
    let user = users::add(&pool, &Author::command_line(), &name, arguments.role, &hash)
        .await
        .with_context(|| format!("add {name}"))?;
    print(&user, arguments.user.json);
    Ok(())
}

async fn list(arguments: ListUsers) -> anyhow::Result<()> {
    let pool = super::connect_migrated(&arguments.settings).await?;
    if !arguments.json {
        println!("{:>6}  {:<32} {:<8} {:<8} {:<20}", "ID", "NAME", "ROLE", "STATE", "LAST ACTIVE");
    }
    let mut after = 0;
    loop {
        let page = users::list(&pool, after, PAGE).await.context("list users")?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.user_id;
        for user in &page {
            print(user, arguments.json);
        }
    }
}

async fn passwd(arguments: SetUserPassword) -> anyhow::Result<()> {
    let (pool, user) = find(&arguments.user).await?;
    let password = password(arguments.password_file.as_deref(), &user.name)?;
    let hash = Passwords::new()?.hash(password).await?;
    let update = Update { password_hash: Some(hash), ..Update::default() };
    change(&pool, &user, &update, arguments.user.json).await
}

async fn update(arguments: NamedUser, update: Update) -> anyhow::Result<()> {
    let (pool, user) = find(&arguments).await?;
    change(&pool, &user, &update, arguments.json).await
}

async fn change(pool: &Pool, user: &User, update: &Update, as_json: bool) -> anyhow::Result<()> {
    let changed = users::update(pool, &Author::command_line(), &Reference::Id(user.user_id), update).await;
    print(&changed.with_context(|| format!("change {}", user.name))?, as_json);
    Ok(())
}

async fn remove(RemoveUser { name, settings, how }: RemoveUser) -> anyhow::Result<()> {
    let Some(user) = users::named(&name.to_lowercase()) else {
        bail!("`{name}` is neither a user's id nor a name");
    };
    super::erase::run(&settings, Subject::User(user), &how).await
}

/// `setup-link`: what makes the first admin without a password on this host.
pub async fn setup_link(arguments: SetupLink) -> anyhow::Result<()> {
    let pool = super::connect_migrated(&arguments.settings).await?;
    let token = SetupToken::generate().context("make a token")?;
    if !users::add_setup_link(&pool, &token.sha256(), LINK_HOURS).await? {
        bail!("there is a user already; `weir-control-plane user add NAME --role admin` makes another one");
    }
    let url = format!("{}/api/v1/auth/setup", arguments.url.trim_end_matches('/'));
    if arguments.json {
        println!("{}", json!({"setup_token": token.expose(), "url": url, "hours": LINK_HOURS}));
    } else {
        eprintln!("makes the first admin, once, within {LINK_HOURS} hours:");
        println!(
            "curl -X POST {url} -H 'Content-Type: application/json' \\\n  \
             -d '{{\"setup_token\": \"{}\", \"name\": \"NAME\", \"password\": \"PASSWORD\"}}'",
            token.expose()
        );
    }
    Ok(())
}

/// `keys rotate`: a new key for access tokens, and with `--now` no other.
pub async fn keys(arguments: KeysArguments) -> anyhow::Result<()> {
    let KeysCommand::Rotate(arguments) = arguments.command;
    let config = super::settings(&arguments.settings)?;
    let pool = super::connect_migrated(&arguments.settings).await?;
    if arguments.now {
        let gone = signing::forget_all(&pool).await.context("delete the signing keys")?;
        println!("{gone} keys are gone: their access tokens are void within a minute");
    }
    let keys = Keys::load(&pool, config.auth.key_rotation(), config.auth.access_token()).await?;
    if !arguments.now {
        keys.refresh(&pool, true).await?;
    }
    let lead = if arguments.now { Duration::ZERO } else { Keys::LEAD };
    println!("the newest key signs in {} s; {} keys verify", lead.as_secs(), keys.all().len());
    Ok(())
}

async fn find(arguments: &NamedUser) -> anyhow::Result<(Pool, User)> {
    let Some(user) = users::named(&arguments.name.to_lowercase()) else {
        bail!("`{}` is neither a user's id nor a name", arguments.name);
    };
    let pool = super::connect_migrated(&arguments.settings).await?;
    match users::get(&pool, &user).await.context("look the user up")? {
        Some(user) => Ok((pool, user)),
        None => bail!("no user has the id or name `{}`", arguments.name),
    }
}

/// From the file, or the terminal (twice, without an echo), or a pipe. Never from an argument, which every
/// process of the host can read.
fn password(file: Option<&Path>, name: &str) -> anyhow::Result<SecretString> {
    let text = if let Some(path) = file {
        std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?
    } else if std::io::stdin().is_terminal() {
        let first =
            rpassword::prompt_password(format!("Password for {name}: ")).context("read a password")?;
        let again = rpassword::prompt_password("Again: ").context("read a password")?;
        if first != again {
            bail!("the passwords differ");
        }
        first
    } else {
        let mut text = String::new();
        let most = MAX_PASSWORD_BYTES as u64 + 2;
        std::io::stdin()
            .take(most)
            .read_to_string(&mut text)
            .context("read a password from standard input")?;
        text
    };
    let password = SecretString::from(text.trim_end_matches(['\r', '\n']).to_owned());
    match weakness(password.expose_secret(), name) {
        Some(weakness) => bail!("the password {weakness}"),
        None => Ok(password),
    }
}

fn print(user: &User, as_json: bool) {
    let state = if user.disabled_at.is_some() { "disabled" } else { "active" };
    let seen = user.last_active_at.and_then(|at| Timestamp::try_from(at).ok()).map(|at| format!("{at:.0}"));
    let (id, name, role) = (user.user_id, &user.name, user.role.name());
    if as_json {
        let line = json!({"id": id, "name": name, "role": role, "state": state, "last_active_at": seen});
        println!("{line}");
    } else {
        let seen = seen.unwrap_or_else(|| "never".to_owned());
        println!("{id:>6}  {name:<32} {role:<8} {state:<8} {seen:<20}");
    }
}
