//! Reading memory, seeing what was written, and filling it again, also while a program runs.

use super::{
    EVERYTHING, Feature, NEWER_KERNEL, Need, PUTTING_TOGETHER, Permission, Role, SYS_ADMIN,
    SYS_PTRACE, TAKING_APART, must, no_effect, ourselves,
};
use crate::memory::{PAGE_BYTES, soft_dirty, write_protect};
use crate::sys;
use crate::sys::pagemap::{Categories, Pagemap, Query};
use crate::sys::ptrace;
use crate::sys::trial::Trial;
use crate::sys::uffd_missing::{Event, MissingUffd, Placed};
use crate::sys::vm::Scratch;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{self, IoSliceMut, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};
use userfaultfd::EventBuffer;

/// Pages come when they are touched, also when the kernel touches them.
pub(crate) const USERFAULTFD: Feature = Feature {
    name: "userfaultfd(2)",
    since: "4.3",
    need: Need::Useful,
    loss: "No page can follow after the handover: all that is left is copied in the freeze.",
    advice: "Use a kernel with CONFIG_USERFAULTFD.",
    permission: Permission::of(SYS_PTRACE).and("vm.unprivileged_userfaultfd"),
    probe: a_fault_of_the_kernel_is_served,
};

const WRITE_PROTECT: &str = "UFFD_FEATURE_WP_ASYNC";
const SOFT_DIRTY: &str = "soft-dirty";

pub(super) const FEATURES: &[Feature] = &[
    Feature {
        name: "memfd_create(2)",
        since: "3.17",
        need: EVERYTHING,
        loss: "A program cannot be made to do what only it can do for itself.",
        advice: NEWER_KERNEL,
        permission: Permission { sysctl: Some("vm.memfd_noexec"), ..Permission::FREE },
        probe: || sys::process::memfd(c"trial", libc::MFD_CLOEXEC).map(drop),
    },
    Feature {
        name: "process_vm_readv(2)",
        since: "3.2",
        need: TAKING_APART,
        loss: "The memory of a program cannot be read.",
        advice: "Use a kernel with CONFIG_CROSS_MEMORY_ATTACH.",
        permission: Permission::of(SYS_PTRACE).and("kernel.yama.ptrace_scope"),
        probe: || with_copy(|child, page| must(read_there(child.pid(), page)? == SIGN)),
    },
    Feature {
        name: "process_vm_writev(2)",
        since: "3.2",
        need: PUTTING_TOGETHER,
        loss: "The memory of a program cannot be filled.",
        advice: "Use a kernel with CONFIG_CROSS_MEMORY_ATTACH.",
        permission: Permission::of(SYS_PTRACE).and("kernel.yama.ptrace_scope"),
        probe: || {
            with_copy(|child, page| {
                sys::vm_write::write(child.pid(), &[(page, &[OTHER])])?;
                must(read_there(child.pid(), page)? == OTHER)
            })
        },
    },
    Feature {
        name: "/proc/PID/mem (forced write)",
        since: "2.6.39",
        need: PUTTING_TOGETHER,
        loss: "Memory that a program may only read cannot be filled: its code and constants.",
        advice: "Start the kernel with proc_mem.force_override=ptrace or always.",
        permission: Permission::of(SYS_PTRACE).and("kernel.yama.ptrace_scope"),
        probe: what_is_read_only_is_written,
    },
    Feature {
        name: "MAP_FIXED_NOREPLACE",
        since: "4.17",
        need: PUTTING_TOGETHER,
        loss: "A mapping could silently come elsewhere than the program expects it.",
        advice: NEWER_KERNEL,
        permission: Permission::FREE,
        probe: || must(Scratch::new(PAGE)?.is_not_replaced()?),
    },
    Feature {
        name: "MADV_DONTNEED_LOCKED",
        since: "5.18",
        need: Need::Needed(&[Role::Receive]),
        loss: "What a program gives back while it is copied cannot be dropped here, and pages \
               cannot follow after the handover.",
        advice: NEWER_KERNEL,
        permission: Permission::FREE,
        probe: || {
            const MADV_DONTNEED_LOCKED: i32 = 24;
            let mut scratch = Scratch::new(PAGE)?;
            scratch.write(0, SIGN);
            scratch.advise(MADV_DONTNEED_LOCKED)?;
            must(scratch.read(0) == 0)
        },
    },
    Feature {
        name: WRITE_PROTECT,
        since: "6.7",
        need: Need::NeededUnless(SOFT_DIRTY, &[Role::Send, Role::Store]),
        loss: "What a program writes while it is copied is found by soft-dirty pages alone, for \
               which it stands still in every round.",
        advice: "Use a kernel of that version or newer, with CONFIG_USERFAULTFD and \
                 CONFIG_PTE_MARKER_UFFD_WP, or one with CONFIG_MEM_SOFT_DIRTY.",
        permission: Permission::FREE,
        probe: write_protect::try_out,
    },
    Feature {
        name: SOFT_DIRTY,
        since: "3.11",
        need: Need::NeededUnless(WRITE_PROTECT, &[Role::Send, Role::Store]),
        loss: "What a program writes while it is copied is found by write protection alone.",
        advice: "Use a kernel with CONFIG_MEM_SOFT_DIRTY, or Linux 6.7 or newer.",
        permission: Permission::FREE,
        probe: soft_dirty::try_out,
    },
    Feature {
        name: "PAGEMAP_SCAN",
        since: "6.7",
        need: Need::Useful,
        loss: "Pages that were written cannot be found by write protection.",
        advice: NEWER_KERNEL,
        permission: Permission::FREE,
        probe: || {
            let mut scratch = Scratch::new(2 * PAGE)?;
            scratch.write(PAGE, SIGN);
            must(scanned(&scratch, Categories::PRESENT)? == 1)
        },
    },
    Feature {
        name: "PAGE_IS_GUARD",
        since: "6.15",
        need: Need::Useful,
        loss: "Guard pages (MADV_GUARD_INSTALL, Linux 6.13) cannot be seen, and come back as \
               ordinary memory.",
        advice: NEWER_KERNEL,
        permission: Permission::FREE,
        probe: || {
            const MADV_GUARD_INSTALL: i32 = 102;
            let mut scratch = Scratch::new(2 * PAGE)?;
            scratch.advise(MADV_GUARD_INSTALL)?;
            must(scanned(&scratch, Categories::GUARD)? == 2)
        },
    },
    Feature {
        name: "/proc/PID/pagemap (page frames)",
        since: "2.6.25",
        need: Need::Useful,
        loss: "What processes share since a fork cannot be seen: it travels once for each of \
               them, and is no longer shared.",
        advice: "Use a kernel with CONFIG_PROC_PAGE_MONITOR.",
        permission: Permission::of(SYS_ADMIN),
        probe: a_frame_is_seen,
    },
    Feature {
        name: "move_pages(2)",
        since: "2.6.18",
        need: Need::Useful,
        loss: "What a program has thrown away is looked for page by page, in the freeze.",
        advice: "Use a kernel with CONFIG_NUMA.",
        permission: Permission::FREE,
        probe: || {
            let mut scratch = Scratch::new(PAGE)?;
            scratch.write(0, SIGN);
            must(sys::pages::are_there(ourselves(), &[scratch.address()])? == [true])
        },
    },
    USERFAULTFD,
    Feature {
        name: "UFFD_FEATURE_EVENT_FORK",
        since: "4.11",
        need: Need::Useful,
        loss: "No page can follow after the handover: a child would read zeros, and what the \
               program gives back would come again.",
        advice: "Use a kernel of that version or newer, with CONFIG_USERFAULTFD.",
        permission: Permission::of(SYS_PTRACE).and("vm.unprivileged_userfaultfd"),
        // Not tried out further: while memory is registered, whatever forks here would wait for us.
        probe: || MissingUffd::of_ourselves()?.handshake(),
    },
];

const PAGE: usize = 4096;
const SIGN: u8 = 7;
const OTHER: u8 = 9;
/// For a thread of ours to touch a page, on however slow a host.
const FAULT_WAIT: Duration = Duration::from_secs(10);

/// A child with a copy of a page of ours, which begins with the sign.
fn with_copy(run: impl FnOnce(&Trial, u64) -> io::Result<()>) -> io::Result<()> {
    let mut scratch = Scratch::new(PAGE)?;
    scratch.write(0, SIGN);
    run(&Trial::start()?, scratch.address())
}

fn read_there(pid: i32, address: u64) -> io::Result<u8> {
    let mut byte = [0];
    let base = usize::try_from(address).map_err(io::Error::other)?;
    let there = [RemoteIoVec { base, len: byte.len() }];
    process_vm_readv(Pid::from_raw(pid), &mut [IoSliceMut::new(&mut byte)], &there)?;
    Ok(byte[0])
}

/// As a program is filled: while it is traced by us.
fn what_is_read_only_is_written() -> io::Result<()> {
    let mut scratch = Scratch::new(PAGE)?;
    scratch.write(0, SIGN);
    scratch.make_read_only()?;
    let child = Trial::start()?;
    ptrace::seize(child.pid(), 0)?;
    let path = format!("/proc/{}/mem", child.pid());
    let memory = File::options().read(true).write(true).open(path)?;
    memory.write_all_at(&[OTHER], scratch.address())?;
    must(read_there(child.pid(), scratch.address())? == OTHER)
}

fn scanned(scratch: &Scratch, wanted: Categories) -> io::Result<u64> {
    let (start, end, none) = (scratch.address(), scratch.end(), Categories::NONE);
    let query = Query { start, end, all: wanted, none, any: none, tell: none, protect: false };
    let mut pages = 0;
    let mut count = |region: sys::pagemap::Region| pages += region.pages();
    Pagemap::open(ourselves())?.scan(&query, &mut count)?;
    Ok(pages)
}

/// Without the permission the kernel says that every page is in frame 0.
fn a_frame_is_seen() -> io::Result<()> {
    let mut scratch = Scratch::new(PAGE)?;
    scratch.write(0, SIGN);
    let mut frame = None;
    let mut look = |_, entry: sys::pagemap::Entry| frame = entry.frame();
    Pagemap::open(ourselves())?.entries(scratch.address(), scratch.end(), &mut look)?;
    let hidden = || io::Error::new(io::ErrorKind::PermissionDenied, "page frames are hidden");
    frame.map(drop).ok_or_else(hidden)
}

/// A page that is missing is read by the kernel, and is there when we have brought it.
fn a_fault_of_the_kernel_is_served() -> io::Result<()> {
    let scratch = Scratch::new(PAGE)?;
    let (address, bytes) = (scratch.address(), PAGE_BYTES);
    let uffd = MissingUffd::of_ourselves()?;
    uffd.handshake_without_events()?;
    uffd.register(address, bytes)?;
    let (mut reader, writer) = io::pipe()?;
    std::thread::scope(|scope| {
        let touching = scope.spawn(|| scratch.write_out(0, writer.as_fd()));
        let served = serve(&uffd, &scratch, || touching.is_finished());
        // Closed, it lets whoever still waits go on, and read a zero.
        drop(uffd);
        touching.join().unwrap_or_else(|_| Err(no_effect()))?;
        served
    })?;
    let mut byte = [0];
    reader.read_exact(&mut byte)?;
    must(byte == [SIGN])
}

fn serve(uffd: &MissingUffd, scratch: &Scratch, is_over: impl Fn() -> bool) -> io::Result<()> {
    const PAUSE: Duration = Duration::from_micros(100);
    let began = Instant::now();
    while !uffd.has_events() {
        must(!is_over() && began.elapsed() < FAULT_WAIT)?;
        std::thread::sleep(PAUSE);
    }
    let events = uffd.read(&mut EventBuffer::new(1))?;
    must(matches!(*events, [Event::Fault { address }] if address == scratch.address()))?;
    let placed = uffd.copy(scratch.address(), &[SIGN; PAGE])?;
    must(placed == Placed::All)
}
