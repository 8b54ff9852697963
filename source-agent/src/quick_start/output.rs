//! What a service writes: through a fifo into the keeper's own standard output.
//!
//! Under systemd that is a connection to the journal, which no image can bring back, nor a pipe.
//! A fifo has a name, by which it is found again.

use super::service::Service;
use anyhow::{Context as _, Result};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::fs::{File, OpenOptions, remove_file};
use std::io::{self, ErrorKind, Write as _};
use tokio::net::unix::pipe::{OpenOptions as PipeOptions, Receiver};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

#[derive(Debug)]
pub(super) struct Output {
    writer: File,
    ending: oneshot::Sender<()>,
    copying: JoinHandle<()>,
}

const CHUNK_BYTES: usize = 64 << 10;

impl Output {
    pub(super) fn open(service: &Service) -> Result<Self> {
        let path = service.directory.join("output");
        let object = || format!("make {}", path.display());
        // One that others have open would bring their words here.
        match remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.with_context(object)?,
        }
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).with_context(object)?;
        // With both ends here it has no end as long as we are there.
        let receiver = PipeOptions::new().read_write(true).open_receiver(&path);
        let receiver = receiver.with_context(object)?;
        let writer = OpenOptions::new().write(true).open(&path).with_context(object)?;
        let (ending, ended) = oneshot::channel();
        let copying = tokio::spawn(copy(receiver, ended));
        Ok(Self { writer, ending, copying })
    }

    /// For a program that is started.
    pub(super) fn writer(&self) -> io::Result<File> {
        self.writer.try_clone()
    }

    /// The last words of a program that has ended.
    pub(super) async fn finish(self) {
        drop(self.ending);
        let _ = self.copying.await;
    }
}

async fn copy(receiver: Receiver, mut ended: oneshot::Receiver<()>) {
    let mut room = vec![0; CHUNK_BYTES];
    loop {
        match receiver.try_read(&mut room) {
            Ok(0) => return,
            Ok(read) => pass_on(&room[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                tokio::select! {
                    biased;
                    ready = receiver.readable() => if ready.is_err() { return },
                    _ = &mut ended => return drain(&receiver, &mut room),
                }
            }
            Err(_) => return,
        }
    }
}

/// What nobody has been woken for yet.
fn drain(receiver: &Receiver, room: &mut [u8]) {
    while let Ok(read @ 1..) = nix::unistd::read(receiver, room) {
        pass_on(&room[..read]);
    }
}

/// A reader that has gone must not end a service.
fn pass_on(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}
