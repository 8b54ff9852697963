//! What cannot be moved: refused with the object's name, and the source's process is as it was, to
//! the last descriptor and mapping.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::fs;
use std::process::Command;
use tests::attempt::{fails, is_refused};
use tests::footprint::children;
use tests::host_init::Status;
use tests::hosts::{CONFIG, Started, TwoHosts};
use tests::moved::exit;
use tests::workload::Workload;
use tests::{place, say, wait};

#[test]
fn no_such_process() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let moved = hosts.migrate(29_999, &hosts.a, &hosts.b, &[])?;
    ensure!(moved.exit == exit::REFUSED && moved.story().contains("29999"), "{}", moved.story());
    Ok(())
}

/// Kernel threads are only in the machine's first PID namespace, so this asks without hosts.
#[test]
fn a_kernel_thread() -> Result<()> {
    const KTHREADD: &str = "2";
    let status = fs::read_to_string(format!("/proc/{KTHREADD}/status")).unwrap_or_default();
    if !status.starts_with("Name:\tkthreadd\n") {
        return Ok(say::skip("refusals a_kernel_thread", "this PID namespace shows none")?);
    }
    let config = tempfile::tempdir()?;
    let output = Command::new(place::program("migrate")?)
        .args(["check", KTHREADD, "--json", "--config"])
        .arg(config.path())
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.code() == Some(exit::REFUSED), "{:?} {said}", output.status);
    ensure!(said.contains("kernel thread"), "{said}");
    Ok(())
}

#[test]
fn a_traced_process() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let workload = Workload::start(&hosts.a, "counter", &[])?;
    let tracer = Workload::start(&hosts.a, "tracer", &[&workload.pid.to_string()])?;
    is_refused(&hosts, workload.pid, "hostb", &[&tracer.pid.to_string(), "trace"])?;
    hosts.a.signal(tracer.pid, Signal::SIGKILL)?;
    workload.stop(&hosts.a)
}

#[test]
fn a_process_that_traces_another() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let workload = Workload::start(&hosts.a, "counter", &[])?;
    let tracee = workload.pid.to_string();
    let tracer = Workload::start(&hosts.a, "tracer", &[&tracee])?;
    is_refused(&hosts, tracer.pid, "hostb", &[&format!("traces process {tracee} (counter)")])?;
    hosts.a.signal(tracer.pid, Signal::SIGKILL)?;
    workload.stop(&hosts.a)
}

#[test]
fn a_host_that_does_not_answer() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let known = format!("{CONFIG}/known_hosts");
    let fingerprint = hosts.a.read(&known)?;
    let fingerprint = fingerprint.split_whitespace().nth(1).context("a known host")?;
    hosts.a.write(&known, &format!("192.0.2.77 {fingerprint}\n"))?;
    let workload = Workload::start(&hosts.a, "counter", &[])?;
    fails(&hosts, workload.pid, "192.0.2.77", &["192.0.2.77"])?;
    workload.stop(&hosts.a)
}

#[test]
fn a_host_without_an_agent() -> Result<()> {
    let hosts = TwoHosts::new()?;
    hosts.introduce()?;
    let workload = Workload::start(&hosts.a, "counter", &[])?;
    fails(&hosts, workload.pid, "hostb", &["hostb"])?;
    workload.stop(&hosts.a)
}

#[test]
fn a_host_that_we_do_not_know() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    hosts.a.write(&format!("{CONFIG}/known_hosts"), "")?;
    let workload = Workload::start(&hosts.a, "counter", &[])?;
    fails(&hosts, workload.pid, "hostb", &["hostb", "known_hosts"])?;
    workload.stop(&hosts.a)
}

#[test]
fn a_host_with_another_key_than_we_know() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let own = hosts.b.read(&format!("{CONFIG}/known_hosts"))?;
    let own = own.split_whitespace().nth(1).context("a known host")?.to_owned();
    hosts.a.write(&format!("{CONFIG}/known_hosts"), &format!("hostb {own}\n"))?;
    let workload = Workload::start(&hosts.a, "counter", &[])?;
    fails(&hosts, workload.pid, "hostb", &["hostb"])?;
    workload.stop(&hosts.a)
}

#[test]
fn a_host_that_does_not_authorise_us() -> Result<()> {
    let hosts = TwoHosts::new()?;
    hosts.introduce()?;
    hosts.b.write(&format!("{CONFIG}/authorized_hosts"), "")?;
    tests::hosts::start_agent(&hosts.b)?;
    let workload = Workload::start(&hosts.a, "counter", &[])?;
    fails(&hosts, workload.pid, "hostb", &["hostb"])?;
    workload.stop(&hosts.a)
}

/// Starts `sleep` with a shell's redirections, and waits until the shell has become it.
fn sleeper(hosts: &TwoHosts, redirections: &str) -> Result<Started> {
    let script = format!("exec sleep 1000 {redirections}");
    let sleeper = hosts.a.spawn(&["sh", "-c", &script])?;
    wait::until(
        wait::PATIENCE,
        || "the shell to become sleep".into(),
        || {
            // In the midst of execve(2) it has the name already, and nothing else.
            let stat = hosts.a.read(&format!("/proc/{}/stat", sleeper.pid))?;
            Ok(stat.contains("(sleep) S ").then_some(()))
        },
    )?;
    Ok(sleeper)
}

#[test]
fn a_destination_without_the_file() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    hosts.a.write("/tmp/only-here", "x")?;
    let sleeper = sleeper(&hosts, "7</tmp/only-here")?;
    is_refused(&hosts, sleeper.pid, "hostb", &["/tmp/only-here"]).map(drop)
}

#[test]
fn a_destination_with_another_file_of_that_name() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    hosts.a.write("/tmp/both", "x")?;
    hosts.b.write("/tmp/both", "something longer")?;
    let sleeper = sleeper(&hosts, "7</tmp/both")?;
    is_refused(&hosts, sleeper.pid, "hostb", &["/tmp/both"]).map(drop)
}

#[test]
fn every_blocker_stands_in_one_answer() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    hosts.a.write("/tmp/first", "x")?;
    hosts.a.write("/tmp/second", "x")?;
    let sleeper = sleeper(&hosts, "7</tmp/first 8</tmp/second")?;
    let moved = is_refused(&hosts, sleeper.pid, "hostb", &["/tmp/first", "/tmp/second"])?;
    ensure!(moved.refusals().len() >= 2, "{}", moved.story());
    Ok(())
}

#[test]
fn a_destination_with_the_pid_taken() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let workload = Workload::start(&hosts.a, "counter", &[])?;
    // The shell's next child gets the PID after the one written.
    let take =
        format!("echo {} > /proc/sys/kernel/ns_last_pid; sleep 1000 & echo $!", workload.pid - 1);
    let taken = hosts.b.run(&["sh", "-c", &take])?.success()?;
    ensure!(taken.trim() == workload.pid.to_string(), "the sleeper got {taken}");
    is_refused(&hosts, workload.pid, "hostb", &[&workload.pid.to_string()])?;
    ensure!(hosts.b.read(&format!("/proc/{}/comm", workload.pid))? == "sleep\n");
    workload.stop(&hosts.a)
}

/// Its leader is gone, and a member of it lives.
#[test]
fn a_destination_with_a_session_of_that_id() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let workload = Workload::start(&hosts.a, "counter", &[])?;
    let pid = workload.pid;
    let leave = format!(
        "echo {} > /proc/sys/kernel/ns_last_pid; setsid sh -c 'sleep 1000 & echo $$'; true",
        pid - 1
    );
    let leader = hosts.b.run(&["sh", "-c", &leave])?.success()?;
    ensure!(leader.trim() == pid.to_string() && !hosts.b.exists(pid), "the leader was {leader}");
    let names = [&*format!("process {pid}"), "is the id of a session on the destination"];
    is_refused(&hosts, pid, "hostb", &names)?;
    workload.stop(&hosts.a)
}

/// The two hosts of a test share this directory and its locks.
#[test]
fn locks_that_the_source_holds_on_shared_storage() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let script = "import fcntl,sys,time; one,two=(open(path,'w') for path in sys.argv[1:])\n\
        fcntl.flock(one,fcntl.LOCK_EX); fcntl.lockf(two,fcntl.LOCK_EX)\n\
        print('ready',flush=True); time.sleep(1000)";
    let [one, two] = ["one", "two"].map(|name| place::text(&hosts.shared().join(name)));
    let (one, two) = (one?, two?);
    let argv = ["/usr/bin/python3", "-c", script, &one, &two];
    let holder = Workload::start_program(&hosts.a, "holder", &argv, &[])?;
    let names = [&*one, "exclusive flock", &*two, "exclusive POSIX lock", "both hosts share"];
    let moved = is_refused(&hosts, holder.pid, "hostb", &names)?;
    ensure!(moved.refusals().len() == 2, "{}", moved.story());
    Ok(())
}

#[test]
fn a_destination_with_too_little_memory() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let little = "MemTotal: 16384 kB\nMemFree: 4096 kB\nMemAvailable: 8192 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n";
    hosts.b.write("/tmp/meminfo", little)?;
    hosts.b.run(&["mount", "--bind", "/tmp/meminfo", "/proc/meminfo"])?.success()?;
    let heart = Workload::start(&hosts.a, "heartbeat", &["64"])?;
    is_refused(&hosts, heart.pid, "hostb", &["memory"]).map(drop)
}

#[test]
fn a_connection_that_leads_out_of_the_tree() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let script = "import socket,time; s=socket.create_server(('0.0.0.0',7)); \
        print('ready',flush=True); c=s.accept(); time.sleep(1000)";
    hosts.b.spawn(&["/usr/bin/python3", "-c", script])?;
    let script = "import socket,time\n\
        while True:\n\
        \x20 try: s=socket.create_connection(('192.0.2.2',7)); break\n\
        \x20 except OSError: time.sleep(.01)\n\
        print('ready',flush=True); time.sleep(1000)";
    let argv = ["/usr/bin/python3", "-c", script];
    let client = Workload::start_program(&hosts.a, "client", &argv, &[])?;
    is_refused(&hosts, client.pid, "hostb", &["192.0.2.2"]).map(drop)
}

#[test]
fn a_unix_connection_that_leads_out_of_the_tree() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let script = "import socket,time,os; a,b=socket.socketpair(); pid=os.fork()\n\
        if pid==0: b.close(); os.setsid(); print('ready',flush=True); time.sleep(1000)\n\
        a.close(); time.sleep(1000)";
    let argv = ["/usr/bin/python3", "-c", script];
    let parent = Workload::start_program(&hosts.a, "parent", &argv, &[])?;
    let child = children(&hosts.a, parent.pid)?;
    is_refused(&hosts, child[0], "hostb", &["socket"]).map(drop)
}

#[test]
fn a_command_line_that_makes_no_sense() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let migrate = place::program("migrate")?;
    for arguments in
        [vec!["12"], vec!["twelve", "--to", "hostb"], vec!["12", "--to", "b", "--lazy", "so"]]
    {
        let argv: Vec<&str> = [migrate.as_str()].iter().chain(&arguments).copied().collect();
        let output = hosts.a.run(&argv)?;
        ensure!(output.status == Status::Exited(exit::USAGE), "{arguments:?}: {output:?}");
    }
    Ok(())
}
