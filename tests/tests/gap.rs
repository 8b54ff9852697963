//! What the network hears while a server moves: a capture of everything that leaves either host, from
//! before the freeze until after it.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::fs;
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;
use tests::bulk::{PORT, RunningClient, start_server};
use tests::capture::{Passed, RunningCapture};
use tests::hosts::{Host, SERVICE, SERVICE_V4, SERVICE_V6, Started, TwoHosts};
use tests::{place, say, wait};

/// The ports of the bridge to which `hosta` and `hostb` are plugged.
const PORTS: [&str; 2] = ["porta", "portb"];

/// Of the streams: a capture of all that they could carry would be slower than they are.
const PAUSE_MS: u64 = 20;

/// Before and after each move.
const AROUND: Duration = Duration::from_millis(200);

#[test]
fn neither_host_says_a_word_for_connections_in_the_gap() -> Result<()> {
    let (hosts, clients) = TwoHosts::with_clients()?;
    let server = start_server(&hosts.a)?;
    let addresses = [SERVICE.v4.to_owned(), format!("[{}]", SERVICE.v6)];
    let streams = ["download", "upload"]
        .into_iter()
        .flat_map(|way| addresses.iter().map(move |at| (way, at)));
    let streams = streams.map(|(way, at)| RunningClient::start_slow(&clients, way, at, PAUSE_MS));
    let streams: Vec<RunningClient> = streams.collect::<Result<_>>()?;
    let newcomers = newcomers(&clients, &addresses)?;
    streams.iter().try_for_each(|stream| stream.carries(&clients, 1))?;
    for (from, to, ports) in
        [(&hosts.a, &hosts.b, PORTS), (&hosts.b, &hosts.a, [PORTS[1], PORTS[0]])]
    {
        let capture = RunningCapture::start(&clients, &PORTS)?;
        std::thread::sleep(AROUND);
        let options = ["--address", SERVICE_V4, "--address", SERVICE_V6];
        let moved = hosts.migrate(server.pid, from, to, &options)?.success()?;
        std::thread::sleep(AROUND);
        let heard = capture.stop(&clients)?;
        is_silent(&heard, &moved.gap_us()?, ports).with_context(|| moved.story())?;
    }
    for stream in streams {
        stream
            .stop(&clients)
            .with_context(|| fs::read_to_string(&server.stderr).unwrap_or_default())?;
    }
    clients.signal(newcomers.pid, Signal::SIGTERM)?;
    let count = clients.finish(&newcomers, wait::PATIENCE)?.success()?;
    say::figure("newcomers while a server moves", &format!("{} served", count.trim()))?;
    hosts.a.signal(server.pid, Signal::SIGKILL)
}

fn newcomers(clients: &Host, addresses: &[String]) -> Result<Started> {
    let at = addresses.iter().map(|address| format!("{address}:{PORT}"));
    let argv: Vec<String> =
        [place::program("bulk")?, "visit".into()].into_iter().chain(at).collect();
    clients.spawn(&argv.iter().map(String::as_str).collect::<Vec<_>>())
}

/// `ports`: those of the source and of the destination.
fn is_silent(heard: &[Passed], gap: &Range<u64>, ports: [&str; 2]) -> Result<()> {
    let service = [SERVICE.v4, SERVICE.v6].map(str::parse::<IpAddr>);
    let [v4, v6] = service;
    let service = [v4?, v6?];
    let left = |port: &str| {
        let port = port.to_owned();
        heard.iter().filter(move |one| !one.is_outgoing && one.interface == port)
    };
    let segments = |port| {
        left(port).filter(|one| service.contains(&one.packet.from) && one.packet.ends().is_some())
    };
    let told = PORTS.into_iter().flat_map(left).find(|one| one.packet.ends_connections());
    let about = |one: &Passed| format!("{one:?}, of {}", history(heard, one));
    ensure!(told.is_none(), "a peer was told that nobody is there: {:?}", told.map(about));
    let after = segments(ports[0]).find(|one| one.at_us >= gap.start);
    ensure!(after.is_none(), "the source still speaks in the gap {gap:?}: {:?}", after.map(about));
    let before = segments(ports[1]).find(|one| one.at_us < gap.end);
    ensure!(
        before.is_none(),
        "the destination speaks already in the gap {gap:?}: {:?}",
        before.map(about)
    );
    // Without these the rest would prove nothing.
    ensure!(segments(ports[0]).count() > 0 && segments(ports[1]).count() > 0, "nobody spoke");
    let knocks = heard.iter().filter(|one| one.is_outgoing && service.contains(&one.packet.to));
    let knocks = knocks.filter(|one| gap.contains(&one.at_us)).count();
    ensure!(knocks > 0, "nobody said anything to them in the gap {gap:?}");
    Ok(())
}

/// What else was said on its connection.
fn history(heard: &[Passed], one: &Passed) -> String {
    let ends = one.packet.ends().map(|(from, to)| [(from, to), (to, from)]);
    let same = |other: &&Passed| {
        ends.is_some_and(|ends| other.packet.ends().is_some_and(|own| ends.contains(&own)))
    };
    let lines: Vec<String> = heard.iter().filter(same).map(|one| format!("\n{one:?}")).collect();
    lines[lines.len().saturating_sub(40)..].concat()
}
