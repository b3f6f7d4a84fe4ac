//! S5: ports have names, which flows are shown with, chosen by and ranked with; an operator's own hold before IANA's.

use serde_json::{Value, json};
use weir_wire::Flow;

use crate::support::{Plane, batch, encoded, flow, ports, recent_minute_ns};

#[tokio::test(flavor = "multi_thread")]
async fn s5_flows_are_chosen_by_the_names_of_their_ports_and_shown_with_them() {
    let plane = Plane::start_with(|config| {
        let own = [("tcp/8443", "admin-console"), ("udp/53", "resolver")];
        config.services.0 = own.map(|(key, name)| (key.to_owned(), name.to_owned())).into();
    })
    .await;
    let token = plane.sensor("edge-1").await;
    let to = |protocol: u32, port: u32| Flow { protocol, ..flow([10, 0, 0, 1], [192, 0, 2, 80], port, 1) };
    let flows = vec![to(6, 443), to(17, 443), to(17, 53), to(6, 53), to(6, 8_443), to(6, 40_000), to(6, 22)];
    plane.store(&token, &batch(1, 0, recent_minute_ns(), flows)).await;
    for (filter, expected) in [
        ("service = https", vec![443, 443]),
        ("service = https and protocol = udp", vec![443]),
        ("service = domain", vec![53]),
        ("service in (resolver, ssh)", vec![22, 53]),
        ("service ~ admin*", vec![8_443]),
        ("service !~ *", vec![40_000]),
        ("service != https and service != domain", vec![22, 53, 8_443, 40_000]),
        ("service = HTTPS or service = nothing", vec![]),
    ] {
        assert_eq!(ports(&plane, filter).await, expected, "{filter}");
    }
    let named = plane.json(&format!("/api/v1/flows?filter={}", encoded("dst_port in (8443, 40000)"))).await;
    let mut named: Vec<&Value> =
        named["items"].as_array().expect("a list").iter().map(|item| &item["service"]).collect();
    named.sort_by_key(|name| name.is_null());
    assert_eq!(named, [&json!("admin-console"), &Value::Null]);
    let top = plane.json("/api/v1/flows/top?by=port&limit=100").await;
    let of = |protocol: u16, port: u16| {
        let mut items = top["items"].as_array().expect("a list").iter();
        let item = items.find(|item| item["protocol"] == protocol && item["port"] == port);
        item.expect("ranked").get("service").cloned()
    };
    assert_eq!((of(17, 53), of(6, 53)), (Some(json!("resolver")), Some(json!("domain"))));
    assert_eq!(of(6, 40_000), None);
    for (typed, offered) in [("service = admi", "admin-console"), ("service = resol", "resolver")] {
        let answer = plane.json(&format!("/api/v1/flows/filter?filter={}", encoded(typed))).await;
        assert_eq!(answer["candidates"], json!([{"text": offered, "description": ""}]), "{typed}");
    }
}
