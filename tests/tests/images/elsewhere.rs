//! Copies on another host, of a tree that stays.

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use tests::host_init::Status;
use tests::hosts::{
    CONFIG, Host, Output, SOURCE_STATE, Started, TwoHosts, namespace, start_agent_with,
};
use tests::moved::exit;
use tests::peer::FakeDestination;
use tests::scale::scaled;
use tests::{place, wait, workload};

macro_rules! clones {
    ($($name:ident),* $(,)?) => { $(
        mod $name {
            #[test]
            fn goes_on_here_and_three_times_there() -> anyhow::Result<()> {
                super::three_copies(stringify!($name), &[])
            }
        }
    )* };
}

clones! {
    clock, counter, dup, epoll, eventfd, memfd, pipe, prefork, private_file, shared_anon, signals,
    socketpair, threads, timerfd, timers, tree, unix_pair, writer,
}

mod in_networks_of_their_own {
    #[test]
    fn servers_do_not_stand_in_each_others_way() -> anyhow::Result<()> {
        super::three_copies("tcp_listen", &["--network-namespace"])
    }
}

const COPIES: usize = 3;

/// A workload that says what it has to say at the end of a file, as its copies do.
struct Original {
    pid: i32,
    said: PathBuf,
}

impl Original {
    fn start(hosts: &TwoHosts, name: &str) -> Result<Self> {
        let (program, said) = (workload::executable(name)?, hosts.shared().join("said"));
        let file = place::text(&said)?;
        let script = "exec \"$0\" >> \"$1\"";
        let Started { pid, .. } = hosts.a.spawn(&["/bin/sh", "-c", script, &program, &file])?;
        let original = Self { pid, said };
        original.says("ok", 1)?;
        Ok(original)
    }

    /// Good checks, or last ones, of all that write there. A bad one is an error.
    fn count(&self, word: &str) -> Result<usize> {
        let said = fs::read_to_string(&self.said).unwrap_or_default();
        let is_good = |line: &str| {
            ["ready", "done"].contains(&line) || "ok ".starts_with(line) || line.starts_with("ok ")
        };
        let bad = said.lines().find(|line| !is_good(line));
        ensure!(bad.is_none(), "it says {bad:?}: {said}");
        Ok(said.lines().filter(|line| line.starts_with(word)).count())
    }

    fn says(&self, word: &str, count: usize) -> Result<()> {
        wait::until(
            wait::PATIENCE,
            || format!("{count} times {word:?}: {:?}", fs::read_to_string(&self.said)),
            || Ok((self.count(word)? >= count).then_some(())),
        )
    }

    /// Two more checks at least, of this one alone.
    fn goes_on(&self, hosts: &TwoHosts) -> Result<()> {
        ensure!(hosts.a.exists(self.pid), "the original is gone");
        self.says("ok", self.count("ok")? + 2)
    }

    /// It says so when every check was good to the last one.
    fn ends(&self, host: &Host, pid: i32) -> Result<()> {
        let before = self.count("done")?;
        host.signal(pid, Signal::SIGTERM)?;
        self.says("done", before + 1)
    }
}

fn three_copies(name: &str, options: &[&str]) -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let original = Original::start(&hosts, name)?;
    let count = COPIES.to_string();
    let options = [&["--count", &count], options].concat();
    let said = clone(&hosts, original.pid, &options)?.success()?;
    let copies = copies(&said)?;
    ensure!(copies.len() == COPIES, "{said}");
    original.goes_on(&hosts)?;
    let running = copies_on(&hosts.b)?;
    for words in ["self/exe copy", "workloads/"] {
        ensure!(running.matches(words).count() >= COPIES, "{running}");
    }
    for copy in copies {
        ensure!(hosts.b.exists(copy), "{copy} is not there: {said}");
        original.ends(&hosts.b, copy).with_context(|| format!("copy {copy}"))?;
    }
    no_copy_is_left(&hosts)?;
    original.goes_on(&hosts)?;
    original.ends(&hosts.a, original.pid)?;
    nothing_is_left(&hosts)
}

#[test]
fn neither_agent_holds_the_memory_of_what_is_copied() -> Result<()> {
    const AGENT_KIB_MAX: u64 = 100 << 10;
    let hosts = TwoHosts::with_agents()?;
    let said = hosts.shared().join("said");
    fs::create_dir(&said)?;
    let script = format!("{}/copies.py", workload::SOURCES);
    let size = scaled(160, 128).to_string();
    let original = hosts.a.spawn(&["/usr/bin/python3", &script, &place::text(&said)?, &size])?;
    super::copies::all_prove_themselves(&said, 1)?;
    let copies = copies(&clone(&hosts, original.pid, &["--count", "2"])?.success()?)?;
    super::copies::all_prove_themselves(&said, 3)?;
    let peak = hosts.agent_peak_kib()?;
    ensure!(peak < AGENT_KIB_MAX, "an agent had {peak} KiB");
    copies.iter().try_for_each(|copy| hosts.b.signal(*copy, Signal::SIGKILL))?;
    hosts.a.signal(original.pid, Signal::SIGKILL)?;
    nothing_is_left(&hosts)
}

#[test]
fn what_the_policy_forbids_is_refused_before_anything_is_touched() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let original = Original::start(&hosts, "counter")?;
    for (policy, reason) in [
        ("executables = [\"/nowhere\"]", "the destination's policy"),
        ("paths = [\"/nowhere\"]", "the destination's policy"),
        ("memory_mib_max = 0", "of memory, and the destination's policy allows 0"),
        ("processes_max = 0", "the destination's policy allows 0"),
        ("trees_max = 0", "takes in no trees of this source"),
    ] {
        hosts.b.write(&format!("{CONFIG}/policy.toml"), &format!("[default]\n{policy}\n"))?;
        let refused = clone(&hosts, original.pid, &["--count", "2"])?;
        ensure!(refused.status == Status::Exited(exit::REFUSED), "{policy}: {refused:?}");
        ensure!(refused.stdout.contains("\"event\":\"refusal\""), "{policy}: {refused:?}");
        ensure!(refused.stdout.contains(reason), "{policy}: {refused:?}");
        ensure!(!hosts.agent_log(&hosts.b)?.contains("copies run"), "{policy}");
    }
    original.goes_on(&hosts)?;
    nothing_is_left(&hosts)
}

#[test]
fn how_many_copies_run_is_said_when_one_does_not() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let original = Original::start(&hosts, "tcp_listen")?;
    let command = command(original.pid, &["--count", "3"])?;
    let for_people: Vec<&str> =
        as_text(&command).into_iter().filter(|it| *it != "--json").collect();
    let failed = hosts.a.run_within(wait::PATIENCE, &for_people, &[])?;
    ensure!(failed.status == Status::Exited(exit::FAILED), "{failed:?}");
    // The first has the address that the second wants.
    for words in ["the destination refuses the copy", "1 of 3 copies run on hostb."] {
        ensure!(failed.stdout.contains(words), "{failed:?}");
    }
    let line = failed
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("Process ")?.split_once(" of hostb runs"));
    let copy = line.context("a copy that runs")?.0.parse()?;
    original.ends(&hosts.b, copy)?;
    original.goes_on(&hosts)?;
    original.ends(&hosts.a, original.pid)
}

/// Says what becomes of its connection, at the end of a file.
const CLIENT: &str = "
import socket, sys, time
server, said = socket.create_connection((sys.argv[1], 7000)), open(sys.argv[2], 'a', buffering=1)
while True:
    try:
        server.sendall(b'x')
        assert server.recv(1) == b'x'
    except OSError as error:
        said.write(f'cut {error}\\n')
        break
    said.write('ok\\n')
    time.sleep(0.02)";

/// Takes in one client, and no other.
const SERVER: &str = "
import socket
client = socket.create_server(('', 7000)).accept()[0]
while client.sendall(client.recv(1)) is None:
    pass";

#[test]
fn a_copy_finds_the_connections_of_its_original_cut_and_the_original_does_not() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    hosts.b.spawn(&["/usr/bin/python3", "-c", SERVER])?;
    let listens = || hosts.b.run(&["ss", "-Htln", "sport = 7000"])?.success();
    wait::until(
        wait::PATIENCE,
        || "the server to listen".into(),
        || Ok((!listens()?.is_empty()).then_some(())),
    )?;
    let said = hosts.shared().join("said");
    let argv = ["/usr/bin/python3", "-c", CLIENT, "192.0.2.2", &place::text(&said)?];
    let client = hosts.a.spawn(&argv)?;
    let counts = |word: &str, count: usize| {
        wait::until(
            wait::PATIENCE,
            || format!("{count} times {word}: {:?} {}", fs::read_to_string(&said), client.story()),
            || {
                let said = fs::read_to_string(&said).unwrap_or_default();
                let found = said.lines().filter(|line| line.starts_with(word)).count();
                Ok((found >= count).then_some(found))
            },
        )
    };
    counts("ok", 3)?;
    let copies = copies(&clone(&hosts, client.pid, &["--count", "2"])?.success()?)?;
    counts("cut", 2)?;
    for copy in copies {
        hosts.b.end_of(copy, wait::PATIENCE)?;
    }
    let before = counts("ok", 3)?;
    counts("ok", before + 10)?;
    ensure!(counts("cut", 2)? == 2, "the original was cut off as well");
    hosts.a.signal(client.pid, Signal::SIGKILL)
}

#[test]
fn a_tree_with_addresses_of_its_own_is_refused_by_name() -> Result<()> {
    let (hosts, _clients) = TwoHosts::with_bridges()?;
    let within = namespace(&hosts.a)?;
    let original = hosts.a.spawn(&[&within[..], &["/bin/sleep", "600"]].concat())?;
    wait::until(
        wait::PATIENCE,
        || "it to be in its namespace".into(),
        || {
            Ok(hosts
                .a
                .read(&format!("/proc/{}/comm", original.pid))?
                .starts_with("sleep")
                .then_some(()))
        },
    )?;
    let refused = clone(&hosts, original.pid, &[])?;
    ensure!(refused.status == Status::Exited(exit::REFUSED), "{refused:?}");
    let words = format!("process {} has addresses of its own", original.pid);
    ensure!(refused.stdout.contains(&words), "{refused:?}");
    hosts.a.signal(original.pid, Signal::SIGKILL)
}

#[test]
fn a_destination_that_is_not_known_is_not_spoken_to() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let original = Original::start(&hosts, "counter")?;
    hosts.a.write(&format!("{CONFIG}/known_hosts"), "")?;
    let failed = clone(&hosts, original.pid, &[])?;
    ensure!(failed.status == Status::Exited(exit::FAILED), "{failed:?}");
    ensure!(failed.stdout.contains("known_hosts does not have the right key"), "{failed:?}");
    original.goes_on(&hosts)
}

#[test]
fn a_destination_of_an_earlier_version_is_refused_by_name() -> Result<()> {
    let hosts = TwoHosts::new()?;
    hosts.introduce()?;
    let fake = FakeDestination::start(&hosts.b, &["--protocol", "1", "1"])?;
    let original = Original::start(&hosts, "counter")?;
    let refused = clone(&hosts, original.pid, &[])?;
    ensure!(refused.status == Status::Exited(exit::REFUSED), "{refused:?}");
    for words in ["host hostb", "speaks protocol 1", "Upgrade the destination"] {
        ensure!(refused.stdout.contains(words), "{refused:?}");
    }
    ensure!(!fake.said()?.contains("heard Offer"), "{}", fake.said()?);
    original.goes_on(&hosts)
}

macro_rules! dies {
    ($($name:ident: $place:literal),* $(,)?) => { $(
        mod $name {
            #[test]
            fn the_destination_dies_and_leaves_the_original_and_no_copy() -> anyhow::Result<()> {
                super::destination_dies($place)
            }

            #[test]
            fn the_command_dies_and_leaves_the_original_and_no_copy() -> anyhow::Result<()> {
                super::command_dies($place)
            }
        }
    )* };
}

dies! {
    in_mid_transfer: "copies.receive.pages",
    at_the_end_of_the_transfer: "copies.receive.manifest",
    before_the_first_copy_runs: "copies.permit.before",
}

fn destination_dies(place: &str) -> Result<()> {
    let hosts = TwoHosts::new()?;
    hosts.introduce()?;
    let plan = format!("{place}=kill");
    let agent = start_agent_with(&hosts.b, &[("MIGRATE_FAIL", &plan)])?;
    let original = Original::start(&hosts, "tree")?;
    let failed = clone(&hosts, original.pid, &["--count", "3"])?;
    ensure!(failed.status == Status::Exited(exit::FAILED), "{failed:?}");
    ensure!(copies(&failed.stdout)?.is_empty(), "{failed:?}");
    hosts.b.end_of(agent.pid, wait::PATIENCE)?;
    original.goes_on(&hosts)?;
    no_copy_is_left(&hosts)?;
    // What it could not remove, the next agent does.
    let _next = start_agent_with(&hosts.b, &[])?;
    nothing_is_left(&hosts)?;
    let again = clone(&hosts, original.pid, &[])?.success()?;
    copies(&again)?.into_iter().try_for_each(|copy| original.ends(&hosts.b, copy))
}

fn command_dies(place: &str) -> Result<()> {
    let (hosts, original, command, mark) = held_at(place)?;
    hosts.a.signal(command.pid, Signal::SIGKILL)?;
    hosts.a.end_of(command.pid, wait::PATIENCE)?;
    fs::remove_file(mark)?;
    original.goes_on(&hosts)?;
    // Of its own image the next command disposes.
    let again = clone(&hosts, original.pid, &[])?.success()?;
    let copies = copies(&again)?;
    ensure!(copies.len() == 1, "{again}");
    nothing_is_left(&hosts)?;
    original.ends(&hosts.b, copies[0])?;
    // One that had the word already may run; it has nobody who would hear of it.
    match place {
        "copies.permit.before" => Ok(()),
        _ => no_copy_is_left(&hosts),
    }
}

#[test]
fn a_clone_that_is_cancelled_leaves_the_original_and_no_copy() -> Result<()> {
    let (hosts, original, command, mark) = held_at("copies.receive.pages")?;
    hosts.a.signal(command.pid, Signal::SIGINT)?;
    let status = hosts.a.end_of(command.pid, wait::PATIENCE)?;
    ensure!(status == Status::Exited(exit::CANCELLED), "{status:?}: {}", command.story());
    fs::remove_file(mark)?;
    original.goes_on(&hosts)?;
    no_copy_is_left(&hosts)?;
    nothing_is_left(&hosts)
}

/// A clone whose destination waits at a place, until the file is removed.
fn held_at(place: &str) -> Result<(TwoHosts, Original, Started, PathBuf)> {
    let hosts = TwoHosts::new()?;
    hosts.introduce()?;
    let mark = hosts.shared().join("held");
    let plan = format!("{place}=hold:{}", mark.display());
    start_agent_with(&hosts.b, &[("MIGRATE_FAIL", &plan)])?;
    let original = Original::start(&hosts, "tree")?;
    let command = hosts.a.spawn(&as_text(&command(original.pid, &["--count", "3"])?))?;
    wait::until(
        wait::PATIENCE,
        || format!("{place}: {}", command.story()),
        || Ok(mark.exists().then_some(())),
    )?;
    Ok((hosts, original, command, mark))
}

fn clone(hosts: &TwoHosts, pid: i32, options: &[&str]) -> Result<Output> {
    hosts.a.run_within(wait::PATIENCE * 3, &as_text(&command(pid, options)?), &[])
}

fn command(pid: i32, options: &[&str]) -> Result<Vec<String>> {
    let pid = pid.to_string();
    let migrate = place::program("migrate")?;
    let argv = [migrate.as_str(), "clone", &pid, "--to", "hostb", "--config", CONFIG, "--json"];
    let argv = [&argv[..], &["--state", SOURCE_STATE], options].concat();
    Ok(argv.into_iter().map(ToOwned::to_owned).collect())
}

fn as_text(argv: &[String]) -> Vec<&str> {
    argv.iter().map(String::as_str).collect()
}

/// The first processes of those that a command has started.
fn copies(said: &str) -> Result<Vec<i32>> {
    let events = said.lines().map(serde_json::from_str::<Value>);
    let events = events.collect::<Result<Vec<_>, _>>().with_context(|| said.to_owned())?;
    let restored = events.iter().filter(|event| event["event"] == "restored");
    let pids = restored.filter_map(|event| event["pid"].as_i64());
    Ok(pids.map(i32::try_from).collect::<Result<_, _>>()?)
}

/// The first of a namespace, and what is a copy or would be one.
fn copies_on(host: &Host) -> Result<String> {
    Ok(host.run(&["pgrep", "-a", "-f", "self/exe copy|workloads/"])?.stdout)
}

fn no_copy_is_left(hosts: &TwoHosts) -> Result<()> {
    wait::until(
        wait::PATIENCE,
        || format!("the end of {:?}", copies_on(&hosts.b)),
        || Ok(copies_on(&hosts.b)?.is_empty().then_some(())),
    )
}

/// No image on either host. It is as secret as the memory that it has.
fn nothing_is_left(hosts: &TwoHosts) -> Result<()> {
    let left = |host: &Host| -> Result<String> {
        host.run(&["find", "/var/lib/migrate", "-name", "clone-*"])?.success()
    };
    let all = || -> Result<String> { Ok(left(&hosts.a)? + &left(&hosts.b)?) };
    wait::until(
        wait::PATIENCE,
        || format!("the end of {:?}", all()),
        || Ok(all()?.is_empty().then_some(())),
    )
}
