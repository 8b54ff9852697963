//! Calls by which the kernel remembers who made them, in the processes that are being built.

use crate::args;
use crate::batch::{Batch, Call};
use crate::error::{Error, Object, OnObject as _};
use crate::kinds::{Maker, SocketCall};
use crate::stage::Stub;
use crate::sys;
use crate::sys::identity::KEEP_CAPABILITIES;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

/// Makes a call in a stub, as that user; what it made becomes ours alone.
pub(super) fn run(stub: &Stub, maker: &Maker, call: SocketCall<'_>) -> Result<Vec<OwnedFd>, Error> {
    let object = stub.object();
    let mut batch = Batch::new();
    let socket = call.socket().map(|socket| {
        let us = args![std::process::id(), 0];
        let us = batch.call("open ourselves in", &object, libc::SYS_pidfd_open, us);
        let socket = args![us, socket.as_raw_fd(), 0];
        let socket = batch.call("fetch a socket in", &object, libc::SYS_pidfd_getfd, socket);
        batch.call("close our pidfd in", &object, libc::SYS_close, args![us]);
        socket
    });
    become_user(maker, call.keeps_capabilities(), &object, &mut batch);
    let room = batch.room(8);
    let number = socket.map_or(crate::batch::Arg::Value(0), Into::into);
    match call {
        SocketCall::Pair { kind } => {
            let args = args![libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0, room];
            batch.call("make a socket pair in", &object, libc::SYS_socketpair, args);
        }
        SocketCall::Listen { backlog, .. } => {
            batch.call("listen in", &object, libc::SYS_listen, args![number, backlog]);
        }
        SocketCall::Connect { address, .. } | SocketCall::Reconnect { address, .. } => {
            let (bytes, length) = (batch.bytes(address), address.len());
            let args = args![number, bytes, length];
            batch.call("connect a socket in", &object, libc::SYS_connect, args);
        }
    }
    become_ourselves(&object, &mut batch);
    close(socket, &object, &mut batch);
    let answers = stub.run(&batch)?;
    match call {
        SocketCall::Pair { .. } => take(stub, [answers.u32_at(room, 0), answers.u32_at(room, 1)]),
        _ => Ok(Vec::new()),
    }
}

fn close(socket: Option<Call>, object: &Object, batch: &mut Batch) {
    if let Some(socket) = socket {
        batch.call("close a socket in", object, libc::SYS_close, args![socket]);
    }
}

/// Effective ids alone: who is root can go back.
fn become_user(maker: &Maker, keeps_capabilities: bool, object: &Object, batch: &mut Batch) {
    let groups: Vec<u8> = maker.groups.iter().flat_map(|group| group.to_ne_bytes()).collect();
    let (groups, count) = (batch.bytes(&groups), maker.groups.len());
    let bits = if keeps_capabilities { KEEP_CAPABILITIES } else { 0 };
    let mut call = |number, args: &[_]| {
        batch.call("change the user of", object, number, args);
    };
    call(libc::SYS_prctl, args![libc::PR_SET_SECUREBITS, bits, 0, 0, 0]);
    call(libc::SYS_setgroups, args![count, groups]);
    call(libc::SYS_setresgid, args![-1, maker.gid, -1]);
    call(libc::SYS_setresuid, args![-1, maker.uid, -1]);
}

/// As every stub is until it gets its own credentials.
fn become_ourselves(object: &Object, batch: &mut Batch) {
    let mut call = |number, args: &[_]| {
        batch.call("change the user back of", object, number, args);
    };
    call(libc::SYS_setresuid, args![-1, 0, -1]);
    call(libc::SYS_setresgid, args![-1, 0, -1]);
    call(libc::SYS_setgroups, args![0, 0]);
    call(libc::SYS_prctl, args![libc::PR_SET_SECUREBITS, 0, 0, 0, 0]);
}

/// Moves descriptors of a stub to us.
fn take(stub: &Stub, numbers: [u32; 2]) -> Result<Vec<OwnedFd>, Error> {
    let object = || stub.object();
    let process = sys::fd::pidfd_open(stub.pid, 0).on("open", object)?;
    let mut taken = Vec::new();
    let mut batch = Batch::new();
    for number in numbers {
        let number = i32::try_from(number).unwrap_or(-1);
        let fd = sys::fd::pidfd_getfd(process.as_fd(), number);
        taken.push(fd.on("take a socket from", object)?);
        batch.call("close a socket in", &object(), libc::SYS_close, args![number]);
    }
    stub.run(&batch)?;
    Ok(taken)
}
