use super::*;
use crate::args;
use crate::asleep::Asleep;
use crate::error::Object;
use crate::sys::process::thread_signal;
use crate::tracee::{CALL_WAIT, Outcome, Running, STOP_WAIT, Stopped};
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

fn stopped_child() -> (Asleep, Stopped) {
    let child = Asleep::start();
    let pid = child.pid();
    let Outcome::Alive(running) = Running::seize(pid, pid, OnOurDeath::Runs).unwrap() else {
        panic!("sleep is alive")
    };
    let Outcome::Alive(stopped) = running.stop(STOP_WAIT).unwrap() else {
        panic!("sleep is alive")
    };
    (child, stopped)
}

fn count_descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn with_puppet(test: impl FnOnce(&Puppet, &Steered<'_>)) {
    with_puppet_for(CALL_WAIT, test);
}

fn with_puppet_for(limit: Duration, test: impl FnOnce(&Puppet, &Steered<'_>)) {
    let (child, stopped) = stopped_child();
    let syscall_at = find_syscall(stopped.pid()).unwrap();
    let before = fs::read_to_string(format!("/proc/{}/maps", stopped.pid())).unwrap();
    let descriptors = count_descriptors(stopped.pid());
    let mut steered = Steered::begin(&stopped).unwrap();
    let at = free_address(&[]).unwrap();
    let puppet = Puppet::open(&steered, at, syscall_at, OnOurDeath::Runs).unwrap();
    steered.limit = limit;
    test(&puppet, &steered);
    steered.limit = CALL_WAIT;
    puppet.close(&steered, syscall_at).unwrap();
    steered.end().unwrap();
    let after = fs::read_to_string(format!("/proc/{}/maps", stopped.pid())).unwrap();
    assert_eq!(before, after);
    assert_eq!(descriptors, count_descriptors(stopped.pid()));
    stopped.release().unwrap();
    child.falls_asleep();
}

#[test]
fn makes_calls_in_the_name_of_the_process_and_leaves_no_trace() {
    with_puppet(|puppet, steered| {
        let mut batch = Batch::new();
        let pid = batch.try_call(libc::SYS_getpid, args![]);
        let room = batch.room(32);
        let name = batch.try_call(libc::SYS_prctl, args![libc::PR_GET_NAME, room]);
        let answers = puppet.run(steered, &batch).unwrap();
        assert_eq!(answers.raw(pid), i64::from(steered.thread().pid()));
        assert_eq!(answers.raw(name), 0);
        assert!(answers.bytes(room).starts_with(b"sleep\0"));
    });
}

#[test]
fn a_result_is_the_argument_of_a_later_call() {
    with_puppet(|puppet, steered| {
        let mut batch = Batch::new();
        let object = Object::Host;
        let path = batch.string("/dev/null");
        let args = args![libc::AT_FDCWD, path, libc::O_RDONLY, 0];
        let fd = batch.call("open", &object, libc::SYS_openat, args);
        let up = args![fd, libc::F_DUPFD, 100];
        let copy = batch.call("duplicate", &object, libc::SYS_fcntl, up);
        batch.call("close", &object, libc::SYS_close, args![fd]);
        batch.call("close", &object, libc::SYS_close, args![copy]);
        let answers = puppet.run(steered, &batch).unwrap();
        assert!(answers.raw(fd) >= 3);
        assert_eq!(answers.raw(copy), 100);
    });
}

#[test]
fn a_batch_may_be_longer_than_the_arena() {
    with_puppet(|puppet, steered| {
        let mut batch = Batch::new();
        let pid = batch.try_call(libc::SYS_getpid, args![]);
        let calls: Vec<_> = (0..3 * Lane::WHOLE.entries_max())
            .map(|_| batch.try_call(libc::SYS_getppid, args![]))
            .collect();
        let last = batch.try_call(libc::SYS_kill, args![pid, 0]);
        let answers = puppet.run(steered, &batch).unwrap();
        let us = i64::from(std::process::id());
        assert!(calls.iter().all(|&call| answers.raw(call) == us));
        assert_eq!(answers.raw(last), 0);
    });
}

#[test]
fn a_call_that_must_succeed_names_what_failed() {
    with_puppet(|puppet, steered| {
        let mut batch = Batch::new();
        let object = Object::Fd { pid: 1, fd: 77, kind: "file" };
        batch.call("close", &object, libc::SYS_close, args![77]);
        let error = puppet.run(steered, &batch).unwrap_err();
        assert_eq!(error.to_string(), "close file at fd 77 of process 1");
        assert_eq!(error.source.raw_os_error(), Some(libc::EBADF));
    });
}

fn waits_for(thread: &Stopped, signal: i32) -> bool {
    let queued = thread.queued_signals(false).unwrap();
    queued.iter().any(|info| crate::freeze::signal_number(info) == signal)
}

#[test]
fn signals_of_the_numbers_that_end_batches_stay_in_their_queue() {
    with_puppet(|puppet, steered| {
        let thread = steered.thread();
        for signal in [libc::SIGURG, libc::SIGWINCH] {
            thread_signal(thread.pid(), thread.tid(), signal).unwrap();
        }
        puppet.run(steered, &getpid()).unwrap();
        assert!(waits_for(thread, libc::SIGURG) && waits_for(thread, libc::SIGWINCH));
    });
}

#[test]
fn a_signal_from_elsewhere_does_not_end_a_batch() {
    with_puppet(|puppet, steered| {
        let thread = steered.thread();
        let mut batch = Batch::new();
        let args = args![thread.pid(), thread.tid(), libc::SIGURG];
        batch.try_call(libc::SYS_tgkill, args);
        let after = batch.try_call(libc::SYS_getpid, args![]);
        let answers = puppet.run(steered, &batch).unwrap();
        assert_eq!(answers.raw(after), i64::from(thread.pid()));
    });
}

fn getpid() -> Batch {
    let mut batch = Batch::new();
    batch.try_call(libc::SYS_getpid, args![]);
    batch
}

/// An empty pipe of the process: to be read from, and to be written to.
fn pipe(puppet: &Puppet, steered: &Steered<'_>) -> [u32; 2] {
    let mut batch = Batch::new();
    let ends = batch.room(8);
    batch.call("make a pipe in", &Object::Host, libc::SYS_pipe2, args![ends, 0]);
    let answers = puppet.run(steered, &batch).unwrap();
    [0, 1].map(|end| answers.u32_at(ends, end))
}

fn close(puppet: &Puppet, steered: &Steered<'_>, ends: [u32; 2]) {
    let mut batch = Batch::new();
    for end in ends {
        batch.call("close", &Object::Host, libc::SYS_close, args![end]);
    }
    puppet.run(steered, &batch).unwrap();
}

/// That its process then sleeps on where it slept, `with_puppet` sees.
#[test]
fn a_call_that_never_returns_is_ended_and_named() {
    with_puppet_for(Duration::from_millis(100), |puppet, steered| {
        let ends = pipe(puppet, steered);
        let thread = steered.thread();
        let says = format!(
            "system call 0 of thread {} of process {} has not returned for 100ms",
            thread.tid(),
            thread.pid()
        );
        let mut batch = Batch::new();
        let room = batch.room(1);
        batch.try_call(libc::SYS_getpid, args![]);
        let object = Object::Fd { pid: thread.pid(), fd: 7, kind: "pipe" };
        batch.call("read from", &object, libc::SYS_read, args![ends[0], room, 1]);
        batch.try_call(libc::SYS_close, args![ends[0]]);
        let in_batch = puppet.run(steered, &batch).unwrap_err();
        assert_eq!(in_batch.to_string(), format!("read from {object}"));
        assert_eq!(in_batch.source.to_string(), says);

        let args = [ends[0].into(), puppet.bytes_address(&Lane::WHOLE, 0), 1, 0, 0, 0];
        let alone = steered.call(puppet.syscall_at(), "read in", libc::SYS_read, args);
        let alone = alone.unwrap_err();
        assert_eq!(alone.to_string(), format!("read in {}", thread.object()));
        assert_eq!(alone.source.to_string(), says);
        close(puppet, steered, ends);
    });
}

/// The signal that a stub's trap sends may wait for it as well: a restored thread's own.
#[test]
fn a_trap_that_waits_for_a_stub_does_not_end_its_batch() {
    let (mut child, stopped) = stopped_child();
    let steered = Steered::begin(&stopped).unwrap();
    let (at, syscall_at) = (free_address(&[]).unwrap(), find_syscall(stopped.pid()).unwrap());
    let puppet = Puppet::open(&steered, at, syscall_at, OnOurDeath::Dies).unwrap();
    let mut batch = Batch::new();
    let pid = batch.try_call(libc::SYS_getpid, args![]);
    let tid = batch.try_call(libc::SYS_gettid, args![]);
    let sent = batch.try_call(libc::SYS_tgkill, args![pid, tid, libc::SIGTRAP]);
    let calls: Vec<_> = (0..5).map(|_| batch.try_call(libc::SYS_getppid, args![])).collect();
    let answers = puppet.run(&steered, &batch).unwrap();
    assert_eq!(answers.raw(sent), 0);
    let us = i64::from(std::process::id());
    assert!(calls.iter().all(|&call| answers.raw(call) == us), "all calls were made");
    steered.end().unwrap();
    // It was not lost either: this is what it dies of.
    stopped.release().unwrap();
    let ended = child.child().wait().unwrap();
    assert_eq!(ended.signal(), Some(libc::SIGTRAP));
}
