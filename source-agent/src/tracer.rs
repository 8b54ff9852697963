//! Somebody else who traces the tree: ptrace(2) then says only EPERM to us.

use engine::tree::{self, Process};
use std::fs;
use std::process;

/// Who traces a thread of the tree and is not us, in a sentence.
pub(crate) fn of_tree(root: i32) -> Option<String> {
    let processes = tree::walk(root).ok()?;
    processes.iter().find_map(|Process { pid, .. }| of_process(*pid))
}

fn of_process(pid: i32) -> Option<String> {
    let mut tids = tree::threads(pid).ok()?.into_iter();
    tids.find_map(|tid| {
        let tracer = number(&status(pid, tid)?, "TracerPid:")?;
        // A thread of ours, or nobody.
        let owner = number(&status(tracer, tracer)?, "Tgid:")?;
        let is_other = owner.cast_unsigned() != process::id();
        is_other.then(|| format!("process {owner} ({}) traces thread {tid}", command(owner)))
    })
}

fn status(pid: i32, tid: i32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/task/{tid}/status"))
        .or_else(|_| fs::read_to_string(format!("/proc/{tid}/status")))
        .ok()
}

fn number(status: &str, field: &str) -> Option<i32> {
    let text = status.lines().find_map(|line| line.strip_prefix(field))?;
    text.trim().parse().ok().filter(|&number| number != 0)
}

fn command(pid: i32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm"));
    name.map_or_else(|_| "its name is unknown".to_owned(), |name| name.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn nobody_traces_a_free_process_and_we_are_nobody() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id().cast_signed();
        assert_eq!(of_tree(pid), None);
        let frozen = engine::freeze::freeze(pid).unwrap();
        assert_eq!(of_tree(pid), None);
        frozen.thaw().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
