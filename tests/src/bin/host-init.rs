//! The first process of a test's host, in three stages of one program: `outer` makes the namespaces
//! and stays outside, `init` is PID 1 within them, `exec` turns into a command. In a guest with a kernel
//! of its own `boot` and `guest` are PID 1.
//!
//! Everything a host has hangs on PID 1: when it dies the kernel kills every process of its PID
//! namespace, and with the last of them the network namespace goes and takes the veth pair along.
//! PID 1 dies when its standard input ends, that is when the test is gone for whatever reason.

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, close, read, setsid};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use tests::guests::boot;
use tests::host_init::{PATH, Program, Reply, Request, Setup, Status};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[1..] {
        ["outer", setup] => outer(setup),
        ["init", setup] => init(&serde_json::from_str(setup)?),
        ["exec", program] => exec(&serde_json::from_str(program)?),
        ["boot"] => boot::first(),
        ["guest", setup] => guest(&serde_json::from_str(setup)?),
        _ => bail!("host-init is started by the tests, not by hand"),
    }
}

/// Leaves every namespace and waits for PID 1. It stays in the test's own PID namespace, where
/// nothing inside the host can see or hurt it, and clears up the shared directory at the end.
fn outer(setup: &str) -> Result<()> {
    close_inherited_descriptors()?;
    // In a chroot the name would be another one afterwards.
    let own = std::env::current_exe().context("find this program")?;
    let outside = File::open("/proc/self/ns/mnt").context("open the mount namespace")?;
    unshare(
        CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC,
    )
    .context("unshare the host's namespaces")?;
    let mut init =
        Command::new(own).args(["init", setup]).spawn().context("start PID 1 of the host")?;
    writeln!(io::stdout(), "{}", init.id())?;
    let status = init.wait().context("wait for PID 1 of the host")?;
    let setup: Setup = serde_json::from_str(setup)?;
    // Within the host something may be mounted on the directory, and it could not be removed.
    setns(outside, CloneFlags::CLONE_NEWNS).context("go back to the test's mount namespace")?;
    remove_shared_directory(Path::new(&setup.shared))?;
    if !status.success() {
        bail!("PID 1 of {} ended with {status}", setup.hostname);
    }
    Ok(())
}

/// Cargo and test runners leave descriptors open (a job server's pipe); a workload that inherited
/// one would have a pipe that leads out of its tree.
fn close_inherited_descriptors() -> Result<()> {
    let open: Vec<i32> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for descriptor in open.into_iter().filter(|&descriptor| descriptor > 2) {
        // The directory being read was among them and is closed already.
        let _ = close(descriptor);
    }
    Ok(())
}

/// Both hosts share the directory and both end about now, so the other one may be quicker.
fn remove_shared_directory(shared: &Path) -> io::Result<()> {
    match fs::remove_dir_all(shared) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // The other host's last process has just written a file into it and will remove it.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        result => result,
    }
}

fn init(setup: &Setup) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).context("ask to die with the outer stage")?;
    nix::unistd::sethostname(&setup.hostname).context("set the host's name")?;
    mount_private_directories(setup)?;
    let before_first = setup.first_pid - 1;
    fs::write("/proc/sys/kernel/ns_last_pid", before_first.to_string())
        .context("set the host's first PID")?;
    serve()
}

/// PID 1 of a guest: nothing is outside of it, so it ends its kernel as well.
fn guest(setup: &boot::Setup) -> Result<()> {
    boot::settle(setup)?;
    serve()?;
    boot::power_off()
}

/// Private to a host: what names its processes, its run-time files and its agents' state. The rest
/// of the file system is the same on both, so programs and libraries have the same identity.
const PRIVATE: &[&str] = &["/run", "/tmp", "/dev/shm", "/etc/migrate", "/var/lib/migrate"];

fn mount_private_directories(setup: &Setup) -> Result<()> {
    let kept = setup.kept.iter().map(File::open).collect::<io::Result<Vec<_>>>()?;
    bind(None, "/", MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), None::<&str>)
        .context("mount the host's own /proc")?;
    for directory in PRIVATE {
        fs::create_dir_all(directory).with_context(|| format!("make {directory}"))?;
        // As on any host: a tmpfs is everybody's otherwise, and files of trust there are refused.
        let mode = if directory.starts_with("/etc/") { "mode=0755" } else { "mode=1777" };
        mount(Some("tmpfs"), *directory, Some("tmpfs"), MsFlags::empty(), Some(mode))
            .with_context(|| format!("mount a private {directory}"))?;
    }
    for (directory, open) in setup.kept.iter().zip(&kept) {
        uncover(directory, open)?;
    }
    bind(Some(&format!("{}/etc-hosts", setup.shared)), "/etc/hosts", MsFlags::MS_BIND)
}

/// Brings a directory back that one of the private ones has covered (a checkout beneath /tmp).
fn uncover(directory: &str, open: &File) -> Result<()> {
    if PRIVATE.iter().any(|private| Path::new(directory).starts_with(private)) {
        fs::create_dir_all(directory).with_context(|| format!("make {directory}"))?;
        let descriptor = format!("/proc/self/fd/{}", open.as_raw_fd());
        bind(Some(&descriptor), directory, MsFlags::MS_BIND)?;
    }
    Ok(())
}

fn bind(from: Option<&str>, onto: &str, flags: MsFlags) -> Result<()> {
    mount(from, onto, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("mount onto {onto} ({flags:?})"))
}

/// Answers requests and reaps whatever ends, in one thread: a status can then never be asked for
/// between a program's end and its being recorded.
fn serve() -> Result<()> {
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGCHLD);
    ends.thread_block()?;
    let ended = SignalFd::with_flags(&ends, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let stdin = io::stdin();
    let mut requests = Lines::default();
    let mut statuses = HashMap::new();
    loop {
        let mut ready = [
            PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
            PollFd::new(ended.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut ready, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            result => result.context("wait for requests")?,
        };
        while ended.read_signal()?.is_some() {}
        reap(&mut statuses)?;
        if ready[0].any() == Some(true) && !requests.fill(stdin.as_fd())? {
            return Ok(());
        }
        for line in requests.take() {
            answer(&serde_json::from_slice(&line)?, &statuses)?;
        }
    }
}

fn answer(request: &Request, statuses: &HashMap<i32, Status>) -> Result<()> {
    let reply = match request {
        Request::Start(program) => start(program),
        Request::Status { pid } => Ok(Reply::Status(status(*pid, statuses))),
        Request::Signal { pid, signal } => send(*pid, *signal),
    }
    .unwrap_or_else(|error| Reply::Failed(format!("{error:#}")));
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, &reply)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// The program itself is loaded by the `exec` stage, so a program that does not exist is an exit
/// status and a line on its standard error, as in a shell.
fn start(program: &Program) -> Result<Reply> {
    let child = Command::new(std::env::current_exe()?)
        .arg("exec")
        .arg(serde_json::to_string(program)?)
        .spawn()
        .with_context(|| format!("start {:?}", program.argv))?;
    Ok(Reply::Started { pid: i32::try_from(child.id())? })
}

fn status(pid: i32, statuses: &HashMap<i32, Status>) -> Status {
    if Path::new(&format!("/proc/{pid}")).exists() {
        Status::Running
    } else {
        statuses.get(&pid).copied().unwrap_or(Status::Unknown)
    }
}

fn send(pid: i32, signal: i32) -> Result<Reply> {
    let signal = Signal::try_from(signal).with_context(|| format!("signal number {signal}"))?;
    kill(Pid::from_raw(pid), signal).with_context(|| format!("send {signal} to process {pid}"))?;
    Ok(Reply::Signalled)
}

fn reap(statuses: &mut HashMap<i32, Status>) -> Result<()> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => {
                statuses.insert(pid.as_raw(), Status::Exited(code));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                statuses.insert(pid.as_raw(), Status::Killed(signal as i32));
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(error).context("reap"),
        }
    }
}

/// Splits the request stream into lines. `Stdin`'s own buffer would hide a line from poll(2).
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Reads once. False at the end of the stream.
    fn fill(&mut self, stream: impl AsFd) -> Result<bool> {
        let mut chunk = [0; 65536];
        let length = read(stream, &mut chunk).context("read a request")?;
        self.partial.extend_from_slice(&chunk[..length]);
        Ok(length > 0)
    }

    fn take(&mut self) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        while let Some(end) = self.partial.iter().position(|&byte| byte == b'\n') {
            lines.push(self.partial.drain(..=end).collect());
        }
        lines
    }
}

/// A clean environment: whoever runs the tests may have set MAKEFLAGS, PYTHONPATH or LD_PRELOAD.
fn exec(program: &Program) -> Result<()> {
    setsid().context("start a session")?;
    let error = Command::new(&program.argv[0])
        .args(&program.argv[1..])
        .env_clear()
        .envs([("PATH", PATH), ("HOME", "/root"), ("LANG", "C.UTF-8")])
        .envs(program.environment.iter().cloned())
        .current_dir(&program.directory)
        .stdin(File::open(&program.stdin).context("open standard input")?)
        .stdout(output(&program.stdout)?)
        .stderr(output(&program.stderr)?)
        .exec();
    Err(error).with_context(|| format!("execute {:?}", program.argv))
}

/// Not in append mode: a workload whose offset is lost by a move writes over its own first lines,
/// and a test that reads them sees it.
fn output(path: &str) -> Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(path != "/dev/null");
    options.open(path).with_context(|| format!("open {path} for output"))
}
