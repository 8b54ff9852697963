//! The PID namespace in which a service lives, seen from outside.

use super::service::Service;
use crate::cli::OneService;
use crate::complaint::Complaint;
use crate::exit_code;
use crate::signals::Signals;
use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread;
use tokio::sync::oneshot;

/// Until the service has ended; ends as it has.
pub(super) async fn run(service: Service, one: &OneService) -> Result<ExitCode> {
    let Some(_claim) = service.claim()? else {
        let why = format!("service {} runs already; nothing was changed", service.name);
        return Ok(Complaint::refused(why).say());
    };
    let mut signals = Signals::watch()?;
    let (begun, beginning) = oneshot::channel();
    let (over, mut end) = oneshot::channel();
    let keeper = keeper(one);
    // A thread's own: whatever it starts from now on, and nothing else, is in the namespace.
    thread::spawn(move || {
        let _nobody_waits = match enclosed(keeper) {
            Ok(mut keeper) => {
                let _ = begun.send(Ok(Pid::from_raw(keeper.id().cast_signed())));
                // Its standard input stays open here: `settle_in` says what for.
                let lifeline = keeper.stdin.take();
                let ended = keeper.wait();
                drop(lifeline);
                over.send(ended)
            }
            Err(error) => begun.send(Err(error)).map_err(|_| Ok(ExitStatus::default())),
        };
    });
    let keeper = beginning.await.context("wait for the keeper")?.context("start the keeper")?;
    loop {
        tokio::select! {
            ended = &mut end => return Ok(exit_code::of(ended??)),
            Some(signal) = signals.next() => {
                // One that has ended meanwhile is seen by whoever waits.
                let _ = kill(keeper, signal);
            }
        }
    }
}

fn keeper(one: &OneService) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["service", "keep", &one.name]).arg("--config").arg(&one.config);
    command.arg("--state").arg(&one.state.state).stdin(Stdio::piped());
    // Ctrl-C comes to it once, from us.
    command.process_group(0);
    command
}

/// Starts it as the first process of a namespace: pid_namespaces(7).
fn enclosed(mut keeper: Command) -> io::Result<Child> {
    unshare(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS)?;
    let (flags, none) = (MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>);
    // What is mounted here later is seen inside, but not the other way round.
    mount(none, "/", none, flags, none)?;
    keeper.spawn()
}

/// Done by the keeper before anything else.
pub(super) fn settle_in() -> Result<()> {
    // Else this would be an ordinary process whose /proc is the host's.
    anyhow::ensure!(std::process::id() == 1, "the keeper is started by `migrate service run`");
    // The one of the namespace outside; nobody in here has it open.
    let _ = umount2("/proc", MntFlags::MNT_DETACH);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>).context("mount /proc")?;
    // At its end whoever has started us is gone, by SIGKILL perhaps; with us goes everything in
    // here. PR_SET_PDEATHSIG would miss one who is gone already.
    thread::spawn(|| {
        let _ended = io::stdin().read(&mut [0]);
        std::process::exit(137);
    });
    Ok(())
}
