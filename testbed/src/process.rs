//! Child processes that log to a file, are stopped by id with a deadline, and never outlive this process.
//!
//! A child is killed when its [`Process`] is dropped, and by the kernel when this process dies in any
//! other way (`PR_SET_PDEATHSIG`, set by setpriv(1), which keeps this crate free of unsafe code). The
//! kernel ties that signal to the *thread* that forked, and test threads end early, so one thread that
//! lives as long as the process does all the forking.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

pub use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::{Error, Result};

/// How often something that can only be polled is polled.
const POLL: Duration = Duration::from_millis(10);
/// Lines of a log that an error shows.
const LOG_TAIL_LINES: usize = 40;

/// A program to be run; see [`Launch::spawn`] and [`Launch::run`].
#[derive(Debug)]
pub struct Launch {
    program: OsString,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    folder: Option<PathBuf>,
    namespace: Option<PathBuf>,
    user: Option<String>,
    on_parent_death: &'static str,
}

impl Launch {
    #[must_use]
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            envs: Vec::new(),
            folder: None,
            namespace: None,
            user: None,
            on_parent_death: "KILL",
        }
    }

    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.envs.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    #[must_use]
    pub fn current_dir(mut self, folder: impl AsRef<Path>) -> Self {
        self.folder = Some(folder.as_ref().to_owned());
        self
    }

    /// Runs in the named network namespace at this path (`/run/netns/NAME`), with a `/sys` that shows its
    /// interfaces, as ip-netns(8) does it; what the host mounts below `/sys` is not seen there.
    #[must_use]
    pub fn in_namespace(mut self, path: impl AsRef<Path>) -> Self {
        self.namespace = Some(path.as_ref().to_owned());
        self
    }

    /// Runs as this user and its groups; needs root.
    #[must_use]
    pub fn as_user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// The signal (setpriv's spelling, `QUIT`) that the child gets if this process dies; KILL unless set.
    #[must_use]
    pub fn on_parent_death(mut self, signal: &'static str) -> Self {
        self.on_parent_death = signal;
        self
    }

    /// Starts it with both outputs appended to `log`.
    pub fn spawn(self, label: &str, log: impl AsRef<Path>) -> Result<Process> {
        let log = log.as_ref().to_owned();
        let open = || File::options().create(true).append(true).open(&log);
        let output = open().map_err(Error::io(format!("open the log {}", log.display())))?;
        let errors = output.try_clone().map_err(Error::io("duplicate a log's descriptor"))?;
        let shown = self.shown();
        let mut command = self.command();
        command.stdout(output).stderr(errors);
        let child = fork(command).map_err(Error::io(format!("start `{shown}`")))?;
        Ok(Process { child, label: label.to_owned(), log, status: None })
    }

    /// Runs it to its end and gives what it printed on both outputs; an error if it fails.
    pub fn run(self) -> Result<String> {
        let shown = self.shown();
        let mut command = self.command();
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = fork(command).map_err(Error::io(format!("start `{shown}`")))?;
        let output = child.wait_with_output().map_err(Error::io(format!("wait for `{shown}`")))?;
        let printed =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() {
            Ok(printed)
        } else {
            Err(Error::Command { command: shown, status: output.status.to_string(), output: printed })
        }
    }

    /// The command line as a person would type it, for messages.
    fn shown(&self) -> String {
        let mut words = vec![self.program.to_string_lossy()];
        words.extend(self.args.iter().map(|arg| arg.to_string_lossy()));
        words.join(" ")
    }

    /// `ip netns exec` and setpriv both exec: the child's id is the program's own.
    fn command(self) -> Command {
        let mut line: Vec<OsString> = Vec::new();
        if let Some(name) = self.namespace.as_deref().and_then(Path::file_name) {
            line.extend(["ip".into(), "netns".into(), "exec".into(), name.to_owned()]);
        }
        line.extend(["setpriv".into(), "--pdeathsig".into(), self.on_parent_death.into()]);
        if let Some(user) = self.user {
            line.extend(["--reuid".into(), user.clone().into(), "--regid".into(), user.into()]);
            line.push("--init-groups".into());
        }
        line.extend(["--".into(), self.program]);
        line.extend(self.args);
        let mut command = Command::new(line.remove(0));
        // A group of its own: Ctrl-C reaches whoever started it, which then ends it in order.
        command.args(line).envs(self.envs).stdin(Stdio::null()).process_group(0);
        if let Some(folder) = self.folder {
            command.current_dir(folder);
        }
        command
    }
}

type Fork = (Command, mpsc::Sender<io::Result<Child>>);

/// Forks on the thread that lives as long as this process.
fn fork(command: Command) -> io::Result<Child> {
    static FORKER: LazyLock<Mutex<mpsc::Sender<Fork>>> = LazyLock::new(|| {
        let (sender, receiver) = mpsc::channel::<Fork>();
        thread::spawn(move || {
            for (mut command, reply) in receiver {
                // The asker waits for the reply, so it cannot be gone.
                let _ = reply.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (reply, answer) = mpsc::channel();
    let gone = |_| io::Error::other("the forking thread is gone");
    let forker = FORKER.lock().unwrap_or_else(PoisonError::into_inner).clone();
    forker.send((command, reply)).map_err(|error| gone(error.to_string()))?;
    answer.recv().map_err(|error| gone(error.to_string()))?
}

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    label: String,
    log: PathBuf,
    status: Option<ExitStatus>,
}

impl Process {
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Everything it has printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    #[must_use]
    pub fn log_tail(&self) -> String {
        tail(&self.log())
    }

    /// Sends a signal to this child alone; fine if it has ended already.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.try_wait()?.is_some() {
            return Ok(());
        }
        kill(Pid::from_raw(self.child.id().cast_signed()), signal)
            .map_err(|errno| Error::io(format!("send {signal} to {}", self.label))(errno.into()))
    }

    /// The exit status, if it has ended.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait().map_err(Error::io(format!("wait for {}", self.label)))?;
        }
        Ok(self.status)
    }

    /// Waits for its end.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                let what = format!("the end of {}", self.label);
                return Err(Error::Deadline { what, within, log: self.log_tail() });
            }
            thread::sleep(POLL);
        }
    }

    /// SIGTERM, then the exit status.
    pub fn terminate(&mut self, within: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(within)
    }

    /// Waits until `ready` says so; an error if the process ends before.
    pub fn wait_until(
        &mut self,
        what: &str,
        within: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            if ready() {
                return Ok(());
            }
            if let Some(status) = self.try_wait()? {
                let what = format!("{} (before {what})", self.label);
                return Err(Error::Ended { what, status: status.to_string(), log: self.log_tail() });
            }
            if Instant::now() >= deadline {
                let what = format!("{}: {what}", self.label);
                return Err(Error::Deadline { what, within, log: self.log_tail() });
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- log of {} ---\n{}---", self.label, self.log_tail());
        }
        if let Ok(None) = self.try_wait() {
            // Both can only fail if the child is gone, which is what is wanted.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The last lines of a log, for an error message.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let mut shown = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n");
    shown.push('\n');
    shown
}
