//! The relay at work, and the test's end of it.
//!
//! A test changes the conditions through a unix socket in the file system, which does not care about
//! network namespaces. Every change is answered when it is in force.

use super::{Conditions, Fate, Path};
use crate::hosts::{Host, Started, TwoHosts};
use crate::{place, wait};
use anyhow::{Context, Result};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixDatagram as Control;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::{UdpSocket, UnixDatagram};
use tokio::sync::mpsc;

/// The largest datagram there is.
const DATAGRAM_MAX: usize = 65_536;

/// Datagrams under way in one direction of one client. More than a 50 ms queue at 1 GB/s of small
/// ones; beyond it they are dropped.
const UNDER_WAY_MAX: usize = 65_536;

type Shared = Arc<Mutex<Conditions>>;

/// Relays between whoever speaks to `listen` and `to`, until the process ends. `control` is the path
/// of the socket on which conditions arrive.
pub async fn serve(listen: SocketAddr, to: SocketAddr, control: PathBuf, seed: u64) -> Result<()> {
    let conditions = Shared::default();
    let control = UnixDatagram::bind(&control).context("bind the relay's control socket")?;
    tokio::spawn(obey(control, Arc::clone(&conditions)));
    let front = Arc::new(UdpSocket::bind(listen).await.with_context(|| format!("bind {listen}"))?);
    let mut clients: HashMap<SocketAddr, Direction> = HashMap::new();
    let mut datagram = vec![0; DATAGRAM_MAX];
    loop {
        let (length, client) = front.recv_from(&mut datagram).await?;
        if !clients.contains_key(&client) {
            let seed = seed.wrapping_add(clients.len() as u64 * 2);
            let there = open(to, client, Arc::clone(&front), seed, &conditions).await?;
            clients.insert(client, there);
        }
        if let Some(there) = clients.get_mut(&client) {
            there.handle(&datagram[..length]);
        }
    }
}

/// A socket of its own towards `to` for each client, so that answers find their way back.
async fn open(
    to: SocketAddr,
    client: SocketAddr,
    front: Arc<UdpSocket>,
    seed: u64,
    conditions: &Shared,
) -> Result<Direction> {
    let back = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    back.connect(to).await?;
    let back = Arc::new(back);
    let there = Direction::new(Arc::clone(&back), to, seed, conditions);
    let mut here = Direction::new(front, client, seed.wrapping_add(1), conditions);
    tokio::spawn(async move {
        let mut datagram = vec![0; DATAGRAM_MAX];
        loop {
            match back.recv(&mut datagram).await {
                Ok(length) => here.handle(&datagram[..length]),
                // The other side is not there (yet): an ICMP error, to be outlived like a loss.
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    });
    Ok(there)
}

/// One direction of one client: decides at once, delivers later.
struct Direction {
    path: Path,
    conditions: Shared,
    under_way: mpsc::Sender<(Instant, Vec<u8>)>,
}

impl Direction {
    fn new(socket: Arc<UdpSocket>, to: SocketAddr, seed: u64, conditions: &Shared) -> Self {
        let (under_way, arriving) = mpsc::channel(UNDER_WAY_MAX);
        tokio::spawn(deliver(socket, to, arriving));
        Self { path: Path::new(seed), conditions: Arc::clone(conditions), under_way }
    }

    fn handle(&mut self, datagram: &[u8]) {
        let conditions = self.conditions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Fate::Arrives(at) = self.path.handle(&conditions, Instant::now(), datagram.len()) {
            // A full queue loses the datagram, which is what a full queue does.
            let _ = self.under_way.try_send((at, datagram.to_vec()));
        }
    }
}

async fn deliver(
    socket: Arc<UdpSocket>,
    to: SocketAddr,
    mut arriving: mpsc::Receiver<(Instant, Vec<u8>)>,
) {
    let is_connected = socket.peer_addr().is_ok();
    while let Some((at, datagram)) = arriving.recv().await {
        if at > Instant::now() {
            tokio::time::sleep_until(at.into()).await;
        }
        // Errors here are ICMP answers to earlier datagrams.
        let _ = match is_connected {
            true => socket.send(&datagram).await,
            false => socket.send_to(&datagram, to).await,
        };
    }
}

async fn obey(control: UnixDatagram, conditions: Shared) -> Result<()> {
    let mut request = vec![0; DATAGRAM_MAX];
    loop {
        let (length, sender) = control.recv_from(&mut request).await?;
        let wanted = serde_json::from_slice(&request[..length])?;
        *conditions.lock().unwrap_or_else(PoisonError::into_inner) = wanted;
        control.send_to(b"in force", sender.as_pathname().context("a nameless asker")?).await?;
    }
}

/// The test's end: a relay that runs on a host.
#[derive(Debug)]
pub struct Relay {
    pub program: Started,
    control: Control,
}

impl Relay {
    /// Starts one on `host` that listens at `listen` (address and port) and leads to `to`.
    pub fn start(hosts: &TwoHosts, host: &Host, listen: &str, to: &str, seed: u64) -> Result<Self> {
        let theirs = hosts.shared().join(format!("relay-{listen}"));
        let argv = [&place::program("udp-relay")?, listen, to, &place::text(&theirs)?];
        let program = host.spawn(&[argv[0], argv[1], argv[2], argv[3], &seed.to_string()])?;
        wait::until(
            wait::PATIENCE,
            || "the relay to listen".into(),
            || Ok(theirs.exists().then_some(())),
        )?;
        let control = Control::bind(theirs.with_extension("asker"))?;
        control.connect(&theirs)?;
        control.set_read_timeout(Some(wait::PATIENCE))?;
        let relay = Self { program, control };
        relay.set(&Conditions::default())?;
        Ok(relay)
    }

    /// Returns when the conditions are in force for whatever comes next.
    pub fn set(&self, conditions: &Conditions) -> Result<()> {
        self.control.send(&serde_json::to_vec(conditions)?).context("ask the relay")?;
        let mut answer = [0; 16];
        self.control.recv(&mut answer).context("the relay's answer")?;
        Ok(())
    }

    pub fn cut(&self) -> Result<()> {
        self.set(&Conditions { is_cut: true, ..Conditions::default() })
    }

    pub fn heal(&self) -> Result<()> {
        self.set(&Conditions::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    /// The relay in this process, before an echo: a datagram's way is there and back.
    struct Line {
        socket: UdpSocket,
        control: Control,
        _directory: tempfile::TempDir,
        _runtime: tokio::runtime::Runtime,
    }

    fn line() -> Line {
        let echo = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = echo.local_addr().unwrap();
        std::thread::spawn(move || echo_until_end(&echo));
        let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let theirs = directory.path().join("control");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.spawn(serve(free, to, theirs.clone(), 1));
        let control = Control::bind(directory.path().join("asker")).unwrap();
        control.set_read_timeout(Some(wait::PATIENCE)).unwrap();
        wait::until(wait::PATIENCE, || "the relay".into(), || Ok(control.connect(&theirs).ok()))
            .unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(free).unwrap();
        let line = Line { socket, control, _directory: directory, _runtime: runtime };
        line.set(&Conditions::default());
        line
    }

    fn echo_until_end(echo: &UdpSocket) {
        let mut datagram = [0; 2000];
        while let Ok((length, sender)) = echo.recv_from(&mut datagram) {
            if &datagram[..length] == b"end" || echo.send_to(&datagram[..length], sender).is_err() {
                return;
            }
        }
    }

    impl Line {
        fn set(&self, conditions: &Conditions) {
            self.control.send(&serde_json::to_vec(conditions).unwrap()).unwrap();
            self.control.recv(&mut [0; 16]).unwrap();
        }

        /// How long a datagram is under way, or None when it does not come back within `limit`.
        fn way(&self, limit: Duration) -> Option<Duration> {
            let started = Instant::now();
            self.socket.set_read_timeout(Some(limit)).unwrap();
            self.socket.send(b"x").unwrap();
            let mut answer = [0; 16];
            let received = self.socket.recv(&mut answer);
            received.ok().map(|_| started.elapsed())
        }
    }

    #[test]
    fn datagrams_pass_there_and_back_with_the_delay_of_both_ways() {
        let line = line();
        assert!(line.way(wait::PATIENCE).is_some());
        line.set(&Conditions { delay_ms: 60, ..Conditions::default() });
        let way = line.way(wait::PATIENCE).unwrap();
        assert!(way >= Duration::from_millis(120), "{way:?}");
    }

    #[test]
    fn a_cut_stops_everything_until_it_heals() {
        let line = line();
        assert!(line.way(wait::PATIENCE).is_some());
        line.set(&Conditions { is_cut: true, ..Conditions::default() });
        assert_eq!(line.way(Duration::from_millis(100)), None);
        line.set(&Conditions::default());
        assert!(line.way(wait::PATIENCE).is_some());
    }
}
