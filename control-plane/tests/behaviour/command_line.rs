//! O7, O10: the program itself: its commands, its exit codes, its messages.

use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use weir_control_plane::store::migrations::latest;

use crate::support::{ADMIN_TOKEN, database, shared};

/// A configuration in a folder of its own, and the program with it.
pub struct Setup {
    folder: tempfile::TempDir,
    url: String,
}

impl Setup {
    fn new() -> Self {
        Self::with("")
    }

    /// With more settings.
    pub fn with(more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("admin"), ADMIN_TOKEN).expect("written");
        let url = shared().database_url(&database(shared()));
        std::fs::write(
            folder.path().join("weir.toml"),
            format!(
                "[database]\nurl = \"{url}\"\n[auth]\nadmin_token_file = \"{}/admin\"\n{more}",
                folder.path().display()
            ),
        )
        .expect("written");
        Self { folder, url }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir-control-plane"));
        command.args(arguments).env("WEIR_CONTROL_PLANE_CONFIG", self.folder.path().join("weir.toml"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program runs")
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// The server, once it listens, and where.
    pub async fn serve(&self) -> (Child, String) {
        let address_file = self.folder.path().join("address");
        let _ = std::fs::remove_file(&address_file);
        // A file: a pipe that nobody reads would hold the server up.
        let log = std::fs::File::create(self.folder.path().join("log")).expect("a file");
        let mut child = self
            .command(&["serve", "--listen", "127.0.0.1:0", "--listen-file"])
            .arg(&address_file)
            .stderr(log)
            .spawn()
            .expect("the program runs");
        let started = Instant::now();
        while !address_file.exists() {
            assert!(started.elapsed() < Duration::from_secs(30), "it did not start");
            assert!(child.try_wait().expect("it can be asked").is_none(), "it ended early");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let address = std::fs::read_to_string(&address_file).expect("the address");
        (child, address.trim().to_owned())
    }

    /// Ends it by a signal; gives its exit code and what it logged.
    pub fn end(&self, mut child: Child, signal: nix::sys::signal::Signal) -> (Option<i32>, String) {
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        nix::sys::signal::kill(pid, signal).expect("it is signalled");
        let code = child.wait().expect("it ends").code();
        (code, std::fs::read_to_string(self.folder.path().join("log")).expect("text"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn o7_the_server_starts_says_where_and_ends_with_0_on_sigterm() {
    let setup = Setup::new();
    let sensor = setup.json(&["sensor", "add", "edge-1", "--json"]);
    assert_eq!((sensor["id"].as_i64(), sensor["name"].as_str()), (Some(1), Some("edge-1")));
    assert!(sensor["token"].as_str().is_some_and(|token| token.starts_with("weir_s_") && token.len() == 50));
    for signal in [nix::sys::signal::Signal::SIGTERM, nix::sys::signal::Signal::SIGINT] {
        let (child, address) = setup.serve().await;
        let sensors: Value = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client")
            .get(format!("http://{address}/api/v1/sensors"))
            .bearer_auth(ADMIN_TOKEN)
            .send()
            .await
            .expect("an answer")
            .json()
            .await
            .expect("JSON");
        assert_eq!(sensors["items"][0]["name"], "edge-1");
        let (code, log) = setup.end(child, signal);
        assert_eq!(code, Some(0), "{signal}");
        // A6: one line a request, in JSON, with its id.
        let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let request = lines.iter().find(|line| line["message"] == "request").expect("the request is logged");
        assert_eq!(
            (request["route"].as_str(), request["status"].as_u64()),
            (Some("/api/v1/sensors"), Some(200))
        );
        assert_eq!(
            (request["actor"].as_str(), request["request_id"].as_str().map(str::len)),
            (Some("admin"), Some(36))
        );
        assert!(!log.contains(ADMIN_TOKEN) && !log.contains(&setup.url), "{log}");
    }
}

#[test]
fn sensors_are_added_listed_revoked_and_removed() {
    let setup = Setup::new();
    let added = setup.run(&["sensor", "add", "edge-1"]);
    let token = String::from_utf8(added.stdout).expect("text");
    assert!(
        token.starts_with("weir_s_") && token.lines().count() == 1,
        "only the token is on standard output"
    );
    let again = setup.run(&["sensor", "add", "edge-1"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("already"));
    for wrong in ["", "12", "a b", "../x", "-x"] {
        let output = setup.run(&["sensor", "add", "--", wrong]);
        assert_eq!(output.status.code(), Some(1), "{wrong}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("cannot be a sensor's name"), "{wrong}");
    }
    assert_eq!(setup.json(&["sensor", "list", "--json"])["state"], "new");
    assert_eq!(setup.json(&["sensor", "revoke", "edge-1", "--json"])["state"], "revoked");
    assert_eq!(setup.json(&["sensor", "list", "--json"])["state"], "revoked");
    let nobody = setup.run(&["sensor", "revoke", "nobody"]);
    assert_eq!(nobody.status.code(), Some(1));
    let table = String::from_utf8(setup.run(&["sensor", "list"]).stdout).expect("text");
    assert!(table.contains("edge-1") && table.contains("revoked"), "{table}");
    assert!(!table.contains("weir_s_"));
    // I5: removed is more than revoked, and has to be meant.
    assert_eq!(setup.json(&["sensor", "remove", "edge-1", "--json"])["state"], "not removed");
    assert_eq!(setup.json(&["sensor", "list", "--json"])["state"], "revoked");
    assert_eq!(setup.json(&["sensor", "remove", "edge-1", "--yes", "--json"])["state"], "deleting");
    assert_eq!(setup.json(&["sensor", "list", "--json"])["state"], "deleting");
    assert_eq!(setup.run(&["sensor", "revoke", "edge-1"]).status.code(), Some(1));
    assert_eq!(setup.run(&["sensor", "remove", "nobody"]).status.code(), Some(1));
}

/// U2, U7: the first admin comes from the command line; a password is never an argument, and never weak.
#[test]
fn u2_users_are_added_changed_and_removed_by_command() {
    let setup = Setup::new();
    let piped = |arguments: &[&str], password: &str| {
        let mut command = setup.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program runs");
        // A program that refuses before it reads closes the pipe.
        let _ = std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), password.as_bytes());
        child.wait_with_output().expect("it ends")
    };
    let link = setup.json(&["setup-link", "--url", "https://weir.example/", "--json"]);
    assert_eq!(link["url"], "https://weir.example/api/v1/auth/setup");
    assert!(link["setup_token"].as_str().is_some_and(|token| token.starts_with("weir_u_")));

    for weak in ["", "short\n", "aaaaaaaaaaaaaaaa\n"] {
        let output = piped(&["user", "add", "ada", "--role", "admin"], weak);
        assert_eq!(output.status.code(), Some(1), "{weak}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("the password has"), "{weak}");
    }
    let output = piped(&["user", "add", "ada", "--role", "admin", "--json"], "correct horse battery\n");
    let ada: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (ada["name"].as_str(), ada["role"].as_str(), ada["state"].as_str()),
        (Some("ada"), Some("admin"), Some("active"))
    );
    let file = setup.folder.path().join("password");
    std::fs::write(&file, "staple under the moon\n").expect("written");
    let file = file.display().to_string();
    let bob = setup.json(&["user", "add", "Bob", "--role", "viewer", "--password-file", &file, "--json"]);
    assert_eq!(bob["name"], "bob");
    let again = setup.run(&["user", "add", "bob", "--role", "viewer", "--password-file", &file]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("already"));
    assert_eq!(setup.run(&["setup-link"]).status.code(), Some(1), "there is a user");

    assert_eq!(setup.json(&["user", "role", "bob", "--role", "operator", "--json"])["role"], "operator");
    assert_eq!(setup.json(&["user", "disable", "bob", "--json"])["state"], "disabled");
    assert_eq!(setup.json(&["user", "enable", "bob", "--json"])["state"], "active");
    assert_eq!(setup.json(&["user", "passwd", "bob", "--password-file", &file, "--json"])["name"], "bob");
    let last = setup.run(&["user", "remove", "ada", "--yes"]);
    assert_eq!(last.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&last.stderr).contains("last admin"));
    assert_eq!(setup.json(&["user", "remove", "bob", "--json"])["places"]["account"], 1);
    assert_eq!(setup.json(&["user", "remove", "bob", "--yes", "--json"])["state"], "deleting");
    assert_eq!(setup.run(&["user", "remove", "bob"]).status.code(), Some(1));
    let table = String::from_utf8(setup.run(&["user", "list"]).stdout).expect("text");
    assert!(table.contains("ada") && !table.contains("bob") && !table.contains("argon2"), "{table}");
    for rotate in [&["keys", "rotate"][..], &["keys", "rotate", "--now"]] {
        assert_eq!(setup.run(rotate).status.code(), Some(0), "{rotate:?}");
    }
}

#[test]
fn the_schema_goes_up_and_down_by_command() {
    let setup = Setup::new();
    let run = |arguments: &[&str]| {
        let output = setup.run(arguments);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let latest = latest();
    assert_eq!(run(&["migrate"]), (Some(0), format!("schema version 0 -> {latest}")));
    assert_eq!(run(&["migrate"]), (Some(0), format!("schema version {latest}: nothing to do")));
    assert_eq!(run(&["migrate", "--to", "2"]).0, Some(1));
    let rolled_back = (Some(0), format!("schema version {latest} -> 2"));
    assert_eq!(run(&["migrate", "--to", "2", "--roll-back"]), rolled_back);
}

#[test]
fn u7_settings_that_cannot_be_are_named_and_nothing_starts() {
    let setup = Setup::new();
    for (change, named) in [
        ("listen = \"x\"", "listen"),
        ("colour = 1", "colour"),
        ("[ingest]\nmax_concurrent = 0", "ingest.max_concurrent"),
        (
            "[database]\nurl_file = \"/does/not/exist\"\n[auth]\nadmin_token_file = \"ADMIN\"",
            "database.url_file",
        ),
        ("[log]\nformat = \"xml\"", "log.format"),
        ("[auth]\nadmin_token_file = \"/does/not/exist\"", "auth.admin_token_file"),
        ("[auth]\nadmin_token_file = \"/dev/null\"", "auth.admin_token_file"),
        ("[auth]\nadmin_token_file = \"WEAK\"", "auth.admin_token_file"),
        ("[auth]\naccess_token_s = 86400", "auth.access_token_s"),
        ("[database]\nurl = \"nonsense\"\n[auth]\nadmin_token_file = \"ADMIN\"", "database.url"),
        ("not toml", "weir.toml"),
    ] {
        let admin = setup.folder.path().join("admin").display().to_string();
        let weak = setup.folder.path().join("weak").display().to_string();
        std::fs::write(&weak, "changemechangemechangeme").expect("written");
        let change = change.replace("ADMIN", &admin).replace("WEAK", &weak);
        std::fs::write(setup.folder.path().join("weir.toml"), &change).expect("written");
        let output = setup.run(&["serve"]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{change}: {message}");
        assert!(message.contains(named), "{change}: {message}");
        assert!(!message.contains("panicked"), "{message}");
    }
}

#[test]
fn settings_are_printed_without_secrets() {
    let setup = Setup::new();
    let output = setup
        .command(&["serve", "--print-config"])
        .env("WEIR_CONTROL_PLANE__DATABASE__URL", "postgres://weir:hunter2@db/weir")
        .env("WEIR_CONTROL_PLANE__INGEST__MAX_CONCURRENT", "3")
        .output()
        .expect("the program runs");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success() && !text.contains("hunter2"), "{text}");
    let printed: toml::Table = toml::from_str(&text).expect("TOML");
    assert_eq!(printed["database"]["url"].as_str(), Some("(hidden)"));
    assert_eq!(printed["ingest"]["max_concurrent"].as_integer(), Some(3));
}

#[test]
fn help_has_examples_and_the_document_is_printed() {
    let program = env!("CARGO_BIN_EXE_weir-control-plane");
    for arguments in [
        &["--help"][..],
        &["serve", "--help"],
        &["migrate", "--help"],
        &["sensor", "--help"],
        &["user", "--help"],
        &["keys", "--help"],
        &["setup-link", "--help"],
    ] {
        let output = Command::new(program).args(arguments).output().expect("the program runs");
        assert!(String::from_utf8_lossy(&output.stdout).contains("Examples:"), "{arguments:?}");
    }
    let output = Command::new(program).arg("openapi").output().expect("the program runs");
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(document["paths"]["/api/v1/ingest"].is_object());
}

/// U4, U9: the authority of sensors' certificates on the command line; its key is nowhere in what is said.
#[test]
fn u4_the_authority_is_shown_and_rotated() {
    let setup = Setup::new();
    let lines = |output: &Output| -> Vec<Value> {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout.clone()).expect("text");
        assert!(!text.contains("PRIVATE"), "{text}");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let none = setup.run(&["ca", "show"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("tls.client_auth"));
    // The first one signs at once, the next one when all instances know it.
    let states = |lines: &[Value]| -> Vec<(u64, String)> {
        let state = |line: &Value| line["state"].as_str().expect("a state").to_owned();
        lines.iter().map(|line| (line["id"].as_u64().expect("an id"), state(line))).collect()
    };
    let first = lines(&setup.run(&["ca", "rotate", "--json"]));
    assert_eq!(states(&first), [(1, "signs".to_owned())]);
    let both = lines(&setup.run(&["ca", "rotate", "--json"]));
    assert_eq!(states(&both), [(2, "next".to_owned()), (1, "signs".to_owned())]);
    assert_eq!(lines(&setup.run(&["ca", "show", "--json"])), both);
    let shown = setup.run(&["ca", "show"]);
    let shown = String::from_utf8(shown.stdout).expect("text");
    for authority in &both {
        for key in ["fingerprint", "certificate", "expires_at"] {
            assert!(shown.contains(authority[key].as_str().expect("text")), "{key}: {shown}");
        }
    }
    assert!(!shown.contains("PRIVATE"));
    // A leak: the ones before are gone at once.
    assert_eq!(states(&lines(&setup.run(&["ca", "rotate", "--now", "--json"]))), [(3, "next".to_owned())]);
}

/// U8: certificates of sensors end where TLS does.
#[test]
fn u8_client_certificates_need_tls_that_ends_here() {
    let setup = Setup::with("[tls]\nclient_auth = \"required\"\n");
    let output = setup.run(&["serve"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("tls.client_auth: needs tls.certificate"));
}
