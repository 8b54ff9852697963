//! One connection that carries gigabytes while its server moves there and back.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::fs;
use tests::bulk::{RunningClient, start_server};
use tests::hosts::{Host, SERVICE, SERVICE_V4, SERVICE_V6, TwoHosts, far};
use tests::relay::Conditions;
use tests::scale::scaled;
use tests::stalls::Stalls;
use tests::web::tcp_counter;
use tests::{place, say};

const MIB: u64 = 1 << 20;

fn moves() -> u32 {
    scaled(8, 4)
}

#[test]
fn a_download_of_1_gib_through_one_connection() -> Result<()> {
    on_a_good_line("download", SERVICE.v4)
}

#[test]
fn an_upload_of_1_gib_through_one_connection() -> Result<()> {
    on_a_good_line("upload", &format!("[{}]", SERVICE.v6))
}

fn on_a_good_line(direction: &str, server: &str) -> Result<()> {
    let (hosts, clients) = TwoHosts::with_clients()?;
    let volume = u64::from(scaled(1024, 64)) * MIB;
    carry(&hosts, &clients, direction, server, volume / u64::from(moves() + 1))
}

/// Such a line carries half a megabyte a second or some (it depends on the congestion control), so that
/// 1 GiB might take half an hour: here it is at least one MiB between two moves, of which seven
/// segments are lost.
#[test]
fn a_download_over_a_line_with_20_ms_delay_and_1_percent_loss() -> Result<()> {
    on_a_bad_line("download", &format!("[{}]", SERVICE.v6))
}

#[test]
fn an_upload_over_a_line_with_20_ms_delay_and_1_percent_loss() -> Result<()> {
    on_a_bad_line("upload", SERVICE.v4)
}

fn on_a_bad_line(direction: &str, server: &str) -> Result<()> {
    if !place::is_installed("ethtool") {
        return Ok(say::skip(&format!("bulk {direction} over a bad line"), "there is no ethtool")?);
    }
    let (hosts, clients) = TwoHosts::with_clients()?;
    let bad = Conditions { delay_ms: 20, loss_permille: 10, ..Conditions::default() };
    let far = far::host(&hosts, &clients, &bad, 4711)?;
    carry(&hosts, &far, direction, server, MIB)?;
    let resent = [&hosts.a, &hosts.b, &far].map(|host| tcp_counter(host, "RetransSegs"));
    let resent: u64 = resent.into_iter().sum::<Result<u64>>()?;
    // At least five MiB are 3700 segments.
    ensure!(resent > 15, "only {resent} segments were sent again: the line is too good");
    Ok(())
}

/// Moves the server in mid-stream, with so many bytes between the moves.
fn carry(
    hosts: &TwoHosts,
    client_host: &Host,
    direction: &str,
    address: &str,
    between: u64,
) -> Result<()> {
    let server = start_server(&hosts.a)?;
    let client = RunningClient::start(client_host, direction, address)?;
    client.carries(client_host, between)?;
    let (mut from, mut to) = (&hosts.a, &hosts.b);
    let mut stalls = Stalls::default();
    for number in 1..=moves() {
        let mark = client.mark()?;
        let options = ["--address", SERVICE_V4, "--address", SERVICE_V6];
        let moved = hosts.migrate(server.pid, from, to, &options)?;
        let said = fs::read_to_string(&server.stderr)?;
        let story = format!("move {number} to {}: {}server: {said}", to.name(), moved.story());
        moved.success().and_then(|_| client.carries(client_host, between)).context(story)?;
        stalls.push(client.longest_pause_ms(mark)?);
        (from, to) = (to, from);
    }
    let said = || format!("the server says {:?}", fs::read_to_string(&server.stderr));
    let report = client.stop(client_host).with_context(said)?;
    from.signal(server.pid, Signal::SIGKILL)?;
    let name = format!("{direction} for a client on {}", client_host.name());
    Ok(say::figure(&name, &format!("{} MiB, {stalls}", report.bytes / MIB))?)
}
