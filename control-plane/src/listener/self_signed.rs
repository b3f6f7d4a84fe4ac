//! A certificate of the server's own making, for a first try.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::tls::{TlsError, read_chain, read_key};
use crate::config;

const CERTIFICATE: &str = "self-signed.pem";
const KEY: &str = "self-signed.key";

/// A certificate and its key.
pub(super) struct Made {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) key: PrivateKeyDer<'static>,
}

/// The one that the state folder has, or a new one, which it has then.
pub(super) fn make(settings: &config::Tls, listen: IpAddr) -> Result<Made, TlsError> {
    let kept = settings.state_folder.as_deref().map(|folder| (folder.join(CERTIFICATE), folder.join(KEY)));
    if let Some((certificate, key)) = &kept
        && certificate.exists()
        && key.exists()
    {
        let mut chain = read_chain(certificate)?;
        return Ok(Made { certificate: chain.swap_remove(0), key: read_key(key)? });
    }
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    if !listen.is_unspecified() {
        names.push(listen.to_string());
    }
    names.extend(settings.names.iter().cloned());
    names.sort_unstable();
    names.dedup();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "Weir control plane, self-signed");
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    if let Some((certificate_file, key_file)) = &kept {
        // The key first: a certificate without one would be taken for a whole pair.
        write(key_file, &key.serialize_pem(), 0o600)?;
        write(certificate_file, &certificate.pem(), 0o644)?;
    }
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok(Made { certificate: certificate.der().clone(), key })
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| {
        // Made anew, so that it never has another file's mode.
        match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|source| TlsError::Keep { path: path.to_owned(), source })
}
