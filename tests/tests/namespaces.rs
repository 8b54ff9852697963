//! Trees in a network namespace of their own: it moves with them, and whoever talks to them notices
//! no more than lost packets.

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use tests::host_init::Status;
use tests::hosts::{
    BRIDGE, CABLE, CONFIG, Host, SERVICE, SOURCE_STATE, Started, TwoHosts, ip, is_up, listed,
    namespace, start_agent, start_agent_with, start_source_agent,
};
use tests::moved::exit;
use tests::redis::{RunningCrowd, server};
use tests::{place, say, wait};

const CLIENTS: usize = 8;

/// A server in a namespace of its own on `hosta`, with clients beyond the bridge.
struct Scene {
    hosts: TwoHosts,
    clients: Host,
    redis: Started,
    crowd: RunningCrowd,
}

impl Scene {
    fn new() -> Result<Self> {
        let (hosts, clients) = TwoHosts::with_bridges()?;
        let within = namespace(&hosts.a)?;
        let redis = server::start_within(&hosts, &hosts.a, &within)?;
        let crowd = RunningCrowd::start_patient(&clients, SERVICE.v4, CLIENTS, 30)?;
        crowd.goes_on()?;
        Ok(Self { hosts, clients, redis, crowd })
    }

    /// Nobody of the clients has lost anything.
    fn end(self) -> Result<()> {
        self.crowd.goes_on()?;
        self.crowd.stop(&self.clients).map(drop)
    }

    fn addresses_of_server(&self, host: &Host) -> Result<String> {
        let (pid, inside) = (self.redis.pid.to_string(), "--net");
        host.run(&["nsenter", "--target", &pid, inside, "ip", "-o", "addr", "show"])?.success()
    }
}

#[test]
fn a_server_moves_with_its_namespace_there_and_back_and_no_client_is_lost() -> Result<()> {
    let scene = Scene::new()?;
    let hosts = &scene.hosts;
    let before = scene.addresses_of_server(&hosts.a)?;
    let mut stalls = Vec::new();
    for (from, to) in [(&hosts.a, &hosts.b), (&hosts.b, &hosts.a)] {
        let mark = scene.crowd.mark()?;
        let moved = hosts.migrate(scene.redis.pid, from, to, &[])?;
        let story = moved.story();
        moved.success().and_then(|_| scene.crowd.goes_on()).context(story)?;
        stalls.push(scene.crowd.longest_stall_ms(mark)?);
        let devices = ip(from, "-o link show type veth")?;
        ensure!(!devices.contains(CABLE), "{} has it still: {devices}", from.name());
        ensure!(ip(to, &format!("-o link show master {BRIDGE}"))?.contains("UP"));
    }
    let lasting = |text: &str| -> Vec<String> {
        let addresses = text.lines().filter_map(|line| line.split_whitespace().nth(3));
        addresses.map(str::to_owned).collect()
    };
    assert_eq!(lasting(&scene.addresses_of_server(&hosts.a)?), lasting(&before));
    let stalls = stalls.iter().map(|ms| format!("{ms:.1} ms")).collect::<Vec<_>>().join(", ");
    say::figure("redis in a network namespace of its own", &format!("longest stalls: {stalls}"))?;
    scene.end()
}

/// A failure point of the source, and what happens when it is reached.
fn move_that(scene: &Scene, fails: &str) -> Result<Status> {
    let (migrate, pid) = (place::program("migrate")?, scene.redis.pid.to_string());
    let argv = [&migrate, &pid, "--to", "hostb", "--config", CONFIG, "--state", SOURCE_STATE];
    let command = scene.hosts.a.spawn_with(&argv, &[("MIGRATE_FAIL", fails)])?;
    scene.hosts.a.end_of(command.pid, wait::PATIENCE)
}

#[test]
fn a_move_that_fails_when_it_is_silent_leaves_it_connected_where_it_was() -> Result<()> {
    let scene = Scene::new()?;
    let status = move_that(&scene, "source.cut-cables.after=ENOMEM")?;
    ensure!(status == Status::Exited(exit::FAILED), "{status:?}");
    ensure!(is_up(&scene.hosts.a, CABLE)?, "its cable is joined again");
    ensure!(!ip(&scene.hosts.b, "-o link show type veth")?.contains(CABLE), "hostb has none of it");
    scene.end()
}

/// Killed when nothing but its cable keeps it silent, and when it was about to be given away.
#[test]
fn a_source_that_is_killed_in_the_freeze_and_started_again_joins_its_cable() -> Result<()> {
    for place in ["source.cut-cables.after", "source.give-addresses.after"] {
        let scene = Scene::new()?;
        let status = move_that(&scene, &format!("{place}=kill"))?;
        ensure!(!matches!(status, Status::Exited(_)), "{place}: {status:?}");
        ensure!(!is_up(&scene.hosts.a, CABLE)?, "{place}: it outlives the agent");
        start_source_agent(&scene.hosts.a)?;
        wait::until(
            wait::PATIENCE,
            || format!("{place}: its cable to be joined: {:?}", listed(&scene.hosts.a)),
            || Ok(is_up(&scene.hosts.a, CABLE)?.then_some(())),
        )?;
        scene.end().context(place)?;
    }
    Ok(())
}

#[test]
fn a_destination_that_is_killed_when_it_has_decided_joins_its_cable_once_it_is_back() -> Result<()>
{
    let scene = Scene::new()?;
    let (a, b) = (&scene.hosts.a, &scene.hosts.b);
    let first = scene.hosts.agent_pids()[1];
    scene.hosts.kill_agent(b)?;
    b.end_of(first, wait::PATIENCE)?;
    let agent = start_agent_with(b, &[("MIGRATE_FAIL", "destination.run.before=kill")])?;
    let command = scene.hosts.start_migrate(scene.redis.pid, a, "hostb", &[])?;
    b.end_of(agent.pid, wait::PATIENCE)?;
    ensure!(!is_up(b, CABLE)?, "it is silent until somebody lets it run");
    start_agent(b)?;
    let moved = scene.hosts.finish_migrate(a, &command)?;
    let story = moved.story();
    moved.success().context(story)?;
    ensure!(is_up(b, CABLE)?, "its cable is joined");
    scene.end()
}

#[test]
fn what_stands_against_it_is_said_before_anything_is_touched() -> Result<()> {
    let scene = Scene::new()?;
    let stranger = scene.hosts.a.spawn(&["nsenter", "--net=/run/netns/tree", "sleep", "60"])?;
    let check = |options: &[&str]| -> Result<(i32, String)> {
        let (migrate, pid) = (place::program("migrate")?, scene.redis.pid.to_string());
        let argv = [&migrate, "check", &pid, "--to", "hostb", "--config", CONFIG];
        let output = scene.hosts.a.run(&[&argv[..], options].concat())?;
        let Status::Exited(code) = output.status else { bail!("{:?}", output.status) };
        Ok((code, format!("{}{}", output.stdout, output.stderr)))
    };
    let (code, said) = check(&[])?;
    let lives = format!("process {} lives in the network namespace of process", stranger.pid);
    ensure!(code == exit::REFUSED && said.contains(&lives), "{code}: {said}");
    scene.hosts.a.signal(stranger.pid, Signal::SIGKILL)?;
    scene.hosts.a.end_of(stranger.pid, wait::PATIENCE)?;
    let (code, said) = check(&["--bridge", "br7"])?;
    ensure!(code == exit::REFUSED && said.contains("bridge br7 is not here"), "{code}: {said}");
    let (code, said) = check(&[])?;
    ensure!(code == 0, "{said}");
    scene.end()
}
