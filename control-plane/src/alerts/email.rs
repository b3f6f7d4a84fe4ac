//! Mail to people: who may be written to, and what a message says.

use std::fmt::Write as _;

use lettre::Message;
use lettre::address::Address;
use lettre::message::Mailbox;
use lettre::message::header::{ContentType, HeaderName, HeaderValue, MIME_VERSION_1_0};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use weir_wire::text::is_hostile;

use crate::outbound::mail::Safety;
use crate::store::alerts::deliveries::Delivery;

/// Whom one receiver writes to.
pub const MAX_RECIPIENTS: usize = 20;
/// Octets of an address (RFC 5321, 4.5.3.1.3, less its brackets).
const MAX_ADDRESS: usize = 254;
/// Characters of a subject, and alerts that a message lists.
const MAX_SUBJECT: usize = 150;
const MAX_LISTED: usize = 50;

/// How the connection to a mail server is made safe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(example = "starttls")]
pub enum MailTls {
    /// TLS after STARTTLS; a server that does not offer it gets nothing
    #[default]
    Starttls,
    /// TLS from the beginning
    Implicit,
    /// None, where `outbound.allow_plain_mail` is set
    None,
}

impl MailTls {
    /// The port that is usual.
    pub fn port(self) -> u16 {
        match self {
            Self::Starttls => 587,
            Self::Implicit => 465,
            Self::None => 25,
        }
    }

    pub fn safety(self) -> Safety {
        match self {
            Self::Starttls => Safety::Starttls,
            Self::Implicit => Safety::Implicit,
            Self::None => Safety::Plain,
        }
    }
}

/// A plain address: one that a header and an envelope can have as it is.
pub fn address(text: &str) -> Option<Address> {
    let plain = text.len() <= MAX_ADDRESS && text.bytes().all(|byte| byte.is_ascii_graphic());
    // Quoted local parts may hold anything; nobody has one.
    let simple = !text.contains(['"', '<', '>', ',', ';', '(', ')', '\\']);
    (plain && simple).then(|| text.parse().ok()).flatten()
}

/// The message of a delivery, the same in each attempt but for its date.
pub fn message(delivery: &Delivery, from: &Address, to: &[Address]) -> Result<Vec<u8>, String> {
    let word = |value: &Value| clean(value.as_str().unwrap_or_default());
    let alerts = delivery.alerts.as_array().map_or(&[][..], Vec::as_slice);
    let (rule, summary) = (clean(&delivery.rule), alerts.first().map(|alert| word(&alert["summary"])));
    let summary = summary.filter(|summary| !summary.is_empty()).unwrap_or_default();
    let subject = format!("[{}] {rule}: {summary}", clean(&delivery.status));
    let subject: String = subject.chars().take(MAX_SUBJECT).collect();

    let mut text = format!("{rule} is {}.\n{summary}\n\n", clean(&delivery.status));
    for alert in alerts.iter().take(MAX_LISTED) {
        let labels: Vec<String> = alert["labels"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| format!("{}={}", clean(name), word(value)))
            .collect();
        let _ = writeln!(text, "- {}", labels.join(" "));
        let _ = writeln!(text, "  value {} since {}", alert["value"], word(&alert["firing_at"]));
        if let Some(resolved) = alert["resolved_at"].as_str() {
            let _ = writeln!(text, "  resolved {}", clean(resolved));
        }
    }
    if alerts.len() > MAX_LISTED {
        let _ = writeln!(text, "and {} more", alerts.len() - MAX_LISTED);
    }
    let _ = writeln!(text, "\nReceiver {}, delivery {}", clean(&delivery.receiver), delivery.key);

    let header = |name, value: String| HeaderValue::new(HeaderName::new_from_ascii_str(name), value);
    let mut message = Message::builder()
        .from(Mailbox::new(Some("Weir".to_owned()), from.clone()))
        .subject(subject)
        // The key of the delivery: who had it drops it.
        .message_id(Some(format!("<{}@{}>", delivery.key, from.domain())))
        .date_now()
        // RFC 3834: nobody's holiday answers to it.
        .raw_header(header("Auto-Submitted", "auto-generated".to_owned()))
        .raw_header(header("X-Weir-Delivery", delivery.key.to_string()))
        // The encoding of the body is MIME's; `body` does not say so.
        .header(MIME_VERSION_1_0)
        .header(ContentType::TEXT_PLAIN);
    for address in to {
        message = message.to(Mailbox::new(None, address.clone()));
    }
    Ok(message.body(text).map_err(|error| error.to_string())?.formatted())
}

fn clean(text: &str) -> String {
    text.chars().map(|char| if is_hostile(char) { char::REPLACEMENT_CHARACTER } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::alerts::Target;

    #[test]
    fn i6_addresses_are_plain_ones() {
        for right in ["ann@example.org", "on-call+weir@mail.example.org", "a@[192.0.2.1]"] {
            assert!(address(right).is_some(), "{right}");
        }
        for wrong in [
            "",
            "ann",
            "@example.org",
            "ann@",
            "ann@example.org\r\nbcc: all@example.org",
            "ann@example.org, bob@example.org",
            "Ann <ann@example.org>",
            "\"a b\"@example.org",
            "ann@exam ple.org",
            "änn@example.org",
            &format!("{}@example.org", "a".repeat(250)),
        ] {
            assert!(address(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn i6_what_a_message_tells_begins_no_header_and_no_line() {
        let hostile = "x\r\nBcc: all@example.org\r\n\r\n.\r\nQUIT\u{1b}[2J é";
        let alert = json!({
            "rule": hostile, "summary": hostile, "labels": {"src": hostile, hostile: "y"}, "value": 2.5,
            "firing_at": hostile, "resolved_at": hostile,
        });
        let target: Target =
            serde_json::from_value(json!({"kind": "webhook", "url_secret": "x"})).expect("one");
        let delivery = Delivery {
            delivery_id: 1,
            key: Uuid::from_u128(7),
            receiver_id: 1,
            receiver: hostile.to_owned(),
            target,
            repeat_s: 60,
            failures: 0,
            rule: hostile.to_owned(),
            status: hostile.to_owned(),
            alerts: Value::Array(vec![alert; MAX_LISTED + 3]),
        };
        let address = |text| address(text).expect(text);
        let to = [address("ann@example.org"), address("bob@example.org")];
        let message = message(&delivery, &address("weir@example.org"), &to).expect("a message");
        let text = String::from_utf8(message).expect("ASCII");
        assert!(text.is_ascii());
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        let names: Vec<&str> = head
            .split("\r\n")
            .filter(|line| !line.starts_with(' '))
            .map(|line| line.split(':').next().expect("a name"))
            .collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        assert_eq!(
            sorted,
            [
                "Auto-Submitted",
                "Content-Transfer-Encoding",
                "Content-Type",
                "Date",
                "From",
                "MIME-Version",
                "Message-ID",
                "Subject",
                "To",
                "X-Weir-Delivery"
            ]
        );
        assert!(!body.lines().any(|line| line == "." || line.starts_with("Bcc")), "{body}");
    }
}
