//! Runs a batch in the calling thread: what a puppet does, without a puppet, for the tests of
//! everything that only writes batches.

use crate::batch::{Answers, Arg, Batch};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};
use std::fs::File;
use std::io::{self, Read as _, Write as _};

/// Bytes beside a batch are aligned to this; so is their copy here.
const ALIGNMENT: usize = 64;

/// Runs every call in order, as a stopped thread would. A call that must succeed and fails does
/// not end the run: ask [`Answers::check`].
pub(crate) fn run_here(batch: &Batch) -> Answers {
    let mut memory = vec![0; batch.bytes.len() + ALIGNMENT];
    let start = memory.as_ptr().align_offset(ALIGNMENT);
    memory[start..start + batch.bytes.len()].copy_from_slice(&batch.bytes);
    // Exposed, because the kernel writes answers behind the compiler's back.
    let base = memory.as_mut_ptr().expose_provenance() + start;
    let mut results = Vec::with_capacity(batch.entries.len());
    for entry in &batch.entries {
        let args = entry.args.map(|arg| resolve(arg, base, &results));
        results.push(call(entry.number, args));
    }
    let bytes = memory[start..start + batch.bytes.len()].to_vec();
    Answers { results, bytes }
}

fn resolve(arg: Arg, base: usize, results: &[i64]) -> u64 {
    match arg {
        Arg::Value(value) => value,
        Arg::Bytes(bytes) => (base + bytes.offset) as u64,
        Arg::Result(call) => results[call.0].cast_unsigned(),
    }
}

/// The raw result: `-errno` for a failure, as a stopped thread's register shows it.
fn call(number: i64, [a, b, c, d, e, f]: [u64; 6]) -> i64 {
    // SAFETY: the batch was written by this crate for a thread of a stopped program; every address
    // in it is either inside `memory`, which outlives the call, or chosen by the test.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result == -1 {
        return -i64::from(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO));
    }
    result
}

/// A child of ours that did something to itself and stands still; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Child(Pid);

impl Child {
    pub(crate) fn pid(&self) -> i32 {
        self.0.as_raw()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
        let _ = waitpid(self.0, None);
    }
}

/// Forks, and lets the child run something with an empty table of descriptors. A failure in the
/// child is a panic here.
pub(crate) fn fork_here(run: impl FnOnce() -> io::Result<()>) -> Child {
    let (reader, writer) = nix::unistd::pipe().expect("a pipe");
    // SAFETY: the C library keeps its own locks usable in a child of a threaded program, and the
    // child does nothing but allocate, call the kernel and wait to be killed.
    match unsafe { fork() }.expect("a child") {
        ForkResult::Parent { child } => {
            drop(writer);
            let child = Child(child);
            let mut report = String::new();
            File::from(reader).read_to_string(&mut report).expect("a report");
            assert_eq!(report, "", "the child failed");
            child
        }
        ForkResult::Child => {
            let report = nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_DUPFD(REPORT));
            // What other tests have open would stay open for as long as the child lives.
            // SAFETY: closing descriptors touches no memory; their owners are in the other process.
            unsafe { libc::syscall(libc::SYS_close_range, 3, REPORT - 1, 0) };
            // SAFETY: as above.
            unsafe { libc::syscall(libc::SYS_close_range, REPORT + 1, u32::MAX, 0) };
            report_and_wait(report.unwrap_or(REPORT), run())
        }
    }
}

/// The number through which a child reports: above every number that a test needs.
const REPORT: i32 = 950;

fn report_and_wait(report: i32, outcome: io::Result<()>) -> ! {
    if let Err(error) = outcome {
        let mut file = File::options().write(true).open(format!("/proc/self/fd/{report}"));
        let _ = file.as_mut().map(|file| write!(file, "{error}"));
    }
    let _ = nix::unistd::close(report);
    loop {
        nix::unistd::pause();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args;
    use crate::error::Object;

    #[test]
    fn a_later_call_sees_an_earlier_result_and_bytes_come_back() {
        let mut batch = Batch::new();
        let name = batch.string("here");
        let fd = batch.call("make", &Object::Host, libc::SYS_memfd_create, args![name, 0]);
        let text = batch.bytes(b"hello");
        let room = batch.room(5);
        batch.call("write to", &Object::Host, libc::SYS_write, args![fd, text, 5]);
        batch.call("read back", &Object::Host, libc::SYS_pread64, args![fd, room, 5, 0]);
        let closed = batch.try_call(libc::SYS_close, args![-1]);
        let answers = run_here(&batch);
        answers.check(&batch).unwrap();
        assert_eq!(answers.bytes(room), b"hello");
        assert_eq!(answers.raw(closed), -i64::from(libc::EBADF));
        nix::unistd::close(i32::try_from(answers.raw(fd)).unwrap()).unwrap();
    }
}
