//! Telling descriptors apart, and making what is behind them again.

use super::{
    CHECKPOINT_RESTORE, DAC_READ_SEARCH, Feature, NEWER_KERNEL, Need, PUTTING_TOGETHER, Permission,
    SYS_ADMIN, TAKING_APART, must, no_effect, ourselves,
};
use crate::paths;
use crate::sys::fd::{self, EpollSlot};
use crate::sys::seclusion::nowhere;
use crate::sys::shared_bytes::shared_anonymous;
use std::cmp::Ordering;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _};

pub(super) const FEATURES: &[Feature] = &[
    Feature {
        name: "kcmp(2)",
        since: "3.5",
        need: TAKING_APART,
        loss: "Which descriptors and which memory processes share cannot be told.",
        advice: "Use a kernel with CONFIG_KCMP.",
        permission: Permission::FREE,
        probe: || {
            let (one, other) = (fd::eventfd(0, 0)?, fd::eventfd(0, 0)?);
            let same = one.try_clone()?;
            let with = |other: i32| {
                fd::compare_files((ourselves(), one.as_raw_fd()), (ourselves(), other))
            };
            must(with(same.as_raw_fd())? == Ordering::Equal)?;
            must(with(other.as_raw_fd())? != Ordering::Equal)
        },
    },
    Feature {
        name: "KCMP_EPOLL_TFD",
        since: "4.13",
        need: Need::Useful,
        loss: "Programs with an epoll(7) cannot be moved: what is registered in it is not found.",
        advice: "Use a kernel of that version or newer, with CONFIG_KCMP.",
        permission: Permission::FREE,
        probe: a_registration_is_found,
    },
    Feature {
        name: "openat2(2)",
        since: "5.6",
        need: PUTTING_TOGETHER,
        loss: "What a path in an image leads to cannot be bounded.",
        advice: NEWER_KERNEL,
        permission: Permission::FREE,
        probe: || match paths::look(concat!("/proc/self/root", "/proc").as_bytes()) {
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(no_effect()),
        },
    },
    Feature {
        name: "/proc/PID/map_files",
        since: "3.3",
        need: TAKING_APART,
        loss: "What is behind a shared mapping cannot be opened when it has no other name.",
        advice: NEWER_KERNEL,
        permission: Permission::of(SYS_ADMIN),
        probe: || shared_anonymous(4096).map(drop),
    },
    Feature {
        name: "TFD_IOC_SET_TICKS",
        since: "3.17",
        need: Need::Useful,
        loss: "Programs with a timerfd that has rung and was not read cannot come.",
        advice: CHECKPOINT_RESTORE,
        permission: Permission::FREE,
        probe: || {
            let timer = fd::timerfd(libc::CLOCK_MONOTONIC)?;
            fd::set_expirations(timer.as_fd(), 3)?;
            let mut count = [0; 8];
            File::from(timer).read_exact(&mut count)?;
            must(u64::from_ne_bytes(count) == 3)
        },
    },
    Feature {
        name: "INOTIFY_IOC_SETNEXTWD",
        since: "4.18",
        need: Need::Useful,
        loss: "Programs with an inotify(7) cannot come: its watches would have other numbers.",
        advice: CHECKPOINT_RESTORE,
        permission: Permission::FREE,
        probe: || {
            let inotify = fd::inotify()?;
            fd::set_next_watch(inotify.as_fd(), 40)?;
            must(fd::add_watch(inotify.as_fd(), c"/", libc::IN_DELETE_SELF)? == 40)
        },
    },
    Feature {
        name: "open_by_handle_at(2)",
        since: "2.6.39",
        need: Need::Useful,
        loss: "Programs with an inotify(7) cannot be moved: what it watches is not found.",
        advice: "Use a kernel with CONFIG_FHANDLE.",
        permission: Permission::of(DAC_READ_SEARCH),
        probe: a_handle_is_tried,
    },
    Feature {
        name: "fsmount(2)",
        since: "5.2",
        need: Need::Useful,
        loss: "Unix sockets whose names lead elsewhere by now cannot come.",
        advice: "Use a kernel of that version or newer, with CONFIG_TMPFS.",
        permission: Permission::of(SYS_ADMIN),
        probe: || nowhere().map(drop),
    },
];

fn a_registration_is_found() -> io::Result<()> {
    let epoll = fd::epoll()?;
    let [one, other] = [fd::eventfd(0, 0)?, fd::eventfd(0, 0)?];
    fd::add_to_epoll(epoll.as_fd(), one.as_fd())?;
    let number = |fd: i32| fd.unsigned_abs();
    let slot =
        EpollSlot { epoll: number(epoll.as_raw_fd()), tfd: number(one.as_raw_fd()), occurrence: 0 };
    let is_there = |fd: i32| fd::is_in_slot((ourselves(), fd), ourselves(), slot);
    must(is_there(one.as_raw_fd())? && !is_there(other.as_raw_fd())?)
}

/// No file has this handle, and whoever may not ask is told so first.
fn a_handle_is_tried() -> io::Result<()> {
    let root = File::open("/")?;
    match fd::open_by_handle(root.as_fd(), 1, &[0; 8]).map_err(|error| error.raw_os_error()) {
        Err(Some(libc::ESTALE | libc::EINVAL | libc::EOPNOTSUPP)) | Ok(_) => Ok(()),
        Err(errno) => Err(io::Error::from_raw_os_error(errno.unwrap_or(libc::EIO))),
    }
}
