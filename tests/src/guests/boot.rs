//! The first process of a guest, until it has the root that everybody else sees.

use anyhow::{Context as _, Result, bail};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::reboot::{RebootMode, reboot};
use nix::unistd::{chdir, chroot, dup2_stdin, dup2_stdout};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Where the archive has its parts.
pub const SETUP: &str = "/setup.json";
pub const MODULES: &str = "/modules";

/// What the two file systems of this machine are called.
pub const ROOT_TAG: &str = "root";
pub const SHARED_TAG: &str = "shared";

/// Uncached, for files that both guests and the test write to and read from.
const PLAN_9: &str = "trans=virtio,version=9p2000.L,msize=512000";
const REQUESTS: &str = "/dev/vport0p1";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    pub hostname: String,
    pub first_pid: u32,
    /// The same directory here and in every guest of a pair, writable.
    pub shared: String,
    pub modules: String,
    /// The program that goes on as the guest's first process, in its root.
    pub program: String,
}

/// What the kernel starts. Returns only with an error.
pub fn first() -> Result<()> {
    let setup = fs::read_to_string(SETUP).context("read the setup")?;
    load_modules()?;
    let parsed: Setup = serde_json::from_str(&setup)?;
    make_root(&parsed)?;
    let error = Command::new(&parsed.program).args(["guest", &setup]).exec();
    Err(error).with_context(|| format!("execute {}", parsed.program))
}

fn load_modules() -> Result<()> {
    let entries = fs::read_dir(MODULES).context("list the modules")?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let module = File::open(&path)?;
        finit_module(&module, c"", ModuleInitFlags::empty())
            .with_context(|| format!("load {}", path.display()))?;
    }
    Ok(())
}

/// An overlay of this machine's root, with a tmpfs for all that is written.
fn make_root(setup: &Setup) -> Result<()> {
    at("/lower", ROOT_TAG, "9p", MsFlags::MS_RDONLY, &format!("{PLAN_9},cache=loose"))?;
    at("/upper", "tmpfs", "tmpfs", MsFlags::empty(), "mode=0755")?;
    for directory in ["/upper/written", "/upper/work"] {
        fs::create_dir(directory)?;
    }
    let layers = "lowerdir=/lower,upperdir=/upper/written,workdir=/upper/work";
    at("/whole", "overlay", "overlay", MsFlags::empty(), layers)?;
    let none = MsFlags::empty();
    at("/whole/proc", "proc", "proc", none, "")?;
    at("/whole/sys", "sysfs", "sysfs", none, "")?;
    at("/whole/dev", "devtmpfs", "devtmpfs", none, "")?;
    at("/whole/dev/pts", "devpts", "devpts", none, "")?;
    at("/whole/dev/shm", "tmpfs", "tmpfs", none, "mode=1777")?;
    at("/whole/tmp", "tmpfs", "tmpfs", none, "mode=1777")?;
    at("/whole/run", "tmpfs", "tmpfs", none, "mode=0755")?;
    at("/whole/sys/fs/cgroup", "cgroup2", "cgroup2", none, "")?;
    let shared = format!("/whole{}", setup.shared);
    at(&shared, SHARED_TAG, "9p", none, &format!("{PLAN_9},cache=none"))?;
    let modules = format!("/whole{}", setup.modules);
    let place = format!("/whole/lib/modules/{}", nix::sys::utsname::uname()?.release().display());
    fs::create_dir_all(&place)?;
    mount(Some(modules.as_str()), place.as_str(), None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .context("bind the modules")?;
    chdir("/whole")?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).context("move the root")?;
    chroot(".").context("change the root")?;
    chdir("/").context("go to the root")
}

fn at(place: &str, what: &str, kind: &str, flags: MsFlags, options: &str) -> Result<()> {
    fs::create_dir_all(place).with_context(|| format!("make {place}"))?;
    mount(Some(what), place, Some(kind), flags, Some(options))
        .with_context(|| format!("mount {kind} at {place}"))
}

/// In the guest's root: its name, its first id, and the line to the test as its input and output.
pub fn settle(setup: &Setup) -> Result<()> {
    nix::unistd::sethostname(&setup.hostname).context("set the guest's name")?;
    let before_first = setup.first_pid - 1;
    fs::write("/proc/sys/kernel/ns_last_pid", before_first.to_string())
        .context("set the guest's first PID")?;
    fs::copy(format!("{}/etc-hosts", setup.shared), "/etc/hosts").context("write /etc/hosts")?;
    let line = line_to_the_test()?;
    dup2_stdin(&line)?;
    dup2_stdout(&line)?;
    Ok(())
}

const LINE_LIMIT: Duration = Duration::from_secs(20);

/// As long as nobody is at its other end, a port reads as ended.
fn line_to_the_test() -> Result<File> {
    let began = Instant::now();
    while began.elapsed() < LINE_LIMIT {
        if Path::new(REQUESTS).exists() {
            let port = OpenOptions::new().read(true).write(true).open(REQUESTS)?;
            let mut ready = [PollFd::new(port.as_fd(), PollFlags::POLLIN)];
            poll(&mut ready, PollTimeout::ZERO)?;
            let is_alone =
                ready[0].revents().is_some_and(|ready| ready.contains(PollFlags::POLLHUP));
            if !is_alone {
                return Ok(port);
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("{REQUESTS} is not there, or nobody at its other end")
}

/// For when there is nothing left to do.
pub fn power_off() -> Result<()> {
    reboot(RebootMode::RB_POWER_OFF).context("power off").map(drop)
}
