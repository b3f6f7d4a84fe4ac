//! What jobs, streams, the keeping of keys and the command line write.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use uuid::Uuid;
use weir_control_plane::auth::{Role, Scope};
use weir_control_plane::ingest;
use weir_control_plane::store::alerts::{deliveries, notices, receivers, rules, samples, states};
use weir_control_plane::store::audit::{self, Author, Change};
use weir_control_plane::store::dictionary::{self, Numbers};
use weir_control_plane::store::erasure::{self, Confirmation, Subject};
use weir_control_plane::store::partitions::{self, Known, Parent, Partition};
use weir_control_plane::store::presence::{self, Patience, Sign};
use weir_control_plane::store::{
    Reference, activity, authority, batches, compaction, detections, devices, events, jobs, maintenance,
    processes, sensors, sessions, signing, throttle, tickets, tokens, users,
};
use weir_wire::Severity;

use super::world::World;
use crate::support::{batch, detection, mixed_flows, recent_minute_ns};

/// Cuts all of them.
pub async fn cut(world: &World) {
    let author = Author::command_line();
    identity(world, &author).await;
    certificates(world, &author).await;
    traffic(world, &author).await;
    alerts(world, &author).await;
    board(world).await;
    erasures(world, &author).await;
    retention(world).await;
}

async fn identity(world: &World, author: &Author) {
    let pool = world.pool();
    world.walk(&["shared_key"], async || signing::secret(pool, "pages", &[1; 32]).await).await;
    let key = || signing::SigningKey {
        kid: Uuid::new_v4().to_string(),
        seed: [7; 32],
        signs_from: SystemTime::now(),
    };
    let rotation = || signing::Rotation {
        every: Duration::from_hours(1),
        lead: Duration::from_secs(1),
        trail: Duration::from_secs(1),
    };
    world.walk(&["signing_rotate"], async || signing::rotate(pool, rotation(), true, &key()).await).await;
    world.walk(&["signing_forget"], async || signing::forget_all(pool).await).await;
    world.walk(&["setup_link_add"], async || users::add_setup_link(pool, &[1; 32], 24).await).await;
    let bob = users::add(pool, author, "bob", Role::Viewer, "hash").await.expect("a user").user_id;
    let keys = || throttle::Keys { account: throttle::Key::account(bob), address: throttle::Key::address(7) };
    throttle::attempt(pool, &keys()).await.expect("it counts");
    world.walk(&["login_forgive"], async || throttle::succeeded(pool, &keys()).await).await;

    let session = Uuid::from_u128(1);
    let opening = sessions::Opening {
        user_id: bob,
        password_hash: "hash",
        session_id: session,
        refresh_sha256: [11; 32],
        address: "192.0.2.1",
        user_agent: "test",
        lifetimes: sessions::Lifetimes { session_s: 3_600.0, refresh_s: 3_600.0 },
        throttle: keys(),
    };
    sessions::open(pool, author, &opening).await.expect("it opens").expect("a session");
    let maker = tickets::Maker::Session(session);
    assert!(tickets::add(pool, &[31; 32], maker, None, 30.0).await.expect("a ticket"));
    world.walk(&["ticket_redeem"], async || tickets::redeem(pool, &[31; 32]).await).await.expect("a ticket");
    let new = tokens::NewToken {
        name: "robot",
        user_id: Some(bob),
        sha256: [21; 32],
        role: Role::Viewer,
        scopes: &[Scope::Flows],
        expires_at: None,
    };
    let token = tokens::add(pool, author, &new).await.expect("it is added").expect("a token").api_token_id;
    world.walk(&["sensor_add"], async || sensors::add(pool, author, "edge-1", &[41; 32]).await).await;
    let edge = world.sql("SELECT sensor_id FROM sensor").parse().expect("an id");
    let sign = Sign {
        sensor_id: edge,
        age: Duration::ZERO,
        beat: Some((Arc::from(r#"{"version": "1"}"#), Duration::ZERO)),
    };
    let seen = async || {
        let now = SystemTime::now();
        let seen = activity::Seen {
            users: vec![(bob, now)],
            sessions: vec![(session, now)],
            tokens: vec![(token, now)],
            sensors: vec![sign.clone()],
        };
        activity::write(pool, &seen).await
    };
    world.walk(&["activity"], seen).await;
    let patience = Patience { silence: Duration::from_mins(1), gap: Duration::from_hours(1) };
    world.sql("UPDATE presence_watch SET since = '2020-01-01'");
    world.walk(&["presence_begin"], async || presence::begin(pool, patience).await).await;
    let changes = world.walk(&["presence_watch"], async || presence::watch(pool, None, patience).await).await;
    assert_eq!(changes.online, 1);

    world.sql("UPDATE session SET expires_at = now() - interval '9 days'");
    assert!(world.walk(&["session_sweep"], async || sessions::sweep(pool).await).await > 0);
    let note = Change { action: "test", subject_kind: "test", ..Change::default() };
    world.walk(&["audit_note"], async || audit::note(pool, author, &note).await).await;
}

async fn certificates(world: &World, author: &Author) {
    let pool = world.pool();
    let offered = authority::Offered {
        certificate: vec![1],
        key: vec![2],
        expires_at: SystemTime::now() + Duration::from_hours(1),
    };
    world.sql("DELETE FROM certificate_authority");
    world.walk(&["authority_ensure"], async || authority::ensure(pool, author, &offered).await).await;
    for now in [true, false] {
        let rotate = async || authority::rotate(pool, author, &offered, Duration::ZERO, now).await;
        world.walk(&["authority_rotate"], rotate).await;
    }
    world.sql("UPDATE certificate_authority SET trusted_until = now()");
    assert!(world.walk(&["authority_sweep"], async || authority::sweep(pool).await).await);
    let (ca_id, credential_id) = (
        world.sql("SELECT ca_id FROM certificate_authority"),
        world.sql("SELECT credential_id FROM sensor_credential"),
    );
    let (ca_id, credential_id) = (ca_id.parse().expect("one"), credential_id.parse().expect("one"));
    let certify = async || authority::certify(pool, credential_id, ca_id).await;
    world.walk(&["credential_certify"], certify).await;
}

/// Leaves a batch and a detection of `edge-1`.
async fn traffic(world: &World, author: &Author) {
    let pool = world.pool();
    sensors::add(pool, author, "edge-2", &[42; 32]).await.expect("a sensor");
    let wire = weir_wire::Batch {
        detections: vec![detection("port_scan", "10.0.0.66", Severity::Low, 1)],
        ..batch(1, 0, recent_minute_ns(), mixed_flows())
    };
    let batch = ingest::check(wire).expect("a valid batch");
    // Beside the days that are there already.
    let later = Timestamp::now().checked_add(SignedDuration::from_hours(24 * 40)).expect("a time");
    let wanted = [Partition::holding(Parent::Flow, later)];
    world
        .walk(&["make_partitions"], async || partitions::ensure(pool, &Known::default(), &wanted).await)
        .await;
    let wanted = batches::partitions(&batch).expect("partitions").to_vec();
    partitions::ensure(pool, &Known::default(), &wanted).await.expect("they are there");
    let edge: i32 = world.sql("SELECT sensor_id FROM sensor WHERE name = 'edge-1'").parse().expect("an id");
    let clock = batches::Clock { skew_ms: None, off: None, flagged: false };
    let rollup = async { Ok(ingest::rollup::of_batch(&batch, &[], &[], 10)) };
    let stored = batches::store(pool, edge, &batch, clock, &Numbers::default(), rollup).await;
    assert_eq!(stored.expect("it is stored"), batches::Stored::New { clipped_facts: 0 });
    let partition = Partition::holding(Parent::Flow, Timestamp::now()).name();
    world.walk(&["summarize"], async || maintenance::summarize(pool, &partition).await).await;
    world.sql(
        "UPDATE batch SET window_start = window_start - interval '2 minutes',
                          received_at = received_at - interval '1 hour'",
    );
    let before = Timestamp::now().checked_sub(SignedDuration::from_hours(2)).expect("a time");
    world
        .walk(&["compact"], async || compaction::compact(pool, compaction::ROLLUPS[0], before, 4).await)
        .await;
}

async fn alerts(world: &World, author: &Author) {
    let pool = world.pool();
    let condition =
        json!({"kind": "threshold", "measure": "packets", "window_s": 600, "by": "src", "above": 1});
    let target = serde_json::from_value(json!({"kind": "webhook", "url": "http://192.0.2.1/"}));
    let receiver = receivers::add(pool, author, "hook", &target.expect("a target"), 60).await;
    let draft = rules::Draft {
        name: "much".to_owned(),
        condition: serde_json::from_value(condition).expect("a condition"),
        for_s: 0,
        severity: "info",
        labels: std::collections::BTreeMap::new(),
        summary: String::new(),
        enabled: true,
        receivers: vec![receiver.expect("a receiver").receiver_id],
    };
    let rule = rules::add(pool, author, &draft).await.expect("a rule");
    let breaches = [samples::Breach { group: "10.0.0.1".to_owned(), value: 7.0 }];
    world
        .walk(&["alert_apply"], async || states::apply(pool, None, &rule, Ok((&breaches, None))).await)
        .await;
    assert_eq!(world.walk(&["alert_enqueue"], async || notices::enqueue(pool, None).await).await, 1);
    let due = world.walk(&["alert_delivery_take"], async || deliveries::take(pool).await).await;
    let second = Duration::from_secs(1);
    let failed = async || deliveries::failed(pool, &due[0], "no", second, false, second * 60).await;
    world.walk(&["alert_delivery_failed"], failed).await;
    world.walk(&["alert_delivered"], async || deliveries::delivered(pool, &due[0]).await).await;
    rules::remove(pool, author, rule.rule_id).await.expect("the rule goes");
    world.sql("UPDATE alert SET resolved_at = now() - interval '99 days'");
    assert!(world.walk(&["alert_retention"], async || states::forget(pool, 9).await).await > 0);
}

async fn board(world: &World) {
    let pool = world.pool();
    let lease = Duration::from_secs(30);
    let list = [("erasure", lease), ("other", lease)];
    world.walk(&["jobs_register"], async || jobs::register(pool, &list).await).await;
    let turn = world
        .walk(&["job_take"], async || jobs::take(pool, "other", Uuid::from_u128(9), lease, true).await)
        .await
        .expect("nobody has it");
    world.walk(&["job_renew"], async || jobs::renew(pool, &turn, lease).await).await;
    world.walk(&["job_end"], async || jobs::end(pool, &turn, jobs::Outcome::Done, None, lease).await).await;
    while events::publish(pool).await.expect("published").events > 0 {}
}

async fn erasures(world: &World, author: &Author) {
    let pool = world.pool();
    let named = |name: &str| Reference::Name(name.to_owned());
    for subject in [Subject::User(named("bob")), Subject::Sensor(named("edge-1"))] {
        erasure::plan(pool, author, &subject, &[71; 32]).await.expect("it is planned");
        let confirmation = Confirmation { token_sha256: &[71; 32] };
        let begun = erasure::begin(pool, author, &subject, confirmation).await.expect("it begins");
        let id = begun.erasure.erasure_id;
        // One after the other, as the job does them.
        let names = ["erasure_task", "erasure_step", "erasure_finish"];
        let done = world.walk(&names, async || erasure::work(pool, id).await).await.expect("it was to do");
        assert!(done.done_at.is_some() && done.places.iter().all(|place| place.done));
    }
}

/// Of what `edge-2` told long ago.
async fn retention(world: &World) {
    let pool = world.pool();
    world.sql(
        "INSERT INTO domain (name, last_used) VALUES ('old.example', '2020-01-01');
         INSERT INTO process (name, executable, container, unit, last_used) VALUES ('old', '', '', '', '2020-01-01');
         INSERT INTO device (scope, first_seen, last_seen) VALUES ('site:old', '2020-01-01', '2020-01-01');
         INSERT INTO device_merge (device_id, other_id, formers, filled) VALUES (1, 2, '{}', '{}');
         INSERT INTO device_tombstone (erasure_id, scope, kind, sha256, held_from, held_until)
         SELECT min(erasure_id), 'old', 'key', sha256(''), '2020-01-01', '2020-01-01' FROM erasure;
         INSERT INTO detection (sensor_id, kind, subject, severity, technique, source, first_seen, last_seen, count, evidence)
         SELECT sensor_id, 'port_scan', 'x', 1, '', '', '2020-01-01'::timestamptz, '2020-01-01'::timestamptz, 1, '{}' FROM sensor WHERE name = 'edge-2';
         INSERT INTO batch (sensor_id, generation, epoch, part, parts, window_start, window_start_ns, window_end_ns,
                            records, packets, octets, crossing_packets, crossing_octets)
         SELECT sensor_id, gen_random_uuid(), 0, 0, 1, '2020-01-01'::timestamptz, 0, 0, 0, 0, 0, 0, 0 FROM sensor WHERE name = 'edge-2'",
    );
    let now = Timestamp::now();
    let long_ago = now.checked_sub(SignedDuration::from_hours(24 * 99)).expect("a time");
    let domains = async || dictionary::forget_before(pool, long_ago).await;
    assert_eq!(world.walk(&["domain_retention"], domains).await, 1);
    let programs = async || processes::forget_before(pool, long_ago).await;
    assert_eq!(world.walk(&["process_retention"], programs).await, 1);
    let seen = async || devices::delete_before(pool, long_ago).await;
    // Until there are none: another transaction finds that out.
    world.walk(&["device_retention"], seen).await;
    assert_eq!(world.sql("SELECT count(*) FROM device"), "0");
    let merges = async || devices::forget_merges(pool, long_ago).await;
    world.walk(&["merge_retention"], merges).await;
    assert_eq!(world.sql("SELECT count(*) FROM device_merge"), "0");
    let tombstones = async || devices::forget_tombstones(pool, long_ago, long_ago).await;
    world.walk(&["tombstone_retention"], tombstones).await;
    assert_eq!(world.sql("SELECT count(*) FROM device_tombstone"), "0");
    let judged = async || detections::delete_before(pool, long_ago).await;
    assert_eq!(world.walk(&["detection_retention"], judged).await, 1);
    let ledger = async || maintenance::delete_ledger_before(pool, long_ago).await;
    assert_eq!(world.walk(&["ledger_retention"], ledger).await, 1);
    assert!(world.walk(&["event_prune"], async || events::prune(pool, now, 1).await).await > 0);
}
