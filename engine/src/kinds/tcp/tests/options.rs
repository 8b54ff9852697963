//! What is not in the streams, and what happens when the move does not.

use super::*;

const SET: &[(i32, i32, i32)] = &[
    (libc::SOL_TCP, libc::TCP_NODELAY, 1),
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
    (libc::SOL_TCP, libc::TCP_KEEPIDLE, 77),
    (libc::SOL_TCP, libc::TCP_KEEPINTVL, 7),
    (libc::SOL_TCP, libc::TCP_KEEPCNT, 3),
    (libc::SOL_TCP, libc::TCP_USER_TIMEOUT, 30_000),
    (libc::SOL_TCP, libc::TCP_NOTSENT_LOWAT, 12_345),
    (libc::SOL_SOCKET, libc::SO_REUSEADDR, 1),
    (libc::SOL_SOCKET, libc::SO_PRIORITY, 3),
    (libc::SOL_IP, libc::IP_TOS, 0x10),
];

fn read_all(socket: &impl AsFd) -> Vec<i32> {
    let read = |&(level, name, _): &(i32, i32, i32)| {
        sys::sock::read_number(socket.as_fd(), level, name).unwrap()
    };
    SET.iter().map(read).collect()
}

fn with_options(server: &TcpStream) -> Vec<i32> {
    for &(level, name, value) in SET {
        sys::sock::set_number(server.as_fd(), level, name, value).unwrap();
    }
    let reno = b"reno";
    sys::sock::set_option(server.as_fd(), libc::SOL_TCP, libc::TCP_CONGESTION, reno).unwrap();
    read_all(server)
}

fn image_of(net: &world::Net, socket: &TcpStream) -> Image {
    use prost::Message as _;
    let table = net.run(|| capture_by(&[socket], Rules::default()).unwrap());
    Image::decode(&*table.objects[0].bytes).unwrap()
}

#[test]
fn every_option_comes_back_and_buffers_go_on_being_tuned() {
    in_each_family(|world, family| comes_back_with(world, family, read_all));
    in_each_family(|world, family| comes_back_with(world, family, with_options));
}

fn comes_back_with(world: &World, family: Family, options: fn(&TcpStream) -> Vec<i32>) {
    let (_listener, _client, mut server) = connected(world, family);
    let set = options(&server);
    stuff(&mut server);
    let before = image_of(&world.source, &server).live.unwrap();
    let server = moved(world, server, || ());
    let after = image_of(&world.destination, &server).live.unwrap();
    assert_eq!(read_all(&server), set);
    assert_eq!(after.options, before.options);
    assert_eq!(after.buffers, before.buffers);
    assert_eq!(after.buffers.locked, 0);
    assert_eq!(after.later, before.later);
    let (before, after) = (before.opened.unwrap(), after.opened.unwrap());
    assert_eq!(after.window_bytes_max, before.window_bytes_max);
    assert_eq!(after.agreement.scales, before.agreement.scales);
    assert_eq!(after.agreement.selective, before.agreement.selective);
    assert_eq!(after.agreement.segment_bytes_max, before.agreement.segment_bytes_max);
    let clocks = (after.agreement.clock.unwrap(), before.agreement.clock.unwrap());
    assert!(clocks.0.wrapping_sub(clocks.1) < 60_000_000, "{clocks:?}");
}

#[test]
fn after_a_move_that_fails_it_goes_on_as_if_nothing_had_been() {
    let Some(world) = World::new() else { return };
    for family in FAMILIES {
        let (_listener, mut client, mut server) = connected(&world, family);
        let set = with_options(&server);
        let before = image_of(&world.source, &server);
        assert_eq!(read_all(&server), set);
        let hold = || (hooks().hold)(server.as_fd(), &Rules::default()).unwrap().unwrap();
        let held = hold();
        client.write_all(&pattern(0, 3_000)).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(sys::fd::readable_bytes(server.as_fd()).unwrap(), 0);
        // Somebody else may have to hold it, and to take it back.
        assert_eq!(hold(), held);
        (hooks().take_back)(server.as_fd(), &held).unwrap();
        assert_eq!(read_all(&server), set);
        read_pattern(&mut server, 0, 3_000);
        server.write_all(&pattern(0, 3_000)).unwrap();
        read_pattern(&mut client, 0, 3_000);
        let (before, after) = (before.live.unwrap(), image_of(&world.source, &server).live.unwrap());
        assert_eq!((after.options, after.later), (before.options, before.later));
    }
}

#[test]
fn a_successor_that_knows_nothing_brings_it_to_life() {
    let Some(world) = World::new() else { return };
    let (_listener, mut client, mut server) = connected(&world, Family::V4);
    let set = with_options(&server);
    server.write_all(&pattern(0, 10)).unwrap();
    let program = [OwnedFd::from(server)];
    let (image, _at_source) = leave_home(&world, &program);
    drop(program);
    let (mut fds, awaiting) = world.destination.run(|| make_at(&image, &coming()).unwrap());
    drop(awaiting);
    world.address_arrives();
    let mut server = TcpStream::from(fds.remove(0));
    // It may begin, and die, and another begins.
    for _ in 0..2 {
        (hooks().go_live)(None, server.as_fd()).unwrap();
        (hooks().speak)(server.as_fd()).unwrap();
    }
    assert_eq!(read_all(&server), set);
    read_pattern(&mut client, 0, 10);
    client.write_all(&pattern(0, 10)).unwrap();
    read_pattern(&mut server, 0, 10);
}

#[test]
fn one_that_never_lived_ends_without_a_word() {
    let Some(world) = World::new() else { return };
    let (_listener, _client, mut server) = connected(&world, Family::V6);
    stuff(&mut server);
    let cables = Cables::watch(&world);
    let program = [OwnedFd::from(server)];
    let (image, _at_source) = leave_home(&world, &program);
    drop(program);
    cables.heard();
    drop(world.destination.run(|| make_at(&image, &coming()).unwrap()));
    assert_eq!(cables.heard(), Vec::<String>::new());
}

#[test]
fn an_address_that_neither_is_here_nor_comes_is_refused() {
    let Some(world) = World::new() else { return };
    for family in FAMILIES {
        let (_listener, _client, server) = connected(&world, family);
        let (outline, image) = world.source.run(|| {
            let outline = crate::descriptors::trip::outline_by(&[&server], Rules::default());
            (outline, capture_by(&[&server], Rules::default()).unwrap())
        });
        world.destination.run(|| {
            let refusals = crate::descriptors::check(&outline, &[]).unwrap();
            let said = refusals[0].to_string();
            assert!(said.contains("--address") && said.contains(family.host()), "{said}");
            assert_eq!(crate::descriptors::check(&outline, &coming()).unwrap(), []);
            let error = make_at(&image, &[]).unwrap_err();
            assert_eq!(error.source.raw_os_error(), Some(libc::EADDRNOTAVAIL), "{error}");
        });
    }
}

#[test]
fn an_urgent_byte_is_refused_by_name() {
    let Some(world) = World::new() else { return };
    let (_listener, mut client, server) = connected(&world, Family::V4);
    client.write_all(b"before").unwrap();
    nix::sys::socket::send(std::os::fd::AsRawFd::as_raw_fd(&client), b"!", nix::sys::socket::MsgFlags::MSG_OOB).unwrap();
    client.write_all(b"after").unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let error = world.source.run(|| capture_by(&[&server], Rules::default()).unwrap_err());
    assert!(error.source.to_string().contains("urgent"), "{error}: {}", error.source);
}

#[test]
fn a_filter_that_the_kernel_does_not_give_back_is_refused() {
    let Some(world) = World::new() else { return };
    let (_listener, _client, server) = connected(&world, Family::V4);
    let Some(program) = sys::filter::ebpf() else {
        return crate::skipped::skip("this kernel loads no eBPF program");
    };
    let number = std::os::fd::AsRawFd::as_raw_fd(&program);
    let (level, name) = (libc::SOL_SOCKET, libc::SO_ATTACH_BPF);
    sys::sock::set_number(server.as_fd(), level, name, number).unwrap();
    let refusals = describe(&[&server], Rules::default()).refusals;
    assert!(refusals[0].to_string().contains("eBPF"), "{refusals:?}");
}

#[test]
fn more_may_be_unsent_than_the_program_would_write_now() {
    let Some(world) = World::new() else { return };
    let (_listener, mut client, mut server) = connected(&world, Family::V4);
    let down = stuff(&mut server);
    let (level, name) = (libc::SOL_TCP, libc::TCP_NOTSENT_LOWAT);
    sys::sock::set_number(server.as_fd(), level, name, 1_000).unwrap();
    let server = moved(&world, server, || ());
    read_pattern(&mut client, 0, down);
    assert_eq!(sys::sock::read_number(server.as_fd(), level, name).unwrap(), 1_000);
}
