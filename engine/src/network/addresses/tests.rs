use super::super::hosts::{Host, index};
use super::*;
use prost::Message as _;
use std::net::IpAddr;

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

/// A host with a device.
fn host() -> Option<Host> {
    let host = Host::new()?;
    host.device("d0");
    Some(host)
}

/// An address with everything that one can have.
fn adorned(ip: &str, prefix: u8, device: u32) -> Message {
    let ip: IpAddr = ip.parse().unwrap();
    let family = if ip.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let link_scope = if ip.is_ipv4() { 253 } else { 0 };
    let fixed = [u8::try_from(family).unwrap(), prefix, 0, link_scope];
    let times = [1000, 2000, 0, 0].map(u32::to_ne_bytes).concat();
    let metric = 77;
    let all = Attributes::new()
        .bytes(libc::IFA_LOCAL, &bytes(ip))
        .bytes(libc::IFA_ADDRESS, &bytes(ip))
        .bytes(libc::IFA_CACHEINFO, &times)
        .native(IFA_RT_PRIORITY, metric);
    let all = match ip {
        IpAddr::V4(_) => all
            .text(libc::IFA_LABEL, "d0:web")
            .bytes(libc::IFA_BROADCAST, &[192, 0, 2, 254])
            .native(libc::IFA_FLAGS, libc::IFA_F_NOPREFIXROUTE),
        IpAddr::V6(_) => all.native(libc::IFA_FLAGS, libc::IFA_F_NODAD | libc::IFA_F_NOPREFIXROUTE),
    };
    let fixed = [&fixed[..], &device.to_ne_bytes()].concat();
    Message::new(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &fixed, &all)
}

const IFA_RT_PRIORITY: u16 = 9;

/// Everything but the times, of which a second may have passed.
fn lasting(assigned: &Assigned) -> Vec<(u16, Vec<u8>)> {
    let all = assigned.attributes();
    let lasting = all.filter(|(kind, _)| *kind != libc::IFA_CACHEINFO);
    lasting.map(|(kind, value)| (kind, value.to_vec())).collect()
}

#[test]
fn what_was_removed_is_put_back_exactly() {
    let Some(host) = host() else { return };
    for text in ["192.0.2.7/24@d0", "2001:db8::7/64@d0"] {
        let wanted = address(text);
        host.run(|| {
            let (ip, prefix) = (wanted.ip.to_string(), wanted.prefix);
            change(&adorned(&ip, prefix, index("d0"))).unwrap();
            let before = find(&wanted).unwrap().unwrap();
            assert_eq!(remove(&wanted).unwrap(), Change::Made);
            assert_eq!(find(&wanted).unwrap(), None);
            assert_eq!(remove(&wanted).unwrap(), Change::None);
            // As a journal has it.
            let written = Assigned::decode(before.encode_to_vec().as_slice()).unwrap();
            assert_eq!(put_back(&written).unwrap(), Change::Made);
            assert_eq!(put_back(&written).unwrap(), Change::None);
            let after = find(&wanted).unwrap().unwrap();
            assert_eq!(lasting(&after), lasting(&before), "{text}");
            assert_eq!((after.scope(), after.label()), (before.scope(), before.label()));
            assert_ne!(after.flags() & libc::IFA_F_NOPREFIXROUTE, 0);
            assert!((1990..=2000).contains(&after.valid_s().unwrap()), "{after:?}");
            assert!((990..=1000).contains(&after.preferred_s().unwrap()), "{after:?}");
        });
    }
}

fn is_here(ip: IpAddr) -> bool {
    of_host().unwrap().iter().any(|assigned| assigned.ip() == Some(ip))
}

#[test]
fn what_comes_is_added_once_and_is_usable_at_once() {
    let Some(host) = host() else { return };
    host.address("192.0.2.1", 24, "d0");
    host.address("2001:db8::1", 64, "d0");
    for text in ["192.0.2.7/24", "2001:db8::7/64", "198.51.100.7/32@d0"] {
        let coming = address(text);
        host.run(|| {
            assert!(!is_here(coming.ip));
            assert_eq!(add(&coming).unwrap(), Change::Made);
            assert_eq!(add(&coming).unwrap(), Change::None);
            assert!(is_here(coming.ip));
            let there = find(&coming).unwrap().unwrap();
            assert_eq!((there.device.as_str(), there.valid_s()), ("d0", None));
            assert_eq!(there.flags() & libc::IFA_F_TENTATIVE, 0);
            std::net::TcpListener::bind((coming.ip, 0)).unwrap();
        });
    }
}

#[test]
fn what_comes_for_an_address_is_heard_as_soon_as_it_was_added() {
    let Some(host) = host() else { return };
    for number in 1..=20 {
        let coming = address(&format!("2001:db8::{number}/64@d0"));
        host.run(|| {
            add(&coming).unwrap();
            let waiting = std::net::UdpSocket::bind((coming.ip, 0)).unwrap();
            waiting.set_nonblocking(true).unwrap();
            waiting.send_to(b"knock", waiting.local_addr().unwrap()).unwrap();
            assert_eq!(waiting.recv(&mut [0; 9]).unwrap(), 5, "{coming:?}");
        });
    }
}

#[test]
fn an_address_without_a_device_goes_where_its_network_is() {
    let Some(host) = host() else { return };
    host.address("192.0.2.1", 24, "d0");
    host.device("d1");
    host.address("192.0.2.129", 25, "d1");
    host.run(|| {
        for (text, device, why) in [
            ("192.0.2.7/24", "d0", "its network"),
            ("192.0.2.130/24", "d1", "the longest prefix"),
            ("192.0.2.8/24@d1", "d1", "its name"),
        ] {
            assert_eq!(add(&address(text)).unwrap(), Change::Made);
            assert_eq!(find(&address(text)).unwrap().unwrap().device, device, "{why}");
        }
        let error = add(&address("198.51.100.7/24")).unwrap_err();
        assert_eq!(error.to_string(), "find a device for address 198.51.100.7/24");
    });
}

fn removal(host: &Host, text: &str, destination: Option<&str>) -> Vec<String> {
    let destination = destination.map(|ip| ip.parse().unwrap());
    let refusals = host.run(|| examine_removal(&address(text), destination).unwrap());
    refusals.iter().map(ToString::to_string).collect()
}

#[test]
fn an_address_on_which_others_hang_is_refused() {
    let Some(host) = host() else { return };
    host.set("net/ipv4/conf/all/promote_secondaries", "0");
    host.set("net/ipv4/conf/d0/promote_secondaries", "0");
    for last in [1, 7, 8] {
        host.address(&format!("192.0.2.{last}"), 24, "d0");
    }
    host.address("198.51.100.1", 24, "d0");
    assert_eq!(removal(&host, "192.0.2.7/24", None), [""; 0]);
    assert_eq!(
        removal(&host, "192.0.2.1/24", None),
        ["address 192.0.2.1/24 takes 192.0.2.7, 192.0.2.8 with it, its secondary addresses. Set \
          net.ipv4.conf.d0.promote_secondaries to 1: `sysctl net.ipv4.conf.d0.promote_secondaries=1`."]
    );
    host.set("net/ipv4/conf/d0/promote_secondaries", "1");
    assert_eq!(removal(&host, "192.0.2.1/24", None), [""; 0]);
    host.run(|| {
        remove(&address("192.0.2.1/24")).unwrap();
        assert!(is_here([192, 0, 2, 7].into()) && is_here([192, 0, 2, 8].into()));
    });
}

#[test]
fn an_address_that_is_not_there_or_leads_to_the_destination_is_refused() {
    let Some(host) = host() else { return };
    host.address("192.0.2.1", 24, "d0");
    host.address("192.0.2.7", 24, "d0");
    for absent in ["192.0.2.9/24", "192.0.2.7/25", "192.0.2.7/24@lo"] {
        assert_eq!(removal(&host, absent, None).len(), 1, "{absent}");
    }
    let refused = removal(&host, "192.0.2.1/24", Some("192.0.2.99"));
    assert!(refused[0].contains("talks with the destination"), "{refused:?}");
    assert_eq!(removal(&host, "192.0.2.7/24", Some("192.0.2.99")), [""; 0]);
}

#[test]
fn routes_that_would_be_lost_are_named_and_would_be_lost() {
    let Some(host) = host() else { return };
    let names = || host.run(|| routes::all().unwrap()).iter().map(ToString::to_string).collect();
    host.set("net/ipv4/conf/d0/promote_secondaries", "1");
    host.address("192.0.2.1", 24, "d0");
    host.address("192.0.2.7", 24, "d0");
    host.route("198.51.100.0", 24, "d0", Some("192.0.2.7"));
    host.route("198.51.101.0", 24, "d0", None);
    let refused = removal(&host, "192.0.2.7/24", None);
    assert!(refused[0].contains("takes routes with it: 198.51.100.0/24."), "{refused:?}");
    assert_eq!(removal(&host, "192.0.2.1/24", None), [""; 0]);
    host.run(|| remove(&address("192.0.2.7/24")).unwrap());
    let left: Vec<String> = names();
    assert_eq!(left, ["198.51.101.0/24"]);
    let refused = removal(&host, "192.0.2.1/24", None);
    assert!(refused[0].contains("takes routes with it: 198.51.101.0/24."), "{refused:?}");
    host.run(|| remove(&address("192.0.2.1/24")).unwrap());
    let left: Vec<String> = names();
    assert_eq!(left, [""; 0]);
}

#[test]
fn what_an_arriving_address_lacks_is_said() {
    let (Some(host), Some(other)) = (host(), Host::new()) else { return };
    host.address("192.0.2.1", 24, "d0");
    host.cable("c0", &other, "there");
    let lacks = |text: &str| -> Vec<String> {
        let refusals = host.run(|| examine_arrival(&address(text)).unwrap());
        refusals.iter().map(|refusal| refusal.reason.clone()).collect()
    };
    for fine in ["192.0.2.7/24", "192.0.2.1/24@eth7", "198.51.100.7/24@d0", "198.51.100.7/24@c0"] {
        assert_eq!(lacks(fine), [""; 0], "{fine}");
    }
    assert_eq!(lacks("198.51.100.7/24"), ["is of no network that this host has a device on"]);
    assert_eq!(lacks("192.0.2.7/24@eth7"), ["has no device here: there is no eth7"]);
    other.set_down("there");
    assert_eq!(lacks("192.0.2.7/24@c0"), ["would reach nobody: c0 has no carrier"]);
    host.set_down("c0");
    assert_eq!(lacks("192.0.2.7/24@c0"), ["has no device here: c0 is down"]);
}
