//! The program in `lazy_program.c`: started, spoken to, and cleaned up after.

use crate::memory::page_set::{PAGE_BYTES, Run};
use crate::sys;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use xxhash_rust::xxh3::xxh3_64;

const SOURCE: &str = include_str!("lazy_program.c");

#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Program {
    pub(crate) fn start(mode: &str, pages: u64) -> Self {
        let mut child = Command::new(compiled())
            .args([mode, &pages.to_string()])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, input, output }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    pub(crate) fn hear(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the program's output is text");
        line.trim_end().to_owned()
    }

    pub(crate) fn expect(&mut self, line: &str) {
        assert_eq!(self.hear(), line, "from the program");
    }

    /// A program that has ended does not listen; what it said last tells more than this could.
    pub(crate) fn say(&mut self, line: &str) {
        let _ = writeln!(self.input, "{line}");
    }

    pub(crate) fn pidfd(&self) -> OwnedFd {
        sys::holder::pidfd_open(self.pid()).expect("the program lives")
    }

    /// Its userfaultfd, taken, and its area.
    pub(crate) fn take_uffd(&mut self, pages: u64) -> (OwnedFd, Run) {
        let line = self.hear();
        let words: Vec<&str> = line.split(' ').collect();
        let fd = words[1].parse().expect("a descriptor");
        let uffd = sys::holder::pidfd_getfd(self.pidfd().as_fd(), fd).expect("may take it");
        (uffd, Run { address: hexadecimal(words[2]), pages })
    }

    pub(crate) fn ended_well(mut self) {
        self.expect("ok");
        assert!(self.child.wait().expect("a child of ours").success());
    }

    pub(crate) fn wait(&mut self) -> std::process::ExitStatus {
        self.child.wait().expect("a child of ours")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn hexadecimal(text: &str) -> u64 {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("a hexadecimal number")
}

/// What the program wants to find at pages that lay here at the source.
pub(crate) fn pattern(run: Run) -> Vec<u8> {
    (run.address..run.end())
        .step_by(8)
        .flat_map(|origin| origin.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1).to_ne_bytes())
        .collect()
}

/// Compiled once for each text of it, beside what cargo builds.
fn compiled() -> PathBuf {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/test-programs"));
    let program = folder.join(format!("memory-{:016x}", xxh3_64(SOURCE.as_bytes())));
    if !program.exists() {
        std::fs::create_dir_all(&folder).expect("the target folder can be written");
        // Renamed into place: several tests may compile it together.
        let ours = tempfile::Builder::new().tempfile_in(&folder).expect("room").into_temp_path();
        compile(&ours);
        std::fs::rename(&ours, &program).expect("the same folder");
        std::mem::forget(ours);
    }
    program
}

fn compile(into: &std::path::Path) {
    let mut compiler = Command::new("cc")
        .args(["-O1", "-pthread", "-x", "c", "-", "-o"])
        .arg(into)
        .stdin(Stdio::piped())
        .spawn()
        .expect("a C compiler");
    let mut input = compiler.stdin.take().expect("a pipe");
    input.write_all(SOURCE.as_bytes()).expect("the compiler reads");
    drop(input);
    assert!(compiler.wait().expect("a child of ours").success(), "the program compiles");
}

#[test]
fn a_pattern_tells_every_page_from_every_other() {
    let pages = pattern(Run { address: 0x1000, pages: 2 });
    assert_eq!(pages.len() as u64, 2 * PAGE_BYTES);
    assert_ne!(pages[..4096], pages[4096..]);
}
