//! K2: a program that holds the XDP hook already is reported and never replaced; TC is the way around it.
#![forbid(unsafe_code)]

use weir_e2e::{Site, wire};
use weir_testbed::netns::{Namespace, Veth};
use weir_testbed::weir::Watch;

/// The id of the XDP program on an interface, as `ip` shows it.
fn xdp_on(namespace: &Namespace, interface: &str) -> serde_json::Value {
    let links = namespace.ip(&["-json", "-details", "link", "show", "dev", interface]).expect("ip answers");
    let links: serde_json::Value = serde_json::from_str(&links).expect("ip answers in JSON");
    links[0]["xdp"]["prog"]["id"].clone()
}

#[test]
fn a_program_that_was_there_first_stays() {
    let site = Site::new().expect("a control plane starts");
    let sender = site.member("sender", 0).expect("a member is made");
    let receiver = site.member("receiver", 1).expect("a member is made");
    wire((&sender, "tx"), (&receiver, "rx"), Veth::default()).expect("a wire is made");
    let first = site
        .sensor("first", &Watch::interface("rx", "native", "off"), &receiver)
        .expect("the first sensor starts");
    let holder = xdp_on(&receiver, "rx");
    assert!(holder.is_u64(), "the first sensor holds the hook: {holder}");

    for mode in ["auto", "native", "generic"] {
        let error = site
            .sensor(&format!("second-{mode}"), &Watch::interface("rx", mode, "off"), &receiver)
            .expect_err("the hook is taken")
            .to_string();
        assert!(error.contains("is attached already"), "{mode}: {error}");
        assert!(error.contains("`rx`") && error.contains(&holder.to_string()), "{mode}: {error}");
        assert!(error.contains("ingress = \"tc\""), "{mode}: the way out is named: {error}");
        assert_eq!(xdp_on(&receiver, "rx"), holder, "{mode}: the program is still there");
    }

    let mut third =
        site.sensor("third", &Watch::interface("rx", "tc", "off"), &receiver).expect("TC is another hook");
    assert!(third.stop().expect("the sensor ends").success(), "{}", third.log());
    drop(first);
}
