use crate::kinds::Rules;
use super::super::Owner;
use super::*;
use crate::descriptors::trip::{capture_own, describe};
use crate::sys::sock::{bind, set_number, socket};

fn image_of(socket: &OwnedFd) -> Image {
    prost::Message::decode(&*capture_own(&[socket]).objects[0].bytes).unwrap()
}

/// Two cannot have one port id: the original goes before the copy comes.
fn copy_of(original: OwnedFd) -> (Image, OwnedFd) {
    let image = image_of(&original);
    drop(original);
    let copy = make(&image).unwrap();
    assert_eq!(image_of(&copy), image);
    (image, copy)
}

fn bound(protocol: i32) -> OwnedFd {
    let socket = socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol).unwrap();
    bind(socket.as_fd(), &address(0, 0)).unwrap();
    socket
}

/// RTM_GETLINK of all, or of the first.
fn ask(socket: &OwnedFd, flags: u16) {
    let mut request = 32_u32.to_ne_bytes().to_vec();
    request.extend([18_u16.to_ne_bytes(), flags.to_ne_bytes()].concat());
    request.extend([7_u32, 0, 0, 1, 0, 0].map(u32::to_ne_bytes).concat());
    sys::datagram::send_to(socket.as_fd(), &request[..32], 0, &address(0, 0)).unwrap();
}

#[test]
fn comes_back_with_its_port_groups_and_options_and_gets_answers() {
    let original = bound(libc::NETLINK_ROUTE);
    for (name, value) in [(libc::NETLINK_ADD_MEMBERSHIP, 1), (libc::NETLINK_ADD_MEMBERSHIP, 33)]
        .into_iter()
        .chain([(libc::NETLINK_EXT_ACK, 1), (libc::NETLINK_GET_STRICT_CHK, 1)])
    {
        set_number(original.as_fd(), libc::SOL_NETLINK, name, value).unwrap();
    }
    assert_eq!(describe(&[&original], Rules::default()).notes.len(), 1);
    let (image, copy) = copy_of(original);
    assert_eq!((image.groups, image.options.set_count()), (vec![1, 33], 2));
    assert_ne!(image.port, 0);
    ask(&copy, 1);
    let now = sys::fd::poll(copy.as_fd(), libc::POLLIN, 1000).unwrap();
    assert_eq!(now & libc::POLLIN, libc::POLLIN);
}

#[test]
fn comes_back_unbound_and_of_every_protocol_that_moves() {
    for protocol in [libc::NETLINK_ROUTE, SOCK_DIAG, libc::NETLINK_KOBJECT_UEVENT] {
        let original = socket(libc::AF_NETLINK, libc::SOCK_DGRAM, protocol).unwrap();
        assert_eq!(describe(&[&original], Rules::default()).refusals, []);
        let (image, _copy) = copy_of(original);
        assert_eq!((image.protocol, image.port), (protocol, 0));
    }
}

#[test]
fn an_answer_that_was_not_read_is_in_the_way_until_it_is() {
    let original = bound(libc::NETLINK_ROUTE);
    ask(&original, 1);
    let refusals = || describe(&[&original], Rules::default()).refusals;
    assert!(refusals()[0].reason.contains("not read yet"), "{:?}", refusals());
    let mut room = vec![0; 1 << 16];
    nix::unistd::read(&original, &mut room).unwrap();
    assert_eq!(refusals(), []);
}

#[test]
fn a_list_that_the_kernel_has_not_ended_is_in_the_way() {
    let list = "sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode\n\
                0000 0   2940241051 00000000 4352     0        1     2        0        91\n\
                0000 0   2940241052 00000000 0        0        0     2        0        92\n";
    assert_eq!([91, 92, 93].map(|inode| is_dumping(list, inode)), [true, false, false]);
}

#[test]
fn those_with_state_in_the_kernel_are_refused_by_their_protocol() {
    for (protocol, word) in [(12, "netfilter"), (9, "audit"), (16, "generic"), (2, "usersock")] {
        match socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol) {
            Ok(original) => {
                let refusals = describe(&[&original], Rules::default()).refusals;
                assert!(refusals[0].reason.contains(word), "{refusals:?}");
            }
            Err(error) => crate::skipped::skip(&format!("no netlink {word} here: {error}")),
        }
    }
}

#[test]
fn a_port_id_in_use_is_refused_before_and_groups_that_are_none_are_errors() {
    let original = bound(libc::NETLINK_ROUTE);
    let image = image_of(&original);
    let refusals = Netlink::check(&image, &[], Ground { owner: Owner { pid: 1, fd: 3 }, coming: &[] });
    assert!(refusals[0].reason.contains(&image.port.to_string()), "{refusals:?}");
    drop(original);
    for group in [0, 1 << 20, u32::MAX] {
        assert!(make(&Image { groups: vec![group], ..image.clone() }).is_err());
    }
}
