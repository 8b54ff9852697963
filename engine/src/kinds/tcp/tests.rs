//! Real moves: a client goes on with what it had begun, and sees every byte once.

mod cables;
mod closing;
mod dismissal;
mod options;
mod streams;
mod world;

use super::*;
use crate::descriptors::trip::{capture_by, describe, make_at, round_trip};
use crate::descriptors::{Awaiting, DescriptorsImage};
use crate::kinds::kind_named;
use crate::network::Lock;
use cables::Cables;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;
use world::{HOST_V4, HOST_V6, World, coming};

/// Nothing here waits longer.
const WAIT_MAX: Duration = Duration::from_secs(8);

/// How the host's program has opened its socket, and the address that the client calls.
#[derive(Clone, Copy, Debug)]
enum Family {
    V4,
    V6,
    Mapped,
}

const FAMILIES: [Family; 3] = [Family::V4, Family::V6, Family::Mapped];

impl Family {
    fn any(self) -> &'static str {
        match self {
            Self::V4 => "0.0.0.0:0",
            Self::V6 | Self::Mapped => "[::]:0",
        }
    }

    fn host(self) -> &'static str {
        match self {
            Self::V4 | Self::Mapped => HOST_V4,
            Self::V6 => HOST_V6,
        }
    }
}

/// One after the other, each with both of its ends closed when the next is made.
fn in_each_family(test: impl Fn(&World, Family)) {
    let Some(world) = World::new() else { return };
    for family in FAMILIES {
        test(&world, family);
        world.address_returns();
    }
}

/// A listener on the source, and a connection to it: the client's end, the program's end.
fn connected(world: &World, family: Family) -> (TcpListener, TcpStream, TcpStream) {
    let listener = world.source.run(|| TcpListener::bind(family.any()).unwrap());
    let port = listener.local_addr().unwrap().port();
    let client = world.client.run(|| TcpStream::connect((family.host(), port)).unwrap());
    let server = listener.accept().unwrap().0;
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
        stream.set_write_timeout(Some(WAIT_MAX)).unwrap();
    }
    (listener, client, server)
}

fn hooks() -> &'static crate::kinds::KindEntry {
    kind_named(create::NAME, 2).unwrap()
}

/// What a source does up to the handover.
fn leave_home(world: &World, program: &[OwnedFd]) -> (DescriptorsImage, Lock) {
    world.source.run(|| {
        let mut lock = Lock::open().unwrap_or_else(|error| raise(error));
        let flows: Vec<Flow> = program.iter().filter_map(flow_of).collect();
        lock.hold(&flows).unwrap_or_else(|error| raise(error));
        let fds: Vec<&dyn AsFd> = program.iter().map(|fd| fd as &dyn AsFd).collect();
        let image = capture_by(&fds, Rules::default()).unwrap_or_else(|error| raise(error));
        let hold = |fd: &OwnedFd| (hooks().hold)(fd.as_fd(), &Rules::default()).unwrap();
        let held: Vec<_> = program.iter().map(hold).collect();
        world.address_leaves();
        for (fd, before) in program.iter().zip(held) {
            before.iter().for_each(|before| (hooks().leave)(fd.as_fd(), before).unwrap());
        }
        (image, lock)
    })
}

fn flow_of(fd: &OwnedFd) -> Option<Flow> {
    capture::flow_of(fd.as_fd()).unwrap()
}

fn raise(error: Error) -> ! {
    panic!("{error}: {}", error.source)
}

fn live(awaiting: &[Awaiting]) {
    awaiting.iter().for_each(|one| one.go_live().unwrap_or_else(|error| raise(error)));
    awaiting.iter().for_each(|one| one.speak().unwrap_or_else(|error| raise(error)));
}

/// The whole way of a program's sockets, in silence. `in_the_gap` is what the client does meanwhile.
fn all_moved(world: &World, program: Vec<OwnedFd>, in_the_gap: impl FnOnce()) -> Vec<OwnedFd> {
    let cables = Cables::watch(world);
    let flows: Vec<Flow> = world.source.run(|| program.iter().filter_map(flow_of).collect());
    let (image, _at_source) = leave_home(world, &program);
    drop(program);
    cables.heard();
    in_the_gap();
    let (fds, awaiting, mut lock) = world.destination.run(|| {
        let mut lock = Lock::open().unwrap_or_else(|error| raise(error));
        lock.hold(&flows).unwrap_or_else(|error| raise(error));
        let (fds, awaiting) = make_at(&image, &coming()).unwrap_or_else(|error| raise(error));
        (fds, awaiting, lock)
    });
    world.address_arrives();
    assert_eq!(cables.heard(), Vec::<String>::new());
    world.destination.run(|| {
        lock.clear().unwrap_or_else(|error| raise(error));
        live(&awaiting);
    });
    let resets = cables.heard().into_iter().filter(|heard| heard.contains("RST"));
    assert_eq!(resets.collect::<Vec<_>>(), Vec::<String>::new());
    fds
}

fn moved(world: &World, program: TcpStream, in_the_gap: impl FnOnce()) -> TcpStream {
    TcpStream::from(all_moved(world, vec![program.into()], in_the_gap).remove(0))
}

fn state_of(socket: &impl AsFd) -> info::State {
    info::state(socket.as_fd()).unwrap()
}

fn await_state(socket: &impl AsFd, expected: info::State) {
    for _ in 0..600 {
        if state_of(socket) == expected {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{:?} instead of {expected:?}", state_of(socket));
}

/// Bytes that tell their place.
fn pattern(from: usize, bytes: usize) -> Vec<u8> {
    (from..from + bytes).map(|at| (at.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect()
}

fn read_pattern(stream: &mut TcpStream, from: usize, bytes: usize) {
    let mut room = vec![0; bytes];
    stream.read_exact(&mut room).unwrap();
    assert!(room == pattern(from, bytes), "wrong bytes");
}

/// As much as goes, with nobody reading.
fn stuff(stream: &mut TcpStream) -> usize {
    let mut written = 0;
    stream.set_nonblocking(true).unwrap();
    // Acknowledgements are on their way: only what stays full is full.
    for _ in 0..5 {
        while let Ok(more) = stream.write(&pattern(written, 1 << 16)) {
            written += more;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    stream.set_nonblocking(false).unwrap();
    written
}

#[test]
fn a_rule_refuses_it_or_has_it_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let server = listener.accept().unwrap().0;
    let by = |tcp| describe(&[&client], Rules { tcp, ..Rules::default() });
    let refusals = by(Tcp::Refuse).refusals;
    let peer = server.local_addr().unwrap().to_string();
    assert!(refusals[0].to_string().contains(&peer), "{}", refusals[0]);
    for tcp in [Tcp::Close, Tcp::Reset] {
        assert_eq!((by(tcp).refusals.len(), by(tcp).notes.len()), (0, 1));
    }
    let mut copy = TcpStream::from(round_trip(&[&client]).take(0));
    assert_eq!(copy.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(copy.read(&mut [0]).unwrap(), 0);
}

#[test]
fn one_that_leads_to_a_program_that_stays_is_refused() {
    for any in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(any).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let server = listener.accept().unwrap().0;
        let refusals = describe(&[&client], Rules::default()).refusals;
        assert!(refusals[0].to_string().contains("a program that stays here"), "{refusals:?}");
        assert_eq!(describe(&[&client, &server], Rules::default()).refusals, []);
    }
}
