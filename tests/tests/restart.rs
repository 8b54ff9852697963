//! The source agent is killed in each phase of a move, and started again: it settles what it left
//! open by itself, and exactly one of the tree runs at the end.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::fs;
use std::time::Duration;
use tests::footprint::Footprint;
use tests::host_init::Status;
use tests::hosts::{
    CONFIG, Host, Output, RELAY_ADDRESS, SOCKET, SOURCE_STATE, Started, TwoHosts, listed,
    start_agent, start_source_agent,
};
use tests::moved::{Moved, exit};
use tests::relay::{Conditions, Relay};
use tests::workload::Workload;
use tests::{place, wait};

/// For a command that waits for the agent.
const LIMIT: Duration = Duration::from_secs(60);

const THROUGH_THE_RELAY: &str = "192.0.2.9:9999";

/// A move that the source agent on `hosta` is at work on.
struct Scene {
    hosts: TwoHosts,
    agent: Started,
    workload: Workload,
    command: Started,
}

impl Scene {
    /// Begins the move, and waits until the phase has begun.
    fn begin(mib: &str, options: &[&str], phase: &str) -> Result<Self> {
        Self::on(TwoHosts::with_agents()?, "hostb", mib, options, phase)
    }

    fn on(hosts: TwoHosts, to: &str, mib: &str, options: &[&str], phase: &str) -> Result<Self> {
        let agent = start_source_agent(&hosts.a)?;
        let workload = Workload::start(&hosts.a, "writer", &[mib])?;
        let options = [&["--socket", SOCKET], options].concat();
        let command = hosts.start_migrate(workload.pid, &hosts.a, to, &options)?;
        let name = format!("\"name\":\"{phase}\"");
        wait::until(
            wait::PATIENCE,
            || format!("the {phase} phase: {:?}", fs::read_to_string(&command.stdout)),
            || Ok(fs::read_to_string(&command.stdout)?.contains(&name).then_some(())),
        )?;
        Ok(Self { hosts, agent, workload, command })
    }

    /// The agent dies at once; the command says what it left.
    fn kill(&self) -> Result<Moved> {
        self.hosts.a.signal(self.agent.pid, Signal::SIGKILL)?;
        self.hosts.a.end_of(self.agent.pid, wait::PATIENCE)?;
        self.hosts.finish_migrate(&self.hosts.a, &self.command)
    }

    fn restart(&mut self) -> Result<()> {
        self.agent = start_source_agent(&self.hosts.a)?;
        Ok(())
    }

    /// Another command on the same host, which speaks to the agent.
    fn migrate(&self, arguments: &[&str]) -> Result<Output> {
        let options = ["--socket", SOCKET, "--config", CONFIG, "--state", SOURCE_STATE];
        let migrate = place::program("migrate")?;
        let argv = [&[migrate.as_str()], arguments, &options].concat();
        self.hosts.a.run_within(LIMIT, &argv, &[])
    }

    /// Of the only migration.
    fn id(&self) -> Result<String> {
        let listed = listed(&self.hosts.a)?;
        listed.split_whitespace().next().map(str::to_owned).context("a migration is listed")
    }

    fn is_listed_as(&self, state: &str) -> Result<()> {
        wait::until(
            wait::PATIENCE,
            || format!("it to be {state:?}; it is {:?}", listed(&self.hosts.a)),
            || Ok(listed(&self.hosts.a)?.contains(state).then_some(())),
        )
    }

    fn is_gone_from_b(&self) -> Result<()> {
        wait::until(
            wait::PATIENCE,
            || "the stub on hostb to go".into(),
            || Ok((!self.hosts.b.exists(self.workload.pid)).then_some(())),
        )
    }

    /// Its first letter in /proc/PID/status.
    fn state_on_a(&self) -> Result<char> {
        let status = self.hosts.a.read(&format!("/proc/{}/status", self.workload.pid))?;
        let state = status.split("State:\t").nth(1).and_then(|rest| rest.chars().next());
        state.context("a process has a state")
    }

    fn runs_on_b(&self) -> Result<()> {
        self.is_listed_as(": moved")?;
        self.workload.proves_itself(&self.hosts.b)?;
        let is_left = self.hosts.a.exists(self.workload.pid);
        ensure!(!is_left || self.state_on_a()? == 'Z', "the original is ended");
        self.workload.stop(&self.hosts.b)
    }
}

fn relayed() -> Result<(TwoHosts, Relay)> {
    let hosts = TwoHosts::with_agents()?;
    let address = format!("{RELAY_ADDRESS}:9999");
    let relay = Relay::start(&hosts, &hosts.a, &address, "192.0.2.2:7747", 1)?;
    Ok((hosts, relay))
}

#[test]
fn an_agent_that_dies_in_the_rounds_leaves_it_here_and_the_same_move_works_at_once() -> Result<()> {
    let mut scene = Scene::begin("64", &["--bandwidth", "40"], "rounds")?;
    let said = scene.kill()?;
    ensure!(said.exit == exit::FAILED, "{}", said.story());
    ensure!(said.failure().contains("the source agent ended"), "{}", said.story());
    scene.workload.proves_itself(&scene.hosts.a)?;
    scene.restart()?;
    scene.is_listed_as("stayed here")?;
    // Long before the destination would lose its patience with a silent source.
    scene.is_gone_from_b()?;
    let Scene { hosts, workload, .. } = &scene;
    hosts.migrate(workload.pid, &hosts.a, &hosts.b, &["--socket", SOCKET])?.success()?;
    workload.proves_itself(&hosts.b)?;
    workload.stop(&hosts.b)
}

#[test]
fn an_agent_that_dies_in_the_freeze_leaves_it_running_here() -> Result<()> {
    // All that is written goes in the freeze, and slowly.
    let slow = ["--bandwidth", "40", "--compress", "none"];
    let options = [&slow[..], &["--lazy", "never", "--max-rounds", "1"]].concat();
    let mut scene = Scene::begin("32", &options, "final")?;
    // In the middle of the pages.
    std::thread::sleep(Duration::from_millis(300));
    ensure!(scene.state_on_a()? == 't', "it stands still");
    let said = scene.kill()?;
    ensure!(said.exit == exit::FAILED, "{}", said.story());
    scene.workload.proves_itself(&scene.hosts.a)?;
    scene.restart()?;
    scene.is_listed_as("stayed here")?;
    scene.is_gone_from_b()?;
    scene.workload.stop(&scene.hosts.a)
}

/// In doubt: the permit is on its way, and the answer will not come back.
fn doubtful() -> Result<(Scene, Relay)> {
    let (hosts, relay) = relayed()?;
    relay.set(&Conditions { delay_ms: 300, ..Conditions::default() })?;
    let scene = Scene::on(hosts, THROUGH_THE_RELAY, "4", &["--lazy", "never"], "handover")?;
    std::thread::sleep(Duration::from_millis(100));
    relay.cut()?;
    Ok((scene, relay))
}

#[test]
fn an_agent_that_dies_in_doubt_keeps_it_still_and_settles_when_they_can_talk() -> Result<()> {
    let (mut scene, relay) = doubtful()?;
    let said = scene.kill()?;
    ensure!(said.exit == exit::IN_DOUBT, "{}", said.story());
    ensure!(scene.state_on_a()? == 'T', "the guard holds it: {}", scene.state_on_a()?);
    scene.restart()?;
    std::thread::sleep(Duration::from_secs(2));
    ensure!(scene.state_on_a()? == 'T', "it stays in doubt");
    scene.is_listed_as("under way: handover")?;
    relay.heal()?;
    scene.runs_on_b()
}

#[test]
fn an_operator_settles_what_the_agent_cannot() -> Result<()> {
    let (scene, relay) = doubtful()?;
    let settled = scene.migrate(&["settle", &scene.id()?, "--gone", "--yes"])?;
    ensure!(settled.status == Status::Exited(exit::MOVED), "{settled:?}");
    relay.heal()?;
    scene.runs_on_b()
}

#[test]
fn what_its_destination_has_lost_goes_on_here_when_its_operator_says_so() -> Result<()> {
    is_kept_here(|_| Ok(()))
}

#[test]
fn what_its_destination_has_lost_goes_on_here_without_an_agent_too() -> Result<()> {
    is_kept_here(|scene| {
        scene.hosts.a.signal(scene.agent.pid, Signal::SIGKILL)?;
        scene.hosts.a.end_of(scene.agent.pid, wait::PATIENCE).map(drop)
    })
}

/// It was handed over, and then its host burnt: here it goes on from where it was handed over.
fn is_kept_here(before: impl Fn(&Scene) -> Result<()>) -> Result<()> {
    let scene = Scene::begin("64", &["--lazy", "always", "--bandwidth", "40"], "lazy")?;
    let Scene { hosts, workload, command, .. } = &scene;
    hosts.b.signal(holder(&hosts.b)?, Signal::SIGKILL)?;
    hosts.kill_agent(&hosts.b)?;
    scene.is_gone_from_b()?;
    start_agent(&hosts.b)?;
    let said = hosts.finish_migrate(&hosts.a, command)?;
    ensure!(said.exit == exit::IN_DOUBT, "{}", said.story());
    before(&scene)?;
    let settled = scene.migrate(&["settle", &scene.id()?, "--keep-here", "--yes"])?;
    ensure!(settled.status == Status::Exited(exit::MOVED), "{settled:?}");
    ensure!(settled.stderr.contains("from where it was handed over"), "{settled:?}");
    workload.proves_itself(&hosts.a)?;
    scene.is_listed_as("stayed here")?;
    workload.stop(&hosts.a)
}

/// As long as the destination answers, its word counts, also later, when it can no longer be asked.
#[test]
fn an_operators_word_against_the_destinations_is_forgotten() -> Result<()> {
    let (hosts, relay) = relayed()?;
    let options = ["--lazy", "always", "--bandwidth", "20"];
    let scene = Scene::on(hosts, THROUGH_THE_RELAY, "128", &options, "lazy")?;
    let id = scene.id()?;
    let settle = ["settle", &id, "--keep-here", "--yes", "--json"];
    let migrate = place::program("migrate")?;
    let options = ["--socket", SOCKET, "--config", CONFIG, "--state", SOURCE_STATE];
    let argv = [&[migrate.as_str()], &settle[..], &options[..]].concat();
    let settling = scene.hosts.a.spawn(&argv)?;
    wait::until(
        wait::PATIENCE,
        || format!("the word to be heard: {:?}", fs::read_to_string(&settling.stdout)),
        || Ok(fs::read_to_string(&settling.stdout)?.contains("its word counts").then_some(())),
    )?;
    relay.cut()?;
    // Until it knows that it is alone, and has tried to call.
    std::thread::sleep(Duration::from_secs(22));
    ensure!(matches!(scene.state_on_a()?, 't' | 'T'), "it stands still: {}", scene.state_on_a()?);
    relay.heal()?;
    scene.runs_on_b()
}

/// Of the only tree that lacks pages there.
fn holder(host: &Host) -> Result<i32> {
    let processes = fs::read_dir(host.path("/proc"))?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let holds = |pid: &i32| {
        let command = host.read(&format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.split('\0').any(|word| word == "holder")
    };
    pids.find(holds).context("there is a holder")
}

#[test]
fn an_agent_that_dies_in_the_lazy_phase_sends_the_rest_when_it_is_back() -> Result<()> {
    let options = ["--lazy", "always", "--bandwidth", "40"];
    let mut scene = Scene::begin("64", &options, "lazy")?;
    let said = scene.kill()?;
    ensure!(said.exit == exit::PAGES_MISSING, "{}", said.story());
    ensure!(scene.state_on_a()? == 'T', "the guard holds it: {}", scene.state_on_a()?);
    scene.restart()?;
    scene.runs_on_b()
}

#[test]
fn a_move_survives_the_command_that_asked_for_it() -> Result<()> {
    let scene = Scene::begin("32", &["--bandwidth", "80"], "rounds")?;
    scene.hosts.a.signal(scene.command.pid, Signal::SIGKILL)?;
    scene.is_listed_as("under way")?;
    scene.runs_on_b()
}

#[test]
fn ctrl_c_cancels_what_the_agent_does() -> Result<()> {
    let scene = Scene::begin("64", &["--bandwidth", "40"], "rounds")?;
    scene.hosts.a.signal(scene.command.pid, Signal::SIGINT)?;
    let said = scene.hosts.finish_migrate(&scene.hosts.a, &scene.command)?;
    ensure!(said.exit == exit::CANCELLED, "{}", said.story());
    scene.workload.proves_itself(&scene.hosts.a)?;
    scene.is_gone_from_b()?;
    scene.workload.stop(&scene.hosts.a)
}

#[test]
fn an_agent_that_is_told_to_end_cancels_what_can_be_cancelled() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let scene = Scene::on(hosts, "hostb", "64", &["--bandwidth", "40"], "rounds")?;
    scene.hosts.a.signal(scene.agent.pid, Signal::SIGTERM)?;
    let said = scene.hosts.finish_migrate(&scene.hosts.a, &scene.command)?;
    ensure!(said.exit == exit::CANCELLED, "{}", said.story());
    Footprint::settled(&scene.hosts.a, scene.workload.pid)?;
    scene.workload.proves_itself(&scene.hosts.a)?;
    scene.workload.stop(&scene.hosts.a)
}

#[test]
fn what_was_left_to_the_agent_can_be_cancelled_by_its_id() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    start_source_agent(&hosts.a)?;
    let workload = Workload::start(&hosts.a, "writer", &["64"])?;
    let options = ["--socket", SOCKET, "--detach", "--bandwidth", "40"];
    let command = hosts.start_migrate(workload.pid, &hosts.a, "hostb", &options)?;
    let said = hosts.a.finish(&command, LIMIT)?.success()?;
    let id = said.split_whitespace().nth(1).context("it says the id")?;
    let migrate = place::program("migrate")?;
    let options = ["--socket", SOCKET, "--state", SOURCE_STATE];
    let cancel = [&[migrate.as_str(), "cancel", id][..], &options].concat();
    let cancelled = hosts.a.run_within(LIMIT, &cancel, &[])?;
    ensure!(cancelled.status == Status::Exited(exit::CANCELLED), "{cancelled:?}");
    workload.proves_itself(&hosts.a)?;
    workload.stop(&hosts.a)
}

#[test]
fn only_root_may_ask_the_agent() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let agent = start_source_agent(&hosts.a)?;
    let mode = hosts.a.run(&["stat", "-c", "%a %u", SOCKET])?.success()?;
    ensure!(mode.trim() == "600 0", "{mode}");
    // Even if somebody opens it to all.
    hosts.a.run(&["chmod", "666", SOCKET])?.success()?;
    let script = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); \
        s.send(b'{\"state\":\"/var/lib/migrate/source\",\"wish\":\"live\"}\\n'); \
        print(repr(s.recv(99)))";
    let ask = ["/usr/bin/python3", "-c", script, SOCKET];
    let root = hosts.a.run(&ask)?.success()?;
    ensure!(root.contains("end"), "{root}");
    let nobody = [&["setpriv", "--reuid", "65534", "--clear-groups"], &ask[..]].concat();
    let said = hosts.a.run(&nobody)?;
    ensure!(!said.stdout.contains("end"), "{said:?}");
    let log = fs::read_to_string(&agent.stderr)?;
    ensure!(log.contains("only root may ask"), "{log}");
    Ok(())
}
