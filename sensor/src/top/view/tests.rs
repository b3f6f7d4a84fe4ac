//! Tables of what was shipped, and what a person sees of them.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use weir_wire::{DeviceAddress, DeviceFact, DeviceReason, Fact};

use super::super::screen::{Answer, Screen};
use super::super::{Order, draw};
use super::*;

const SECOND: i64 = 1_000_000_000;
/// 2026-01-01T00:00:00Z
const START: i64 = 1_767_225_600 * SECOND;

fn flow(client: u8, port: u16, octets: u64, name: u32) -> Flow {
    Flow {
        ip_version: 4,
        src_low: 0x0a00_0000 + u64::from(client),
        dst_low: 0xcb00_7101,
        protocol: 6,
        src_port: 40_000,
        dst_port: port.into(),
        packets: 3,
        octets,
        reverse_packets: 1,
        reverse_octets: 1_000,
        name,
        name_source: NameSource::Tls as i32,
        ..Flow::default()
    }
}

fn batch(epoch: u64, flows: Vec<Flow>) -> Batch {
    let start_ns = START + epoch as i64 * SECOND;
    Batch {
        epoch,
        window_start_ns: start_ns,
        window_end_ns: start_ns + SECOND,
        names: vec!["www.example.org".to_owned()],
        flows,
        ..Batch::default()
    }
}

fn rows(view: &View, tab: Tab) -> Vec<String> {
    let mut table = view.table(tab);
    table.sort(&Order { column: tab.first_order(), descending: true });
    let line = |row: &Vec<Cell>| row.iter().map(Cell::shown).collect::<Vec<_>>().join(" | ");
    table.rows.iter().map(line).collect()
}

#[test]
fn flows_talkers_and_names_are_rates_over_the_last_seconds() {
    let mut view = View::new(Duration::from_secs(2));
    view.add(batch(0, vec![flow(9, 22, 99_000, 0)]));
    view.add(batch(1, vec![flow(1, 443, 1_000, 1)]));
    // Two parts of one epoch.
    view.add(batch(2, vec![flow(1, 443, 3_000, 0)]));
    view.add(batch(2, vec![flow(2, 443, 500, 1)]));
    let totals = view.totals();
    assert_eq!((totals.flows, totals.packets, totals.octets, totals.seconds), (3, 12, 7_500, 2.0));
    assert_eq!(
        rows(&view, Tab::Flows),
        [
            "10.0.0.1:40000 | 203.0.113.1:443 | tcp | www.example.org | 24.0 kbit/s | 4/s | ",
            "10.0.0.2:40000 | 203.0.113.1:443 | tcp | www.example.org | 6.0 kbit/s | 2/s | ",
        ]
    );
    assert_eq!(
        rows(&view, Tab::Talkers),
        [
            "203.0.113.1 | 30.0 kbit/s | 12.0 kbit/s | 18.0 kbit/s | 2 | 2",
            "10.0.0.1 | 24.0 kbit/s | 16.0 kbit/s | 8.0 kbit/s | 1 | 1",
            "10.0.0.2 | 6.0 kbit/s | 2.0 kbit/s | 4.0 kbit/s | 1 | 1",
        ]
    );
    assert_eq!(rows(&view, Tab::Names), ["www.example.org | tls | 2 | 14.0 kbit/s | 2"]);
}

#[test]
fn a_flood_of_flows_keeps_the_largest_and_counts_all() {
    let mut view = View::new(Duration::from_secs(2));
    for part in 0..20_u64 {
        let flows = (0..1_000).map(|n| Flow { src_low: 0x0b00_0000 + part * 1_000 + n, ..flow(0, 80, n, 0) });
        view.add(batch(0, flows.collect()));
    }
    assert_eq!(view.totals().flows, 20_000);
    assert_eq!(view.table(Tab::Flows).rows.len(), FLOWS);
    assert!(view.seen().all(|flow| flow.octets >= 700));
}

fn device(key: &str, name: &str) -> Device {
    let fact = |source: &str, value: &str| DeviceFact {
        source: source.to_owned(),
        value: value.to_owned(),
        first_ns: 0,
        last_ns: 0,
    };
    Device {
        keys: vec![fact("mac", key), fact("duid", "shared")],
        addresses: vec![DeviceAddress { address: vec![10, 0, 0, 7], first_ns: 0, last_ns: 0 }],
        names: vec![fact("dhcp", name)],
        reasons: vec![DeviceReason {
            device_type: DeviceType::Printer as i32,
            weight: 40,
            ..Default::default()
        }],
        vendor: "Example".to_owned(),
        first_ns: 0,
        last_ns: 5 * SECOND,
    }
}

#[test]
fn devices_and_detections_stand_once_and_harm_no_terminal() {
    let mut view = View::new(Duration::from_secs(2));
    let detection = |count| weir_wire::Detection {
        kind: "port_scan".to_owned(),
        severity: Severity::High as i32,
        subject: "10.0.0.66\u{1b}[2J".to_owned(),
        count,
        last_ns: SECOND,
        evidence: vec![Fact { name: "ports".to_owned(), value: Some(FactValue::Number(22)) }],
        ..Default::default()
    };
    for epoch in 0..3 {
        let (detections, devices) =
            (vec![detection(10)], vec![device(&format!("m{epoch}"), "hp\u{202e}laser")]);
        view.add(Batch { detections, devices, ..batch(epoch, Vec::new()) });
    }
    assert_eq!(rows(&view, Tab::Devices), ["hp\u{b7}laser | printer | Example | 10.0.0.7 | 00:00:07"]);
    assert_eq!(
        rows(&view, Tab::Detections),
        ["3 high | port_scan | 10.0.0.66\u{b7}[2J | 30 | 00:00:03 | ports=22"]
    );
}

#[test]
fn keys_choose_sort_filter_hold_and_quit() {
    let mut view = View::new(Duration::from_mins(1));
    view.add(batch(0, vec![flow(1, 443, 1_000, 1), flow(2, 22, 9_000, 0)]));
    let mut screen = Screen::default();
    let mut terminal = Terminal::new(TestBackend::new(120, 8)).expect("a terminal");
    let mut shown = |screen: &mut Screen, view: &View| {
        terminal.draw(|frame| draw::draw(frame, view, screen)).expect("it draws");
        terminal.backend().to_string()
    };
    let key = |code| KeyEvent::new(code, KeyModifiers::NONE);
    let first = shown(&mut screen, &view);
    let place = |text: &str, what: &str| text.find(what).unwrap_or(usize::MAX);
    assert!(first.contains("1 flows") && first.contains("traffic v") && first.contains("q quit"), "{first}");
    assert!(place(&first, ":22") < place(&first, ":443"), "{first}");
    assert_eq!(screen.key(key(KeyCode::Char('r'))), Answer::Stay);
    let turned = shown(&mut screen, &view);
    assert!(turned.contains("traffic ^") && place(&turned, ":443") < place(&turned, ":22"), "{turned}");
    for code in [KeyCode::Char('/'), KeyCode::Char('q'), KeyCode::Backspace] {
        assert_eq!(screen.key(key(code)), Answer::Stay, "q belongs to the filter");
    }
    "EXAMPLE.org".chars().for_each(|letter| assert_eq!(screen.key(key(KeyCode::Char(letter))), Answer::Stay));
    screen.key(key(KeyCode::Enter));
    let filtered = shown(&mut screen, &view);
    assert!(filtered.contains(":443") && !filtered.contains(":22 "), "{filtered}");
    // Held: what comes is not shown until it is let go.
    screen.key(key(KeyCode::Char('p')));
    let held = shown(&mut screen, &view);
    view.add(batch(1, vec![flow(3, 443, 1_000, 1)]));
    let still = shown(&mut screen, &view);
    assert!(held.contains("paused") && !still.contains("10.0.0.3"), "{still}");
    screen.key(key(KeyCode::Char('p')));
    assert!(shown(&mut screen, &view).contains("10.0.0.3"));
    screen.key(key(KeyCode::Char('5')));
    assert_eq!(screen.tab, Tab::Detections);
    assert_eq!(screen.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Answer::Quit);
    assert_eq!(screen.key(key(KeyCode::Char('q'))), Answer::Quit);
}
