//! The program that travels: it checks its whole memory in every turn, and counts its turns.

use crate::Result;
use anyhow::{Context as _, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

const SCRIPT: &str = r#"
    my $memory = "";
    $memory .= pack "N", $_ * 2654435761 % 4294967296 for 0 .. 500000;
    my $sum = unpack "%32C*", $memory;
    open my $file, ">", $ARGV[0] or die;
    for (my $turn = 1; ; $turn++) {
        unpack("%32C*", $memory) == $sum or die "memory has changed";
        sysseek $file, 0, 0;
        syswrite $file, sprintf "%012d", $turn;
        select undef, undef, undef, 0.01;
    }
"#;

/// It makes a turn whenever a timer that rings once has rung, and sets it again: one signal that
/// is lost is the end of it.
const TICKING: &str = r#"
    open my $file, ">", $ARGV[0] or die;
    my $turn = 0;
    sub set { my $once = pack "q4", 0, 0, 0, 100; syscall 38, 0, $once, 0; }
    $SIG{ALRM} = sub {
        sysseek $file, 0, 0;
        syswrite $file, sprintf "%012d", ++$turn;
        set();
    };
    set();
    select undef, undef, undef, 10 while 1;
"#;

pub(crate) struct Program {
    child: Child,
    turns: PathBuf,
    _home: tempfile::TempDir,
}

impl Program {
    pub(crate) fn start() -> Result<Self> {
        Self::of(SCRIPT)
    }

    /// The file that it writes.
    pub(crate) fn turns(&self) -> &Path {
        &self.turns
    }

    pub(crate) fn ticking() -> Result<Self> {
        Self::of(TICKING)
    }

    fn of(script: &str) -> Result<Self> {
        let home = tempfile::tempdir()?;
        let turns = home.path().join("turns");
        let child = Command::new("setsid")
            .args(["perl", "-e", script])
            .arg(&turns)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start setsid and perl")?;
        let program = Self { child, turns, _home: home };
        program.goes_on()?;
        Ok(program)
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// After it was ended here: as its parent we have to wait for it.
    pub(crate) fn reap(&mut self) -> Result {
        // Whoever traced it may have waited for it already.
        let _ = self.child.wait();
        self.is_gone()
    }

    pub(crate) fn exists(&self) -> bool {
        Path::new(&format!("/proc/{}", self.pid())).exists()
    }

    pub(crate) fn is_gone(&self) -> Result {
        until("the program to be gone", || (!self.exists()).then_some(()))
    }

    /// It makes more turns, and so has found every byte of its memory in each of them.
    pub(crate) fn goes_on(&self) -> Result {
        let before = self.turn();
        until("the program to go on", || (self.turn() > before + 2).then_some(()))
    }

    fn turn(&self) -> u64 {
        fs::read_to_string(&self.turns).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn is_traced(&self) -> Result<bool> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
        Ok(line.context("a line for the tracer")?.trim() != "0")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Not ours any more if it was moved, but still this program: its command line says so.
        let path = format!("/proc/{}/cmdline", self.pid());
        let own = fs::read(path).is_ok_and(|line| line.windows(4).any(|word| word == b"perl"));
        if own {
            let _ = kill(Pid::from_raw(self.pid()), Signal::SIGKILL);
        }
        let _ = self.child.try_wait();
    }
}

pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let limit = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() > limit {
            bail!("waited in vain for {what}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Somebody else with this id; ends when it is dropped.
pub(crate) struct Impostor(Child);

pub(crate) fn with_pid(pid: i32) -> Result<Impostor> {
    fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string())
        .context("choose the next process id")?;
    let child = Impostor(Command::new("sleep").arg("60").spawn()?);
    ensure!(child.0.id().cast_signed() == pid, "somebody else was faster");
    Ok(child)
}

impl Drop for Impostor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
