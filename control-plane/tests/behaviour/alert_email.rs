//! Alerts by mail: over TLS or not at all, and past servers that refuse, hang, talk on or lie.

use reqwest::Method;
use serde_json::{Value, json};
use weir_control_plane::config::Config;
use weir_wire::text::is_hostile;

use crate::mailbox::{Mailbox, Manner};
use crate::support::{ADMIN_TOKEN, Plane};

const PASSWORD: &str = "the password of the mail server";
const RECEIVERS: &str = "/api/v1/alerts/receivers";

struct Rig {
    plane: Plane<'static>,
    mailbox: Mailbox,
    _folder: tempfile::TempDir,
}

impl Rig {
    async fn start(implicit: bool, change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mailbox = Mailbox::start(implicit).await;
        let authority = folder.path().join("ca.pem");
        std::fs::write(&authority, &mailbox.authority).expect("written");
        std::fs::write(folder.path().join("mail"), format!("{PASSWORD}\n")).expect("written");
        let plane = Plane::start_with(|config| {
            config.alerts.secrets_dir = Some(folder.path().to_owned());
            config.outbound.ca_file = Some(authority);
            config.outbound.allow = vec!["127.0.0.1".to_owned()];
            change(config);
        })
        .await;
        Self { plane, mailbox, _folder: folder }
    }

    /// A receiver, and a rule that holds at once.
    async fn tell(&self, more: &Value) {
        let mut target = json!({
            "kind": "email", "host": "127.0.0.1", "port": self.mailbox.address.port(),
            "from": "weir@example.org", "to": ["ann@example.org", "bob@example.org"],
        });
        for (key, value) in more.as_object().expect("an object") {
            target[key] = value.clone();
        }
        let body = json!({"name": "mail", "target": target});
        let id = self.plane.ok(Method::POST, RECEIVERS, &body).await["id"].clone();
        let condition = json!({"kind": "absence", "window_s": 60});
        let rule = json!({"name": "absent", "condition": condition, "summary": "Nichts kommt: Störung", "receivers": [id]});
        self.plane.rule(rule).await;
        self.plane.look(0).await;
    }

    /// What the log says of the only delivery: its state, its error.
    async fn log(&self) -> (String, String) {
        let page = self.plane.json("/api/v1/alerts/deliveries").await;
        assert_eq!(page["items"].as_array().map(Vec::len), Some(1), "{page}");
        let text = |key: &str| page["items"][0][key].as_str().unwrap_or_default().to_owned();
        (text("state"), text("last_error"))
    }

    async fn again(&self) {
        self.plane
            .sql("UPDATE alert_delivery SET next_at = now(); UPDATE alert_receiver SET open_until = NULL");
        self.plane.look(0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_goes_over_tls_with_a_login_and_is_told_once() {
    for (implicit, more) in [
        (false, json!({"user": "weir", "password_secret": "mail"})),
        (true, json!({"tls": "implicit", "user": "weir", "password_secret": "mail", "host": "localhost"})),
    ] {
        let rig = Rig::start(implicit, |config| config.outbound.allow.push("::1".to_owned())).await;
        rig.tell(&more).await;
        assert_eq!(rig.log().await, ("delivered".to_owned(), String::new()));
        rig.plane.look(0).await;
        let taken = rig.mailbox.taken();
        assert_eq!(taken.len(), 1, "it goes on, which is no news");
        let mail = &taken[0];
        assert!(mail.secure);
        assert_eq!(mail.login, Some(("weir".to_owned(), PASSWORD.to_owned())));
        assert_eq!(mail.from, "FROM:<weir@example.org>");
        assert_eq!(mail.to, ["TO:<ann@example.org>", "TO:<bob@example.org>"]);
        for line in [
            "Auto-Submitted: auto-generated",
            "To: ann@example.org, bob@example.org",
            "Subject: [firing] absent: ",
        ] {
            assert!(mail.message.contains(line), "{line} in {}", mail.message);
        }
        let key = rig.plane.sql("SELECT key FROM alert_delivery");
        assert!(mail.message.contains(&format!("Message-ID: <{key}@example.org>")), "{}", mail.message);
        let clear = rig.mailbox.heard_in_the_clear();
        let expected: &[&str] = if implicit { &[] } else { &["EHLO [127.0.0.1]", "STARTTLS"] };
        assert_eq!(clear, expected, "nothing else is said in the clear");
        let metrics = rig.plane.metrics().await;
        assert!(metrics.contains("weir_alert_deliveries_total{kind=\"email\",outcome=\"delivered\"} 1"));
        // I6: the password is where it was, and nowhere else.
        let shown = rig.plane.json(RECEIVERS).await.to_string()
            + &rig.plane.sql("SELECT string_agg(t::text, ' ') FROM audit AS t");
        assert!(shown.contains("password_secret") && !shown.contains(PASSWORD), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_refuses_or_lies_gets_its_mail_when_it_is_right_again() {
    let rig = Rig::start(false, |config| config.outbound.timeout_ms = 1_000).await;
    rig.mailbox.behave(Manner::RefusesRecipient);
    rig.tell(&json!({"user": "weir", "password_secret": "mail"})).await;
    let mut failures = 0;
    for (manner, expected) in [
        (Manner::RefusesRecipient, "permanent error (550)"),
        (Manner::Hangs, "no answer within 1000 ms"),
        (Manner::TalksOn, "longer than 1000 bytes"),
        (Manner::ListsOn, "more than 100 lines"),
        (Manner::OffersNoTls, "does not offer STARTTLS"),
        (Manner::SlipsIn, "TLS: "),
        (Manner::WrongPassword, "permanent error (535)"),
    ] {
        if failures > 0 {
            rig.mailbox.behave(manner);
            rig.again().await;
        }
        failures += 1;
        let (state, error) = rig.log().await;
        assert_eq!(state, "waiting", "{manner:?}");
        assert!(error.contains(expected), "{manner:?}: {error}");
        assert!(!error.contains(is_hostile) && !error.contains(PASSWORD), "{error:?}");
        let receiver = rig.plane.json(RECEIVERS).await["items"][0].clone();
        assert_eq!(receiver["failures"], json!(failures), "{manner:?}");
        assert_eq!(receiver["open_until"].is_string(), failures >= 5, "after five its breaker is open");
    }
    assert_eq!(rig.mailbox.taken().len(), 0, "nobody got a part of it");
    let clear = rig.mailbox.heard_in_the_clear().join(" ");
    assert!(!clear.contains("AUTH") && !clear.contains("MAIL"), "{clear}");
    // A server that takes a message and then says nothing has it.
    rig.mailbox.behave(Manner::NoGoodbye);
    rig.again().await;
    assert_eq!(rig.log().await, ("delivered".to_owned(), String::new()));
    assert_eq!(rig.mailbox.taken().len(), 1);
    let receiver = rig.plane.json(RECEIVERS).await["items"][0].clone();
    assert_eq!((&receiver["failures"], &receiver["open_until"]), (&json!(0), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_nobody_vouches_for_gets_no_password() {
    let rig = Rig::start(true, |config| config.outbound.ca_file = None).await;
    rig.tell(&json!({"tls": "implicit", "user": "weir", "password_secret": "mail"})).await;
    let (state, error) = rig.log().await;
    assert_eq!(state, "waiting");
    assert!(error.contains("TLS: ") && error.contains("certificate"), "{error}");
    assert_eq!(rig.mailbox.taken().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_without_tls_goes_only_where_it_is_allowed_and_never_with_a_password() {
    let rig = Rig::start(false, |_| {}).await;
    let target = json!({
        "kind": "email", "host": "127.0.0.1", "port": 25, "tls": "none",
        "from": "weir@example.org", "to": ["ann@example.org"],
    });
    let body = json!({"name": "mail", "target": target});
    let (status, problem) = rig.plane.call(Method::POST, RECEIVERS, ADMIN_TOKEN, &body).await;
    assert_eq!((status, problem["errors"][0]["field"].as_str()), (400, Some("target.tls")), "{problem}");

    let rig = Rig::start(false, |config| config.outbound.allow_plain_mail = true).await;
    rig.mailbox.behave(Manner::OffersNoTls);
    rig.tell(&json!({"tls": "none"})).await;
    assert_eq!(rig.log().await, ("delivered".to_owned(), String::new()));
    assert!(!rig.mailbox.taken()[0].secure);
    let mut target = target;
    target["user"] = json!("weir");
    target["password_secret"] = json!("mail");
    let body = json!({"name": "other", "target": target});
    let (status, problem) = rig.plane.call(Method::POST, RECEIVERS, ADMIN_TOKEN, &body).await;
    assert_eq!((status, problem["errors"][0]["field"].as_str()), (400, Some("target.user")), "{problem}");
}

/// An answer cannot move the envelope: addresses are plain, or the receiver is not made.
#[tokio::test(flavor = "multi_thread")]
async fn i6_addresses_that_are_more_than_that_make_no_receiver() {
    let plane = Plane::start().await;
    for hostile in [
        "ann@example.org>\r\nRCPT TO:<all@example.org",
        "ann@example.org\nbcc: all@example.org",
        "ann@example.org,bob@example.org",
        "\"ann\r\nDATA\"@example.org",
        "Ann <ann@example.org>",
        "ann",
    ] {
        for (from, to) in [(hostile, "ann@example.org"), ("weir@example.org", hostile)] {
            let target = json!({"kind": "email", "host": "mail.example.org", "from": from, "to": [to]});
            let body = json!({"name": "mail", "target": target});
            let (status, problem) = plane.call(Method::POST, RECEIVERS, ADMIN_TOKEN, &body).await;
            let field = problem["errors"][0]["field"].as_str().expect("a field");
            assert_eq!((status, field), (400, if from == hostile { "target.from" } else { "target.to" }));
        }
    }
    assert_eq!(plane.count("alert_receiver"), 0);
}
