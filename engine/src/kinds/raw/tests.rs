use crate::kinds::Rules;
use super::*;
use crate::descriptors::trip::{describe, round_trip};
use crate::sys::sock::{bind, connect, set_number, socket};

/// A protocol that is nobody's: RFC 3692.
const NOBODYS: i32 = 253;

fn raw(domain: i32, protocol: i32) -> OwnedFd {
    socket(domain, libc::SOCK_RAW, protocol).unwrap()
}

fn local(domain: i32, port: u16) -> Vec<u8> {
    match domain {
        libc::AF_INET => address::v4(Ipv4Addr::LOCALHOST, port),
        _ => address::v6(Ipv6Addr::LOCALHOST, port),
    }
}

#[test]
fn comes_back_with_its_protocol_options_and_groups_and_receives() {
    let original = raw(libc::AF_INET, NOBODYS);
    set_number(original.as_fd(), libc::SOL_IP, libc::IP_HDRINCL, 1).unwrap();
    let group = Membership::of("lo", vec![233, 252, 0, 9], false, Vec::new());
    multicast::join(original.as_fd(), &[group]).unwrap();
    let trip = round_trip(&[&original]);
    let copy = trip.take(0);
    let image: Image = trip.unchanged();
    assert_eq!((image.protocol, image.joined.len(), image.address.len()), (NOBODYS, 1, 0));
    let to = local(libc::AF_INET, 0);
    let sender = raw(libc::AF_INET, NOBODYS);
    sys::datagram::send_to(sender.as_fd(), b"hello", 0, &to).unwrap();
    let packet = sys::datagram::peek(copy.as_fd(), &mut [0; 99]).unwrap();
    assert_eq!(packet.length, 20 + 5);
}

#[test]
fn comes_back_bound_and_connected_also_where_no_port_is_told() {
    for domain in [libc::AF_INET, libc::AF_INET6] {
        for port in [0, 77] {
            let original = raw(domain, NOBODYS);
            bind(original.as_fd(), &local(domain, 0)).unwrap();
            connect(original.as_fd(), &local(domain, port)).unwrap();
            let image: Image = round_trip(&[&original]).unchanged();
            assert_eq!(Address(&image.peer).ip(), Address(&local(domain, 0)).ip());
            assert_eq!(Address(&image.address).ip(), Address(&local(domain, 0)).ip());
        }
    }
}

#[test]
fn nothing_is_in_its_queue_that_its_filter_would_not_have_let_in() {
    let original = raw(libc::AF_INET, NOBODYS);
    sys::filter::attach(original.as_fd(), &[6, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    let copy = round_trip(&[&original]).take(0);
    let sender = raw(libc::AF_INET, NOBODYS);
    let to = local(libc::AF_INET, 0);
    sys::datagram::send_to(sender.as_fd(), b"hello", 0, &to).unwrap();
    assert!(sys::datagram::peek(copy.as_fd(), &mut [0; 99]).is_err());
}

#[test]
fn packets_in_its_queue_are_noted() {
    let original = raw(libc::AF_INET, NOBODYS + 1);
    assert_eq!(describe(&[&original], Rules::default()).notes, []);
    let to = local(libc::AF_INET, 0);
    sys::datagram::send_to(original.as_fd(), b"hello", 0, &to).unwrap();
    assert_eq!(describe(&[&original], Rules::default()).notes.len(), 1);
}

#[test]
fn one_that_gets_router_alerts_is_refused() {
    let original = raw(libc::AF_INET6, libc::IPPROTO_RAW);
    set_number(original.as_fd(), libc::SOL_IPV6, 22, 1).unwrap();
    let refusals = describe(&[&original], Rules::default()).refusals;
    assert!(refusals[0].reason.contains("router alert"), "{refusals:?}");
}

#[test]
fn the_lists_of_the_kernel_are_read() {
    let list = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\n \
        173: 0100007F:0001 070200C0:0000 01 00000000:00000000 00:00000000 00000000 0 0 91 2 0 0\n \
        174: 0100007F:0001 070200C0:0000 07 00000000:00000000 00:00000000 00000000 0 0 92 2 0 0\n \
        175: 0:0 x:0000 01 0:0 0:0 0 0 0 93 2 0 0\n";
    assert_eq!(listed_peer(list, 91), Some([192, 0, 2, 7].into()));
    assert_eq!([92, 93, 94].map(|inode| listed_peer(list, inode)), [None; 3]);
    let v6 = hexadecimal("00000000000000000000000001000000");
    assert_eq!(v6, Some(Ipv6Addr::LOCALHOST.into()));
}
