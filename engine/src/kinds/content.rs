//! The bytes that are queued in a pipe or a fifo.

use crate::sys;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// What a queue holds. A packet (O_DIRECT) ends its run, so one read never sees two.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Content {
    #[prost(bytes = "vec", repeated, tag = "1")]
    runs: Vec<Vec<u8>>,
    #[prost(bool, tag = "2")]
    packets: bool,
    #[prost(int32, tag = "3")]
    capacity_bytes: i32,
}

impl Content {
    /// Reads what is queued without taking it: the source may yet carry on. `reader` may also be
    /// a writing end: then there is only the capacity to know.
    pub(super) fn peek(end: BorrowedFd<'_>, reads: bool, direct: bool) -> io::Result<Self> {
        let capacity_bytes = fcntl(end, FcntlArg::F_GETPIPE_SZ)?;
        let runs = if reads { peek_runs(end, capacity_bytes)? } else { Vec::new() };
        // Only packets make one read end before the queue does.
        let packets = direct || runs.len() > 1;
        Ok(Self { runs, packets, capacity_bytes })
    }

    /// How many wait in it.
    pub(super) fn bytes(&self) -> usize {
        self.runs.iter().map(Vec::len).sum()
    }

    #[cfg(test)]
    pub(super) fn capacity_bytes(&self) -> i32 {
        self.capacity_bytes
    }

    /// The same queue with nothing in it.
    pub(super) fn emptied(mut self) -> Self {
        self.runs.clear();
        self
    }

    /// Fills a new queue through its writing end, which must not block.
    pub(super) fn fill(&self, writer: BorrowedFd<'_>) -> io::Result<()> {
        fcntl(writer, FcntlArg::F_SETPIPE_SZ(self.capacity_bytes))?;
        for run in &self.runs {
            write_run(writer, run, self.packets)?;
        }
        fcntl(writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(())
    }
}

/// The greatest packet: PIPE_BUF, see pipe(7).
const PACKET_BYTES_MAX: usize = 4096;

/// Bytes that stand before a packet were written without O_DIRECT and join its run.
fn write_run(writer: BorrowedFd<'_>, run: &[u8], packets: bool) -> io::Result<()> {
    let packet = if packets { run.len().min(PACKET_BYTES_MAX) } else { 0 };
    let (plain, packet) = run.split_at(run.len() - packet);
    fcntl(writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    write_all(writer, plain)?;
    fcntl(writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK | OFlag::O_DIRECT))?;
    write_all(writer, packet)
}

fn write_all(writer: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = nix::unistd::write(writer, bytes)?;
        bytes = &bytes[written..];
    }
    Ok(())
}

fn peek_runs(reader: BorrowedFd<'_>, capacity_bytes: i32) -> io::Result<Vec<Vec<u8>>> {
    let room = usize::try_from(capacity_bytes).map_err(|_| io::ErrorKind::InvalidData)?;
    let (copy, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    // The copy needs as many slots as the original: a packet of one byte takes a whole one.
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(capacity_bytes))?;
    sys::fd::tee(reader, writer.as_fd(), room)?;
    drain(&copy, room)
}

fn drain(copy: &OwnedFd, room: usize) -> io::Result<Vec<Vec<u8>>> {
    let mut runs = Vec::new();
    let mut buffer = vec![0; room];
    loop {
        match nix::unistd::read(copy, &mut buffer) {
            Ok(0) | Err(nix::Error::EAGAIN) => return Ok(runs),
            Ok(read) => runs.push(buffer[..read].to_vec()),
            Err(error) => return Err(error.into()),
        }
    }
}
