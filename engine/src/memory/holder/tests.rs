//! Agents that are killed, and what becomes of the tree. Agent and holder are this test binary
//! again, with a part to play.

use super::*;
use crate::failure_point;
use crate::memory::lazy::{LazyMemory, LazySpace, PageSource};
use crate::memory::lazy_program::{Program, hexadecimal, pattern};
use crate::memory::page_set::{PageSet, Run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const PAGES: u64 = 6000;
const LONG: Duration = Duration::from_secs(30);

/// The one test that other processes run: it plays the part that the environment names.
#[test]
fn plays_its_part_when_it_is_given_one() {
    match std::env::var("HOLDER_TEST_PART").as_deref() {
        Ok("holder") => {
            run(Path::new(&variable("SOCKET")), grace()).expect("holding goes well");
        }
        Ok("agent") => serve_for_ever(),
        _ => assert_eq!(std::env::var("HOLDER_TEST_PART"), Err(std::env::VarError::NotPresent)),
    }
}

fn variable(name: &str) -> String {
    std::env::var(format!("HOLDER_TEST_{name}")).expect("the test sets it")
}

fn grace() -> Duration {
    Duration::from_millis(variable("GRACE_MS").parse().expect("a number"))
}

fn part(name: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args([
        "--exact",
        "memory::holder::tests::plays_its_part_when_it_is_given_one",
        "--nocapture",
    ]);
    command.env("HOLDER_TEST_PART", name).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// The agent's part: takes the program's userfaultfd, has it held, and serves it.
fn serve_for_ever() {
    let pid: i32 = variable("PID").parse().expect("a number");
    let pidfd = sys::holder::pidfd_open(pid).expect("the program lives");
    let fd = variable("FD").parse().expect("a number");
    let uffd = sys::holder::pidfd_getfd(pidfd.as_fd(), fd).expect("may take it");
    let holder = (variable("HELD") == "yes").then(|| {
        let holder = Holder::spawn(&mut part("holder")).expect("the holder starts");
        holder.watch_process(pid).expect("the holder listens");
        Arc::new(holder)
    });
    let area = Run { address: hexadecimal(&variable("BASE")), pages: PAGES };
    let holder_pid = holder.as_ref().map_or(0, |holder| holder.pid());
    let _memory = serve(|source| LazyMemory::start(vec![(space(pid, area), uffd)], source, holder));
    let line = format!("\nserving {holder_pid}\n");
    io::stdout().write_all(line.as_bytes()).expect("the test listens");
    thread::sleep(LONG);
}

struct Source(Mutex<Sender<Run>>);

impl PageSource for Source {
    fn request(&self, _space: u32, address: u64, pages: u32) {
        let _ = self.0.lock().unwrap().send(Run { address, pages: u64::from(pages) });
    }
}

/// Every page of the area is missing.
fn space(pid: i32, area: Run) -> LazySpace {
    let missing: PageSet = [area].into_iter().collect();
    LazySpace { space: 1, pid, missing, ranges: vec![area], wiped_on_fork: PageSet::new() }
}

/// A page comes a little after it was asked for.
fn serve(start: impl FnOnce(Arc<Source>) -> Result<LazyMemory, Error>) -> Arc<LazyMemory> {
    let (requests, asked) = channel();
    let memory = Arc::new(start(Arc::new(Source(Mutex::new(requests)))).expect("it starts"));
    let answering = Arc::clone(&memory);
    thread::spawn(move || {
        while let Ok(run) = asked.recv() {
            thread::sleep(Duration::from_micros(100));
            answering.deliver(1, run.address, &pattern(run)).expect("delivered");
        }
    });
    memory
}

/// A program served by an agent that can be killed.
struct Scene {
    program: Program,
    agent: Child,
    /// 0 when it has none.
    holder: i32,
    socket: tempfile::TempDir,
    area: Run,
    _alone: MutexGuard<'static, ()>,
}

impl Scene {
    fn new(mode: &str, held: bool, grace: Duration) -> Self {
        Self::failing(mode, held, grace, "")
    }

    /// With an agent that is to fail somewhere.
    fn failing(mode: &str, held: bool, grace: Duration, failure: &str) -> Self {
        static ONE: Mutex<()> = Mutex::new(());
        let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut program = Program::start(mode, PAGES);
        let line = program.hear();
        let words: Vec<&str> = line.split(' ').collect();
        let socket = tempfile::tempdir().unwrap();
        let mut agent = part("agent")
            .env("HOLDER_TEST_PID", program.pid().to_string())
            .env("HOLDER_TEST_FD", words[1])
            .env("HOLDER_TEST_BASE", words[2])
            .env("HOLDER_TEST_HELD", if held { "yes" } else { "no" })
            .env("HOLDER_TEST_GRACE_MS", grace.as_millis().to_string())
            .env(failure_point::VARIABLE, failure)
            .env("HOLDER_TEST_SOCKET", socket.path().join("holder"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(agent.stdout.take().unwrap()).lines();
        let serves =
            |line: io::Result<String>| line.unwrap().strip_prefix("serving ")?.parse().ok();
        let holder = lines.find_map(serves).expect("the agent serves");
        let area = Run { address: hexadecimal(words[2]), pages: PAGES };
        program.say("go");
        Self { program, agent, holder, socket, area, _alone: alone }
    }

    fn path(&self) -> std::path::PathBuf {
        self.socket.path().join("holder")
    }

    fn kill_holder(&self) {
        kill(Pid::from_raw(self.holder), Signal::SIGKILL).unwrap();
    }

    fn kill_agent(&mut self) {
        self.agent.kill().unwrap();
        self.agent.wait().unwrap();
    }

    /// Everything that the program, and all its children, still say.
    fn last_words(&mut self) -> (Vec<String>, ExitStatus) {
        let mut words = Vec::new();
        loop {
            match self.program.hear() {
                line if line.is_empty() => return (words, self.program.wait()),
                line => words.push(line),
            }
        }
    }

    /// Nothing when the agent died with news of the program, and the program with it.
    fn take_over(&self) -> Option<(Holder, Vec<Kept>)> {
        let limit = Instant::now() + LONG;
        loop {
            match Holder::take_over(&self.path()) {
                Err(error) if error.source.raw_os_error() == Some(libc::ENOENT) => return None,
                // The holder has not seen the death yet.
                Err(error) if Instant::now() < limit => drop(error),
                other => return Some(other.expect("the holder hands over")),
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

fn dies_without_a_zero(mode: &str, after: Duration) {
    let mut scene = Scene::new(mode, true, Duration::from_millis(3));
    thread::sleep(after);
    scene.kill_agent();
    let (words, status) = scene.last_words();
    assert!(words.is_empty(), "{words:?}");
    assert_eq!(status.signal(), Some(libc::SIGKILL));
}

#[test]
fn a_tree_whose_agent_dies_is_killed_and_never_reads_a_zero() {
    for round in 0..20 {
        dies_without_a_zero("walk", Duration::from_millis(round));
    }
}

/// A forked child's descriptor is with the agent alone for an instant: here it ends in it.
#[test]
fn a_child_that_nobody_else_knows_of_dies_with_the_agent() {
    let failure = "destination.lazy-fork.before=kill";
    let mut scene = Scene::failing("family", true, LONG, failure);
    let (words, status) = scene.last_words();
    assert!(words.is_empty(), "{words:?}");
    assert_eq!(status.signal(), Some(libc::SIGKILL));
    assert_eq!(scene.agent.wait().unwrap().signal(), Some(libc::SIGKILL));
    wait_for_the_end_of_the_holder(&scene.path());
}

#[test]
fn a_tree_whose_agent_and_holder_are_killed_at_once_dies_with_them() {
    for round in 0..20 {
        let mode = if round % 4 < 2 { "walk" } else { "family" };
        let mut scene = Scene::new(mode, true, LONG);
        thread::sleep(Duration::from_millis(round));
        if round % 2 == 0 {
            scene.kill_holder();
            scene.kill_agent();
        } else {
            scene.agent.kill().unwrap();
            scene.kill_holder();
        }
        let (words, status) = scene.last_words();
        assert!(words.is_empty(), "{words:?}");
        assert_eq!(status.signal(), Some(libc::SIGKILL));
    }
}

#[test]
fn children_forked_meanwhile_die_with_it() {
    for round in 0..5 {
        dies_without_a_zero("family", Duration::from_millis(5 + round));
    }
}

#[test]
fn without_a_holder_the_same_death_reads_zeros() {
    let mut scene = Scene::new("walk", false, Duration::ZERO);
    scene.kill_agent();
    let (words, _) = scene.last_words();
    assert!(words[0].starts_with("bad walk: "), "{words:?}");
    assert!(words[0].ends_with("holds 0"), "{words:?}");
}

/// The test itself is the successor: it serves faults, pushes everything, and hears the program
/// out. What the dead agent brought is pushed once more and does no harm.
fn goes_on_with_a_successor(mode: &str, killed: impl Fn(&mut Scene), last_words: &[&str]) {
    let (mut scene, (holder, kept)) = (0..5)
        .find_map(|_| {
            let mut scene = Scene::new(mode, true, LONG);
            killed(&mut scene);
            scene.kill_agent();
            let taken = scene.take_over();
            taken.map(|taken| (scene, taken))
        })
        .expect("an agent seldom dies in the instant in which the tree dies with it");
    let spaces = vec![space(scene.program.pid(), scene.area)];
    let memory = serve(|source| LazyMemory::resume(spaces, source, Arc::new(holder), kept));
    for at in (scene.area.address..scene.area.end()).step_by(1 << 16) {
        let run = Run::covering(at, scene.area.end().min(at + (1 << 16)));
        memory.deliver(1, at, &pattern(run)).unwrap();
    }
    assert!(memory.wait(LONG).unwrap());
    scene.program.say("look");
    let (words, status) = scene.last_words();
    assert_eq!(words, last_words);
    assert!(status.success());
    wait_for_the_end_of_the_holder(&scene.path());
}

fn early(_: &mut Scene) {
    thread::sleep(Duration::from_millis(10));
}

/// And the agent has passed on what it heard.
fn when_it_waits(scene: &mut Scene) {
    scene.program.expect("wait");
    thread::sleep(Duration::from_millis(20));
}

#[test]
fn a_successor_goes_on_where_the_agent_died() {
    goes_on_with_a_successor("random", early, &["ok"]);
}

#[test]
fn a_successor_knows_what_the_program_and_its_child_dropped_and_moved() {
    goes_on_with_a_successor("changes", when_it_waits, &["ok"]);
}

#[test]
fn a_successor_serves_the_children_too() {
    goes_on_with_a_successor("fork", early, &["ok"]);
}

/// It closes its door when it ends.
fn wait_for_the_end_of_the_holder(path: &Path) {
    let limit = Instant::now() + LONG;
    while path.exists() {
        assert!(Instant::now() < limit, "the holder ends when it is released");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn nobody_takes_over_from_an_agent_that_lives() {
    let mut scene = Scene::new("walk", true, Duration::ZERO);
    let error = Holder::take_over(&scene.path()).expect_err("the agent lives");
    assert_eq!(error.source.raw_os_error(), Some(libc::ECONNRESET));
    scene.kill_agent();
    assert_eq!(scene.last_words().1.signal(), Some(libc::SIGKILL));
}

#[test]
fn a_successor_that_dies_as_well_leaves_a_holder_behind() {
    let mut scene = Scene::new("walk", true, Duration::from_millis(200));
    scene.kill_agent();
    drop(scene.take_over().unwrap()); // gone without having released anything
    assert_eq!(scene.last_words().1.signal(), Some(libc::SIGKILL));
}
