//! The token: read, shared, replaced.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use reqwest::header::HeaderValue;

use super::error::{ClientError, ControlError};
use super::identity::Identity;
use crate::config::{ControlPlane, Secret};

/// What this sensor shows, its certificate included; clones change together.
#[derive(Clone)]
pub struct Credential(Arc<Parts>);

struct Parts {
    file: Option<PathBuf>,
    current: RwLock<HeaderValue>,
    identity: Identity,
}

/// A place for a token, made before the token is asked for. Dropped without one it leaves nothing.
pub struct TokenFile {
    file: File,
    unfinished: PathBuf,
    path: PathBuf,
}

impl Credential {
    pub fn open(settings: &ControlPlane) -> Result<Self, ClientError> {
        let current = match (&settings.token, &settings.token_file) {
            (Some(token), _) => bearer(token).ok_or(ClientError::NoToken)?,
            (None, Some(path)) => read(path)?,
            (None, None) => return Err(ClientError::NoToken),
        };
        let file = if settings.token.is_some() { None } else { settings.token_file.clone() };
        let identity = Identity::open(settings);
        Ok(Self(Arc::new(Parts { file, current: RwLock::new(current), identity })))
    }

    /// For `Authorization`.
    pub fn header(&self) -> HeaderValue {
        self.0.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The certificate beside it.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.0.identity.clone()
    }

    /// Reads the files again: tokens are rotated while the sensor runs. Whether one has changed.
    pub fn read_again(&self) -> Result<bool, ClientError> {
        let certified = self.0.identity.read_again();
        let Some(path) = &self.0.file else { return Ok(certified) };
        let new = read(path)?;
        let mut current = self.0.current.write().unwrap_or_else(PoisonError::into_inner);
        let changed = new != *current;
        *current = new;
        Ok(changed || certified)
    }

    /// A place for the next one.
    pub fn place(&self) -> Result<TokenFile, ControlError> {
        TokenFile::prepare(self.0.file.as_deref().ok_or(ControlError::NoFile)?)
    }

    /// Keeps the next one, and shows it from now on.
    pub fn replace(&self, place: TokenFile, token: &Secret) -> Result<(), ControlError> {
        let header = bearer(token).ok_or_else(|| ControlError::Strange("the token is none".to_owned()))?;
        place.keep(token)?;
        *self.0.current.write().unwrap_or_else(PoisonError::into_inner) = header;
        Ok(())
    }
}

impl TokenFile {
    /// Makes the file beside the one that it will replace, readable by its owner alone.
    pub fn prepare(path: &Path) -> Result<Self, ControlError> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let unfinished = path.with_file_name(name);
        let failed = |source| ControlError::Write { path: unfinished.clone(), source };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        // Left by one that was killed; never opened as it is, for its mode.
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished).map_err(failed)?;
        Ok(Self { file, unfinished, path: path.to_owned() })
    }

    /// A reader of the path sees the old token or the new one, also after a power cut.
    pub fn keep(mut self, token: &Secret) -> Result<(), ControlError> {
        let written = self
            .file
            .write_all(format!("{}\n", token.expose()).as_bytes())
            .and_then(|()| self.file.sync_all())
            .and_then(|()| fs::rename(&self.unfinished, &self.path))
            .and_then(|()| match self.path.parent() {
                Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
                _ => Ok(()),
            });
        written.map_err(|source| ControlError::Write { path: self.path.clone(), source })
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        // Renamed away where a token was kept.
        let _ = fs::remove_file(&self.unfinished);
    }
}

fn bearer(token: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn read(path: &Path) -> Result<HeaderValue, ClientError> {
    let text = fs::read_to_string(path).map_err(|source| ClientError::File {
        key: "token_file",
        path: path.to_owned(),
        source,
    })?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ClientError::Token(path.to_owned()));
    }
    bearer(&Secret::new(token.to_owned())).ok_or_else(|| ClientError::Token(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// U4: the file is never half written, and its owner's alone whatever was there before.
    #[test]
    fn u4_a_token_is_replaced_whole_and_kept_from_others() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deep/token");
        drop(TokenFile::prepare(&path).expect("a place"));
        assert_eq!(fs::read_dir(path.parent().expect("a folder")).expect("it is there").count(), 0);

        for token in ["first", "second"] {
            let place = TokenFile::prepare(&path).expect("a place");
            place.keep(&Secret::new(token.to_owned())).expect("it is kept");
            assert_eq!(fs::read_to_string(&path).expect("it is there"), format!("{token}\n"));
            let mode = fs::metadata(&path).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(path.parent().expect("a folder")).expect("it is there").count(), 1);
    }
}
