//! Connections of which one end or both have finished, or that are being opened.

use super::super::info::State;
use super::*;
use std::net::Shutdown;
use std::time::Instant;

fn reads_the_end(stream: &mut TcpStream) {
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_client_that_has_finished_still_gets_its_answer() {
    in_each_family(|world, family| {
        let (_listener, mut client, server) = connected(world, family);
        client.write_all(&pattern(0, 100)).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        await_state(&server, State::CloseWait);
        let mut server = moved(world, server, || ());
        assert_eq!(state_of(&server), State::CloseWait);
        read_pattern(&mut server, 0, 100);
        reads_the_end(&mut server);
        server.write_all(&pattern(0, 200_000)).unwrap();
        drop(server);
        read_pattern(&mut client, 0, 200_000);
        reads_the_end(&mut client);
    });
}

#[test]
fn one_that_has_finished_before_its_peer_knows_says_so_after_the_rest() {
    in_each_family(|world, family| {
        let (_listener, mut client, mut server) = connected(world, family);
        let down = stuff(&mut server);
        server.shutdown(Shutdown::Write).unwrap();
        assert_eq!(state_of(&server), State::FinWait1);
        let mut server = moved(world, server, || ());
        assert_eq!(state_of(&server), State::FinWait1);
        read_pattern(&mut client, 0, down);
        reads_the_end(&mut client);
        client.write_all(&pattern(0, 5_000)).unwrap();
        drop(client);
        read_pattern(&mut server, 0, 5_000);
        reads_the_end(&mut server);
    });
}

#[test]
fn one_that_has_finished_goes_on_reading() {
    in_each_family(|world, family| {
        let (_listener, mut client, server) = connected(world, family);
        server.shutdown(Shutdown::Write).unwrap();
        await_state(&server, State::FinWait2);
        let mut server = moved(world, server, || ());
        await_state(&server, State::FinWait2);
        reads_the_end(&mut client);
        client.write_all(&pattern(0, 5_000)).unwrap();
        drop(client);
        read_pattern(&mut server, 0, 5_000);
        reads_the_end(&mut server);
    });
}

#[test]
fn when_both_have_finished_the_rest_still_arrives() {
    in_each_family(|world, family| rest_arrives(world, family, State::LastAck));
    in_each_family(|world, family| rest_arrives(world, family, State::Closing));
}

/// The state tells who has finished first.
fn rest_arrives(world: &World, family: Family, state: State) {
    let (_listener, mut client, mut server) = connected(world, family);
    client.write_all(&pattern(0, 700)).unwrap();
    let down = stuff(&mut server);
    if state == State::LastAck {
        client.shutdown(Shutdown::Write).unwrap();
        await_state(&server, State::CloseWait);
    }
    server.shutdown(Shutdown::Write).unwrap();
    client.shutdown(Shutdown::Write).ok();
    await_state(&server, state);
    let mut server = moved(world, server, || ());
    assert_eq!(state_of(&server), state);
    read_pattern(&mut client, 0, down);
    reads_the_end(&mut client);
    read_pattern(&mut server, 0, 700);
    reads_the_end(&mut server);
}

#[test]
fn one_that_is_being_opened_is_opened_from_there() {
    let Some(world) = World::new() else { return };
    for (any, to) in [("0.0.0.0:0", world::CLIENT_V4), ("[::]:0", world::CLIENT_V6)] {
        is_opened_from_there(&world, any, to);
        world.address_returns();
    }
}

fn is_opened_from_there(world: &World, any: &str, to: &str) {
    let listener = world.client.run(|| full_listener(any, to));
    let to = SocketAddr::new(to.parse().unwrap(), listener.local_addr().unwrap().port());
    let asking = world.source.run(|| asks(to));
    assert_eq!(state_of(&asking), State::SynSent);
    let mut asking = moved(world, asking, || ());
    assert_eq!(state_of(&asking), State::SynSent);
    // Those that are in its way.
    drop((listener.accept().unwrap(), listener.accept().unwrap()));
    let (mut client, _) = listener.accept().unwrap();
    await_state(&asking, State::Established);
    client.write_all(&pattern(0, 50)).unwrap();
    asking.set_nonblocking(false).unwrap();
    read_pattern(&mut asking, 0, 50);
}

/// One at which nobody gets in before somebody is let in.
fn full_listener(any: &str, to: &str) -> TcpListener {
    let listener = TcpListener::bind(any).unwrap();
    sys::sock::listen(listener.as_fd(), 1).unwrap();
    let port = listener.local_addr().unwrap().port();
    for _ in 0..2 {
        // Its other end is closed by the one who lets it in.
        drop(TcpStream::connect((to, port)).unwrap());
    }
    listener
}

fn asks(to: SocketAddr) -> TcpStream {
    let address = |ip| match ip {
        std::net::IpAddr::V4(ip) => crate::kinds::address::v4(ip, to.port()),
        std::net::IpAddr::V6(ip) => crate::kinds::address::v6(ip, to.port()),
    };
    let (domain, host) =
        if to.is_ipv4() { (libc::AF_INET, HOST_V4) } else { (libc::AF_INET6, HOST_V6) };
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK;
    let socket = sys::sock::socket(domain, kind, libc::IPPROTO_TCP).unwrap();
    sys::sock::bind(socket.as_fd(), &address(host.parse().unwrap())).unwrap();
    let error = sys::sock::connect(socket.as_fd(), &address(to.ip())).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS));
    socket.into()
}

#[test]
fn one_whose_other_end_on_its_own_host_was_closed_comes_to_its_end_without_an_error() {
    let Some(world) = World::new() else { return };
    for any in ["127.0.0.1:0", "[::1]:0"] {
        let server = world.source.run(|| {
            let listener = TcpListener::bind(any).unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            client.write_all(b"rest").unwrap();
            listener.accept().unwrap().0
        });
        await_state(&server, State::CloseWait);
        let mut refusals = world.source.run(|| describe(&[&server], Rules::default()).refusals);
        // A thread of this process lives there, and not its first.
        refusals.retain(|refusal| !refusal.reason.contains("another network namespace"));
        assert_eq!(refusals, []);
        let mut copy = moved(&world, server, || ());
        let mut rest = String::new();
        copy.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "rest");
        world.address_returns();
    }
}

#[test]
fn what_the_program_has_closed_is_told_until_its_peer_has_heard_the_end() {
    let Some(world) = World::new() else { return };
    for family in FAMILIES {
        let (_listener, mut client, mut server) = connected(&world, family);
        let address = server.local_addr().unwrap().ip().to_canonical();
        let down = stuff(&mut server);
        let unheard = || world.source.run(|| orphans::unheard(|ip| ip == address).unwrap());
        assert_eq!(unheard(), 0, "it is the program's");
        drop(server);
        assert_eq!(unheard(), 1);
        assert_eq!(world.source.run(|| orphans::unheard(|ip| ip != address).unwrap()), 0);
        read_pattern(&mut client, 0, down);
        reads_the_end(&mut client);
        let end = Instant::now() + Duration::from_secs(10);
        while unheard() > 0 {
            assert!(Instant::now() < end, "the client has heard it");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
