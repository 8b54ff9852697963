//! Connections that do not go on, and whose peers are told so.

use super::super::info::State;
use super::*;
use crate::descriptors::{cut_off, dismiss};
use std::net::Shutdown;

/// An image of the connection, which has left without a word, and whether its peer is told.
fn dismissed(world: &World, server: TcpStream) -> Vec<Error> {
    let program = vec![OwnedFd::from(server)];
    let (image, _at_source) = leave_home(world, &program);
    drop(program);
    let here = world.destination.run(|| dismiss(&image).unwrap_or_else(|error| raise(error)));
    assert_eq!(here.len(), 1, "its address is not there yet");
    assert!(here[0].to_string().contains(":"), "{}", here[0]);
    world.address_arrives();
    let untold = world.destination.run(|| dismiss(&image).unwrap_or_else(|error| raise(error)));
    let mut image = image;
    cut_off(&mut image).unwrap();
    assert_eq!(dismiss(&image).unwrap().len(), 0, "nobody is told twice");
    untold
}

fn expect_reset(client: &mut TcpStream) {
    let mut rest = vec![0; 1 << 20];
    let error = loop {
        match client.read(&mut rest) {
            Ok(0) => panic!("it has ended as if nothing had happened"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_peer_that_says_nothing_hears_of_it() {
    in_each_family(|world, family| {
        let (_listener, mut client, server) = connected(world, family);
        assert_eq!(dismissed(world, server).len(), 0);
        expect_reset(&mut client);
    });
}

#[test]
fn a_peer_whose_window_is_full_hears_of_it() {
    in_each_family(|world, family| {
        let (_listener, mut client, mut server) = connected(world, family);
        assert!(stuff(&mut server) > 0);
        assert_eq!(dismissed(world, server).len(), 0);
        expect_reset(&mut client);
    });
}

#[test]
fn a_peer_to_which_the_end_was_said_hears_of_it_when_it_goes_on_writing() {
    in_each_family(|world, family| {
        let (_listener, mut client, server) = connected(world, family);
        server.shutdown(Shutdown::Write).unwrap();
        await_state(&server, State::FinWait2);
        assert_eq!(dismissed(world, server).len(), 0);
        await_state(&client, State::Close);
        assert_eq!(client.write(&[0]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_peer_that_has_finished_hears_of_it_instead_of_its_answer() {
    in_each_family(|world, family| {
        let (_listener, mut client, server) = connected(world, family);
        client.shutdown(Shutdown::Write).unwrap();
        await_state(&server, State::CloseWait);
        assert_eq!(dismissed(world, server).len(), 0);
        expect_reset(&mut client);
    });
}
