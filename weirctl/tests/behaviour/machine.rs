//! I1: lists as tables and as JSON, errors as exit codes, and nothing of a stranger's that moves a cursor.

use weir_wire::text::is_hostile;
use weir_wire::{NameSource, Severity};

use crate::program::{Program, ended};
use crate::support::{Plane, batch, detection, mixed_flows, recent_minute_ns};

/// With flows, a name that was hostile once, and a detection.
async fn furnished() -> Plane<'static> {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let mut batch = batch(1, 0, recent_minute_ns(), mixed_flows());
    batch.names = vec!["www.example.org".to_owned()];
    for flow in &mut batch.flows {
        (flow.name, flow.name_source) = (1, NameSource::Tls as i32);
    }
    batch.detections = vec![detection("port_scan", "10.0.0.66", Severity::High, 20)];
    plane.store(&token, &batch).await;
    // As an older version, or somebody in the database, may have left it.
    plane.sql("UPDATE domain SET name = E'www.\\x1b[2J\\u009b31mexample\\u202eorg'");
    plane
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_lists_are_tables_for_people_and_lines_of_json_for_programs() {
    let plane = furnished().await;
    let program = Program::of(&plane);
    let sensors = program.admin(&["sensors"]).await;
    assert_eq!((sensors.code, sensors.err.as_str()), (0, ""), "{sensors:?}");
    let lines: Vec<&str> = sensors.out.lines().collect();
    assert_eq!(lines.len(), 2, "{sensors:?}");
    assert!(lines[0].starts_with("ID  NAME") && lines[1].starts_with("1   edge-1"), "{sensors:?}");

    let flows = program.admin(&["flows", "--all", "--json"]).await.json();
    assert_eq!(flows.len(), 41);
    let page = plane.json("/api/v1/flows?limit=1").await;
    assert_eq!(flows[0], page["items"][0], "all that the API says");
    let few = program.admin(&["flows", "--limit", "3", "--json"]).await.json();
    assert_eq!(few, flows[..3]);
    let filtered =
        program.admin(&["flows", "--filter", "dst_port = 53 and protocol = udp", "--json"]).await.json();
    assert_eq!(filtered.len(), 1);
    let table = program.admin(&["flows", "--filter", "dst_port = 53"]).await;
    assert!(table.out.contains("[2001:db8::1]:50000"), "{table:?}");

    let top = program.admin(&["top", "--by", "pair", "--limit", "2"]).await;
    assert_eq!((top.code, top.out.lines().count()), (0, 5), "{top:?}");
    assert!(top.out.lines().last().is_some_and(|line| line.starts_with("(all)")), "{top:?}");
    let top = program.admin(&["top", "--by", "port", "--json"]).await.json();
    assert_eq!(top[0]["by"], "port");

    let empty = program.admin(&["alerts"]).await;
    assert_eq!((empty.code, empty.out.as_str(), empty.err.as_str()), (0, "", "no alerts\n"));
}

/// S5: networks are named and their names taken back.
#[tokio::test(flavor = "multi_thread")]
async fn s5_networks_are_named_listed_and_removed() {
    let plane = furnished().await;
    let program = Program::of(&plane);
    let none = program.admin(&["networks", "list"]).await;
    assert_eq!((none.code, none.out.as_str(), none.err.as_str()), (0, "", "no networks\n"));
    let arguments =
        ["networks", "add", "guests", "10.0.0.0/8", "2001:db8::/32", "--external", "--sensor", "edge-1"];
    let added = program.admin(&arguments).await;
    assert_eq!((added.code, added.out.as_str()), (0, "network guests is named\n"), "{added:?}");
    let again = program.admin(&arguments).await;
    assert_eq!(again.code, 5, "{again:?}");
    let listed = program.admin(&["networks", "list"]).await;
    let cells: Vec<&str> = listed.out.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!(cells, ["1", "guests", "10.0.0.0/8", "2001:db8::/32", "edge-1", "no"]);
    let flows = program.admin(&["flows", "--filter", "network = guests", "--json"]).await.json();
    assert!(!flows.is_empty());
    let removed = program.admin(&["networks", "remove", "guests", "--json"]).await.json();
    assert_eq!(removed[0]["name"], "guests");
    assert_eq!(program.admin(&["networks", "remove", "guests"]).await.code, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn i6_no_text_of_a_stranger_reaches_the_terminal_as_it_is() {
    let plane = furnished().await;
    let program = Program::of(&plane);
    for arguments in [
        &["domains"][..],
        &["domains", "--json"],
        &["flows"],
        &["flows", "--json"],
        &["top", "--by", "name", "--since", "1h"],
        &["detections"],
        &["tail"],
        &["tail", "--json"],
        &["flows", "--filter", "name = \u{1b}[2J"],
    ] {
        let shown = program.admin(arguments).await;
        for line in shown.out.lines().chain(shown.err.lines()) {
            assert!(!line.contains(is_hostile), "{arguments:?}: {line:?}");
        }
    }
    let domains = program.admin(&["domains", "--json"]).await.json();
    assert_eq!(domains[0]["name"], "www.\u{1b}[2J\u{9b}31mexample\u{202e}org", "the same value, escaped");
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_detections_are_judged() {
    let plane = furnished().await;
    let program = Program::of(&plane);
    let listed = program.admin(&["detections", "--severity", "high", "--json"]).await.json();
    let id = listed[0]["id"].to_string();
    for (arguments, state) in [
        (vec!["detections", "ack", &id], "acknowledged"),
        (vec!["detections", "dismiss", &id, "--reason", "our own scanner"], "dismissed"),
        (vec!["detections", "reopen", &id], "active"),
    ] {
        let judged = program.admin(&arguments).await;
        assert_eq!(judged.out, format!("detection {id} is {state}\n"), "{judged:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_errors_name_the_request_and_have_exit_codes() {
    let plane = furnished().await;
    let program = Program::of(&plane);
    let wrong = program.admin(&["flows", "--filter", "dst_port = "]).await;
    assert_eq!((wrong.code, wrong.out.as_str()), (2, ""), "{wrong:?}");
    assert!(wrong.err.starts_with("error: ") && wrong.err.contains("\n  filter: "), "{wrong:?}");
    assert!(wrong.err.lines().last().is_some_and(|line| line.starts_with("  request ")), "{wrong:?}");
    assert_eq!(program.admin(&["detections", "ack", "999"]).await.code, 4);
    assert_eq!(program.admin(&["flows", "--since", "soon"]).await.code, 2);
    assert_eq!(program.admin(&["nonsense"]).await.code, 2);

    let (narrow, _) = plane.machine(crate::support::ADMIN_TOKEN, "viewer", &["flows"]).await;
    std::fs::write(program.path("narrow"), narrow).expect("written");
    let narrow = program.path("narrow").display().to_string();
    assert_eq!(program.admin(&["--token-file", &narrow, "flows"]).await.code, 0);
    assert_eq!(program.admin(&["--token-file", &narrow, "sensors"]).await.code, 3);
    assert_eq!(program.admin(&["--token-file", "/nowhere", "flows"]).await.code, 1);

    let nobody = Program::at("http://127.0.0.1:9").admin(&["sensors"]).await;
    assert_eq!(nobody.code, 7, "{nobody:?}");
    assert_eq!(Program::at("ftp://127.0.0.1").admin(&["sensors"]).await.code, 2);
    // Something else that speaks HTTP.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let stranger = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = listener.accept().await.expect("somebody");
        let _ = stream.read(&mut [0; 4_096]).await;
        let answer = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n";
        let _ = stream.write_all(answer.as_bytes()).await;
    });
    let other = Program::at(&format!("http://{address}")).admin(&["sensors"]).await;
    assert_eq!(other.code, 1, "{other:?}");
    assert!(other.err.contains("is it a control plane?"), "{other:?}");
    stranger.await.expect("it answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_completions_and_the_man_page_need_no_server() {
    let program = Program::at("http://127.0.0.1:9");
    for arguments in
        [&["completions", "bash"][..], &["completions", "zsh"], &["man"], &["--help"], &["tail", "--help"]]
    {
        let shown = ended(program.bare(arguments)).await;
        assert_eq!(shown.code, 0, "{arguments:?}: {shown:?}");
        assert!(shown.out.contains("weirctl"), "{arguments:?}: {shown:?}");
    }
}
