//! What only the processes themselves can restore of their sockets: whom the kernel remembers.

use super::built_again;
use crate::asleep::Asleep;
use crate::kinds::Maker;
use crate::sys;
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Command;

/// A pair made as another user, a listener, a connection to it, and one that waits.
const PROGRAM: &str = r#"
    use Socket;
    $) = '1234 1234 4711'; $> = 1234;
    socketpair(my $one, my $two, AF_UNIX, SOCK_STREAM, 0) or die;
    $> = 0; $) = '0 0';
    my $name = pack_sockaddr_un($ARGV[0]);
    my ($listener, $first, $second) = map { socket(my $s, AF_UNIX, SOCK_STREAM, 0); $s } 1 .. 3;
    bind($listener, $name) and listen($listener, 5) or die;
    connect($first, $name) or die;
    accept(my $accepted, $listener) or die;
    connect($second, $name) or die;
    select(undef, undef, undef, undef);
"#;

/// Every socket of a process by its number, with whom it remembers.
fn makers(pid: i32) -> BTreeMap<i32, Maker> {
    let process = sys::fd::pidfd_open(pid, 0).unwrap();
    let remembers = |entry: fs::DirEntry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        let fd: OwnedFd = sys::fd::pidfd_getfd(process.as_fd(), number).ok()?;
        let is_unix = sys::sock::read_number(fd.as_fd(), libc::SOL_SOCKET, libc::SO_DOMAIN).ok()?
            == libc::AF_UNIX;
        Some((number, Maker::seen_by(fd.as_fd()).ok().filter(|_| is_unix)?))
    };
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    entries.flatten().filter_map(remembers).filter(|(number, _)| *number > 2).collect()
}

#[test]
fn whom_a_socket_remembers_is_a_process_of_the_tree() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("sock");
    let mut program = Asleep::run(Command::new("setsid").args(["perl", "-e", PROGRAM]).arg(&path));
    let pid = program.pid();
    let before = makers(pid);
    let own = before.values().filter(|maker| (maker.pid, maker.uid) == (pid, 0)).count();
    let others = before.values().filter(|maker| maker.groups == [1234, 4711]).count();
    assert_eq!((before.len(), own, others), (6, 4, 2), "{before:?}");

    let restored = built_again(program.child());
    assert_eq!(makers(pid), before);
    let next = std::os::unix::net::UnixStream::connect(&path).unwrap();
    assert_eq!(Maker::seen_by(next.as_fd()).unwrap().pid, pid);
    restored.discard();
}
