//! What comes for connections while nobody listens, kept to be sent after them.
//!
//! A segment that is lost in the freeze is said again by the peer, but not before 200 ms, and a SYN
//! not before a second (tcp(7)): far longer than the freeze itself. So the source keeps a copy of what
//! its [`super::Lock`] drops. When the tree runs elsewhere the copies are sent there: its addresses
//! are not of this host any more, so they are routed like anybody's.

mod segment;

use super::announce::close_aside;
use super::{Flow, Gate};
use crate::error::{Error, Object, OnObject as _};
use crate::sys;
use nix::sys::socket::{MsgFlags, recv};
use segment::Segment;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

/// A queue for each version of IP, of what this host receives for some ports.
#[derive(Debug)]
pub struct Knocks {
    queues: Vec<OwnedFd>,
    flows: BTreeSet<Flow>,
    gates: Vec<Gate>,
    kept: Vec<Segment>,
    /// Who asked to be let in, and has not been answered: nothing else has come from him since.
    newcomers: BTreeMap<Flow, Segment>,
}

/// For a fast link and the milliseconds of a freeze. What does not fit is lost as before.
const QUEUE_BYTES_MAX: i32 = 16 << 20;
/// More ports make the filter longer than it is worth: then every segment of TCP is looked at.
const PORTS_MAX: usize = 64;

impl Knocks {
    /// Listens from now on, at these gates and for the connections at these ports.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW; those of packet(7).
    pub fn listen(gates: &[Gate], flows: &[Flow]) -> Result<Self, Error> {
        let ports = gates.iter().map(|gate| gate.port);
        let ports: BTreeSet<u16> =
            ports.chain(flows.iter().map(|flow| flow.local.port())).collect();
        let open = |protocol, filter: Vec<u8>| {
            queue(protocol, &filter).on("listen to", || Object::Network { name: NAME.to_owned() })
        };
        let queues = vec![
            open(libc::ETH_P_IP, filter::of_version_4(&ports))?,
            open(libc::ETH_P_IPV6, filter::of_version_6(&ports))?,
        ];
        let (kept, newcomers) = (Vec::new(), BTreeMap::new());
        Ok(Self { queues, flows: BTreeSet::new(), gates: gates.to_vec(), kept, newcomers })
    }

    /// Goes on where another one ends, with the newcomers who came to that.
    #[must_use]
    pub fn after(mut self, mut before: Self) -> Self {
        before.gather();
        self.newcomers = std::mem::take(&mut before.newcomers);
        self
    }

    /// These are held from now on. Of what came until now only newcomers are kept: the rest was
    /// heard.
    pub fn held(&mut self, flows: &[Flow]) {
        self.gather();
        self.kept.clear();
        self.flows = flows.iter().map(plain).collect();
    }

    /// Sends what came for them to where they live now. Returns how many segments that were.
    ///
    /// # Errors
    /// Of the first that could not be sent; all are tried.
    pub fn send_after(mut self) -> Result<usize, Error> {
        self.gather();
        let segments = self.newcomers.values().chain(&self.kept);
        let wanted = segments.filter(|segment| self.is_wanted(segment));
        let (mut count, mut result) = (0, Ok(()));
        for segment in wanted {
            let sent = segment.send().on("send after it what came for", || {
                let Flow { local, peer } = segment.flow;
                Object::Network { name: format!("the connection of {local} with {peer}") }
            });
            count += usize::from(sent.is_ok());
            result = result.and(sent);
        }
        result.map(|()| count)
    }

    fn gather(&mut self) {
        for queue in &self.queues {
            let (kept, newcomers) = (&mut self.kept, &mut self.newcomers);
            receive(queue.as_fd(), |segment| sort_in(segment, kept, newcomers));
        }
    }

    /// Connections of this host with itself have no other end that would have to be told.
    fn is_wanted(&self, segment: &Segment) -> bool {
        let Flow { local, .. } = segment.flow;
        let at_gate = |gate: &Gate| {
            gate.port == local.port()
                && gate.address.is_none_or(|ip| ip.to_canonical() == local.ip())
        };
        !local.ip().is_loopback()
            && match segment.is_newcomer() {
                true => self.gates.iter().any(at_gate),
                false => self.flows.contains(&segment.flow),
            }
    }
}

/// Closing packet sockets takes 10 ms and more, in which nobody need wait.
impl Drop for Knocks {
    fn drop(&mut self) {
        self.queues.drain(..).for_each(close_aside);
    }
}

const NAME: &str = "the packets that this host receives";

fn plain(flow: &Flow) -> Flow {
    let plain = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
    Flow { local: plain(flow.local), peer: plain(flow.peer) }
}

/// The filter is there before the first packet comes.
fn queue(protocol: i32, filter: &[u8]) -> io::Result<OwnedFd> {
    let socket = sys::sock::socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0)?;
    sys::filter::attach(socket.as_fd(), filter)?;
    sys::sock::set_number(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, QUEUE_BYTES_MAX)?;
    let protocol = u16::try_from(protocol).unwrap_or_default();
    sys::sock::bind(socket.as_fd(), &every_device(protocol))?;
    Ok(socket)
}

/// `struct sockaddr_ll` of packet(7).
fn every_device(protocol: u16) -> Vec<u8> {
    let family = u16::try_from(libc::AF_PACKET).unwrap_or_default().to_ne_bytes();
    [&family[..], &protocol.to_be_bytes(), &[0; 16]].concat()
}

fn receive(queue: BorrowedFd<'_>, with: impl FnMut(Segment)) {
    let mut room = vec![0; 1 << 16];
    // An error is that nothing is left.
    let next = || {
        recv(queue.as_raw_fd(), &mut room, MsgFlags::MSG_DONTWAIT)
            .ok()
            .map(|length| Segment::read(&room[..length]))
    };
    std::iter::from_fn(next).flatten().for_each(with);
}

/// Who goes on after his question was answered: between the first look and the shutting of a gate
/// some come in. Asked again, he would be told that nobody knows of him, once he has left.
fn sort_in(segment: Segment, kept: &mut Vec<Segment>, newcomers: &mut BTreeMap<Flow, Segment>) {
    if segment.is_newcomer() {
        newcomers.insert(segment.flow, segment);
        return;
    }
    newcomers.remove(&segment.flow);
    if segment.has_to_be_said_again() {
        kept.push(segment);
    }
}

/// Programs for [`sys::filter`]: bpf(4) in BSD's manual, linux/filter.h. Beyond the port, what is
/// wanted is looked for later.
mod filter {
    use super::PORTS_MAX;
    use std::collections::BTreeSet;

    const LOAD_BYTE: u16 = 0x30;
    const LOAD_HALF: u16 = 0x28;
    const LOAD_HALF_AFTER_HEADER: u16 = 0x48;
    const LENGTH_OF_HEADER: u16 = 0xb1;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const TCP: u32 = 6;

    type Instruction = (u16, u8, u8, u32);

    /// The header's length is in it.
    pub(super) fn of_version_4(ports: &BTreeSet<u16>) -> Vec<u8> {
        let port = [(LENGTH_OF_HEADER, 0, 0, 0), (LOAD_HALF_AFTER_HEADER, 0, 0, 2)];
        program((LOAD_BYTE, 0, 0, 9), &port, ports)
    }

    /// Headers that extend the first are rare, and their segments are not kept.
    pub(super) fn of_version_6(ports: &BTreeSet<u16>) -> Vec<u8> {
        program((LOAD_BYTE, 0, 0, 6), &[(LOAD_HALF, 0, 0, 42)], ports)
    }

    fn program(protocol: Instruction, port: &[Instruction], ports: &BTreeSet<u16>) -> Vec<u8> {
        const WHOLE: Instruction = (RETURN, 0, 0, u32::MAX);
        const NOTHING: Instruction = (RETURN, 0, 0, 0);
        let mut program = vec![protocol, (JUMP_IF_EQUAL, 1, 0, TCP), NOTHING];
        if ports.len() <= PORTS_MAX {
            program.extend(port);
            for (at, &port) in ports.iter().enumerate() {
                // Over those that are left, and the "nothing" after them.
                let over = u8::try_from(ports.len() - at).unwrap_or_default();
                program.push((JUMP_IF_EQUAL, over, 0, port.into()));
            }
            program.push(NOTHING);
        }
        program.push(WHOLE);
        let bytes = |&(code, yes, no, k): &Instruction| {
            [&code.to_ne_bytes()[..], &[yes, no], &k.to_ne_bytes()].concat()
        };
        program.iter().flat_map(bytes).collect()
    }
}

#[cfg(test)]
mod tests;
