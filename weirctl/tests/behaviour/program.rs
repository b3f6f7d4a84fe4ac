//! The program, with a configuration folder of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::support::{ADMIN_TOKEN, Plane};

pub struct Program {
    pub folder: tempfile::TempDir,
    url: String,
}

/// What a run came to.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Program {
    pub fn of(plane: &Plane<'_>) -> Self {
        Self::at(&plane.url(""))
    }

    pub fn at(url: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("token"), format!("{ADMIN_TOKEN}\n")).expect("written");
        Self { folder, url: url.to_owned() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Without a server, a token or a proxy of whoever runs the tests.
    pub fn bare(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weirctl"));
        command.args(arguments).env_clear().env("XDG_CONFIG_HOME", self.folder.path()).env("NO_PROXY", "*");
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// As the admin token.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.bare(arguments);
        command.env("WEIRCTL_URL", &self.url).env("WEIRCTL_TOKEN_FILE", self.path("token"));
        command
    }

    pub async fn admin(&self, arguments: &[&str]) -> Ended {
        ended(self.command(arguments)).await
    }

    /// As whoever logged in.
    pub async fn person(&self, arguments: &[&str]) -> Ended {
        ended(self.bare(arguments)).await
    }

    /// Logs in with a password on standard input.
    pub async fn log_in(&self, name: &str, password: &str, more: &[&str]) -> Ended {
        let mut command = self.bare(&["login", &self.url, name, "--password-stdin"]);
        let mut child = command
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        let mut input = child.stdin.take().expect("a pipe");
        // One that refuses its arguments does not read.
        let _ = input.write_all(format!("{password}\n").as_bytes()).await;
        drop(input);
        of(&child.wait_with_output().await.expect("it ends"))
    }

    pub fn session_file(&self) -> PathBuf {
        self.path("weir/weirctl.json")
    }
}

impl Ended {
    /// Lines of JSON.
    pub fn json(&self) -> Vec<Value> {
        assert_eq!(self.code, 0, "{self:?}");
        self.out.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }
}

pub async fn ended(mut command: Command) -> Ended {
    of(&command.output().await.expect("it runs"))
}

fn of(output: &std::process::Output) -> Ended {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    Ended {
        code: output.status.code().expect("no signal"),
        out: text(&output.stdout),
        err: text(&output.stderr),
    }
}

pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().expect("it is there").permissions().mode() & 0o777
}
