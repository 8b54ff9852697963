//! Ids of the tree that are in use on this host.
//!
//! An id is taken as long as anything is called by it: a process or a thread, and also a process
//! group or a session whose leader ended long ago and left a member behind. clone3(2) refuses all
//! of these with EEXIST, and says of none which it was.

use crate::error::{Error, Object, OnObject as _};
use crate::image::Layout;
use crate::refusal::Refusal;
use crate::tree::{self, Process};
use std::collections::BTreeSet;
use std::path::Path;

/// The tree's own ids, and those of sessions and groups that are led from outside of the tree,
/// because these are founded anew.
pub(super) fn taken(layout: &Layout) -> Result<Vec<Refusal>, Error> {
    let foreign = layout.processes.iter().flat_map(|p| [p.sid, p.pgid]);
    let wanted: BTreeSet<i32> = layout.ids().chain(foreign.filter(|&id| id != 0)).collect();
    let here = Here::look()?;
    Ok(wanted.into_iter().filter_map(|id| here.refusal(id)).collect())
}

/// The groups and sessions that have a member on this host.
struct Here {
    groups: BTreeSet<i32>,
    sessions: BTreeSet<i32>,
}

impl Here {
    fn look() -> Result<Self, Error> {
        let pids = tree::every_pid().on("list the processes of", || Object::Host)?;
        // What ends meanwhile holds no id any more.
        let stats = || pids.iter().filter_map(|&pid| Process::read(pid).ok()).map(|p| p.stat);
        let (groups, sessions) = stats().map(|stat| (stat.pgrp, stat.session)).unzip();
        Ok(Self { groups, sessions })
    }

    fn refusal(&self, id: i32) -> Option<Refusal> {
        let (reason, advice) = if Path::new(&format!("/proc/{id}")).exists() {
            ("exists on the destination already", "end that process")
        } else if self.sessions.contains(&id) {
            ("is the id of a session on the destination", "end the processes of that session")
        } else if self.groups.contains(&id) {
            ("is the id of a process group on the destination", "end the processes of that group")
        } else {
            return None;
        };
        let advice = format!("Choose another destination, or {advice}.");
        Some(Refusal { object: Object::Process { pid: id }, reason: reason.to_owned(), advice })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::ProcessLayout;
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};

    fn layout(id: i32) -> Layout {
        let process = ProcessLayout { pid: id, pgid: id, sid: id, ..ProcessLayout::default() };
        Layout { processes: vec![process], ..Layout::default() }
    }

    fn reasons(id: i32) -> Vec<String> {
        taken(&layout(id)).unwrap().into_iter().map(|refusal| refusal.reason).collect()
    }

    /// The leader's id after it has ended, and a member that it left behind.
    fn left_behind(start: &mut Command) -> (i32, Pid) {
        start.stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::piped());
        let mut leader = start.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(leader.stdout.take().unwrap()).read_line(&mut line).unwrap();
        leader.wait().unwrap();
        (leader.id().cast_signed(), Pid::from_raw(line.trim().parse().unwrap()))
    }

    const LEAVES_ONE: [&str; 2] = ["-c", "sleep 60 >/dev/null & echo $!"];

    #[test]
    fn a_group_without_its_leader_has_its_id_still() {
        let (id, member) = left_behind(Command::new("sh").args(LEAVES_ONE).process_group(0));
        let said = reasons(id);
        kill(member, Signal::SIGKILL).unwrap();
        assert_eq!(said, ["is the id of a process group on the destination"]);
    }

    #[test]
    fn a_session_without_its_leader_has_its_id_still() {
        let mut shell = Command::new("setsid");
        let (id, member) = left_behind(shell.arg("sh").args(LEAVES_ONE));
        let said = reasons(id);
        kill(member, Signal::SIGKILL).unwrap();
        assert_eq!(said, ["is the id of a session on the destination"]);
    }

    #[test]
    fn a_process_is_said_to_exist_and_a_free_id_is_free() {
        let us = std::process::id().cast_signed();
        assert_eq!(reasons(us), ["exists on the destination already"]);
        assert_eq!(reasons(i32::MAX), Vec::<String>::new());
    }
}
