//! U4, U8: mutual TLS of sensors, with certificates of the control plane's own authority.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, SanType,
};
use reqwest::{Client, Identity, Response};
use serde_json::{Value, json};
use weir_control_plane::authority::{Authority, make};
use weir_control_plane::config::{ClientAuth, Config};
use weir_control_plane::server::{self, Server};
use weir_control_plane::store::audit::Author;
use weir_control_plane::store::authority;

use crate::support::{ADMIN_TOKEN, Plane, batch, eventually, mixed_flows, recent_minute_ns};

fn with(mode: ClientAuth) -> impl FnOnce(&mut Config) {
    move |config| {
        config.tls.self_signed = true;
        config.tls.client_auth = mode;
    }
}

/// A client that shows this, or nothing. Whom it talks to is not its concern here.
fn client(identity: Option<&str>) -> Client {
    let builder = Client::builder().no_proxy().danger_accept_invalid_certs(true);
    let builder = match identity {
        Some(pem) => {
            builder.identity(Identity::from_pem(pem.as_bytes()).expect("a certificate with its key"))
        }
        None => builder,
    };
    builder.build().expect("a client")
}

fn request(key: &KeyPair) -> String {
    CertificateParams::default().serialize_request(key).expect("a request").pem().expect("PEM")
}

async fn answer(response: Response) -> (u16, Value) {
    (response.status().as_u16(), response.json().await.expect("JSON"))
}

/// Asks for a certificate; gives the answer, and certificate and key where it has one.
async fn certify(base: &str, token: &str, shows: &Client) -> (u16, Value, String) {
    let key = KeyPair::generate().expect("a key");
    let asked = shows.post(format!("{base}/api/v1/sensor/certificate")).bearer_auth(token);
    let (status, body) =
        answer(asked.json(&json!({"csr": request(&key)})).send().await.expect("an answer")).await;
    let pem = body["certificate"].as_str().map(|pem| format!("{pem}{}", key.serialize_pem()));
    (status, body, pem.unwrap_or_default())
}

async fn certified(plane: &Plane<'_>, token: &str) -> String {
    let (status, body, pem) = certify(&plane.url(""), token, &client(None)).await;
    assert_eq!(status, 200, "{body}");
    pem
}

/// A batch, over whatever connection; the transport's refusals are errors.
async fn send(base: &str, token: &str, client: &Client, epoch: u64) -> reqwest::Result<(u16, Value)> {
    let body = weir_wire::encode(&batch(1, epoch, recent_minute_ns(), mixed_flows())).expect("it encodes");
    let sent = client
        .post(format!("{base}/api/v1/ingest"))
        .bearer_auth(token)
        .header("content-type", weir_wire::CONTENT_TYPE)
        .header("content-encoding", weir_wire::CONTENT_ENCODING)
        .body(body)
        .send()
        .await?;
    Ok(answer(sent).await)
}

fn kind(body: &Value) -> &str {
    body["type"].as_str().unwrap_or_default().trim_start_matches("urn:weir:problem:")
}

/// The authority's certificate and key, out of the database.
fn stolen(plane: &Plane<'_>) -> (Vec<u8>, KeyPair) {
    let hex = |column: &str| {
        let text = plane.sql(&format!(
            "SELECT encode({column}, 'hex') FROM certificate_authority JOIN certificate_authority_key USING (ca_id)"
        ));
        let digits: Vec<u8> =
            text.bytes().map(|byte| (byte as char).to_digit(16).expect("hex") as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect::<Vec<u8>>()
    };
    (hex("certificate"), KeyPair::try_from(hex("key")).expect("a key"))
}

/// A certificate of sensor 1 for so long, by this authority.
fn forged<S: rcgen::SigningKey>(issuer: &Issuer<'_, S>, begins: SystemTime, ends: SystemTime) -> String {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI("urn:weir:sensor:1".try_into().expect("a name"))];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    (params.not_before, params.not_after) = (begins.into(), ends.into());
    let signed = params.signed_by(&key, issuer).expect("it signs");
    format!("{}{}", signed.pem(), key.serialize_pem())
}

fn refused(server: &Server, reason: &str) -> u64 {
    server.state.metrics.client_certificates.refused.with_label_values(&[reason]).get()
}

#[tokio::test(flavor = "multi_thread")]
async fn u4_where_certificates_are_required_a_sensor_passes_with_its_own_alone() {
    let plane = Plane::start_with(with(ClientAuth::Required)).await;
    let (base, bare) = (plane.url(""), client(None));
    let (first, second) = (plane.sensor("edge-1").await, plane.sensor("edge-2").await);

    // Without one the only thing to have is one.
    let (status, body) = send(&base, &first, &bare, 0).await.expect("an answer");
    assert_eq!(
        (status, kind(&body), body["category"].as_str()),
        (401, "certificate-required", Some("authentication"))
    );
    let identity = certified(&plane, &first).await;
    let own = client(Some(&identity));
    assert_eq!(send(&base, &first, &own, 0).await.expect("an answer").0, 200);
    let asked = own.post(format!("{base}/api/v1/sensor/heartbeat")).bearer_auth(&first);
    let beat = json!({
        "version": "1", "uptime_s": 1, "clock_ms": 1,
        "spool": {"batches": 0, "bytes": 0, "capacity_bytes": 1, "oldest_age_ms": 0, "quarantined_batches": 0,
                  "quarantined_packets": 0, "degraded": false},
        "ledger": {"gaps": 0, "dropped_packets": 0, "unaccounted_frames": 0},
    });
    let (status, heard) = answer(asked.json(&beat).send().await.expect("an answer")).await;
    assert_eq!((status, heard["client_certificates"].as_bool()), (200, Some(true)), "{heard}");
    let left = heard["certificate"]["ends_in_s"].as_f64().expect("it ends");
    assert!((89.0..=90.0).contains(&(left / 86_400.0)), "{left}");

    // Another sensor's is refused, counted, and written down once.
    for _ in 0..2 {
        let (status, body) = send(&base, &second, &own, 0).await.expect("an answer");
        assert_eq!((status, kind(&body)), (401, "certificate-of-another"));
    }
    assert_eq!((refused(plane.server(), "another"), refused(plane.server(), "missing")), (2, 1));
    let noted = get(&plane, "/api/v1/audit?action=sensor.certificate.another").await;
    let noted = noted["items"].as_array().expect("items").clone();
    assert_eq!(
        (noted.len(), &noted[0]["subject"], &noted[0]["after"]),
        (1, &json!("edge-2"), &json!({"certificate_of": 1}))
    );
    assert_eq!(plane.count("flow"), 41, "of the one batch");

    // Who showed one gets the next one by it, and not by the credential alone; an operator's credential begins anew.
    let (status, body, _) = certify(&base, &first, &bare).await;
    assert_eq!((status, kind(&body)), (401, "certificate-required"));
    let (status, _, next) = certify(&base, &first, &own).await;
    assert_eq!(status, 200);
    assert_eq!(send(&base, &first, &client(Some(&next)), 1).await.expect("an answer").0, 200);
    let renewed = own.post(format!("{base}/api/v1/sensor/credentials")).bearer_auth(&first);
    let renewed = answer(renewed.send().await.expect("an answer")).await.1;
    let by_sensor = renewed["token"].as_str().expect("a token");
    assert_eq!(certify(&base, by_sensor, &bare).await.0, 401, "its own next credential is no way around");
    let path = "/api/v1/sensors/edge-1/credentials";
    let made =
        bare.post(plane.url(path)).bearer_auth(ADMIN_TOKEN).json(&json!({})).send().await.expect("an answer");
    let made = answer(made).await.1;
    assert_eq!(certify(&base, made["token"].as_str().expect("a token"), &bare).await.0, 200);

    // Nobody else is asked for one, and it opens nothing by itself.
    for client in [&bare, &own] {
        let asked = client
            .get(plane.url("/api/v1/sensors"))
            .bearer_auth(ADMIN_TOKEN)
            .send()
            .await
            .expect("an answer");
        assert_eq!(asked.status(), 200);
    }
    let asked = own.post(format!("{base}/api/v1/ingest")).send().await.expect("an answer");
    assert_eq!(asked.status(), 401);

    // Revoked is revoked, on the open connection too.
    let asked = bare.post(plane.url("/api/v1/sensors/edge-1/revoke")).bearer_auth(ADMIN_TOKEN);
    assert_eq!(asked.send().await.expect("an answer").status(), 200);
    let (status, body) = send(&base, &first, &own, 2).await.expect("an answer");
    assert_eq!((status, kind(&body)), (401, "sensor-revoked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn u4_a_certificate_that_is_not_ours_or_over_ends_the_handshake() {
    let plane = Plane::start_with(with(ClientAuth::Optional)).await;
    let (base, token) = (plane.url(""), plane.sensor("edge-1").await);
    assert_eq!(send(&base, &token, &client(None), 0).await.expect("an answer").0, 200, "it is optional");

    let (certificate, key) = stolen(&plane);
    let ours = Issuer::from_ca_cert_der(&certificate.as_slice().into(), key).expect("an authority");
    let (now, day) = (SystemTime::now(), Duration::from_hours(24));
    assert_eq!(
        send(&base, &token, &client(Some(&forged(&ours, now - day, now + day))), 1)
            .await
            .expect("an answer")
            .0,
        200
    );
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "Weir sensors, or so");
    let foreign =
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
    let before = refused(plane.server(), "handshake");
    let over = forged(&ours, now - 2 * day, now - day);
    for identity in [forged(&foreign, now - day, now + day), over] {
        send(&base, &token, &client(Some(&identity)), 2).await.expect_err("there is no connection");
    }
    eventually("both are counted", || async { refused(plane.server(), "handshake") >= before + 2 }).await;

    // One that ends while its connection is open ends with it. A busy machine may need longer to connect.
    let mut told = None;
    for lasts in [3, 15, 45] {
        let brief = forged(&ours, now - day, SystemTime::now() + Duration::from_secs(lasts));
        let short = client(Some(&brief));
        if send(&base, &token, &short, 3).await.is_ok_and(|(status, _)| status == 200) {
            eventually("the open connection is told", || async {
                let (status, body) = send(&base, &token, &short, 3).await.expect("an open connection");
                (status, kind(&body)) == (401, "certificate-over")
            })
            .await;
            told = Some(brief);
            break;
        }
    }
    // The second in which it ends is its last one.
    let told = told.expect("it was told");
    eventually("there is no further connection", || async {
        send(&base, &token, &client(Some(&told)), 3).await.is_err()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn u4_a_request_for_more_gets_no_more_and_no_request_gets_nothing() {
    let plane = Plane::start_with(with(ClientAuth::Optional)).await;
    let (base, bare, token) = (plane.url(""), client(None), plane.sensor("edge-1").await);
    let ask = async |body: Value| {
        let asked = bare.post(format!("{base}/api/v1/sensor/certificate")).bearer_auth(&token).json(&body);
        answer(asked.send().await.expect("an answer")).await
    };
    for csr in
        ["", "no PEM", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"]
    {
        let (status, body) = ask(json!({"csr": csr})).await;
        assert_eq!((status, body["errors"][0]["field"].as_str()), (400, Some("csr")), "{body}");
    }
    assert_eq!(ask(json!({"csr": "a".repeat(8_193)})).await.0, 400);
    let key = KeyPair::generate().expect("a key");
    let mut greedy = CertificateParams::new(vec!["weir.example".to_owned()]).expect("a name");
    greedy.subject_alt_names.push(SanType::URI("urn:weir:sensor:2".try_into().expect("a name")));
    greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    greedy.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let request = greedy.serialize_request(&key).expect("a request").pem().expect("PEM");
    let (status, issued) = ask(json!({"csr": request})).await;
    assert_eq!(status, 200, "{issued}");
    let pem = issued["certificate"].as_str().expect("a certificate").to_owned();
    // It is the sensor's own, which asked, and signs nothing.
    let identity = format!("{pem}{}", key.serialize_pem());
    assert_eq!(send(&base, &token, &client(Some(&identity)), 0).await.expect("an answer").0, 200);
    let below = Issuer::from_ca_cert_pem(&pem, key).expect("it can be tried");
    let now = SystemTime::now();
    let below = forged(&below, now - Duration::from_mins(1), now + Duration::from_hours(1));
    let chain =
        below.replacen("-----END CERTIFICATE-----\n", &format!("-----END CERTIFICATE-----\n{pem}"), 1);
    send(&base, &token, &client(Some(&chain)), 1).await.expect_err("it is no authority");
    let noted = get(&plane, "/api/v1/audit?action=sensor.certificate").await;
    assert_eq!(noted["items"][0]["after"]["serial"], issued["serial"]);
    // Nothing that can sign leaves the table that it is in.
    let (_, key) = stolen(&plane);
    let secret = key.serialize_pem();
    let text = format!("{noted}{}", plane.sql("SELECT * FROM certificate_authority"));
    assert!(!text.contains(secret.lines().nth(1).expect("a line")));

    let off = Plane::start().await;
    let token = off.sensor("edge-1").await;
    let (status, body, _) = certify(&off.url(""), &token, &off.http).await;
    assert_eq!((status, kind(&body)), (409, "no-client-certificates"));
    assert_eq!(off.count("certificate_authority"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn u4_an_authority_is_followed_without_a_gap_on_every_instance_and_voided_at_once_when_its_key_leaked()
{
    let plane = Plane::start_with(with(ClientAuth::Required)).await;
    // Both begin on one database: there is one authority.
    let other = server::start(&plane.config).await.expect("another instance starts");
    assert_eq!(plane.count("certificate_authority"), 1);
    let instances = [plane.url(""), format!("https://{}", other.address)];
    let token = plane.sensor("edge-1").await;
    let by_first = certified(&plane, &token).await;
    let open = client(Some(&by_first));
    let mut epoch = 0;
    let mut passes = async |client: &Client| {
        let mut statuses = Vec::new();
        for base in &instances {
            epoch += 1;
            statuses
                .push(send(base, &token, client, epoch).await.map(|(status, _)| status).unwrap_or_default());
        }
        statuses
    };
    assert_eq!(passes(&open).await, [200, 200]);

    // The next one is trusted before it signs.
    let (author, lasts) = (Author::command_line(), Duration::from_hours(24 * 1_000));
    let rotated =
        authority::rotate(plane.pool(), &author, &make(lasts).expect("one"), Authority::LEAD, false).await;
    let ids: Vec<i32> = rotated.expect("it is rotated").iter().map(|authority| authority.ca_id).collect();
    assert_eq!(ids, [2, 1]);
    let signer = |serial: &Value| {
        plane.sql(&format!(
            "SELECT after->>'authority' FROM audit WHERE after->>'serial' = '{}'",
            serial.as_str().expect("a serial")
        ))
    };
    let (status, issued, _) = certify(&instances[0], &token, &open).await;
    assert_eq!((status, signer(&issued["serial"]).as_str()), (200, "1"));
    plane.sql("UPDATE certificate_authority SET signs_from = now()");
    let (status, issued, by_second) = certify(&instances[0], &token, &open).await;
    assert_eq!((status, signer(&issued["serial"]).as_str()), (200, "2"));
    eventually("both instances take both", || async {
        let mut statuses = Vec::new();
        for identity in [&by_first, &by_second] {
            for base in &instances {
                let asked = client(Some(identity)).get(format!("{base}/healthz")).send().await;
                statuses.push(asked.is_ok_and(|asked| asked.status() == 200));
            }
        }
        statuses == [true; 4]
    })
    .await;
    assert_eq!(passes(&client(Some(&by_first))).await, [200, 200]);
    assert_eq!(passes(&client(Some(&by_second))).await, [200, 200]);
    // Its key is gone; it is trusted until what it signed is over.
    assert!(authority::sweep(plane.pool()).await.expect("they are swept"));
    assert_eq!(plane.sql("SELECT ca_id FROM certificate_authority_key"), "2");
    plane.sql("UPDATE certificate_authority SET trusted_until = now() WHERE ca_id = 1");
    assert!(authority::sweep(plane.pool()).await.expect("they are swept"));
    eventually("the first one is trusted no more", || async {
        let mut gone = true;
        for base in &instances {
            gone &= client(Some(&by_first)).get(format!("{base}/healthz")).send().await.is_err();
        }
        gone
    })
    .await;
    // Told so where the connection is open still, else without one.
    let statuses = passes(&open).await;
    assert!(statuses.iter().all(|status| [401, 0].contains(status)), "{statuses:?}");

    // A key leaked: all that it signed is void, and the credential is worth one certificate again.
    let held = client(Some(&by_second));
    assert_eq!(passes(&held).await, [200, 200]);
    authority::rotate(plane.pool(), &author, &make(lasts).expect("one"), Duration::ZERO, true)
        .await
        .expect("it is");
    eventually("both instances know", || async {
        let mut statuses = Vec::new();
        for base in &instances {
            let sent = send(base, &token, &held, 0).await;
            statuses.push(sent.map(|(status, _)| status).unwrap_or_default());
        }
        // Told so first, without a connection then.
        statuses.iter().all(|status| [401, 0].contains(status))
    })
    .await;
    let by_third = certified(&plane, &token).await;
    eventually("both take what the third one signed", || async {
        let mut taken = true;
        for base in &instances {
            taken &= client(Some(&by_third)).get(format!("{base}/healthz")).send().await.is_ok();
        }
        taken
    })
    .await;
    assert_eq!(passes(&client(Some(&by_third))).await, [200, 200]);
    let body = get(&plane, "/api/v1/audit?subject_kind=authority").await;
    let actions: Vec<&str> =
        body["items"].as_array().expect("items").iter().filter_map(|item| item["action"].as_str()).collect();
    assert_eq!(actions, ["authority.replace", "authority.rotate", "authority.create"]);
    other.stop().await;
}

async fn get(plane: &Plane<'_>, path: &str) -> Value {
    let asked = client(None).get(plane.url(path)).bearer_auth(ADMIN_TOKEN).send().await.expect("an answer");
    answer(asked).await.1
}

/// I1: whichever statement fails, nothing is signed without being known, and no authority is half in its place.
#[tokio::test(flavor = "multi_thread")]
async fn i1_a_failure_at_any_statement_leaves_authorities_as_they_were() {
    let plane = Plane::start_with(with(ClientAuth::Optional)).await;
    let token = plane.sensor("edge-1").await;
    let own = client(Some(&certified(&plane, &token).await));
    assert_eq!(send(&plane.url(""), &token, &own, 0).await.expect("an answer").0, 200);
    let contents = || {
        ["certificate_authority", "certificate_authority_key", "sensor_credential", "audit"].map(|table| {
            plane.sql(&format!("SELECT string_agg(t::text, '/' ORDER BY t::text) FROM {table} AS t"))
        })
    };
    let before = contents();
    for (table, operation) in
        [("certificate_authority", "UPDATE"), ("audit", "INSERT"), ("event_pending", "INSERT")]
    {
        plane.arm(table, operation);
        let (status, problem, _) = certify(&plane.url(""), &token, &own).await;
        assert_eq!(
            (status, problem["category"].as_str()),
            (500, Some("database")),
            "{operation} {table}: {problem}"
        );
        plane.disarm();
        assert_eq!(contents(), before, "signing: {operation} {table}");
    }
    let author = Author::command_line();
    for (table, operation) in [
        ("certificate_authority", "DELETE"),
        ("sensor_credential", "UPDATE"),
        ("certificate_authority", "INSERT"),
        ("certificate_authority_key", "INSERT"),
        ("audit", "INSERT"),
    ] {
        plane.arm(table, operation);
        let offered = make(Duration::from_hours(24)).expect("one");
        let rotated = authority::rotate(plane.pool(), &author, &offered, Duration::ZERO, true).await;
        rotated.expect_err("a statement fails");
        plane.disarm();
        assert_eq!(contents(), before, "rotating: {operation} {table}");
    }
    assert_eq!(certify(&plane.url(""), &token, &own).await.0, 200);
    assert_ne!(contents(), before);
}
