//! JA4, the fingerprint of a TLS client, by FoxIO's published specification (BSD-licensed; the other methods of
//! JA4+ are not, and are not here): <https://github.com/FoxIO-LLC/ja4/blob/main/technical_details/JA4.md>.

use ring::digest;

use super::hello::{Carrier, Offer, is_grease};
use super::text::hexadecimal;

/// `t13d1516h2_8daaf6152771_02713d6af862`
pub(super) fn fingerprint(carrier: Carrier, offer: &Offer) -> String {
    let Parts { start, ciphers, extensions } = parts(carrier, offer);
    format!("{start}_{}_{}", shortened(&ciphers), shortened(&extensions))
}

/// The same before its lists are hashed.
#[cfg(test)]
pub(super) fn raw(carrier: Carrier, offer: &Offer) -> String {
    let Parts { start, ciphers, extensions } = parts(carrier, offer);
    format!("{start}_{ciphers}_{extensions}")
}

struct Parts {
    start: String,
    ciphers: String,
    extensions: String,
}

/// Extensions that say where a client goes, not what it is: they are counted and not listed.
const SNI: u16 = 0;
const ALPN: u16 = 16;

fn parts(carrier: Carrier, offer: &Offer) -> Parts {
    let real = |numbers: &[u16]| -> Vec<u16> {
        numbers.iter().copied().filter(|number| !is_grease(*number)).collect()
    };
    let mut ciphers = real(&offer.ciphers);
    let mut extensions = real(&offer.extensions);
    let start = format!(
        "{}{}{}{:02}{:02}{}",
        match carrier {
            Carrier::Tcp => 't',
            Carrier::Quic => 'q',
            Carrier::Dtls => 'd',
        },
        version(offer.version()),
        if extensions.contains(&SNI) { 'd' } else { 'i' },
        ciphers.len().min(99),
        extensions.len().min(99),
        alpn(offer.alpn.first().map_or(&[], Vec::as_slice)),
    );
    ciphers.sort_unstable();
    extensions.retain(|extension| !matches!(*extension, SNI | ALPN));
    extensions.sort_unstable();
    let mut listed = list(&extensions);
    let algorithms = real(&offer.signature_algorithms);
    if !algorithms.is_empty() {
        listed.push('_');
        listed.push_str(&list(&algorithms));
    }
    Parts { start, ciphers: list(&ciphers), extensions: listed }
}

fn version(version: u16) -> &'static str {
    match version {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        0x0002 => "s2",
        0xfeff => "d1",
        0xfefd => "d2",
        0xfefc => "d3",
        _ => "00",
    }
}

/// The first and the last character of the first protocol; where they are no letters or digits, the first and
/// the last digit of its hexadecimal form.
fn alpn(protocol: &[u8]) -> String {
    let (Some(first), Some(last)) = (protocol.first(), protocol.last()) else { return "00".to_owned() };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        [char::from(*first), char::from(*last)].iter().collect()
    } else {
        format!("{:x}{:x}", first >> 4, last & 0xf)
    }
}

fn list(numbers: &[u16]) -> String {
    numbers.iter().map(|number| format!("{number:04x}")).collect::<Vec<_>>().join(",")
}

/// The first twelve hexadecimal digits of the SHA-256; zeros of nothing.
fn shortened(list: &str) -> String {
    if list.is_empty() {
        return "0".repeat(12);
    }
    let hash = digest::digest(&digest::SHA256, list.as_bytes());
    hexadecimal(&hash.as_ref()[..6])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification.
    #[test]
    fn the_published_example_gives_the_published_fingerprint() {
        let offer = Offer {
            legacy_version: 0x0303,
            ciphers: vec![
                0x3a3a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013,
                0xc014, 0x009c, 0x009d, 0x002f, 0x0035,
            ],
            extensions: vec![
                0x5a5a, 0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005, 0x0023,
                0x0012, 0x002b, 0xff01, 0x000b, 0x000a, 0x0015, 0x7a7a,
            ],
            versions: vec![0x9a9a, 0x0304, 0x0303],
            signature_algorithms: vec![0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601],
            alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            ..Offer::default()
        };
        assert_eq!(fingerprint(Carrier::Tcp, &offer), "t13d1516h2_8daaf6152771_e5627efa2ab1");
        assert!(raw(Carrier::Tcp, &offer).starts_with("t13d1516h2_002f,0035,009c,009d,1301,"));
        let nothing = Offer { legacy_version: 0xfefd, ..Offer::default() };
        assert_eq!(fingerprint(Carrier::Dtls, &nothing), "dd2i000000_000000000000_000000000000");
    }

    #[test]
    fn protocols_of_odd_characters_are_shown_in_hexadecimal() {
        let shown = [
            b"h3-29".as_slice(),
            b"h",
            &[0xab],
            &[0xab, 0xcd],
            &[0x30, 0xab],
            &[0x30, 0x31, 0xab, 0xcd],
            b"",
        ];
        assert_eq!(shown.map(alpn), ["h9", "hh", "ab", "ad", "3b", "3d", "00"]);
    }
}
