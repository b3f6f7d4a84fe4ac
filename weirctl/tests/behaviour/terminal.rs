//! U7, I6: the program at a real terminal, which `script` of util-linux makes and shows what came to it: a password that
//! is typed is not seen, colours are there and nowhere else, and no name of a stranger moves a cursor.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use weir_control_plane::auth::Role;
use weir_wire::Severity;
use weir_wire::text::is_hostile;

use crate::people::PASSWORD;
use crate::program::Program;
use crate::support::{Plane, batch, detection, mixed_flows, recent_minute_ns};

const GIVE_UP: Duration = Duration::from_mins(1);
/// What the program itself may say to a terminal.
const COLOURS: [&str; 4] = ["\u{1b}[1m", "\u{1b}[31m", "\u{1b}[33m", "\u{1b}[0m"];

/// The same command with a terminal of its own.
fn at_a_terminal(command: &Command) -> Command {
    let command = command.as_std();
    let quoted =
        |text: &std::ffi::OsStr| format!("'{}'", text.to_str().expect("text").replace('\'', "'\\''"));
    let line: Vec<String> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(quoted).collect();
    let mut script = Command::new("script");
    script.args(["--quiet", "--flush", "--return", "--command", &line.join(" "), "/dev/null"]).env_clear();
    script.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    script.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("TERM", "xterm");
    script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    script
}

/// Runs it to its end; gives its exit code and what the terminal shows.
async fn shown(command: &Command) -> (i32, String) {
    let mut child = at_a_terminal(command).spawn().expect("`script` runs");
    // Open until the end: a terminal that is hung up would end the program.
    let input = child.stdin.take();
    let output = tokio::time::timeout(GIVE_UP, child.wait_with_output()).await.expect("it ends");
    let output = output.expect("it is waited for");
    drop(input);
    (output.status.code().expect("no signal"), String::from_utf8(output.stdout).expect("text"))
}

/// The terminal of the program below `script`, once it has one.
fn terminal(script: &Child) -> Option<PathBuf> {
    let id = script.id()?;
    let below = |id: u32| -> Vec<u32> {
        let text = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        text.split_whitespace().filter_map(|id| id.parse().ok()).collect()
    };
    let path = std::fs::read_link(format!("/proc/{}/fd/0", below(id).first()?)).ok()?;
    path.starts_with("/dev/pts").then_some(path)
}

async fn is_silent(terminal: &PathBuf) -> bool {
    let asked = Command::new("stty").arg("-F").arg(terminal).arg("-a").output().await.expect("`stty` runs");
    String::from_utf8_lossy(&asked.stdout).split_whitespace().any(|word| word == "-echo")
}

#[tokio::test(flavor = "multi_thread")]
async fn u7_a_password_that_is_typed_is_not_seen() {
    let plane = Plane::start().await;
    plane.user("ann", Role::Viewer).await;
    let program = Program::of(&plane);
    let url = plane.url("");
    let mut child = at_a_terminal(&program.bare(&["login", &url, "ann"])).spawn().expect("`script` runs");
    let mut input = child.stdin.take().expect("a pipe");
    let deadline = Instant::now() + GIVE_UP;
    loop {
        assert!(Instant::now() < deadline, "the terminal still shows what is typed");
        if let Some(terminal) = terminal(&child)
            && is_silent(&terminal).await
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    input.write_all(format!("{PASSWORD}\n").as_bytes()).await.expect("it is typed");
    let mut seen = String::new();
    let mut output = child.stdout.take().expect("a pipe");
    tokio::time::timeout(GIVE_UP, output.read_to_string(&mut seen)).await.expect("it ends").expect("text");
    assert!(child.wait().await.expect("it ends").success(), "{seen}");
    drop(input);
    assert!(seen.contains("Password: ") && seen.contains("as ann (viewer)"), "{seen:?}");
    assert!(!seen.contains(PASSWORD), "{seen:?}");
    assert_eq!(program.person(&["whoami"]).await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn i6_a_terminal_gets_our_colours_and_nothing_of_a_strangers() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let mut batch = batch(1, 0, recent_minute_ns(), mixed_flows());
    batch.names = vec!["www.example.org".to_owned()];
    for flow in &mut batch.flows {
        (flow.name, flow.name_source) = (1, weir_wire::NameSource::Tls as i32);
    }
    batch.detections = vec![detection("port_scan", "10.0.0.66", Severity::High, 20)];
    plane.store(&token, &batch).await;
    plane.sql("UPDATE domain SET name = E'www.\\x1b[2J\\u009b31mexample\\u202eorg'");
    let program = Program::of(&plane);

    let (code, seen) = shown(&program.command(&["detections"])).await;
    assert_eq!(code, 0, "{seen:?}");
    assert!(seen.starts_with(COLOURS[0]) && seen.contains("\u{1b}[31mhigh"), "{seen:?}");
    let mut plain = program.command(&["detections"]);
    plain.env("NO_COLOR", "1");
    let (_, without) = shown(&plain).await;
    let piped = program.admin(&["detections"]).await;
    assert_eq!(without.replace("\r\n", "\n"), piped.out);
    let strip = |seen: &str| COLOURS.iter().fold(seen.to_owned(), |text, colour| text.replace(colour, ""));
    assert_eq!(strip(&seen).replace("\r\n", "\n"), piped.out, "but for colours it is the same");

    for arguments in [
        &["domains"][..],
        &["domains", "--json"],
        &["flows"],
        &["top", "--by", "name"],
        &["tail"],
        &["flows", "--filter", "name = \u{1b}[2J"],
    ] {
        let (_, seen) = shown(&program.command(arguments)).await;
        for line in strip(&seen).split("\r\n") {
            assert!(!line.contains(is_hostile), "{arguments:?}: {line:?}");
        }
    }
    let (_, seen) = shown(&program.command(&["domains"])).await;
    assert!(seen.contains("www.\\u001b[2J\\u009b31mexample\\u202eorg"), "{seen:?}");
    let (code, seen) = shown(&program.command(&["detections", "ack", "999"])).await;
    assert_eq!(code, 4);
    assert!(seen.starts_with("\u{1b}[31merror:\u{1b}[0m "), "{seen:?}");
}
