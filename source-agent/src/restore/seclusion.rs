//! A PID namespace for a tree whose ids are taken on this host, and whoever is the first in it.

use crate::spare_ids::spare_all_but_the_highest;
use engine::network::Namespace;
use engine::{Error, Object, OnObject as _};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::path::Path;
use std::process::{Child, Command};
use std::{fs, io, thread};

/// Starts a program as the first of a new PID namespace.
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    // The namespace is for the children of one thread, which cannot have another one later.
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWPID)?;
            command.spawn()
        });
        thread.join().unwrap_or_else(|_| Err(io::Error::other("its thread panicked")))
    })
}

/// Sees to it that /proc shows the namespace that we are the first in. While there is one thread:
/// others would stay where they were. They have yet to start, with ids that no tree is likely to have.
pub fn enter(with_network: bool) -> Result<(), Error> {
    const NONE: Option<&str> = None;
    let own_proc = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE))
        .and_then(|()| mount(Some("proc"), "/proc", Some("proc"), own_proc, NONE))
        .on("mount a /proc on", || Object::Host)?;
    spare_all_but_the_highest()?;
    if with_network { Namespace::seclude() } else { Ok(()) }
}

/// The id that this host has for what is `pid` in the PID namespace of `first`.
pub fn outside(first: u32, pid: i32) -> Option<i32> {
    let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/pid")).ok();
    let theirs = namespace(&first.to_string())?;
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(|id: &i32| {
        inner_id(&entry_status(*id)) == Some(pid)
            && namespace(&id.to_string()) == Some(theirs.clone())
    })
}

fn entry_status(pid: i32) -> String {
    fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap_or_default()
}

/// NSpid of proc_pid_status(5): its id in its own namespace is the last.
fn inner_id(status: &str) -> Option<i32> {
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_its_ids_is_its_own() {
        assert_eq!(inner_id("Name:\tx\nNSpid:\t4711\t12\t3\n"), Some(3));
        assert_eq!(inner_id("Name:\tx\n"), None);
    }

    #[test]
    fn who_is_in_our_namespace_has_the_id_that_it_says() {
        let us = std::process::id();
        assert_eq!(outside(us, us.cast_signed()), Some(us.cast_signed()));
    }
}
