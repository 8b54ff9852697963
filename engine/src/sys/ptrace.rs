//! ptrace(2), one wrapper a request. Only the thread that seized a tracee may use them on it.

use super::alarm::Alarm;
use crate::priority::processor_count;
use std::io;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// `struct ptrace_rseq_configuration`, Linux 5.13.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RseqConfiguration {
    pub(crate) address: u64,
    pub(crate) size: u32,
    pub(crate) signature: u32,
    pub(crate) flags: u32,
    pub(crate) pad: u32,
}

#[repr(C)]
struct PeekSiginfoArguments {
    offset: u64,
    flags: u32,
    count: i32,
}

/// The kernel's `siginfo_t`, kept as it is.
pub(crate) const SIGINFO_BYTES: usize = 128;
pub(crate) const PTRACE_EVENT_STOP: i32 = 128;
const NT_X86_XSTATE: usize = 0x202;
/// More than any x86-64 processor's state, AMX included (about 11 KiB).
pub(crate) const XSTATE_BYTES_MAX: usize = 32 << 10;
const PTRACE_GET_RSEQ_CONFIGURATION: libc::c_uint = 0x420f;
const PTRACE_PEEKSIGINFO_SHARED: u32 = 1;

/// What a waited-for thread did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A PTRACE_EVENT_* stop, with the event's number (PTRACE_EVENT_STOP included).
    Ptrace(i32),
    /// PTRACE_EVENT_STOP while the whole process is stopped by job control, with that signal.
    GroupStop(i32),
    /// Entry to or exit from a system call (PTRACE_O_TRACESYSGOOD).
    Syscall,
    /// About to receive this signal.
    Signal(i32),
    /// It is no more.
    Gone,
}

fn check(ret: libc::c_long) -> io::Result<libc::c_long> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

fn request(
    request: libc::c_uint,
    tid: i32,
    address: *mut libc::c_void,
    data: *mut libc::c_void,
) -> io::Result<libc::c_long> {
    // SAFETY: every caller in this file passes, for requests that read or write our memory, a
    // pointer to a live object of the size that ptrace(2) names for the request.
    check(unsafe { libc::ptrace(request, tid, address, data) })
}

fn number(value: usize) -> *mut libc::c_void {
    ptr::without_provenance_mut(value)
}

pub(crate) fn seize(tid: i32, options: i32) -> io::Result<()> {
    let options = usize::try_from(options).unwrap_or(0);
    request(libc::PTRACE_SEIZE, tid, ptr::null_mut(), number(options)).map(drop)
}

pub(crate) fn set_options(tid: i32, options: i32) -> io::Result<()> {
    let options = usize::try_from(options).unwrap_or(0);
    request(libc::PTRACE_SETOPTIONS, tid, ptr::null_mut(), number(options)).map(drop)
}

pub(crate) fn interrupt(tid: i32) -> io::Result<()> {
    request(libc::PTRACE_INTERRUPT, tid, ptr::null_mut(), ptr::null_mut()).map(drop)
}

pub(crate) fn cont(tid: i32, signal: i32) -> io::Result<()> {
    let signal = usize::try_from(signal).unwrap_or(0);
    request(libc::PTRACE_CONT, tid, ptr::null_mut(), number(signal)).map(drop)
}

/// Runs to the next entry to or exit from a system call.
pub(crate) fn cont_to_syscall(tid: i32) -> io::Result<()> {
    request(libc::PTRACE_SYSCALL, tid, ptr::null_mut(), ptr::null_mut()).map(drop)
}

pub(crate) fn detach(tid: i32, signal: i32) -> io::Result<()> {
    let signal = usize::try_from(signal).unwrap_or(0);
    request(libc::PTRACE_DETACH, tid, ptr::null_mut(), number(signal)).map(drop)
}

pub(crate) fn no_registers() -> libc::user_regs_struct {
    // SAFETY: all-zero bytes are a valid user_regs_struct, it is integers throughout.
    unsafe { std::mem::zeroed() }
}

pub(crate) fn registers(tid: i32) -> io::Result<libc::user_regs_struct> {
    let mut registers = no_registers();
    request(libc::PTRACE_GETREGS, tid, ptr::null_mut(), (&raw mut registers).cast())?;
    Ok(registers)
}

pub(crate) fn set_registers(tid: i32, registers: &libc::user_regs_struct) -> io::Result<()> {
    let data = ptr::from_ref(registers).cast_mut().cast();
    request(libc::PTRACE_SETREGS, tid, ptr::null_mut(), data).map(drop)
}

/// The whole floating point and vector state, in the processor's XSAVE layout.
pub(crate) fn xstate(tid: i32) -> io::Result<Vec<u8>> {
    /// What the kernel finds out when it starts. To make room for the most that there could be takes
    /// longer than the call.
    static BYTES: AtomicUsize = AtomicUsize::new(XSTATE_BYTES_MAX);
    let mut bytes = vec![0; BYTES.load(Ordering::Relaxed)];
    let mut area = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    request(libc::PTRACE_GETREGSET, tid, number(NT_X86_XSTATE), (&raw mut area).cast())?;
    bytes.truncate(area.iov_len);
    BYTES.store(bytes.len(), Ordering::Relaxed);
    Ok(bytes)
}

pub(crate) fn set_xstate(tid: i32, bytes: &[u8]) -> io::Result<()> {
    let mut area = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    request(libc::PTRACE_SETREGSET, tid, number(NT_X86_XSTATE), (&raw mut area).cast()).map(drop)
}

pub(crate) fn signal_mask(tid: i32) -> io::Result<u64> {
    let mut mask = 0_u64;
    request(libc::PTRACE_GETSIGMASK, tid, number(8), (&raw mut mask).cast())?;
    Ok(mask)
}

pub(crate) fn set_signal_mask(tid: i32, mask: u64) -> io::Result<()> {
    let mut mask = mask;
    request(libc::PTRACE_SETSIGMASK, tid, number(8), (&raw mut mask).cast()).map(drop)
}

pub(crate) fn rseq_configuration(tid: i32) -> io::Result<RseqConfiguration> {
    let mut configuration = RseqConfiguration::default();
    let size = size_of::<RseqConfiguration>();
    let data = (&raw mut configuration).cast();
    request(PTRACE_GET_RSEQ_CONFIGURATION, tid, number(size), data)?;
    Ok(configuration)
}

/// The queued signals of a thread, or those of its process (`shared`), without taking them.
pub(crate) fn queued_signals(tid: i32, shared: bool) -> io::Result<Vec<[u8; SIGINFO_BYTES]>> {
    let mut all = Vec::new();
    loop {
        let mut chunk = [[0_u8; SIGINFO_BYTES]; 32];
        let mut arguments = PeekSiginfoArguments {
            offset: all.len() as u64,
            flags: if shared { PTRACE_PEEKSIGINFO_SHARED } else { 0 },
            count: 32,
        };
        let address = (&raw mut arguments).cast();
        let count = request(libc::PTRACE_PEEKSIGINFO, tid, address, chunk.as_mut_ptr().cast())?;
        let count = usize::try_from(count).unwrap_or(0);
        all.extend_from_slice(&chunk[..count.min(chunk.len())]);
        if count < chunk.len() {
            return Ok(all);
        }
    }
}

/// Waits for one thread by its id: waiting for any is quadratic in the number of threads.
pub(crate) fn wait(tid: i32) -> io::Result<Event> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is the one int that waitpid(2) writes.
        let ret = unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) };
        match check(libc::c_long::from(ret)) {
            Ok(_) => return Ok(event(status)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Most of what we make a thread do takes less. Whoever looks has not to be woken, which costs as
/// much again; stepping aside in between would give a slice to whatever else wants the processor.
const SPIN_WAIT: Duration = Duration::from_micros(50);

/// On a single processor the thread could not do it while we look.
fn spin_wait() -> Duration {
    static WAIT: OnceLock<Duration> = OnceLock::new();
    let is_single = || processor_count() == 1;
    *WAIT.get_or_init(|| if is_single() { Duration::ZERO } else { SPIN_WAIT })
}

/// Like `wait`, but for so long at most: then it fails with `TimedOut`.
pub(crate) fn wait_within(tid: i32, limit: Duration) -> io::Result<Event> {
    let began = Instant::now();
    let end = began + limit;
    while began.elapsed() < spin_wait().min(limit) {
        if let Some(event) = poll(tid)? {
            return Ok(event);
        }
        std::hint::spin_loop();
    }
    let _alarm = Alarm::after(limit)?;
    let mut status = 0;
    loop {
        // SAFETY: `status` is the one int that waitpid(2) writes.
        let ret = unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) };
        match check(libc::c_long::from(ret)) {
            Ok(_) => return Ok(event(status)),
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            Err(_) if Instant::now() < end => {}
            Err(_) => {
                let why = format!("nothing came of it for {limit:?}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
        }
    }
}

/// Like `wait`, but does not block.
pub(crate) fn poll(tid: i32) -> io::Result<Option<Event>> {
    let mut status = 0;
    // SAFETY: `status` is the one int that waitpid(2) writes.
    let ret = unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL | libc::WNOHANG) };
    Ok((check(libc::c_long::from(ret))? != 0).then(|| event(status)))
}

/// Lets a thread run, receive the signal if it stops for it, and says what it did next.
pub(crate) fn wait_after(tid: i32, signal: i32) -> io::Result<Event> {
    cont(tid, 0)?;
    match wait(tid)? {
        Event::Signal(stopped_for) if stopped_for == signal => {
            cont(tid, signal)?;
            wait(tid)
        }
        other => Ok(other),
    }
}

fn event(status: i32) -> Event {
    if !libc::WIFSTOPPED(status) {
        return Event::Gone;
    }
    match (libc::WSTOPSIG(status), status >> 16) {
        (signal, PTRACE_EVENT_STOP) if signal != libc::SIGTRAP => Event::GroupStop(signal),
        (_, event) if event != 0 => Event::Ptrace(event),
        (signal, _) if signal == libc::SIGTRAP | 0x80 => Event::Syscall,
        (signal, _) => Event::Signal(signal),
    }
}

/// The registers as the kernel lays them out, for an image.
pub(crate) fn registers_to_words(registers: &libc::user_regs_struct) -> Vec<u64> {
    let words = size_of::<libc::user_regs_struct>() / size_of::<u64>();
    let start = ptr::from_ref(registers).cast::<u64>();
    // SAFETY: the struct is `words` 64-bit integers without padding, and outlives the slice.
    unsafe { std::slice::from_raw_parts(start, words) }.to_vec()
}

/// The opposite; `None` when the count of words is wrong.
pub(crate) fn registers_from_words(words: &[u64]) -> Option<libc::user_regs_struct> {
    let mut registers = no_registers();
    if size_of_val(words) != size_of::<libc::user_regs_struct>() {
        return None;
    }
    let start = (&raw mut registers).cast::<u64>();
    // SAFETY: the struct is exactly as many 64-bit integers as `words` has, checked above.
    unsafe { ptr::copy_nonoverlapping(words.as_ptr(), start, words.len()) };
    Some(registers)
}
