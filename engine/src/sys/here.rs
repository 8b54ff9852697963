//! Runs a batch in the calling thread: what a puppet does, without a puppet, for the tests of
//! everything that only writes batches.

use crate::batch::{Answers, Arg, Batch};

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
        return -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO));
    }
    result
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
