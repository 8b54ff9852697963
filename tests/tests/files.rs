//! Open files that need more than the same path on both hosts: one that others write to meanwhile,
//! and one that no path leads to.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::fs;
use tests::hosts::TwoHosts;
use tests::workload::Workload;
use tests::{place, wait};

/// Appends a line for each check. Python's own files would write at the offset that they remember.
const APPENDS: &str = "
import os, signal, sys, time
log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
stopping = []
signal.signal(signal.SIGTERM, lambda *_: stopping.append(1))
print('ready', flush=True)
number = 0
while not stopping:
    number += 1
    os.write(log, b'own %d\\n' % number)
    print('ok', number, flush=True)
    time.sleep(.02)
print('done', flush=True)
";

#[test]
fn a_log_on_shared_storage_moves_while_others_append_to_it() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let log = hosts.shared().join("log");
    let path = place::text(&log)?;
    let noise = format!("while :; do echo noise >> {path}; sleep .005; done");
    hosts.b.spawn(&["sh", "-c", &noise])?;
    let argv = ["/usr/bin/python3", "-c", APPENDS, &path];
    let workload = Workload::start_program(&hosts.a, "appends", &argv, &[])?;
    workload.proves_itself(&hosts.a)?;
    hosts.migrate(workload.pid, &hosts.a, &hosts.b, &[])?.success()?;
    workload.proves_itself(&hosts.b)?;
    workload.stop(&hosts.b)?;
    let text = fs::read_to_string(&log).context("read the log")?;
    let own = text.lines().filter_map(|line| line.strip_prefix("own ")?.parse::<usize>().ok());
    let own: Vec<usize> = own.collect();
    ensure!(own == (1..=own.len()).collect::<Vec<_>>(), "{own:?}");
    ensure!(text.lines().all(|line| line == "noise" || line.starts_with("own ")), "{text}");
    Ok(())
}

/// Holds the program that is its argument open for writing; told to, runs it and takes it away.
const LINKS: &str = "
import os, signal, subprocess, sys, time
program = sys.argv[1]
file = os.open(program, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o755)
os.write(file, b'#!/bin/sh\\n')
stopping, told, number = [], [], 0
signal.signal(signal.SIGTERM, lambda *_: stopping.append(1))
signal.signal(signal.SIGUSR1, lambda *_: told.append(1))
print('ready', flush=True)
while not stopping:
    if told and file >= 0:
        os.close(file)
        file = -1
        try:
            subprocess.check_call([program])
            os.unlink(program)
        except Exception as error:
            print('BAD', error, flush=True)
    number += 1
    print('ok', number, flush=True)
    time.sleep(.02)
print('done', flush=True)
";

/// A file that anybody still has open for writing cannot be executed (execve(2), ETXTBSY).
#[test]
fn what_was_written_can_be_run_once_the_move_is_over() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let program = place::text(&hosts.shared().join("program"))?;
    let argv = ["/usr/bin/python3", "-c", LINKS, &program];
    let workload = Workload::start_program(&hosts.a, "links", &argv, &[])?;
    workload.proves_itself(&hosts.a)?;
    let late = ["--lazy", "always", "--max-rounds", "1"];
    hosts.migrate(workload.pid, &hosts.a, &hosts.b, &late)?.success()?;
    hosts.b.signal(workload.pid, Signal::SIGUSR1)?;
    // Its two next checks come after it ran the program.
    workload.proves_itself(&hosts.b)?;
    ensure!(!fs::exists(&program)?, "it was not run");
    workload.stop(&hosts.b)
}

/// Its own file, in the directory that is its argument, keeps its content and its offset.
const NAMELESS: &str = "
import os, signal, sys, time
file = os.open(sys.argv[1], os.O_TMPFILE | os.O_RDWR)
os.write(file, b'nobody else has this')
os.lseek(file, 7, 0)
stopping = []
signal.signal(signal.SIGTERM, lambda *_: stopping.append(1))
print('ready', flush=True)
number = 0
while not stopping:
    number += 1
    good = os.lseek(file, 0, 1) == 7 and os.pread(file, 99, 0) == b'nobody else has this'
    print('ok %d' % number if good else 'BAD content or offset', flush=True)
    time.sleep(.02)
print('done', flush=True)
";

#[test]
fn a_file_that_never_had_a_name_moves_with_its_content() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let argv = ["/usr/bin/python3", "-c", NAMELESS, "/tmp"];
    let workload = Workload::start_program(&hosts.a, "nameless", &argv, &[])?;
    workload.proves_itself(&hosts.a)?;
    // Back as well: what was made for it is like what the program had made.
    for (from, to) in [(&hosts.a, &hosts.b), (&hosts.b, &hosts.a)] {
        hosts.migrate(workload.pid, from, to, &[])?.success()?;
        from.end_of(workload.pid, wait::PATIENCE)?;
        workload.proves_itself(to)?;
    }
    workload.stop(&hosts.a)
}
