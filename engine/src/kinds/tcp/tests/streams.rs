//! What is on its way in either direction.

use super::*;
use std::time::Instant;

#[test]
fn an_idle_connection_goes_on_in_both_directions() {
    in_each_family(|world, family| {
        let (_listener, mut client, server) = connected(world, family);
        let mut server = moved(world, server, || ());
        client.write_all(&pattern(0, 100)).unwrap();
        read_pattern(&mut server, 0, 100);
        server.write_all(&pattern(0, 100)).unwrap();
        read_pattern(&mut client, 0, 100);
        drop(server);
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn full_queues_arrive_to_the_last_byte() {
    in_each_family(|world, family| full_queues_arrive(connected(world, family), world, 1 << 18));
}

#[test]
fn so_do_large_ones() {
    in_each_family(|world, family| {
        let ends = connected(world, family);
        make_roomy(&ends.1);
        make_roomy(&ends.2);
        full_queues_arrive(ends, world, 5 << 20);
    });
}

fn full_queues_arrive(ends: (TcpListener, TcpStream, TcpStream), world: &World, least: usize) {
    let (_listener, mut client, mut server) = ends;
    let (down, up) = (stuff(&mut server), stuff(&mut client));
    assert!(down.min(up) > least, "{down} {up}");
    let mut server = moved(world, server, || ());
    let (mut reads, mut writes) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(move || read_pattern(&mut reads, 0, down + 500_000));
        scope.spawn(move || writes.write_all(&pattern(down, 500_000)).unwrap());
        scope.spawn(move || client.write_all(&pattern(up, 500_000)).unwrap());
        read_pattern(&mut server, 0, up + 500_000);
    });
}

fn make_roomy(stream: &TcpStream) {
    for name in [libc::SO_SNDBUFFORCE, libc::SO_RCVBUFFORCE] {
        sys::sock::set_number(stream.as_fd(), libc::SOL_SOCKET, name, 4 << 20).unwrap();
    }
}

#[test]
fn what_the_client_sends_in_the_gap_comes_again() {
    in_each_family(|world, family| {
        let (_listener, mut client, server) = connected(world, family);
        let mut sender = client.try_clone().unwrap();
        let mut server = moved(world, server, || sender.write_all(&pattern(0, 5_000)).unwrap());
        read_pattern(&mut server, 0, 5_000);
        server.write_all(&pattern(0, 10)).unwrap();
        read_pattern(&mut client, 0, 10);
    });
}

#[test]
fn what_had_come_is_acknowledged_at_once() {
    in_each_family(|world, family| {
        let (_listener, mut client, server) = connected(world, family);
        // After an answer the kernel waits for another one to acknowledge with.
        for _ in 0..20 {
            client.write_all(b"question").unwrap();
            (&server).read_exact(&mut [0; 8]).unwrap();
            (&server).write_all(b"answer").unwrap();
            client.read_exact(&mut [0; 6]).unwrap();
        }
        client.write_all(b"question").unwrap();
        let mut server = moved(world, server, || ());
        let begun = Instant::now();
        while sys::tcp::unacknowledged_bytes(client.as_fd()).unwrap() != 0 {
            assert!(begun.elapsed() < Duration::from_millis(150), "it is said again after 200 ms");
            std::thread::sleep(Duration::from_millis(1));
        }
        read_exactly(&mut server, b"question");
    });
}

fn read_exactly(stream: &mut TcpStream, expected: &[u8]) {
    let mut heard = vec![0; expected.len()];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(heard, expected);
}
