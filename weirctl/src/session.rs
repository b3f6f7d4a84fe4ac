//! Who logged in where: one file, readable by its owner alone.
//!
//! A refresh token may be used once, or the server ends the session as stolen. So whoever trades it holds a lock,
//! and the next one is on the disk before anything else is asked.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::client::shapes::Tokens;
use crate::client::{Client, ClientError, Server, route};

/// An access token is not used in its last seconds.
const SPARE_S: i64 = 20;

/// What the file holds.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    url: String,
    name: String,
    ca_file: Option<PathBuf>,
    fingerprint: Option<String>,
    access_token: String,
    /// Seconds since 1970.
    expires_at: i64,
    refresh_token: String,
}

/// The file of sessions.
pub struct Session {
    file: PathBuf,
}

impl Session {
    /// In the configuration folder of whoever asks.
    pub fn locate() -> Result<Self, ClientError> {
        let absolute =
            |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let folder =
            absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
        let folder = folder.ok_or_else(|| {
            ClientError::Usage("neither XDG_CONFIG_HOME nor HOME says where a session is kept".to_owned())
        })?;
        Ok(Self { file: folder.join("weir/weirctl.json") })
    }

    /// Where the last login was.
    pub fn server(&self) -> Result<Option<Server>, ClientError> {
        Ok(self.read()?.map(|kept| Server {
            url: kept.url,
            ca_file: kept.ca_file,
            fingerprint: kept.fingerprint,
        }))
    }

    /// Keeps a new login.
    pub fn keep(&self, server: &Server, tokens: &Tokens) -> Result<(), ClientError> {
        let _lock = self.lock()?;
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        self.write(&Kept {
            url: server.url.clone(),
            name: tokens.name.clone(),
            ca_file: server.ca_file.as_ref().map(absolute),
            fingerprint: server.fingerprint.clone(),
            access_token: tokens.access_token.clone(),
            expires_at: expiry(tokens),
            refresh_token: tokens.refresh_token.clone(),
        })
    }

    /// Forgets it.
    pub fn forget(&self) -> Result<(), ClientError> {
        let _lock = self.lock()?;
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(self.failed(error)),
            _ => Ok(()),
        }
    }

    /// An access token of the session, a new one if need be. It is of the server that it was made by, and of no
    /// other.
    pub async fn token(&self, client: &Client, url: &str) -> Result<SecretString, ClientError> {
        let _lock = self.lock()?;
        let kept = self.read()?.filter(|kept| kept.url == url).ok_or(ClientError::NoSession)?;
        if Timestamp::now().as_second() + SPARE_S < kept.expires_at {
            return Ok(kept.access_token.into());
        }
        let body = json!({"refresh_token": kept.refresh_token});
        let tokens: Tokens = match client.ask(route::REFRESH, "", &Vec::new(), Some(&body)).await {
            Err(error) if error.status() == Some(401) => return Err(ClientError::NoSession),
            tokens => tokens?,
        };
        let expires_at = expiry(&tokens);
        let access = tokens.access_token.clone();
        self.write(&Kept {
            access_token: tokens.access_token,
            refresh_token: tokens.refresh_token,
            expires_at,
            ..kept
        })?;
        Ok(access.into())
    }

    fn read(&self) -> Result<Option<Kept>, ClientError> {
        match fs::read(&self.file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed(error)),
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|_| ClientError::Content {
                path: self.file.clone(),
                error: "is no session of this version: log in again".to_owned(),
            }),
        }
    }

    /// Until it is dropped; others wait.
    fn lock(&self) -> Result<File, ClientError> {
        let folder = self.file.parent().unwrap_or_else(|| Path::new("/"));
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| self.failed(error))?;
        let path = self.file.with_extension("lock");
        let failed = |error| ClientError::File { path: path.clone(), error };
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let lock = lock.map_err(failed)?;
        lock.lock().map_err(failed)?;
        Ok(lock)
    }

    /// A reader sees the old file or the new one.
    fn write(&self, kept: &Kept) -> Result<(), ClientError> {
        let text = serde_json::to_vec_pretty(kept)
            .map_err(|error| ClientError::Content { path: self.file.clone(), error: error.to_string() })?;
        let unfinished = self.file.with_extension("new");
        let written = || {
            // Made anew, so that it never has another file's mode.
            match fs::remove_file(&unfinished) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&unfinished, &self.file)
        };
        written().map_err(|error| self.failed(error))
    }

    fn failed(&self, error: std::io::Error) -> ClientError {
        ClientError::File { path: self.file.clone(), error }
    }
}

fn expiry(tokens: &Tokens) -> i64 {
    Timestamp::now().as_second() + tokens.expires_in_s.clamp(0, 86_400)
}
