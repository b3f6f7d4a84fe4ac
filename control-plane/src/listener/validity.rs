//! When a certificate ends: the one field of it that we read ourselves (X.509, RFC 5280, in DER).

use std::time::{Duration, SystemTime};

use jiff::civil::DateTime;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0] EXPLICIT Version`, which is left out for version 1.
const VERSION: u8 = 0xa0;

/// `notAfter`; `None` for what is no certificate.
pub fn ends(certificate: &[u8]) -> Option<SystemTime> {
    let (_, certificate, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, mut rest, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    if let Some((VERSION, _, after)) = element(rest) {
        rest = after;
    }
    // serialNumber, signature, issuer, validity
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        rest = element(rest).filter(|(found, ..)| *found == tag)?.2;
    }
    let (_, validity, _) = element(rest).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, _, not_after) = element(validity)?;
    let (tag, text, _) = element(not_after)?;
    time(tag, std::str::from_utf8(text).ok()?)
}

/// A tag, its content, and what follows.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let length = if first < 0x80 {
        usize::from(first)
    } else {
        // Four bytes of length are more than any certificate has.
        let count = usize::from(first & 0x7f);
        let (digits, after) = rest.split_at_checked(count).filter(|_| (1..=4).contains(&count))?;
        rest = after;
        digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit))
    };
    let (content, after) = rest.split_at_checked(length)?;
    Some((tag, content, after))
}

/// `YYMMDDhhmmssZ`, or the same with four digits of the year.
fn time(tag: u8, text: &str) -> Option<SystemTime> {
    let digits = text.strip_suffix('Z').filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = digits.split_at_checked(2)?;
            let year: i16 = year.parse().ok()?;
            // RFC 5280, 4.1.2.5.1
            (if year < 50 { 2_000 + year } else { 1_900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = digits.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let field = |at: usize| rest.get(at..at + 2)?.parse::<i8>().ok();
    if rest.len() != 10 {
        return None;
    }
    let at = DateTime::new(year, field(0)?, field(2)?, field(4)?, field(6)?, field(8)?, 0).ok()?;
    let at = at.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second();
    let since = Duration::from_secs(u64::try_from(at).ok()?);
    Some(SystemTime::UNIX_EPOCH + since)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(not_after: (i32, u8, u8)) -> Vec<u8> {
        let mut parameters = rcgen::CertificateParams::new(vec!["weir.example".to_owned()]).expect("a name");
        parameters.not_after = rcgen::date_time_ymd(not_after.0, not_after.1, not_after.2);
        let key = rcgen::KeyPair::generate().expect("a key");
        parameters.self_signed(&key).expect("a certificate").der().to_vec()
    }

    /// O1: both forms of a time, and nothing from what is cut short.
    #[test]
    fn o1_the_end_of_a_certificate_is_read() {
        for (day, seconds) in [((2031, 2, 3), 1_927_843_200), ((2060, 1, 1), 2_840_140_800)] {
            let certificate = made(day);
            let end = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(ends(&certificate), Some(end), "{day:?}");
            for cut in 0..certificate.len() {
                // Whatever it says, it does not panic; the outer length says that something is missing.
                assert_eq!(ends(&certificate[..cut]), None, "{cut}");
            }
        }
        assert_eq!(time(UTC_TIME, "310230000000Z"), None, "no such day");
        assert_eq!(time(UTC_TIME, "3102030000Z"), None);
        assert_eq!(ends(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
