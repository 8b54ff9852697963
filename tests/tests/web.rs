//! Web servers under load that move there and back: every answer is right, and comes by the connection
//! that was there at the beginning where that is kept.

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use std::time::Duration;
use tests::hosts::{Host, SERVICE, SERVICE_V4, SERVICE_V6, Started, TwoHosts};
use tests::scale::scaled;
use tests::web::{Asker, CONNECTIONS, PORT, Page, TLS_PORT, go, nginx, node};
use tests::{place, say};

#[test]
fn nginx_with_two_workers() -> Result<()> {
    let url = format!("http://{}:{PORT}/", SERVICE.v4);
    answers("nginx", &url, Asker::start, |host, page| nginx(host, page).map(Some))
}

/// What it has closed is the kernel's, and stays where it is: its address may leave when it was heard.
#[test]
fn nginx_that_closes_every_connection_with_its_answer() -> Result<()> {
    let url = format!("http://{}:{PORT}/", SERVICE.v4);
    let start = |host: &Host, page: &Page| nginx(host, page).map(Some);
    answers("nginx that closes", &url, Asker::start_anew_each_time, start)
}

#[test]
fn nginx_with_tls() -> Result<()> {
    let url = format!("https://[{}]:{TLS_PORT}/", SERVICE.v6);
    answers("nginx with TLS", &url, Asker::start, |host, page| nginx(host, page).map(Some))
}

#[test]
fn node_with_clients_that_keep_their_connections() -> Result<()> {
    let url = format!("http://{}:{PORT}/", SERVICE.v4);
    answers("node", &url, Asker::start, |host, page| node(host, page).map(Some))
}

#[test]
fn a_go_server_with_clients_that_keep_their_connections() -> Result<()> {
    let url = format!("http://[{}]:{PORT}/", SERVICE.v6);
    answers("a Go server", &url, Asker::start, go)
}

/// Between two moves, for the clients to be served.
const AT_WORK: Duration = Duration::from_millis(300);

fn answers(
    name: &str,
    url: &str,
    ask: impl Fn(&Host, &str, &Page) -> Result<Asker>,
    start: impl Fn(&Host, &Page) -> Result<Option<Started>>,
) -> Result<()> {
    let programs = [Some("wrk"), name.split(' ').next().filter(|name| *name != "a")];
    if let Some(missing) = programs.into_iter().flatten().find(|it| !place::is_installed(it)) {
        return Ok(say::skip(&format!("web {name}"), &format!("there is no {missing}"))?);
    }
    let (hosts, clients) = TwoHosts::with_clients()?;
    let page = Page::new(&hosts)?;
    let Some(server) = start(&hosts.a, &page)? else {
        return Ok(say::skip(&format!("web {name}"), "there is no go")?);
    };
    let asker = ask(&clients, url, &page)?;
    let rounds = scaled(4, 1);
    for round in 1..=rounds {
        for (from, to) in [(&hosts.a, &hosts.b), (&hosts.b, &hosts.a)] {
            std::thread::sleep(AT_WORK);
            let options = ["--address", SERVICE_V4, "--address", SERVICE_V6];
            let moved = hosts.migrate(server.pid, from, to, &options)?;
            let story = format!("round {round} to {}: {}", to.name(), moved.story());
            moved.success().context(story)?;
        }
    }
    std::thread::sleep(AT_WORK);
    let answers = asker.stop(&clients)?;
    hosts.a.signal(server.pid, Signal::SIGTERM)?;
    let figure = format!(
        "{} moves, {} answers to {CONNECTIONS} connections, the longest took {} ms",
        2 * rounds,
        answers.requests,
        answers.longest_ms
    );
    Ok(say::figure(name, &figure)?)
}
