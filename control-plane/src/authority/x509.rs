//! Certificates themselves: an authority's and a sensor's made, a request and what a sensor shows read.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SanType, SerialNumber,
    SubjectPublicKeyInfo,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;

use crate::auth::AuthError;
use crate::store::authority::{Offered, Signed, Signer};

/// Before a sensor's id, as the one name of its certificate (RFC 8141).
const NAME: &str = "urn:weir:sensor:";
/// Clocks of instances differ; a sensor's own is not asked.
const BEFORE: Duration = Duration::from_mins(5);

/// What a sensor showed in its handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// `None`: a certificate that is none of a sensor's.
    pub sensor_id: Option<i32>,
    /// The authority's name in DER, which no two have in common.
    pub issuer: Vec<u8>,
    pub begins: SystemTime,
    pub ends: SystemTime,
}

/// Why a request is none.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("is not a certificate request in PEM (PKCS#10)")]
    Form,
    #[error("is not signed with the key that it names")]
    Signature,
    #[error("has a key that is not on the curve P-256")]
    Key,
}

/// An authority with a name of its own, which lasts so long from now.
pub fn authority(lasts: Duration) -> Result<Offered, AuthError> {
    let mut name = [0; 6];
    rand::TryRngCore::try_fill_bytes(&mut rand::rngs::OsRng, &mut name)?;
    let name = name.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    let now = SystemTime::now();
    let expires_at = now + lasts;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("Weir sensors {name}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.not_before = (now - BEFORE).into();
    params.not_after = expires_at.into();
    let made = KeyPair::generate().and_then(|key| Ok((params.self_signed(&key)?, key.serialize_der())));
    let (certificate, key) = made.map_err(|_| AuthError::Key)?;
    Ok(Offered { certificate: certificate.der().to_vec(), key, expires_at })
}

/// The key that a request is for. Whatever else it asks for (names, usages, to be an authority) is not looked at.
pub fn requested(pem: &str) -> Result<SubjectPublicKeyInfo, RequestError> {
    let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).map_err(|_| RequestError::Form)?;
    let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|_| RequestError::Form)?;
    if !rest.is_empty() {
        return Err(RequestError::Form);
    }
    let key = SubjectPublicKeyInfo::from_der(request.certification_request_info.subject_pki.raw)
        .map_err(|_| RequestError::Key)?;
    if key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
        return Err(RequestError::Key);
    }
    request.verify_signature().map_err(|_| RequestError::Signature)?;
    Ok(key)
}

/// A sensor's certificate for this key: its name, for clients, until `lasts` is over or the authority ends.
pub fn sign(
    signer: &Signer,
    sensor_id: i32,
    key: &SubjectPublicKeyInfo,
    lasts: Duration,
) -> Result<Signed, rcgen::Error> {
    let mut serial = [0; 16];
    rand::TryRngCore::try_fill_bytes(&mut rand::rngs::OsRng, &mut serial)
        .map_err(|_| rcgen::Error::RingUnspecified)?;
    // RFC 5280, 4.1.2.2: positive.
    serial[0] = serial[0] & 0x7f | 0x40;
    let issued_at = SystemTime::now();
    let expires_at = (issued_at + lasts).min(signer.expires_at);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("Weir sensor {sensor_id}"));
    params.subject_alt_names = vec![SanType::URI(format!("{NAME}{sensor_id}").try_into()?)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = (issued_at - BEFORE).into();
    params.not_after = expires_at.into();
    let authority = PrivatePkcs8KeyDer::from(signer.key.as_slice());
    let authority = KeyPair::from_pkcs8_der_and_sign_algo(&authority, &PKCS_ECDSA_P256_SHA256)?;
    let issuer = Issuer::from_ca_cert_der(&CertificateDer::from(signer.certificate.as_slice()), authority)?;
    let certificate = params.signed_by(key, &issuer)?;
    let serial = serial.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    Ok(Signed { certificate: certificate.der().to_vec(), serial, issued_at, expires_at })
}

/// A certificate as text.
#[must_use]
pub fn pem(certificate: &[u8]) -> String {
    let lines = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", certificate), lines)
}

/// The name of an authority, in DER.
pub fn subject(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(certificate.subject().as_raw().to_vec())
}

impl Shown {
    /// What a certificate says that was verified.
    #[must_use]
    pub fn read(certificate: &[u8]) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let names = certificate.subject_alternative_name().ok().flatten();
        let sensor_id = names.and_then(|names| match names.value.general_names.as_slice() {
            [GeneralName::URI(name)] => name.strip_prefix(NAME)?.parse().ok(),
            _ => None,
        });
        let time = |at: ASN1Time| {
            Some(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(at.timestamp()).ok()?))
        };
        Some(Self {
            sensor_id,
            issuer: certificate.issuer().as_raw().to_vec(),
            begins: time(certificate.validity().not_before)?,
            ends: time(certificate.validity().not_after)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn signer() -> Signer {
        let Offered { certificate, key, expires_at } = authority(10 * DAY).expect("an authority");
        Signer { ca_id: 1, certificate, key, expires_at }
    }

    /// U4: whatever a request asks for, the certificate names the sensor that asked, for clients, and ends with its
    /// authority.
    #[test]
    fn u4_a_request_that_asks_for_more_gets_no_more() {
        let key = KeyPair::generate().expect("a key");
        let mut greedy = CertificateParams::new(vec!["weir.example".to_owned()]).expect("a name");
        greedy.subject_alt_names.push(SanType::URI("urn:weir:sensor:8".try_into().expect("a name")));
        greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        greedy.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        greedy.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::Any];
        let request = greedy.serialize_request(&key).expect("a request").pem().expect("PEM");
        let signer = signer();
        let signed = sign(&signer, 7, &requested(&request).expect("a key"), 90 * DAY).expect("it signs");
        assert_eq!(signed.expires_at, signer.expires_at);

        let (_, read) = x509_parser::parse_x509_certificate(&signed.certificate).expect("a certificate");
        assert_eq!(read.subject().to_string(), "CN=Weir sensor 7");
        assert_eq!(read.public_key().raw, key.subject_public_key_info());
        assert!(!read.is_ca());
        let usage = read.extended_key_usage().expect("one").expect("it is there").value;
        assert!(usage.client_auth && !usage.any && !usage.server_auth && usage.other.is_empty());
        let usage = read.key_usage().expect("one").expect("it is there").value;
        assert!(usage.digital_signature() && !usage.key_cert_sign());
        let shown = Shown::read(&signed.certificate).expect("it is read");
        assert_eq!((shown.sensor_id, Some(shown.issuer)), (Some(7), subject(&signer.certificate)));
        assert_eq!(Shown::read(&signer.certificate).expect("it is read").sensor_id, None);
    }

    /// U4: nobody gets a certificate for a key that they do not hold, or that is weak.
    #[test]
    fn u4_a_request_proves_that_its_sender_holds_the_key() {
        let pem = |algorithm| {
            let key = KeyPair::generate_for(algorithm).expect("a key");
            CertificateParams::default().serialize_request(&key).expect("a request").pem().expect("PEM")
        };
        let whole = pem(&PKCS_ECDSA_P256_SHA256);
        requested(&whole).expect("a key");
        assert!(matches!(requested(&pem(&rcgen::PKCS_ED25519)), Err(RequestError::Key)));
        for wrong in ["", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"] {
            assert!(matches!(requested(wrong), Err(RequestError::Form)), "{wrong}");
        }
        // The signature of another request under this one's key.
        let der = |pem: &str| {
            CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).expect("PEM").as_ref().to_vec()
        };
        let mut forged = der(&whole);
        let last = forged.len() - 1;
        forged[last] ^= 1;
        let forged = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", forged));
        assert!(matches!(requested(&forged), Err(RequestError::Signature)));
    }
}
