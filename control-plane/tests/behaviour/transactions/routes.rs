//! What requests write, over HTTP.

use std::cell::RefCell;
use std::collections::BTreeSet;

use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use weir_control_plane::auth::{SensorToken, SetupToken};
use weir_control_plane::store::audit::Author;
use weir_control_plane::store::{sensors, users};
use weir_wire::{Batch, Device, DeviceFact, Flow, NameSource, Place, Process, Severity};

use super::world::World;
use crate::access_matrix::documented;
use crate::people::{PASSWORD, Tokens};
use crate::support::{ADMIN_TOKEN, SECOND, batch, detection, mixed_flows, now_ns, recent_minute_ns, rfc3339};

/// The document's routes that change something.
pub fn that_change() -> BTreeSet<String> {
    documented().into_iter().filter(|route| !route.starts_with("get ")).collect()
}

/// A sensor shows a credential for the first time: that is known, whatever becomes of what it asks.
const FIRST_USE: [&str; 3] = ["sensor_credential", "audit", "event_pending"];

struct Requests<'a> {
    world: &'a World,
    called: RefCell<BTreeSet<String>>,
}

impl Requests<'_> {
    /// Cuts a request at each of its statements; `ids` fill the path's places.
    async fn cut(&self, route: &str, ids: &[&str], token: &str, body: Value) -> Value {
        self.cut_after(route, ids, token, body, (&[], "")).await
    }

    /// With tables that may be written before, and what to do before each try.
    async fn cut_after(
        &self,
        route: &str,
        ids: &[&str],
        token: &str,
        body: Value,
        (apart, prepare): (&[&str], &str),
    ) -> Value {
        self.called.borrow_mut().insert(route.to_owned());
        let (method, template) = World::method(route);
        let mut path = template.to_owned();
        for id in ids {
            let (start, end) = (path.find('{').expect("a place"), path.find('}').expect("its end"));
            path.replace_range(start..=end, id);
        }
        let answer = self.world.walk_request(route, apart, prepare, |http, base| {
            let request = http.request(method.clone(), format!("{base}{path}"));
            let request = if token.is_empty() { request } else { request.bearer_auth(token) };
            if body.is_null() { request } else { request.json(&body) }
        });
        answer.await
    }

    /// As an admin.
    async fn admin(&self, route: &str, ids: &[&str], body: Value) -> Value {
        self.cut(route, ids, ADMIN_TOKEN, body).await
    }

    async fn ingest(&self, token: &str, batch: &Batch, apart: &[&str]) {
        let route = "post /api/v1/ingest";
        self.called.borrow_mut().insert(route.to_owned());
        let body = weir_wire::encode(batch).expect("it encodes");
        let answer = self.world.walk_request(route, apart, "", |http, base| {
            http.post(format!("{base}/api/v1/ingest"))
                .bearer_auth(token)
                .header("content-type", weir_wire::CONTENT_TYPE)
                .header("content-encoding", weir_wire::CONTENT_ENCODING)
                .body(body.clone())
        });
        assert_eq!(answer.await["status"], "stored");
    }

    async fn erase(&self, route: &str, id: &str) {
        let plan = self.admin(route, &[id], Value::Null).await;
        let confirmation = plan["confirmation"].as_str().expect("a confirmation");
        let and = if id.contains('?') { '&' } else { '?' };
        self.admin(route, &[&format!("{id}{and}confirmation={confirmation}")], Value::Null).await;
    }
}

/// Cuts all of them; gives the routes.
pub async fn cut(world: &World) -> BTreeSet<String> {
    let requests = Requests { world, called: RefCell::default() };
    people(&requests).await;
    let token = trust(&requests).await;
    traffic(&requests, &token).await;
    networks(&requests).await;
    alerts(&requests).await;
    requests.admin("post /api/v1/jobs/{job}/runs", &["partitions"], Value::Null).await;
    requests.erase("delete /api/v1/users/{user}", "bob").await;
    requests.erase("delete /api/v1/sensors/{id}", "edge-1").await;
    requests.called.into_inner()
}

fn id(answer: &Value) -> String {
    answer["id"].as_i64().unwrap_or_else(|| panic!("an id in {answer}")).to_string()
}

async fn people(requests: &Requests<'_>) {
    let world = requests.world;
    let pool = world.pool();
    let token = SetupToken::generate().expect("a token");
    users::add_setup_link(pool, &token.sha256(), 24).await.expect("a link");
    let first = json!({"setup_token": token.expose(), "name": "ada", "password": PASSWORD});
    // An attempt counts whatever becomes of it; and a tester's must not add up.
    let attempts = (&["login_throttle"][..], "DELETE FROM login_throttle");
    requests.cut_after("post /api/v1/auth/setup", &[], "", first, attempts).await;
    let bob = json!({"name": "bob", "role": "viewer", "password": PASSWORD});
    requests.admin("post /api/v1/users", &[], bob).await;
    let log_in = || {
        let body = json!({"name": "bob", "password": PASSWORD});
        requests.cut_after("post /api/v1/auth/login", &[], "", body, attempts)
    };
    let tokens = Tokens::of(&log_in().await);
    let refresh = json!({"refresh_token": tokens.refresh});
    let own = Tokens::of(&requests.cut("post /api/v1/auth/refresh", &[], "", refresh).await).access;
    let log_in = || world.log_in("bob");
    let other = log_in().await["session_id"].as_str().expect("an id").to_owned();
    requests.cut("delete /api/v1/sessions/{session}", &[&other], &own, Value::Null).await;
    log_in().await;
    requests.cut("delete /api/v1/sessions", &[], &own, Value::Null).await;
    log_in().await;
    let password = json!({"current_password": PASSWORD, "new_password": "staple under the moon"});
    requests.cut_after("post /api/v1/auth/password", &[], &own, password, attempts).await;
    requests.cut("post /api/v1/stream/tickets", &[], &own, Value::Null).await;
    let robot = json!({"name": "robot", "role": "viewer", "scopes": ["flows"]});
    let robot = id(&requests.cut("post /api/v1/tokens", &[], &own, robot).await);
    requests.cut("delete /api/v1/tokens/{token}", &[&robot], &own, Value::Null).await;
    requests.cut("post /api/v1/auth/logout", &[], &own, Value::Null).await;
    let change = json!({"role": "operator", "password": PASSWORD});
    requests.admin("patch /api/v1/users/{user}", &["bob"], change).await;
    log_in().await;
    requests.admin("delete /api/v1/users/{user}/sessions", &["bob"], Value::Null).await;
}

/// Gives the token of `edge-1`.
async fn trust(requests: &Requests<'_>) -> String {
    let pool = requests.world.pool();
    let token = SensorToken::generate().expect("a token");
    sensors::add(pool, &Author::command_line(), "edge-1", &token.sha256()).await.expect("a sensor");
    let token = token.expose().to_owned();
    let place = json!({"site": "ams", "group": "edge", "labels": {"rack": "7"}});
    requests.admin("patch /api/v1/sensors/{id}", &["edge-1"], place).await;
    for (kind, subject) in [("sensors/{id}", "edge-1"), ("sensor-groups/{group}", "edge")] {
        let put = format!("put /api/v1/{kind}/configuration");
        for epoch in ["1s", "2s"] {
            requests.admin(&put, &[subject], json!({"settings": {"epoch": epoch}})).await;
        }
        let back = format!("post /api/v1/{kind}/configuration/rollback");
        requests.admin(&back, &[subject], json!({})).await;
    }
    let beat = json!({
        "version": "1", "uptime_s": 1, "clock_ms": 1,
        "spool": {"batches": 0, "bytes": 0, "capacity_bytes": 0, "oldest_age_ms": 0,
                  "quarantined_batches": 0, "quarantined_packets": 0, "degraded": false},
        "ledger": {"gaps": 0, "dropped_packets": 0, "unaccounted_frames": 0},
        "configuration": {"in_force": "0c7a7f3a4b3f2c11", "refused": "0c7a7f3a4b3f2c12", "reason": "no"},
    });
    requests.cut_after("post /api/v1/sensor/heartbeat", &[], &token, beat, (&FIRST_USE, "")).await;

    let key = KeyPair::generate().expect("a key");
    let csr = CertificateParams::default().serialize_request(&key).expect("a request").pem().expect("PEM");
    requests.cut("post /api/v1/sensor/certificate", &[], &token, json!({"csr": csr})).await;
    let made = requests.admin("post /api/v1/sensors/{id}/credentials", &["edge-1"], json!({})).await;
    let route = "delete /api/v1/sensors/{id}/credentials/{credential}";
    requests.admin(route, &["edge-1", &id(&made)], Value::Null).await;
    let renewed = requests.cut("post /api/v1/sensor/credentials", &[], &token, json!({})).await;
    let token = renewed["token"].as_str().expect("a token").to_owned();

    let first = requests.admin("post /api/v1/enrollments", &[], json!({"name": "edge-2"})).await;
    let enroll = json!({"token": first["token"]});
    requests.cut("post /api/v1/enroll", &[], "", enroll).await;
    let second = requests.admin("post /api/v1/enrollments", &[], json!({"name": "edge-3"})).await;
    requests.admin("delete /api/v1/enrollments/{enrollment}", &[&id(&second)], Value::Null).await;
    requests.admin("post /api/v1/sensors/{id}/revoke", &["edge-2"], Value::Null).await;
    token
}

/// All that a batch can bring.
fn everything() -> Batch {
    let device = |mac: &str| Device {
        keys: vec![DeviceFact {
            source: "mac".to_owned(),
            value: mac.to_owned(),
            first_ns: 0,
            last_ns: SECOND,
        }],
        last_ns: SECOND,
        ..Device::default()
    };
    let mut flows = mixed_flows();
    flows[0] = Flow {
        name: 1,
        name_source: NameSource::Tls as i32,
        dst_place: 1,
        src_process: 1,
        ..flows[0].clone()
    };
    Batch {
        names: vec!["api.example.org".to_owned()],
        places: vec![Place { country: "NL".to_owned(), asn: 64_496, organisation: "Network".to_owned() }],
        processes: vec![Process { name: "curl".to_owned(), ..Process::default() }],
        detections: vec![
            detection("port_scan", "10.0.0.66", Severity::Low, 1),
            detection("port_scan", "10.0.0.67", Severity::Low, 1),
        ],
        devices: vec![device("b0:c5:54:25:5b:0e"), device("b0:c5:54:25:5b:0f")],
        ..batch(1, 0, recent_minute_ns(), flows)
    }
}

async fn traffic(requests: &Requests<'_>, token: &str) {
    let world = requests.world;
    // Names are there before what bears them.
    let before = [&FIRST_USE[..], &["domain", "autonomous_system", "process"]].concat();
    requests.ingest(token, &everything(), &before).await;
    let found = world.sql("SELECT detection_id FROM detection ORDER BY 1 LIMIT 1");
    requests.admin("post /api/v1/detections/{detection}/acknowledge", &[&found], Value::Null).await;
    let why = json!({"reason": "it was me"});
    requests.admin("post /api/v1/detections/{detection}/dismiss", &[&found], why).await;
    requests.admin("post /api/v1/detections/{detection}/reopen", &[&found], Value::Null).await;
    let devices = world.sql("SELECT device_id FROM device ORDER BY 1");
    let (one, other) = devices.split_once('\n').expect("two devices");
    let said = json!({"name": "the printer", "owner": "ada"});
    requests.admin("patch /api/v1/devices/{device}", &[one], said).await;
    let other: i64 = other.parse().expect("a number");
    requests.admin("post /api/v1/devices/{device}/merge", &[one], json!({"other": other})).await;
    let merge: i64 = world.sql("SELECT merge_id FROM device_merge").parse().expect("a merge");
    requests.admin("post /api/v1/devices/{device}/split", &[one], json!({"merge": merge})).await;
    requests.erase("delete /api/v1/devices/{device}", &format!("{one}?erase=true")).await;
}

async fn networks(requests: &Requests<'_>) {
    let network = json!({"name": "office", "prefixes": ["10.0.0.0/8"], "sensor": "edge-1"});
    let network = id(&requests.admin("post /api/v1/networks", &[], network).await);
    let change = json!({"prefixes": ["10.1.0.0/16"], "sensor": null});
    requests.admin("patch /api/v1/networks/{network}", &[&network], change).await;
    requests.admin("delete /api/v1/networks/{network}", &[&network], Value::Null).await;
}

async fn alerts(requests: &Requests<'_>) {
    let target = json!({"name": "hook", "target": {"kind": "webhook", "url": "http://192.0.2.1/"}});
    let receiver = requests.admin("post /api/v1/alerts/receivers", &[], target).await;
    let change = json!({"repeat_s": 3600});
    requests.admin("patch /api/v1/alerts/receivers/{receiver}", &[&id(&receiver)], change).await;
    let rule = json!({
        "name": "much", "receivers": [receiver["id"]],
        "condition": {"kind": "threshold", "measure": "packets", "window_s": 600, "by": "src", "above": 1},
    });
    let rule = id(&requests.admin("post /api/v1/alerts/rules", &[], rule).await);
    let change = json!({"for_s": 60, "receivers": []});
    requests.admin("patch /api/v1/alerts/rules/{rule}", &[&rule], change).await;
    let silence = json!({
        "kind": "maintenance", "matchers": [{"label": "sensor", "value": "edge-*"}],
        "ends_at": rfc3339(now_ns() + 3_600 * SECOND), "comment": "new switches",
    });
    let silence = id(&requests.admin("post /api/v1/alerts/silences", &[], silence).await);
    let change = json!({"comment": "it takes longer"});
    requests.admin("patch /api/v1/alerts/silences/{silence}", &[&silence], change).await;
    requests.admin("delete /api/v1/alerts/silences/{silence}", &[&silence], Value::Null).await;
    requests.admin("delete /api/v1/alerts/rules/{rule}", &[&rule], Value::Null).await;
    requests.admin("delete /api/v1/alerts/receivers/{receiver}", &[&id(&receiver)], Value::Null).await;
}
