//! Trying an aspect out on the test itself, in a child process that may be spoilt.

use super::{Aspect, Subject, read_status};
use crate::args;
use crate::batch::{Answers, Batch};
use crate::error::{Error, Object};
use crate::sys::here::run_here;
use prost::Message as _;
use std::io::Read as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const ALONE: &str = "MIGRATE_TEST_ALONE";
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Runs the body of the calling test in a process of its own, so that whatever it does to itself
/// harms no other test. The test harness has a thread there as well.
pub(super) fn alone<F: FnOnce()>(body: F) {
    let test = test_of::<F>();
    if std::env::var_os(ALONE).is_some() {
        return body();
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        // Leaves the threads of that process free to register an rseq area of their own.
        .env("GLIBC_TUNABLES", "glibc.pthread.rseq=0")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let status = wait(&mut child);
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert!(status.success(), "{test} failed alone: {status}\n{output}");
    // A name that matches no test succeeds as well.
    assert!(output.contains("1 passed"), "{test} did not run alone\n{output}");
}

/// "engine::aspects::x::tests::name::{{closure}}" is the body of the test "aspects::x::tests::name".
fn test_of<F>() -> &'static str {
    let closure = std::any::type_name::<F>();
    let function = closure.strip_suffix("::{{closure}}").expect("the body is a closure");
    function.split_once("::").expect("the body is in a crate").1
}

fn wait(child: &mut Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if start.elapsed() > WAIT_MAX {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Runs the body in a process with one thread. Only within [`alone`], whose other thread waits and
/// so holds no lock that the copy would wait for.
pub(super) fn single_threaded(body: impl FnOnce()) {
    let answers = run(|batch| set(batch, libc::SYS_fork, args![]));
    let [child] = *answers.results else { unreachable!("one call has one result") };
    if child == 0 {
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| copied(body)));
        run(|batch| set(batch, libc::SYS_exit_group, args![i32::from(failed.is_err())]));
    }
    let mut batch = Batch::new();
    let status = batch.room(4);
    set(&mut batch, libc::SYS_wait4, args![child, status, 0, 0]);
    let answers = run_here(&batch);
    answers.check(&batch).unwrap();
    assert_eq!(answers.u32_at(status, 0), 0, "the process with one thread failed");
}

/// The copy ends with its parent, whatever happens to that.
fn copied(body: impl FnOnce()) {
    run(|batch| set(batch, libc::SYS_prctl, args![libc::PR_SET_PDEATHSIG, libc::SIGKILL]));
    body();
}

/// Runs the body in a thread of its own, with the state that threads are born with.
pub(super) fn in_thread<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(body).join().unwrap())
}

/// Makes this thread do what the batch says.
pub(super) fn run(build: impl FnOnce(&mut Batch)) -> Answers {
    let mut batch = Batch::new();
    build(&mut batch);
    let answers = run_here(&batch);
    answers.check(&batch).unwrap();
    answers
}

/// A call of the test itself, which must succeed.
pub(super) fn set(batch: &mut Batch, number: i64, args: &[crate::batch::Arg]) {
    batch.call("set up", &Object::Host, number, args);
}

/// This thread's state.
pub(super) fn capture<A: Aspect>() -> A::Image {
    let status = read_status(this_thread().tid).unwrap();
    let subject = Subject { status: &status, ..this_thread() };
    let mut batch = Batch::new();
    let asked = A::ask(&subject, &mut batch);
    let answers = run_here(&batch);
    answers.check(&batch).unwrap();
    A::read(&subject, asked, &answers).unwrap()
}

/// Gives this thread the state in an image that was encoded and decoded on the way.
pub(super) fn restore<A: Aspect>(image: &A::Image) -> Result<(), Error> {
    let image = A::Image::decode(image.encode_to_vec().as_slice()).unwrap();
    let mut batch = Batch::new();
    A::restore(&image, &this_thread(), &mut batch)?;
    run_here(&batch).check(&batch)?;
    A::restore_outside(&image, &this_thread())
}

/// The round trip: state is made, captured, spoilt and restored, and then it is as it was.
pub(super) fn comes_back<A: Aspect>(
    made: impl FnOnce(&mut Batch),
    spoilt: impl FnOnce(&mut Batch),
) -> A::Image
where
    A::Image: PartialEq + std::fmt::Debug,
{
    run(made);
    let image = capture::<A>();
    run(spoilt);
    assert_ne!(capture::<A>(), image, "{} is not seen to change", A::NAME);
    restore::<A>(&image).unwrap();
    assert_eq!(capture::<A>(), image);
    image
}

pub(super) fn this_thread() -> Subject<'static> {
    let pid = nix::unistd::getpid().as_raw();
    Subject { pid, tid: nix::unistd::gettid().as_raw(), status: "" }
}
