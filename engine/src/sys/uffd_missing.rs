//! userfaultfd in missing mode, on a descriptor taken from the process that it serves.
//!
//! Every call acts on the memory of the process that *created* the descriptor, never on ours, so
//! no address here can hurt us. man 2 ioctl_userfaultfd.

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, IntoRawFd as _, OwnedFd};
use std::ptr;
use std::sync::OnceLock;
use userfaultfd::{Error as UffdError, Event as UffdEvent, EventBuffer, Uffd};

const PAGE: usize = 4096;

/// The program's own changes of its layout must reach us: without them a push would bring back
/// pages that it dropped (REMOVE, UNMAP), forget pages that it moved (REMAP), and its children
/// would read zeros (FORK). Each of them blocks the program until it is read.
const FEATURES: u64 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 6;

#[repr(C)]
#[derive(Debug)]
pub(crate) struct UffdioApi {
    api: u64,
    features: u64,
    ioctls: u64,
}

mod raw {
    nix::ioctl_readwrite!(uffdio_api, 0xAA, 0x3F, super::UffdioApi);
}

#[derive(Debug)]
pub(crate) struct MissingUffd(Uffd);

/// What became of an attempt to put pages into place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    All,
    /// So many bytes, then something was in the way; go on behind them.
    Part(usize),
    /// There is a page already: the first one, nothing was done.
    Exists,
    /// The layout is changing under an event that nobody has read yet: read events, try again.
    Changing,
    /// The range is not registered, or lies in more than one mapping.
    NoMapping,
    /// The address space is gone: the process ended or called exec.
    Gone,
}

#[derive(Debug)]
pub(crate) enum Event {
    Fault { address: u64 },
    Fork { child: MissingUffd },
    Remap { from: u64, to: u64, bytes: u64 },
    Remove { start: u64, end: u64 },
    Unmap { start: u64, end: u64 },
}

impl MissingUffd {
    /// Takes the descriptor and makes it non-blocking (a blocking one polls as an error).
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: the descriptor is ours and open, and `into_raw_fd` gives its ownership away.
        Self::adopt(unsafe { Uffd::from_raw_fd(fd.into_raw_fd()) })
    }

    /// Not by way of the library's `into_raw_fd`: in 0.9.0 it closes what it returns.
    fn adopt(uffd: Uffd) -> io::Result<Self> {
        let flags = fcntl(&uffd, FcntlArg::F_GETFL)?;
        let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
        fcntl(&uffd, FcntlArg::F_SETFL(flags))?;
        Ok(Self(uffd))
    }

    /// Of our own memory, and serving also what the kernel itself touches: EPERM without
    /// CAP_SYS_PTRACE, unless vm.unprivileged_userfaultfd allows it.
    pub(crate) fn of_ourselves() -> io::Result<Self> {
        // SAFETY: userfaultfd(2) takes one integer and reads no memory.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
        match i32::try_from(fd) {
            // SAFETY: `fd` was just returned to us, so nothing else owns it.
            Ok(fd) if fd >= 0 => Self::new(unsafe { OwnedFd::from_raw_fd(fd) }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Agrees with the kernel on faults alone: nothing that the program does waits for a reader.
    pub(crate) fn handshake_without_events(&self) -> io::Result<()> {
        self.agree_on(0)
    }

    /// Agrees with the kernel on the events; once per descriptor. EINVAL when it was done before,
    /// EPERM without CAP_SYS_PTRACE (which EVENT_FORK wants of the caller).
    pub(crate) fn handshake(&self) -> io::Result<()> {
        self.agree_on(FEATURES)
    }

    fn agree_on(&self, features: u64) -> io::Result<()> {
        let mut api = UffdioApi { api: 0xAA, features, ioctls: 0 };
        let fd = self.0.as_raw_fd();
        // SAFETY: UFFDIO_API reads and writes exactly this structure, which outlives the call.
        unsafe { raw::uffdio_api(fd, &raw mut api) }?;
        Ok(())
    }

    /// From now on an access to an absent page in the range waits for us. EINVAL when the range
    /// has a mapping of a kind that cannot be served (a regular file), EBUSY when the program
    /// itself uses a userfaultfd there.
    pub(crate) fn register(&self, start: u64, bytes: u64) -> io::Result<()> {
        self.0.register(there(start), length(bytes)).map(drop).map_err(io_error)
    }

    /// Absent pages in the range are zeros again; whoever waits there goes on.
    pub(crate) fn unregister(&self, start: u64, bytes: u64) -> io::Result<()> {
        self.0.unregister(there(start), length(bytes)).map_err(io_error)
    }

    /// Makes every waiting access in the range try again: a fault that was read by an agent that
    /// died is delivered once more.
    pub(crate) fn wake(&self, start: u64, bytes: u64) -> io::Result<()> {
        self.0.wake(there(start), length(bytes)).map_err(io_error)
    }

    /// Puts whole pages into place and wakes who waits for them. Never overwrites a page.
    pub(crate) fn copy(&self, address: u64, bytes: &[u8]) -> io::Result<Placed> {
        let from = bytes.as_ptr().cast();
        // SAFETY: the kernel reads `bytes`, a live slice of that length; it writes to the other
        // process only, and refuses ranges that this descriptor does not serve.
        let result = unsafe { self.0.copy(from, there(address), bytes.len(), true) };
        placed(result, bytes.len())
    }

    /// Puts one page of zeros into place.
    pub(crate) fn zero_page(&self, address: u64) -> io::Result<Placed> {
        // SAFETY: it acts on the other process only, and never overwrites a page there.
        let result = unsafe { self.0.zeropage(there(address), PAGE, true) };
        placed(result, PAGE)
    }

    /// How the page would be received, without any effect: a copy from where nothing can be read.
    /// `All` stands for "registered".
    pub(crate) fn probe(&self, address: u64) -> io::Result<Placed> {
        let from = ptr::without_provenance(unreadable()?);
        // SAFETY: the kernel refuses to read the source, so nothing is written anywhere.
        match placed(unsafe { self.0.copy(from, there(address), PAGE, false) }, PAGE) {
            Err(cause) if cause.raw_os_error() == Some(libc::EFAULT) => Ok(Placed::All),
            other => other,
        }
    }

    /// Whether a read would return something.
    pub(crate) fn has_events(&self) -> bool {
        let mut asked = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        poll(&mut asked, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// How many faults wait to be read; they are read before anything else. From fdinfo; 0 when
    /// that cannot be read. A fault that a signal takes back before the read is one too many.
    pub(crate) fn pending_faults(&self) -> usize {
        let path = format!("/proc/self/fdinfo/{}", self.0.as_raw_fd());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let pending = text.lines().find_map(|line| line.strip_prefix("pending:"));
        pending.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }

    /// Reads what is there, faults first; nothing when nothing is.
    pub(crate) fn read(&self, buffer: &mut EventBuffer) -> io::Result<Vec<Event>> {
        let events = match self.0.read_events(buffer).map_err(io_error) {
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => return Ok(Vec::new()),
            other => other?,
        };
        events.map(|event| event.map_err(io_error).and_then(understand)).collect()
    }
}

impl AsFd for MissingUffd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn understand(event: UffdEvent) -> io::Result<Event> {
    Ok(match event {
        UffdEvent::Pagefault { addr, .. } => Event::Fault { address: here(addr) & !0xfff },
        UffdEvent::Fork { uffd } => Event::Fork { child: MissingUffd::adopt(uffd)? },
        UffdEvent::Remap { from, to, len } => {
            Event::Remap { from: here(from), to: here(to), bytes: len as u64 }
        }
        UffdEvent::Remove { start, end } => Event::Remove { start: here(start), end: here(end) },
        UffdEvent::Unmap { start, end } => Event::Unmap { start: here(start), end: here(end) },
    })
}

fn placed(result: userfaultfd::Result<usize>, asked: usize) -> io::Result<Placed> {
    let cause = match result {
        Ok(_) => return Ok(Placed::All),
        // The kernel reports "changing" in the same field, as a negative count.
        Err(UffdError::PartiallyCopied(bytes)) if bytes == 0 || bytes > asked => {
            return Ok(Placed::Changing);
        }
        Err(UffdError::PartiallyCopied(bytes)) => return Ok(Placed::Part(bytes)),
        Err(other) => io_error(other),
    };
    match cause.raw_os_error() {
        Some(libc::EEXIST) => Ok(Placed::Exists),
        Some(libc::EAGAIN) => Ok(Placed::Changing),
        Some(libc::ENOENT) => Ok(Placed::NoMapping),
        Some(libc::ESRCH) => Ok(Placed::Gone),
        _ => Err(cause),
    }
}

/// The library has an `Errno` type of another version of nix than ours: the number is the same.
fn io_error(error: UffdError) -> io::Error {
    match error {
        UffdError::SystemError(errno)
        | UffdError::CopyFailed(errno)
        | UffdError::ZeropageFailed(errno) => io::Error::from_raw_os_error(errno as i32),
        other => io::Error::other(other),
    }
}

/// A page of ours without any access, made once.
fn unreadable() -> io::Result<usize> {
    static PAGE_ADDRESS: OnceLock<usize> = OnceLock::new();
    if let Some(address) = PAGE_ADDRESS.get() {
        return Ok(*address);
    }
    let (none, private) = (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
    let page = unsafe { libc::mmap(ptr::null_mut(), PAGE, none, private, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // Of two threads that come here together, one leaves a page of address space behind.
    Ok(*PAGE_ADDRESS.get_or_init(|| page.addr()))
}

/// An address of the other process, in the type that the library wants. It is never followed.
fn there(address: u64) -> *mut libc::c_void {
    ptr::without_provenance_mut(length(address))
}

fn here(address: *mut libc::c_void) -> u64 {
    address.addr() as u64
}

fn length(bytes: u64) -> usize {
    usize::try_from(bytes).expect("addresses are 64 bits wide")
}
