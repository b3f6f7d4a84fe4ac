//! The command line as an operator meets it: help, versions, exit codes, bad arguments.

use std::process::{Command, Output};

fn weir_sensor(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir-sensor"))
        .args(arguments)
        .env_clear()
        .output()
        .expect("the binary was built for this test")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

#[test]
fn help_has_examples_and_exit_codes() {
    let help = weir_sensor(&["--help"]);
    assert_eq!(code(&help), Some(0));
    let help = text(&help.stdout);
    for word in ["run", "pcap", "check", "detach", "Exit codes", "2  wrong arguments"] {
        assert!(help.contains(word), "{word} in {help}");
    }
    for subcommand in ["run", "pcap", "check", "detach"] {
        let help = text(&weir_sensor(&[subcommand, "--help"]).stdout);
        assert!(help.contains("Examples:") && help.contains("CAP_BPF"), "{help}");
    }
    let version = text(&weir_sensor(&["--version"]).stdout);
    assert_eq!(version.trim(), concat!("weir-sensor ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_arguments_are_exit_code_2_and_a_message() {
    for (arguments, word) in [
        (&[][..], "Usage"),
        (&["fly"], "fly"),
        (&["pcap"], "FILE"),
        (&["pcap", "--json", "--limit", "3", "x.pcap"], "--limit"),
        (&["pcap", "--limit", "-3", "x.pcap"], "-3"),
        (&["pcap", "--limit", "many", "x.pcap"], "many"),
        (&["run", "--no-such-flag"], "--no-such-flag"),
        (&["run", "--config"], "--config"),
        (&["run", "--config", "/does/not/exist.toml"], "/does/not/exist.toml"),
        (&["run"], "--interface"),
        (&["run", "--interface", "a/b"], "interfaces[0].name"),
        (&["run", "--interface", "lo", "--set", "epoch=1ms"], "50ms to 1m"),
        (&["run", "--interface", "lo", "--set", "epoch"], "KEY=VALUE"),
        (&["run", "--interface", "lo", "--set", "colour=blue"], "colour"),
        (&["check", "--set", "sampling.interval=0"], "sampling.interval"),
    ] {
        let output = weir_sensor(arguments);
        let message = text(&output.stderr);
        assert_eq!(code(&output), Some(2), "{arguments:?}: {message}");
        assert!(message.contains(word), "{arguments:?}: {message}");
        assert!(output.stdout.is_empty(), "{arguments:?}: results and messages do not mix");
    }
}

#[test]
fn the_configuration_in_force_is_printed_without_secrets() {
    let output = Command::new(env!("CARGO_BIN_EXE_weir-sensor"))
        .args(["run", "--interface", "eth7", "--set", "epoch=2s", "--print-config"])
        .env_clear()
        .env("WEIR_SENSOR__CONTROL_PLANE__URL", "https://weir.example.org")
        .env("WEIR_SENSOR__CONTROL_PLANE__TOKEN", "do-not-print-me")
        .env("WEIR_SENSOR__SAMPLING__INTERVAL", "8")
        .output()
        .expect("the binary was built for this test");
    let printed = text(&output.stdout);
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    for line in [
        "epoch = \"2s\"",
        "name = \"eth7\"",
        "interval = 8",
        "token = \"[hidden]\"",
        "listen = \"127.0.0.1:9465\"",
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line} in {printed}");
    }
    assert!(!printed.contains("do-not-print-me") && !text(&output.stderr).contains("do-not-print-me"));
}

#[test]
fn an_unreadable_capture_is_exit_code_2() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("text.pcap");
    std::fs::write(&path, "not a capture").expect("it is written");
    let output = weir_sensor(&["pcap", "--json", path.to_str().expect("UTF-8"), "/does/not/exist.pcap"]);
    assert_eq!(code(&output), Some(2));
    let message = text(&output.stderr);
    assert!(
        message.contains("text.pcap: this is neither") && message.contains("cannot open capture /does/not"),
        "{message}"
    );
    assert!(output.stdout.is_empty());
}
