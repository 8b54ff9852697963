//! Finding processes, comparing them, and making them as they were.

use super::{
    CHECKPOINT_RESTORE, EVERYTHING, Feature, NEWER_KERNEL, Need, PUTTING_TOGETHER, Permission,
    SYS_ADMIN, SYS_NICE, SYS_PTRACE, TAKING_APART, must, no_effect, ourselves,
};
use crate::sys;
use crate::sys::process::{self, fork_parked};
use crate::sys::trial::{Trial, in_a_child};
use nix::sched::{CloneFlags, setns, unshare};
use nix::time::{ClockId, clock_gettime};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Clocks go on in it from where they were.
pub(crate) const TIME_NAMESPACE: Feature = Feature {
    name: "time_namespaces(7)",
    since: "5.6",
    need: PUTTING_TOGETHER,
    loss: "CLOCK_MONOTONIC would jump, which programs do not survive.",
    advice: "Use a kernel with CONFIG_TIME_NS.",
    permission: Permission::of(SYS_ADMIN),
    probe: a_clock_is_shifted,
};

pub(super) const FEATURES: &[Feature] = &[
    Feature {
        name: "/proc/PID/task/TID/children",
        since: "3.5",
        need: TAKING_APART,
        loss: "The processes of a tree cannot be found.",
        advice: "Use a kernel with CONFIG_PROC_CHILDREN.",
        permission: Permission::FREE,
        probe: || {
            let child = Trial::start()?;
            let children = fs::read_to_string("/proc/thread-self/children")?;
            must(children.split(' ').any(|pid| pid == child.pid().to_string()))
        },
    },
    Feature {
        name: "/proc/PID/timers",
        since: "3.10",
        need: TAKING_APART,
        loss: "The timers of a program (timer_create(2)) cannot be seen.",
        advice: "Use a kernel with CONFIG_CHECKPOINT_RESTORE and CONFIG_POSIX_TIMERS.",
        permission: Permission::FREE,
        probe: || fs::read("/proc/self/timers").map(drop),
    },
    Feature {
        name: "pidfd_open(2)",
        since: "5.3",
        need: EVERYTHING,
        loss: "No descriptor of a program can be taken, nor its end be told from another's.",
        advice: NEWER_KERNEL,
        permission: Permission::FREE,
        probe: || process::pidfd_open(ourselves()).map(drop),
    },
    Feature {
        name: "pidfd_getfd(2)",
        since: "5.6",
        need: EVERYTHING,
        loss: "The descriptors of a program cannot be looked at, nor given to one that is built.",
        advice: NEWER_KERNEL,
        permission: Permission::of(SYS_PTRACE).and("kernel.yama.ptrace_scope"),
        probe: a_descriptor_is_taken,
    },
    Feature {
        name: "pidfd_send_signal(2)",
        since: "5.1",
        need: EVERYTHING,
        loss: "A signal could hit another process that has got the same id since.",
        advice: NEWER_KERNEL,
        permission: Permission::FREE,
        probe: || process::pidfd_signal(process::pidfd_open(ourselves())?.as_fd(), 0),
    },
    Feature {
        name: "clone3(2) set_tid",
        since: "5.5",
        need: PUTTING_TOGETHER,
        loss: "Processes and threads cannot come back with their ids.",
        advice: NEWER_KERNEL,
        permission: Permission::of(SYS_ADMIN),
        probe: an_id_is_chosen,
    },
    Feature {
        name: "close_range(2)",
        since: "5.9",
        need: PUTTING_TOGETHER,
        loss: "A program that is built would keep our descriptors.",
        advice: NEWER_KERNEL,
        permission: Permission::FREE,
        probe: || {
            in_a_child(|| {
                process::close_range(0, u32::MAX)?;
                must(sys::fd::readable_bytes(io::stdin().as_fd()).is_err())
            })
        },
    },
    TIME_NAMESPACE,
    Feature {
        name: "PR_SET_MM_MAP",
        since: "3.18",
        need: PUTTING_TOGETHER,
        loss: "A program's heap, arguments and executable cannot be told to the kernel.",
        advice: CHECKPOINT_RESTORE,
        permission: Permission::FREE,
        probe: || sys::prctl::memory_map_bytes().and_then(|bytes| must(bytes >= MEMORY_MAP_BYTES)),
    },
    Feature {
        name: "ARCH_MAP_VDSO_64",
        since: "4.9",
        need: PUTTING_TOGETHER,
        loss: "The kernel's own pages (vdso) cannot be mapped where a program expects them.",
        advice: CHECKPOINT_RESTORE,
        permission: Permission::FREE,
        probe: || match in_a_child(sys::cpu::map_vdso) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            other => other,
        },
    },
    Feature {
        name: "PR_TIMER_CREATE_RESTORE_IDS",
        since: "6.15",
        need: Need::Useful,
        loss: "Timers (timer_create(2)) whose ids are not among the first cannot come back.",
        advice: NEWER_KERNEL,
        permission: Permission::FREE,
        probe: || match sys::prctl::restores_timer_ids() {
            true => Ok(()),
            false => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        },
    },
    Feature {
        name: "MEMBARRIER_CMD_GET_REGISTRATIONS",
        since: "6.3",
        need: Need::Useful,
        loss: "A program that leaves this host is registered for every kind of membarrier(2), \
               which costs it a little.",
        advice: "Use a kernel of that version or newer, with CONFIG_MEMBARRIER.",
        permission: Permission::FREE,
        probe: || process::barrier_registrations().map(drop),
    },
    Feature {
        name: "PR_SET_MDWE",
        since: "6.3",
        need: Need::Useful,
        loss: "Programs that forbid themselves memory that can be written and executed cannot \
               come.",
        advice: NEWER_KERNEL,
        permission: Permission::FREE,
        probe: || sys::prctl::setting(libc::PR_GET_MDWE).map(drop),
    },
    Feature {
        name: "PR_SET_MEMORY_MERGE",
        since: "6.4",
        need: Need::Useful,
        loss: "Pages of a program that has asked for that are not merged here (KSM).",
        advice: "Use a kernel of that version or newer, with CONFIG_KSM.",
        permission: Permission::FREE,
        probe: || sys::prctl::setting(PR_GET_MEMORY_MERGE).map(drop),
    },
    Feature {
        name: "ARCH_REQ_XCOMP_PERM",
        since: "5.16",
        need: Need::Useful,
        loss: "Programs that use tiles (AMX) cannot come.",
        advice: NEWER_KERNEL,
        permission: Permission::FREE,
        probe: || sys::cpu::permitted_state().map(drop),
    },
    Feature {
        name: "SCHED_RR",
        since: "2.6",
        need: Need::Useful,
        loss: "On a busy host the freeze waits for other programs, and is longer.",
        advice: "Allow the agent's control group to use it (cpu.rt_runtime_us, cgroup v1).",
        permission: Permission::of(SYS_NICE),
        probe: || apart(sys::priority::set_realtime),
    },
];

/// `struct prctl_mm_map` of Linux 3.18.
const MEMORY_MAP_BYTES: u32 = 104;
const PR_GET_MEMORY_MERGE: i32 = 68;
const CLONE_NEWTIME: CloneFlags = CloneFlags::from_bits_retain(0x80);

/// What a thread of its own does to itself ends with it.
fn apart(run: fn() -> io::Result<()>) -> io::Result<()> {
    let ran = std::thread::spawn(run).join();
    ran.unwrap_or_else(|_| Err(io::Error::other("the thread that tried it panicked")))
}

fn a_descriptor_is_taken() -> io::Result<()> {
    let ours = File::from(process::memfd(c"taken", libc::MFD_CLOEXEC)?);
    let child = Trial::start()?;
    let theirs = process::pidfd_open(child.pid())?;
    let taken = File::from(process::pidfd_getfd(theirs.as_fd(), ours.as_raw_fd())?);
    must(taken.metadata()?.ino() == ours.metadata()?.ino())
}

/// The id of a child that has just ended is free, unless somebody else is given it meanwhile.
fn an_id_is_chosen() -> io::Result<()> {
    const ATTEMPTS: u32 = 10;
    for _ in 0..ATTEMPTS {
        let pid = Trial::start()?.pid();
        match fork_parked(Some(pid), None).map(Trial::adopt) {
            Ok(child) => return must(child.pid() == pid),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EEXIST))
}

fn a_clock_is_shifted() -> io::Result<()> {
    const AHEAD_S: i64 = 1000;
    const NAMESPACE: &str = "/proc/self/ns/time_for_children";
    if !Path::new(NAMESPACE).exists() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no {NAMESPACE}")));
    }
    in_a_child(|| {
        let before = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
        unshare(CLONE_NEWTIME)?;
        fs::write("/proc/self/timens_offsets", "monotonic 1000 0\n")?;
        setns(File::open(NAMESPACE)?, CLONE_NEWTIME)?;
        let passed = clock_gettime(ClockId::CLOCK_MONOTONIC)? - before;
        if passed.tv_sec() >= AHEAD_S { Ok(()) } else { Err(no_effect()) }
    })
}
