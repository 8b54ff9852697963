//! One host: its processes, its files, and commands that run on it.

use crate::guests::boot;
use crate::host_init::{Program, Reply, Request, Setup, Status};
use crate::{place, wait};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The host's addresses on the link between the two.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    pub v4: &'static str,
    pub v6: &'static str,
}

#[derive(Debug)]
pub struct Host {
    name: String,
    address: Address,
    shared: PathBuf,
    nature: Nature,
    /// Of everything that is started on it.
    environment: Vec<(String, String)>,
    init: Mutex<Init>,
    started: AtomicU32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nature {
    Namespaces {
        init_pid: u32,
    },
    /// With a kernel of its own: only what it has in the shared directory is to be seen from here.
    Guest,
}

/// A program that was started; its output goes to files that both hosts see.
#[derive(Clone, Debug)]
pub struct Started {
    /// In the host's own PID namespace.
    pub pid: i32,
    pub stdout: PathBuf,
    pub stderr: PathBuf,
}

impl Started {
    /// Everything that it has said until now.
    pub fn story(&self) -> String {
        let said = |path| fs::read_to_string(path).unwrap_or_default();
        format!("{}{}", said(&self.stdout), said(&self.stderr))
    }
}

#[derive(Clone, Debug)]
pub struct Output {
    pub status: Status,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// The standard output of a command that must succeed.
    pub fn success(self) -> Result<String> {
        let Self { status, stdout, stderr } = &self;
        ensure!(*status == Status::Exited(0), "{status:?}: {stderr}{stdout}");
        Ok(self.stdout)
    }
}

impl Host {
    pub(super) fn new(address: Address, setup: Setup) -> Result<Self> {
        let mut init = Init::start(&setup)?;
        let init_pid = init.read_line()?.trim().parse().context("the PID of the host's PID 1")?;
        // An answer shows that the mounts are in place: PID 1 answers only after making them.
        init.ask(&Request::Status { pid: 1 })?;
        Ok(Self {
            name: setup.hostname,
            address,
            shared: setup.shared.into(),
            nature: Nature::Namespaces { init_pid },
            environment: Vec::new(),
            init: Mutex::new(init),
            started: AtomicU32::new(0),
        })
    }

    /// `qemu` boots it with this setup.
    pub(super) fn boot(address: Address, setup: boot::Setup, qemu: Command) -> Result<Self> {
        let host = Self {
            name: setup.hostname,
            address,
            shared: setup.shared.into(),
            nature: Nature::Guest,
            environment: Vec::new(),
            init: Mutex::new(Init::spawn(qemu)?),
            started: AtomicU32::new(0),
        };
        Ok(host)
    }

    /// Waits until it has booted.
    pub(super) fn answers(&self) -> Result<()> {
        self.status(1).map(drop).with_context(|| {
            let console = self.shared.join(format!("{}-console.log", self.name));
            let said = fs::read_to_string(console).unwrap_or_default();
            format!("{} has not booted: {said}", self.name)
        })
    }

    /// From now on, for everything that is started on it.
    pub fn set(&mut self, variable: &str, value: Option<&str>) {
        self.environment.retain(|(name, _)| name != variable);
        self.environment.extend(value.map(|value| (variable.to_owned(), value.to_owned())));
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn address(&self) -> Address {
        self.address
    }

    /// PID 1 of the host as this process sees it.
    pub fn init_pid(&self) -> u32 {
        match self.nature {
            Nature::Namespaces { init_pid } => init_pid,
            Nature::Guest => panic!("the processes of a guest are not to be seen from here"),
        }
    }

    /// Where this process finds a path of the host. Symbolic links with absolute targets are the
    /// exception: they lead back to this process's own root.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init_pid()))
    }

    pub fn read(&self, path: &str) -> Result<String> {
        if self.is_guest() {
            return self.run(&["cat", path])?.success();
        }
        let bytes = fs::read(self.path(path));
        let bytes = bytes.with_context(|| format!("read {path} on {}", self.name))?;
        // A name that is not UTF-8 is somebody's name all the same.
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    pub fn write(&self, path: &str, contents: &str) -> Result<()> {
        if self.is_guest() {
            let copy = self.shared.join(format!("{}-written", self.name));
            fs::write(&copy, contents)?;
            let install = ["install", "-D", "-m", "644", &place::text(&copy)?, path];
            return self.run(&install)?.success().map(drop);
        }
        let place = self.path(path);
        if let Some(directory) = place.parent().filter(|directory| !directory.exists()) {
            fs::create_dir_all(directory)?;
        }
        fs::write(place, contents).with_context(|| format!("write {path} on {}", self.name))
    }

    pub fn exists(&self, pid: i32) -> bool {
        match self.nature {
            Nature::Namespaces { .. } => self.path(&format!("/proc/{pid}/stat")).exists(),
            Nature::Guest => self.status(pid).is_ok_and(|status| status == Status::Running),
        }
    }

    pub(super) fn is_guest(&self) -> bool {
        self.nature == Nature::Guest
    }

    /// Starts a program in a session of its own, in the shared directory, with its output in files.
    pub fn spawn(&self, argv: &[&str]) -> Result<Started> {
        self.spawn_with(argv, &[])
    }

    pub fn spawn_with(&self, argv: &[&str], environment: &[(&str, &str)]) -> Result<Started> {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let program = Path::new(argv[0]).file_name().context("the name of a program")?;
        let stem = format!("{}-{number}-{}", self.name, program.display());
        let stdout = self.shared.join(format!("{stem}.out"));
        let stderr = self.shared.join(format!("{stem}.err"));
        // From the start, so that whoever reads them does not have to wait for them.
        fs::write(&stdout, "")?;
        fs::write(&stderr, "")?;
        let environment = environment.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        let request = Request::Start(Program {
            argv: argv.iter().map(ToString::to_string).collect(),
            environment: self.environment.iter().cloned().chain(environment).collect(),
            directory: place::text(&self.shared)?,
            stdin: "/dev/null".into(),
            stdout: place::text(&stdout)?,
            stderr: place::text(&stderr)?,
        });
        match self.ask(&request)? {
            Reply::Started { pid } => Ok(Started { pid, stdout, stderr }),
            other => bail!("start {argv:?} on {}: {other:?}", self.name),
        }
    }

    /// Runs a command to its end, at most [`wait::PATIENCE`].
    pub fn run(&self, argv: &[&str]) -> Result<Output> {
        self.run_within(wait::PATIENCE, argv, &[])
    }

    pub fn run_within(
        &self,
        limit: Duration,
        argv: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Output> {
        let started = self.spawn_with(argv, environment)?;
        self.finish(&started, limit)
    }

    /// Waits for a program's end and collects what it said.
    pub fn finish(&self, started: &Started, limit: Duration) -> Result<Output> {
        let status = self.end_of(started.pid, limit).inspect_err(|_| {
            // Already failing: the kill is only so that the machine is not kept busy.
            let _ = self.signal(started.pid, Signal::SIGKILL);
        })?;
        Ok(Output {
            status,
            stdout: fs::read_to_string(&started.stdout).unwrap_or_default(),
            stderr: fs::read_to_string(&started.stderr).unwrap_or_default(),
        })
    }

    pub fn end_of(&self, pid: i32, limit: Duration) -> Result<Status> {
        wait::until(
            limit,
            || format!("the end of process {pid} on {}", self.name),
            || Ok(Some(self.status(pid)?).filter(|status| *status != Status::Running)),
        )
    }

    pub fn status(&self, pid: i32) -> Result<Status> {
        if self.is_guest() {
            // Whoever asks a slow machine all the time keeps it from what it is asked about.
            std::thread::sleep(GUEST_PAUSE);
        }
        match self.ask(&Request::Status { pid })? {
            Reply::Status(status) => Ok(status),
            other => bail!("status of process {pid} on {}: {other:?}", self.name),
        }
    }

    pub fn signal(&self, pid: i32, signal: Signal) -> Result<()> {
        match self.ask(&Request::Signal { pid, signal: signal as i32 })? {
            Reply::Signalled => Ok(()),
            other => bail!("{signal} to process {pid} on {}: {other:?}", self.name),
        }
    }

    fn ask(&self, request: &Request) -> Result<Reply> {
        let mut init = self.init.lock().ok().context("a test thread panicked in mid-request")?;
        init.ask(request).with_context(|| format!("ask PID 1 of {}", self.name))
    }
}

const GUEST_PAUSE: Duration = Duration::from_millis(50);

/// The helper that made the host. It ends, and the host with it, when `requests` is closed.
#[derive(Debug)]
struct Init {
    helper: Child,
    requests: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
}

impl Init {
    fn start(setup: &Setup) -> Result<Self> {
        let mut helper = Command::new(place::program("host-init")?);
        helper.args(["outer", &serde_json::to_string(setup)?]);
        Self::spawn(helper)
    }

    fn spawn(mut helper: Command) -> Result<Self> {
        let mut helper = helper
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", helper.get_program().display()))?;
        let requests = helper.stdin.take();
        let replies = BufReader::new(helper.stdout.take().context("replies of host-init")?);
        Ok(Self { helper, requests, replies })
    }

    fn ask(&mut self, request: &Request) -> Result<Reply> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.requests.as_mut().context("requests to host-init")?.write_all(&line)?;
        Ok(serde_json::from_str(&self.read_line()?)?)
    }

    fn read_line(&mut self) -> Result<String> {
        let mut line = String::new();
        let length = self.replies.read_line(&mut line)?;
        ensure!(length > 0, "the host's PID 1 is gone; its reason stands on standard error");
        Ok(line)
    }
}

/// How long the kernel may take to kill and reap everything in a host.
const END_LIMIT: Duration = Duration::from_secs(20);

impl Drop for Init {
    fn drop(&mut self) {
        drop(self.requests.take());
        let ended =
            wait::until(END_LIMIT, || "a host's end".into(), || Ok(self.helper.try_wait()?));
        if ended.is_err() {
            // PID 1 asked the kernel to die with this one.
            let _ = self.helper.kill();
            let _ = self.helper.wait();
        }
    }
}
