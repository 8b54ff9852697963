//! A tree whose agent died after the stop was queued: its processes stand still without a tracer.

use crate::addresses::Addresses;
use crate::journal::Member;
use engine::kinds::HeldObject;
use engine::tree::{self, Life, Process};
use engine::{Error, Object, OnObject as _};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What its journal says of it.
#[derive(Debug)]
pub(crate) struct Abandoned {
    pub(crate) members: Vec<Member>,
    pub(crate) held: Vec<HeldObject>,
    pub(crate) addresses: Addresses,
}

/// Lets go on what we stopped, and leaves alone what had been stopped before.
pub(crate) fn thaw(members: &[Member]) -> Result<(), Error> {
    let ours = members.iter().filter(|member| !member.is_stopped);
    ours.filter(|member| life(member) == Some(Life::Stopped))
        .try_for_each(|member| signal(member, Signal::SIGCONT, "let go on"))
}

/// Lets it go on, and fails while a thread of it that ran before is stopped by whomever.
pub(crate) fn let_go(members: &[Member]) -> Result<(), Error> {
    thaw(members)?;
    let ours = members.iter().filter(|member| !member.is_stopped && life(member).is_some());
    for Member { pid, .. } in ours.copied() {
        let stopped = tree::threads(pid)?.into_iter().find(|&tid| is_stopped(pid, tid));
        if let Some(tid) = stopped {
            let thread = Object::Thread { pid, tid };
            return Err(Error::invalid("let go on", thread, "it is still stopped"));
        }
    }
    Ok(())
}

/// By a tracer or a signal, see proc_pid_stat(5).
fn is_stopped(pid: i32, tid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat"));
    let state = stat.ok().and_then(|stat| stat.rsplit_once(") ")?.1.chars().next());
    matches!(state, Some('t' | 'T'))
}

/// Children first: nobody is to notice that a child ended.
pub(crate) fn end(members: &[Member]) -> Result<(), Error> {
    let there = members.iter().rev().filter(|member| life(member).is_some());
    there.into_iter().try_for_each(|member| signal(member, Signal::SIGKILL, "end"))
}

/// Whether any of them is still there.
pub(crate) fn is_there(members: &[Member]) -> bool {
    members.iter().any(|member| life(member).is_some_and(|life| life != Life::Zombie))
}

/// `None` when it has ended, and when its id belongs to somebody else by now.
fn life(member: &Member) -> Option<Life> {
    let process = Process::read(member.pid).ok()?;
    (process.start_ticks() == member.start_ticks).then_some(process.life)
}

fn signal(member: &Member, signal: Signal, action: &'static str) -> Result<(), Error> {
    match kill(Pid::from_raw(member.pid), signal) {
        Err(nix::Error::ESRCH) => Ok(()),
        other => other.on(action, || Object::Process { pid: member.pid }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    fn stopped() -> (Child, Member) {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
        while Process::read(pid).unwrap().life != Life::Stopped {
            std::thread::yield_now();
        }
        let start_ticks = Process::read(pid).unwrap().start_ticks();
        (child, Member { pid, start_ticks, space: None, is_stopped: false })
    }

    fn finish(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn what_we_stopped_goes_on() {
        let (child, member) = stopped();
        thaw(&[member]).unwrap();
        while life(&member) != Some(Life::Alive) {
            std::thread::yield_now();
        }
        finish(child);
    }

    #[test]
    fn what_had_been_stopped_before_stays_so() {
        let (child, member) = stopped();
        thaw(&[Member { is_stopped: true, ..member }]).unwrap();
        assert_eq!(life(&member), Some(Life::Stopped));
        finish(child);
    }

    #[test]
    fn a_process_that_got_the_id_later_is_left_alone() {
        let (child, member) = stopped();
        let other = Member { start_ticks: member.start_ticks + 1, ..member };
        end(&[other]).unwrap();
        assert!(!is_there(&[other]) && is_there(&[member]));
        end(&[member]).unwrap();
        finish(child);
        assert!(!is_there(&[member]));
    }
}
