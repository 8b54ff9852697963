//! A control group of its own for every tree that comes: cgroups(7), version 2.

use super::{Feature, NEWER_KERNEL, Need, Permission, SYS_ADMIN};
use crate::cgroup;
use crate::sys::process::{fork_parked, reap};
use crate::sys::trial::Trial;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub(super) const FEATURES: &[Feature] = &[
    Feature {
        name: "CLONE_INTO_CGROUP",
        since: "5.7",
        need: Need::Useful,
        loss: "A tree that comes here shares the control group of the agent, with its limits.",
        advice: "Mount cgroup v2 so that it can be written to: /sys/fs/cgroup.",
        permission: Permission::of(SYS_ADMIN),
        probe: || with_group(|group| group.born().map(drop)),
    },
    Feature {
        name: "cgroup.kill",
        since: "5.14",
        need: Need::Useful,
        loss: "What is left of a tree that failed is ended one by one, and forks may escape.",
        advice: NEWER_KERNEL,
        permission: Permission::of(SYS_ADMIN),
        probe: || with_group(Group::kills),
    },
];

/// The kernel is quick, and a slow host is not a kernel without it.
const WAIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(1);

struct Group(PathBuf);

fn with_group(run: impl FnOnce(&Group) -> io::Result<()>) -> io::Result<()> {
    let root = cgroup::root().ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, "no cgroup v2 is mounted as a whole")
    })?;
    let group = Group(root.join(format!("migrate-check-{}", nix::unistd::gettid())));
    fs::create_dir(&group.0)?;
    run(&group)
}

impl Group {
    fn born(&self) -> io::Result<Trial> {
        let child = Trial::adopt(fork_parked(None, Some(File::open(&self.0)?.as_fd()))?);
        let members = fs::read_to_string(self.0.join("cgroup.procs"))?;
        super::must(members.lines().any(|pid| pid == child.pid().to_string()))?;
        Ok(child)
    }

    fn kills(&self) -> io::Result<()> {
        let child = self.born()?;
        fs::write(self.0.join("cgroup.kill"), "1")?;
        let began = Instant::now();
        while !reap(child.pid())? {
            super::must(began.elapsed() < WAIT)?;
            std::thread::sleep(PAUSE);
        }
        // Its id may be another's by now.
        std::mem::forget(child);
        Ok(())
    }
}

/// A group is still populated for a moment after its last process was waited for.
impl Drop for Group {
    fn drop(&mut self) {
        let began = Instant::now();
        while fs::remove_dir(&self.0).is_err() && self.0.exists() && began.elapsed() < WAIT {
            std::thread::sleep(PAUSE);
        }
    }
}
