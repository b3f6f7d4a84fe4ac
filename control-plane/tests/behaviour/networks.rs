//! S5: networks have names, which flows are shown with, chosen by and ranked by from the moment they are given, and
//! whose an address is says where a flow goes.

use reqwest::Method;
use serde_json::{Value, json};
use weir_control_plane::auth::Role;

use crate::support::{ADMIN_TOKEN, Plane, batch, encoded, flow, ports, recent_minute_ns};

const NETWORKS: &str = "/api/v1/networks";

impl Plane<'_> {
    /// Names a network; gives its id.
    async fn network(&self, body: Value) -> i64 {
        self.ok(Method::POST, NETWORKS, &body).await["id"].as_i64().expect("an id")
    }

    /// Initiator's and responder's networks and the scope of each flow, in order of the responder's port.
    async fn shown(&self, sensor: &str) -> Vec<Value> {
        let page = self.json(&format!("/api/v1/flows?sensor={sensor}")).await;
        let mut items = page["items"].as_array().expect("a list").clone();
        items.sort_by_key(|item| item["dst_port"].as_u64());
        items.iter().map(|item| json!([item["src_network"], item["dst_network"], item["scope"]])).collect()
    }
}

/// Six flows, told apart by the responder's port.
async fn plane_with_flows(sensors: &[&str]) -> Plane<'static> {
    let plane = Plane::start().await;
    for name in sensors {
        let token = plane.sensor(name).await;
        let flows = vec![
            flow([10, 1, 0, 7], [203, 0, 113, 80], 1, 1),
            flow([10, 1, 2, 7], [10, 9, 0, 1], 2, 1),
            flow([198, 51, 100, 1], [10, 1, 2, 9], 3, 1),
            flow([198, 51, 100, 1], [203, 0, 113, 80], 4, 1),
            flow([10, 1, 0, 7], [239, 255, 255, 250], 5, 1),
            flow([10, 1, 0, 7], [255, 255, 255, 255], 6, 1),
        ];
        plane.store(&token, &batch(1, 0, recent_minute_ns(), flows)).await;
    }
    plane
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_the_longest_prefix_names_an_address_in_what_is_stored_already() {
    let plane = plane_with_flows(&["edge-1"]).await;
    let scopes = ["outbound", "internal", "inbound", "external", "multicast", "broadcast"];
    let nameless: Vec<Value> = scopes.iter().map(|scope| json!([null, null, scope])).collect();
    assert_eq!(plane.shown("edge-1").await, nameless);
    assert_eq!(ports(&plane, "network ~ * or src_network != office").await, [1, 2, 3, 4, 5, 6]);

    plane.network(json!({"name": "office", "prefixes": ["10.1.9.9/16", "2001:db8::/32"]})).await;
    plane.network(json!({"name": "lab", "prefixes": ["10.1.2.0/24"], "description": "ünder the roof"})).await;
    plane.network(json!({"name": "guests", "prefixes": ["10.9.0.0/16"], "internal": false})).await;
    plane.network(json!({"name": "dmz", "prefixes": ["203.0.113.0/24"]})).await;
    let named = json!([
        ["office", "dmz", "internal"],
        ["lab", "guests", "outbound"],
        [null, "lab", "inbound"],
        [null, "dmz", "inbound"],
        ["office", null, "multicast"],
        ["office", null, "broadcast"],
    ]);
    assert_eq!(json!(plane.shown("edge-1").await), named);
    for (filter, expected) in [
        ("src_network = office", vec![1, 5, 6]),
        ("dst_network = lab", vec![3]),
        ("network = lab", vec![2, 3]),
        ("network in (lab, guests)", vec![2, 3]),
        ("not network = office", vec![2, 3, 4]),
        ("src_network != lab and dst_network ~ d*", vec![1, 4]),
        ("network ~ *", vec![1, 2, 3, 4, 5, 6]),
        ("network !~ *", vec![]),
        ("network = nowhere", vec![]),
        ("network = Office", vec![]),
        ("scope = internal", vec![1]),
        ("scope in (outbound, inbound)", vec![2, 3, 4]),
        ("scope = external", vec![]),
        ("scope = multicast or scope = broadcast", vec![5, 6]),
        ("not scope = multicast and src_network = office", vec![1, 6]),
    ] {
        assert_eq!(ports(&plane, filter).await, expected, "{filter}");
    }
    let offered = plane.json(&format!("/api/v1/flows/filter?filter={}", encoded("network = l"))).await;
    assert_eq!(offered["candidates"], json!([{"text": "lab", "description": ""}]));
    let offered = plane.json(&format!("/api/v1/flows/filter?filter={}", encoded("scope = in"))).await;
    assert_eq!(offered["candidates"].as_array().map(Vec::len), Some(2), "{offered}");
    let csv = plane.get("/api/v1/flows/export?format=csv").await.text().await.expect("text");
    assert!(csv.lines().next().expect("a header").ends_with(",src_network,dst_network,scope,service"));
    assert_eq!(csv.lines().filter(|line| line.ends_with(",lab,guests,outbound,")).count(), 1);
}

/// S5: two sites may both have 192.168.1.0/24; and however many names there are, a filter finds what a column says.
#[tokio::test(flavor = "multi_thread")]
async fn s5_a_sensors_own_network_holds_for_it_alone_and_filters_agree_with_columns() {
    let plane = plane_with_flows(&["edge-1", "edge-2"]).await;
    plane.network(json!({"name": "site", "prefixes": ["10.0.0.0/8"]})).await;
    plane.network(json!({"name": "ams", "prefixes": ["10.1.0.0/16"], "sensor": "edge-1"})).await;
    plane.network(json!({"name": "rtm", "prefixes": ["10.1.0.0/16"], "sensor": "edge-2"})).await;
    let outside = json!({"name": "lent", "prefixes": ["10.1.2.0/24"], "sensor": "edge-2", "internal": false});
    plane.network(outside).await;
    let of_flow = async |sensor| plane.shown(sensor).await[1].clone();
    assert_eq!(of_flow("edge-1").await, json!(["ams", "site", "internal"]));
    assert_eq!(of_flow("edge-2").await, json!(["lent", "site", "inbound"]));
    for (filter, expected) in [
        ("network = ams", vec![1, 2, 3, 5, 6]),
        ("src_network = rtm", vec![1, 5, 6]),
        ("network = lent and sensor = edge-1", vec![]),
        ("network = lent", vec![2, 3]),
        ("dst_network = site", vec![2, 2]),
        ("scope = inbound", vec![2, 3]),
    ] {
        assert_eq!(ports(&plane, filter).await, expected, "{filter}");
    }
    // More names than fit into a few conditions.
    for at in 0..40 {
        plane.network(json!({"name": format!("n{at}"), "prefixes": [format!("10.1.{at}.0/26")]})).await;
    }
    let all = plane.json("/api/v1/flows?limit=100").await;
    for name in ["site", "ams", "rtm", "lent", "n0", "n2"] {
        let said = all["items"].as_array().expect("a list").iter();
        let mut said: Vec<u64> = said
            .filter(|item| item["src_network"] == *name || item["dst_network"] == *name)
            .filter_map(|item| item["dst_port"].as_u64())
            .collect();
        said.sort_unstable();
        assert_eq!(ports(&plane, &format!("network = {name}")).await, said, "{name}");
    }
    assert_eq!(ports(&plane, "network = n0").await, [1, 1, 5, 5, 6, 6]);

    // The same of IPv6.
    let six = |src: u64, port: u32| weir_wire::Flow {
        ip_version: 6,
        src_high: 0x2001_0db8_0000_0000 | src,
        src_low: 9,
        dst_high: 0xfe80_0000_0000_0000,
        dst_low: u64::MAX,
        ..flow([0, 0, 0, 0], [0, 0, 0, 0], port, 1)
    };
    let flows = vec![six(0, 10), six(0x1_0000, 11), six(0x2_0000, 12), six(u64::from(u32::MAX), 13)];
    let token = plane.sensor("edge-3").await;
    plane.store(&token, &batch(1, 0, recent_minute_ns(), flows)).await;
    plane.network(json!({"name": "six", "prefixes": ["2001:db8::/32"]})).await;
    plane
        .network(json!({"name": "one", "prefixes": ["2001:db8:1::/48", "2001:db8:2::9"], "internal": false}))
        .await;
    assert_eq!(ports(&plane, "src_network = six").await, [10, 13]);
    assert_eq!(ports(&plane, "network = one").await, [11, 12]);
    assert_eq!(ports(&plane, "sensor = edge-3 and scope = internal").await, [10, 13]);
    assert_eq!(ports(&plane, "sensor = edge-3 and scope = inbound").await, [11, 12]);
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_a_rename_holds_at_once_for_kept_answers_too_and_is_in_the_log() {
    let plane = plane_with_flows(&["edge-1"]).await;
    plane.user("otto", Role::Operator).await;
    let otto = plane.log_in("otto").await.access;
    let call = async |method, path: &str, body: Value| plane.call(method, path, &otto, &body).await;
    let (status, made) =
        call(Method::POST, NETWORKS, json!({"name": "office", "prefixes": ["10.1.0.0/16"]})).await;
    assert_eq!((status, &made["internal"], &made["sensor"]), (200, &json!(true), &Value::Null), "{made}");
    let from = recent_minute_ns();
    let window = format!(
        "from={}&to={}",
        crate::support::rfc3339(from - 3_600 * crate::support::SECOND),
        crate::support::rfc3339(from + 60 * crate::support::SECOND)
    );
    let sums =
        format!("/api/v1/flows/timeseries?{window}&step=1h&filter={}", encoded("src_network = office"));
    let flows = async || {
        let series = plane.json(&sums).await;
        let points = series["points"].as_array().expect("points").clone();
        points.iter().filter_map(|point| point["flows"].as_i64()).sum::<i64>()
    };
    assert_eq!(flows().await, 4);
    let (status, changed) = call(
        Method::PATCH,
        "/api/v1/networks/office",
        json!({"name": "floor-2", "prefixes": ["10.1.2.0/24"]}),
    )
    .await;
    assert_eq!(
        (status, &changed["name"], &changed["prefixes"]),
        (200, &json!("floor-2"), &json!(["10.1.2.0/24"]))
    );
    assert_eq!(flows().await, 0);
    assert_eq!(ports(&plane, "network = floor-2").await, [2, 3]);
    assert_eq!(plane.json(&format!("{NETWORKS}/{}", made["id"])).await, changed);
    let (status, gone) = call(Method::DELETE, "/api/v1/networks/floor-2", Value::Null).await;
    assert_eq!((status, &gone), (200, &changed));
    assert_eq!(ports(&plane, "network ~ *").await, Vec::<u64>::new());
    assert_eq!(call(Method::DELETE, "/api/v1/networks/floor-2", Value::Null).await.0, 404);
    let logged = plane.json("/api/v1/audit?subject_kind=network").await;
    let items = logged["items"].as_array().expect("a list");
    let actions: Vec<&str> = items.iter().filter_map(|item| item["action"].as_str()).collect();
    assert_eq!(actions, ["network.remove", "network.change", "network.create"]);
    assert!(items.iter().all(|item| item["actor"] == "otto"), "{logged}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_what_cannot_be_a_network_is_refused_and_named() {
    let plane = plane_with_flows(&["edge-1"]).await;
    plane.network(json!({"name": "office", "prefixes": ["10.1.0.0/16"]})).await;
    for (body, field) in [
        (json!({"name": "Office", "prefixes": ["10.0.0.0/8"]}), "name"),
        (json!({"name": "7", "prefixes": ["10.0.0.0/8"]}), "name"),
        (json!({"name": "a", "prefixes": []}), "prefixes"),
        (json!({"name": "a", "prefixes": ["10.0.0.0/8", "10.1.0.0/33"]}), "prefixes"),
        (json!({"name": "a", "prefixes": ["10.0.0.0/8", "10.7.0.0/8"]}), "prefixes"),
        (json!({"name": "a", "prefixes": ["10.0.0.0/8"], "sensor": "edge-7"}), "sensor"),
        (json!({"name": "a", "prefixes": ["10.0.0.0/8"], "sensor": "'"}), "sensor"),
        (json!({"name": "a", "prefixes": ["10.0.0.0/8"], "description": "a\u{1b}[2J"}), "description"),
        (json!({"name": "a", "prefixes": ["10.0.0.0/8"], "internal": "yes"}), "internal"),
        (json!({"name": "a", "prefixes": ["10.0.0.0/8"], "vlan": 10}), "vlan"),
    ] {
        let (status, problem) = plane.call(Method::POST, NETWORKS, ADMIN_TOKEN, &body).await;
        assert_eq!((status, &problem["errors"][0]["field"]), (400, &json!(field)), "{body}: {problem}");
    }
    for (body, kind) in [
        (json!({"name": "office", "prefixes": ["10.0.0.0/8"]}), "name-taken"),
        (json!({"name": "a", "prefixes": ["10.2.0.0/16", "10.1.0.0/16"]}), "prefix-taken"),
    ] {
        let (status, problem) = plane.call(Method::POST, NETWORKS, ADMIN_TOKEN, &body).await;
        let kind = format!("urn:weir:problem:{kind}");
        assert_eq!((status, &problem["type"]), (409, &json!(kind)), "{body}: {problem}");
    }
    // Bounded, and a question by the last of them still has its answer.
    plane.sql(
        "INSERT INTO network (name, prefixes, internal, description)
         SELECT 'n' || at, ARRAY(SELECT set_masklen(inet '172.16.0.0' + (at * 4 + part) * 256, 24)::cidr FROM generate_series(0, 3) part),
                true, '' FROM generate_series(1, 999) at",
    );
    for (body, what) in [
        (json!({"name": "a", "prefixes": ["10.2.0.0/16"]}), "1000 networks"),
        (json!({"name": "a", "prefixes": ["10.2.0.0/16"], "sensor": "edge-1"}), "1000 networks"),
    ] {
        let (status, problem) = plane.call(Method::POST, NETWORKS, ADMIN_TOKEN, &body).await;
        assert_eq!((status, &problem["type"]), (409, &json!("urn:weir:problem:too-many")), "{problem}");
        assert!(problem["detail"].as_str().expect("text").contains(what), "{problem}");
    }
    let (status, problem) = plane
        .call(
            Method::PATCH,
            "/api/v1/networks/office",
            ADMIN_TOKEN,
            &json!({"prefixes": ["10.1.0.0/16", "10.3.0.0/16", "10.4.0.0/16", "10.5.0.0/16", "10.6.0.0/16"]}),
        )
        .await;
    assert_eq!((status, &problem["type"]), (409, &json!("urn:weir:problem:too-many")), "{problem}");
    assert_eq!(ports(&plane, "src_network = office").await, [1, 2, 5, 6]);
    assert_eq!(ports(&plane, "network ~ n*").await, Vec::<u64>::new());
    let first = plane.json("/api/v1/networks?limit=600").await;
    let rest =
        format!("/api/v1/networks?limit=600&continuation={}", first["continuation"].as_str().expect("more"));
    let rest = plane.json(&rest).await;
    assert_eq!((rest["items"].as_array().map(Vec::len), &rest["has_more"]), (Some(400), &json!(false)));
}

/// U5: what a sensor alone saw goes with it, and with it what the log says of that.
#[tokio::test(flavor = "multi_thread")]
async fn u5_a_sensors_own_networks_go_with_it() {
    let plane = plane_with_flows(&["edge-1", "edge-2"]).await;
    plane
        .network(json!({"name": "attic-unmistakable", "prefixes": ["10.1.0.0/16"], "sensor": "edge-1",
                         "description": "of zoe-example"}))
        .await;
    plane
        .network(json!({"name": "cellar-unmistakable", "prefixes": ["10.2.0.0/16"], "sensor": "edge-1"}))
        .await;
    plane.ok(Method::DELETE, "/api/v1/networks/cellar-unmistakable", &Value::Null).await;
    plane.network(json!({"name": "site", "prefixes": ["10.0.0.0/8"]})).await;
    assert_eq!(plane.erase("/api/v1/sensors/edge-1", ADMIN_TOKEN).await.0, 202);
    plane.all_erased().await;
    for gone in ["unmistakable", "zoe-example"] {
        assert_eq!(plane.traces(gone), Vec::<String>::new(), "{gone}");
    }
    let left = plane.json(NETWORKS).await;
    assert_eq!(left["items"].as_array().map(Vec::len), Some(1), "{left}");
}

impl Plane<'_> {
    /// Whether it was counted from rows, and what is ranked with its flows; those of nobody last.
    async fn ranked_networks(&self, by: &str) -> (bool, Vec<(String, i64)>, i64) {
        let top = self.json(&format!("/api/v1/flows/top?metric=flows&by={by}")).await;
        assert_eq!(top["by"], by);
        let items = top["items"].as_array().expect("a list").iter().map(|item| {
            (item["network"].as_str().expect("a name").to_owned(), item["flows"].as_i64().expect("a number"))
        });
        let exact = top["exact"].as_bool().expect("a flag");
        (exact, items.collect(), top["other"]["flows"].as_i64().expect("a number"))
    }
}

/// S5, A8: rollups know what the rows know, and what they pooled is nobody's, whatever network holds every address.
#[tokio::test(flavor = "multi_thread")]
async fn s5_networks_are_ranked_alike_from_rows_and_from_rollups() {
    let plane = plane_with_flows(&["edge-1", "edge-2"]).await;
    plane.network(json!({"name": "office", "prefixes": ["10.1.0.0/16"]})).await;
    plane.network(json!({"name": "lab", "prefixes": ["10.1.2.0/24"], "sensor": "edge-2"})).await;
    plane.network(json!({"name": "all-six", "prefixes": ["::/0"]})).await;
    let named = |names: &[(&str, i64)]| {
        names.iter().map(|(name, flows)| ((*name).to_owned(), *flows)).collect::<Vec<_>>()
    };
    let src = named(&[("office", 7), ("lab", 1)]);
    let dst = named(&[("lab", 1), ("office", 1)]);
    assert_eq!(plane.ranked_networks("src_network").await, (true, src.clone(), 4));
    assert_eq!(plane.ranked_networks("dst_network").await, (true, dst.clone(), 10));
    // As if there were more flows than are counted one by one: the sums by protocol say how many there are.
    for table in ["rollup_1m", "rollup_1h"] {
        plane.sql(&format!("UPDATE {table} SET flows = flows + 500000 WHERE dimension = 5 AND protocol = 6"));
    }
    let more = 2 * 500_000;
    assert_eq!(plane.ranked_networks("src_network").await, (false, src, 4 + more));
    assert_eq!(plane.ranked_networks("dst_network").await, (false, dst.clone(), 10 + more));
    // One that was pooled is among the others.
    for table in ["rollup_1m", "rollup_1h"] {
        plane.sql(&format!(
            "UPDATE {table} SET src = '::/0' WHERE dimension = 1 AND src = '10.1.2.7' AND sensor_id = 2"
        ));
    }
    let less = named(&[("office", 7)]);
    assert_eq!(plane.ranked_networks("src_network").await, (false, less, 5 + more));
    plane.ok(Method::PATCH, "/api/v1/networks/office", &json!({"name": "floor-2"})).await;
    assert_eq!(plane.ranked_networks("src_network").await.1, named(&[("floor-2", 7)]));
    let compared = plane.json("/api/v1/flows/top?by=src_network&compare=previous").await;
    assert_eq!(compared["items"][0]["previous"]["flows"], 0, "{compared}");
}

/// S5: rules of alerts choose flows by the names of now, too.
#[tokio::test(flavor = "multi_thread")]
async fn s5_an_alert_watches_a_network_by_its_name() {
    let plane = plane_with_flows(&["edge-1"]).await;
    plane.network(json!({"name": "office", "prefixes": ["10.1.0.0/16"]})).await;
    for (name, filter) in [
        ("leaves", "src_network = office and scope != internal"),
        ("stays", "src_network = office and scope = internal"),
        ("nobody", "network = nowhere or service = ssh"),
    ] {
        let condition =
            json!({"kind": "threshold", "measure": "flows", "window_s": 600, "above": 2, "filter": filter});
        plane.rule(json!({"name": name, "condition": condition, "summary": "Flows"})).await;
    }
    plane.look(0).await;
    assert_eq!(plane.sql("SELECT rule || ' ' || value FROM alert"), "leaves 3");
}
