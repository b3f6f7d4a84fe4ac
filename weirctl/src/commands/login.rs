//! `login`, `logout`, `whoami`.

use std::io::Read as _;

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use super::Caller;
use crate::cli::{LoginArgs, ServerArgs};
use crate::client::shapes::{Me, Tokens};
use crate::client::{Client, ClientError, Server, route};
use crate::session::Session;
use crate::show;

/// Bytes of a password and its line's end.
const MAX_PASSWORD: u64 = 4_096;

pub async fn login(args: &ServerArgs, login: LoginArgs) -> Result<(), ClientError> {
    let server = Server {
        url: login.address.trim_end_matches('/').to_owned(),
        ca_file: args.ca_file.clone(),
        fingerprint: args.fingerprint.clone(),
    };
    let client = Client::new(&server)?;
    let session = Session::locate()?;
    let password = password(&login)?;
    let body = json!({"name": login.name, "password": password.expose_secret()});
    let tokens: Tokens = client.ask(route::LOGIN, "", &Vec::new(), Some(&body)).await?;
    session.keep(&server, &tokens)?;
    show::note(&format!("logged in at {} as {} ({})", server.url, tokens.name, tokens.role));
    Ok(())
}

fn password(login: &LoginArgs) -> Result<SecretString, ClientError> {
    let failed = |error: std::io::Error| ClientError::Usage(format!("read the password: {error}"));
    if !login.password_stdin {
        return rpassword::prompt_password("Password: ").map(SecretString::from).map_err(failed);
    }
    let mut text = String::new();
    std::io::stdin().take(MAX_PASSWORD).read_to_string(&mut text).map_err(failed)?;
    Ok(SecretString::from(text.trim_end_matches(['\r', '\n']).to_owned()))
}

pub async fn logout(caller: &Caller) -> Result<(), ClientError> {
    let Some(session) = &caller.session else {
        return Err(ClientError::Usage(
            "a token has no session; revoke it with DELETE /api/v1/tokens/{id}".to_owned(),
        ));
    };
    let _: Value = caller.client.ask(route::LOGOUT, "", &Vec::new(), None).await?;
    session.forget()
}

pub async fn whoami(caller: &Caller) -> Result<(), ClientError> {
    let me: Value = caller.client.ask(route::ME, "", &Vec::new(), None).await?;
    if caller.json {
        return show::json(&me);
    }
    let me: Me = caller.read(me)?;
    show::line(&show::safe(&format!("{} ({}, {}) at {}", me.name, me.role, me.kind, caller.server.url)))
}
