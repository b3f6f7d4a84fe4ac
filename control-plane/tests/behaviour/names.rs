//! S3, S5, I6: what responders are called and where addresses are comes back with the flows, is searched in
//! the database, and goes when the last flow does.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use weir_wire::{Batch, Flow, NameSource, Place};

use crate::support::{Plane, batch, flow, ports, recent_minute_ns};

/// Four flows, told apart by the responder's port: by TLS, by DNS, without a name, by HTTP.
fn named(generation: u8) -> Batch {
    let place = |country: &str, asn: u32| Place {
        country: country.to_owned(),
        asn,
        organisation: format!("Network {asn}"),
    };
    let with = |port: u32, name: u32, source: NameSource, dst_place: u32| Flow {
        name,
        name_source: source as i32,
        dst_place,
        ..flow([10, 0, 0, 1], [192, 0, 2, 80], port, 1)
    };
    let flows = vec![
        with(1, 1, NameSource::Tls, 1),
        with(2, 2, NameSource::Dns, 2),
        with(3, 0, NameSource::Unknown, 0),
        with(4, 1, NameSource::Http, 2),
    ];
    Batch {
        names: vec!["api.Example.org".to_owned(), "cdn_1.example.net".to_owned()],
        places: vec![place("NL", 64_496), place("DE", 64_497)],
        ..batch(generation, 0, recent_minute_ns(), flows)
    }
}

async fn domains(plane: &Plane<'_>, query: &str) -> Vec<Value> {
    let page = plane.json(&format!("/api/v1/domains{query}")).await;
    page["items"].as_array().expect("a list").iter().map(|item| item["name"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_flows_are_chosen_by_name_and_place() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    plane.store(&token, &named(1)).await;
    for (filter, expected) in [
        ("name = API.example.org", vec![1, 4]),
        ("name ~ \"*.example.*\"", vec![1, 2, 4]),
        // A sign of SQL's patterns is a letter here.
        ("name ~ cdn_*", vec![2]),
        ("name ~ api_*", vec![]),
        ("sni ~ \"*.example.org\"", vec![1]),
        ("not sni ~ \"*.example.org\"", vec![2, 3, 4]),
        ("name_source in (dns, http)", vec![2, 4]),
        ("country = nl", vec![1]),
        ("dst_country != NL", vec![2, 3, 4]),
        ("src_country = NL", vec![]),
        ("asn = 64497 and dst_port = 443 or dst_port = 4", vec![4]),
        ("dst_asn in (64496..64511)", vec![1, 2, 4]),
        ("dst_port = 1 and (country = \"NL\" or sni ~ \"*.example.com\")", vec![1]),
    ] {
        assert_eq!(ports(&plane, filter).await, expected, "{filter}");
    }
    let top = plane.json("/api/v1/flows/top?by=port&filter=country%20%3D%20DE").await;
    assert_eq!(top["items"].as_array().map(Vec::len), Some(2));
    let refused = plane.get("/api/v1/flows?filter=country%20%3D%20NLD").await;
    assert_eq!(refused.status(), 400);
}

/// A1, P5: whom flows were with, from the rows and, where a window has too many of them, from the rollups.
#[tokio::test(flavor = "multi_thread")]
async fn a1_rankings_by_name_country_and_system() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let mut sent = named(1);
    plane.store(&token, &sent).await;
    let question = async |by: &str| {
        let top = plane.json(&format!("/api/v1/flows/top?by={by}&metric=flows")).await;
        let keys = ["name", "country", "asn", "organisation", "flows"];
        let row = |item: &Value| keys.map(|key| item[key].clone()).to_vec();
        let items: Vec<Vec<Value>> = top["items"].as_array().expect("a list").iter().map(row).collect();
        (items, top["exact"].clone(), top["other"]["flows"].clone(), top["total"]["flows"].clone())
    };
    let none = Value::Null;
    let by_name = |times: u64| {
        vec![
            vec![json!("api.example.org"), none.clone(), none.clone(), none.clone(), json!(2 * times)],
            vec![json!("cdn_1.example.net"), none.clone(), none.clone(), none.clone(), json!(times)],
        ]
    };
    let place = |country: &str, flows: u64| {
        vec![none.clone(), json!(country), none.clone(), none.clone(), json!(flows)]
    };
    let system = |asn: u32, flows: u64| {
        let organisation = json!(format!("Network {asn}"));
        vec![none.clone(), none.clone(), json!(asn), organisation, json!(flows)]
    };
    assert_eq!(question("name").await, (by_name(1), json!(true), json!(1), json!(4)));
    assert_eq!(question("country").await.0, [place("DE", 2), place("NL", 1)]);
    assert_eq!(question("asn").await.0, [system(64_497, 2), system(64_496, 1)]);

    // More rows than are counted one by one.
    let part = sent.flows.clone();
    sent.flows = part.iter().cycle().take(40_000).cloned().collect();
    for epoch in 1..=4 {
        sent.epoch = epoch;
        plane.store(&token, &sent).await;
    }
    let (named, exact, other, total) = question("name").await;
    assert_eq!((named, exact, other, total), (by_name(40_001), json!(false), json!(40_001), json!(160_004)));
    assert_eq!(question("country").await.0, [place("DE", 80_002), place("NL", 40_001)]);
    assert_eq!(question("asn").await.0, [system(64_497, 80_002), system(64_496, 40_001)]);
}

/// I2: a name is one row, however many batches, sensors and repeats bring it.
#[tokio::test(flavor = "multi_thread")]
async fn i2_a_name_is_stored_once() {
    let plane = Plane::start().await;
    let tokens = [plane.sensor("edge-1").await, plane.sensor("edge-2").await];
    let sent = named(1);
    let posts = (0..16).map(|number| plane.post(&tokens[number % 2], &sent));
    for (status, answer) in futures_util::future::join_all(posts).await {
        assert_eq!(status, 200, "{answer}");
    }
    assert_eq!((plane.count("flow"), plane.count("domain"), plane.count("autonomous_system")), (8, 2, 2));
    assert_eq!(plane.sql("SELECT count(DISTINCT domain_id) FROM flow"), "2");
    // An organisation that changes its name has one name.
    let mut renamed = named(2);
    renamed.places[0].organisation = "Renamed".to_owned();
    plane.store(&tokens[0], &renamed).await;
    assert_eq!(plane.sql("SELECT organisation FROM autonomous_system WHERE asn = 64496"), "Renamed");
}

/// A4: the search is the database's, in pages.
#[tokio::test(flavor = "multi_thread")]
async fn a4_domains_are_listed_searched_and_completed() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    assert_eq!(domains(&plane, "").await, Vec::<Value>::new());
    plane.store(&token, &named(1)).await;
    // The last that came to be known first; both came in one batch, in order of name.
    assert_eq!(domains(&plane, "").await, ["cdn_1.example.net", "api.example.org"]);
    assert_eq!(domains(&plane, "?q=EXAMPLE.org").await, ["api.example.org"]);
    assert_eq!(domains(&plane, "?q=a*.org").await, ["api.example.org"]);
    assert_eq!(domains(&plane, "?q=i_e").await, Vec::<Value>::new());
    assert_eq!(domains(&plane, "?q=%25").await, Vec::<Value>::new());
    let first = plane.json("/api/v1/domains?limit=1").await;
    assert_eq!(
        (first["has_more"].clone(), first["items"][0]["name"].clone()),
        (json!(true), json!("cdn_1.example.net"))
    );
    let continuation = first["continuation"].as_str().expect("a token");
    assert_eq!(domains(&plane, &format!("?limit=1&continuation={continuation}")).await, ["api.example.org"]);

    let completion = plane.json("/api/v1/flows/filter?filter=name%20%3D%20ap").await;
    let offered: Vec<&Value> = completion["candidates"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|candidate| &candidate["text"])
        .collect();
    assert_eq!(offered, ["api.example.org"]);
}

/// I6: counts are stored whatever the names are, and no name is what a terminal or a page obeys.
#[tokio::test(flavor = "multi_thread")]
async fn i6_hostile_names_are_cleaned_and_never_cost_a_count() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let mut hostile = named(1);
    hostile.names = vec!["\x1b]0;owned\x07\0.example".to_owned(), "x".repeat(5_000)];
    hostile.places[0].country = "<b".to_owned();
    plane.store(&token, &hostile).await;
    let names = domains(&plane, "").await;
    assert_eq!(names, ["\u{fffd}]0;owned\u{fffd}\u{fffd}.example".to_owned(), "x".repeat(255)]);
    assert_eq!(plane.count("flow"), 4);
    assert_eq!(ports(&plane, "dst_country = DE").await, [2, 4]);

    // A number that stands for nothing is a fault of the sender, and named.
    let mut wrong = named(2);
    wrong.flows[1].name = 3;
    let (status, answer) = plane.post(&token, &wrong).await;
    assert_eq!((status, answer["errors"][0]["field"].clone()), (422, json!("flows[1].name")));
}

/// I8: a domain goes when no flow can refer to it any more, and not before.
#[tokio::test(flavor = "multi_thread")]
async fn i8_domains_go_after_their_flows() {
    let plane = Plane::start_with(|config| {
        config.ingest.max_past_days = 1;
        config.retention.flows_days = 2;
        config.retention.rollup_1m_days = 2;
        config.retention.rollup_1h_days = 2;
    })
    .await;
    let token = plane.sensor("edge-1").await;
    plane.store(&token, &named(1)).await;
    for (days, kept) in [(0, (4, 2)), (3, (0, 2)), (5, (0, 0))] {
        let then = Timestamp::now().checked_add(SignedDuration::from_hours(24 * days)).expect("in range");
        assert!(plane.jobs().round(then).await.expect("the round runs"));
        assert_eq!((plane.count("flow"), plane.count("domain")), kept, "after {days} days");
    }
    // What was forgotten by the database is not remembered here on another day; on the same day the sender
    // is asked to come again, and then it is known anew.
    plane.sql("DELETE FROM domain");
    let mut fresh = named(3);
    fresh.names[0] = "new.example.org".to_owned();
    plane.store(&token, &fresh).await;
    assert!(domains(&plane, "").await.contains(&json!("new.example.org")));
}
