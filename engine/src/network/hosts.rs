//! Small hosts for tests: network namespaces, joined by cables. They end with the test.

use super::address::bytes;
use super::netlink::{Attributes, Message, Socket};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::thread;

/// A network namespace with its loopback device up.
pub(super) struct Host(File);

impl Host {
    /// `None`, and said, when this machine lets us make none.
    pub(super) fn new() -> Option<Self> {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).ok()?;
            let host = Self(File::open("/proc/thread-self/ns/net").unwrap());
            // Nothing here waits until it is sure that nobody else has an address.
            set("net/ipv6/conf/default/accept_dad", "0");
            up("lo");
            Some(host)
        });
        let made = made.join().unwrap();
        if made.is_none() {
            crate::skipped::skip("network namespaces cannot be made here");
        }
        made
    }

    /// Does something on this host.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let here = || {
            setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        thread::scope(|scope| scope.spawn(here).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// A cable to another host: a device of this name at either end.
    pub(super) fn cable(&self, name: &str, other: &Self, name_there: &str) {
        let there = u32::try_from(other.0.as_raw_fd()).unwrap();
        let peer = [
            &[0; 16][..],
            &encoded(
                &Attributes::new()
                    .text(libc::IFLA_IFNAME, name_there)
                    .native(libc::IFLA_NET_NS_FD, there),
            ),
        ]
        .concat();
        let cable = Attributes::new()
            .text(libc::IFLA_INFO_KIND, "veth")
            .nest(libc::IFLA_INFO_DATA, &Attributes::new().bytes(VETH_INFO_PEER, &peer));
        self.run(|| {
            make_device(name, &cable);
            up(name);
        });
        other.run(|| up(name_there));
    }

    /// A device whose cable ends on this host as well.
    pub(super) fn device(&self, name: &str) {
        self.cable(name, self, &format!("{name}-end"));
    }

    /// A switch with these devices as its ports.
    pub(super) fn bridge(&self, name: &str, ports: &[&str]) {
        self.run(|| {
            make_device(name, &Attributes::new().text(libc::IFLA_INFO_KIND, "bridge"));
            up(name);
            for port in ports {
                master(port, index(name));
            }
        });
    }

    /// Makes a device a port of a bridge.
    pub(super) fn plug(&self, port: &str, bridge: &str) {
        self.run(|| master(port, index(bridge)));
    }

    pub(super) fn unplug(&self, port: &str) {
        self.run(|| master(port, 0));
    }

    /// For whoever keeps it himself.
    pub(super) fn namespace(&self) -> File {
        self.0.try_clone().unwrap()
    }

    /// Adds an address, as an administrator would.
    pub(super) fn address(&self, ip: &str, prefix: u8, device: &str) {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        self.run(|| route(&address(libc::RTM_NEWADDR, flags, ip, prefix, device)));
    }

    pub(super) fn remove_address(&self, ip: &str, prefix: u8, device: &str) {
        self.run(|| route(&address(libc::RTM_DELADDR, 0, ip, prefix, device)));
    }

    /// Adds a route as an administrator would, through a device and perhaps from an address.
    pub(super) fn route(&self, to: &str, prefix: u8, device: &str, from: Option<&str>) {
        const MAIN_STATIC_LINK_UNICAST: [u8; 4] = [254, 4, 253, 1];
        let ip = |text: &str| bytes(text.parse().unwrap());
        let family = if to.contains(':') { libc::AF_INET6 } else { libc::AF_INET };
        let family = [u8::try_from(family).unwrap(), prefix, 0, 0];
        let fixed = [&family[..], &MAIN_STATIC_LINK_UNICAST, &[0; 4]].concat();
        self.run(|| {
            let through = Attributes::new()
                .bytes(libc::RTA_DST, &ip(to))
                .native(libc::RTA_OIF, index(device));
            let all =
                from.iter().fold(through, |all, from| all.bytes(libc::RTA_PREFSRC, &ip(from)));
            route(&Message::new(libc::RTM_NEWROUTE, libc::NLM_F_CREATE, &fixed, &all));
        });
    }

    /// Writes to /proc/sys.
    pub(super) fn set(&self, name: &str, value: &str) {
        self.run(|| set(name, value));
    }

    pub(super) fn set_down(&self, device: &str) {
        const UP: u32 = 1;
        self.run(|| {
            let fixed = [link(index(device), 0)[..12].to_vec(), UP.to_ne_bytes().to_vec()].concat();
            route(&Message::new(libc::RTM_NEWLINK, 0, &fixed, &Attributes::new()));
        });
    }
}

const VETH_INFO_PEER: u16 = 1;

fn set(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/{name}"), value).unwrap();
}

pub(super) fn index(device: &str) -> u32 {
    nix::net::if_::if_nametoindex(device).unwrap()
}

fn up(device: &str) {
    const UP: u32 = 1;
    route(&Message::new(libc::RTM_NEWLINK, 0, &link(index(device), UP), &Attributes::new()));
}

/// `struct ifinfomsg`: the flags are the only ones that are changed.
fn link(index: u32, flags: u32) -> Vec<u8> {
    [0, index, flags, flags].iter().flat_map(|word: &u32| word.to_ne_bytes()).collect()
}

fn master(port: &str, bridge: u32) {
    let master = Attributes::new().native(libc::IFLA_MASTER, bridge);
    route(&Message::new(libc::RTM_NEWLINK, 0, &link(index(port), 0), &master));
}

fn make_device(name: &str, kind: &Attributes) {
    let attributes =
        Attributes::new().text(libc::IFLA_IFNAME, name).nest(libc::IFLA_LINKINFO, kind);
    let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    route(&Message::new(libc::RTM_NEWLINK, flags, &link(0, 0), &attributes));
}

fn address(kind: u16, flags: i32, ip: &str, prefix: u8, device: &str) -> Message {
    let ip: IpAddr = ip.parse().unwrap();
    let family = if ip.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let ip = bytes(ip);
    let nodad = u8::try_from(libc::IFA_F_NODAD).unwrap();
    let mut fixed = vec![u8::try_from(family).unwrap(), prefix, nodad, 0];
    fixed.extend(index(device).to_ne_bytes());
    let attributes = Attributes::new().bytes(libc::IFA_LOCAL, &ip).bytes(libc::IFA_ADDRESS, &ip);
    Message::new(kind, flags, &fixed, &attributes)
}

fn route(message: &Message) {
    Socket::open(libc::NETLINK_ROUTE).unwrap().request(message).unwrap();
}

/// The bytes of attributes, for one that has a fixed part before its own.
fn encoded(attributes: &Attributes) -> Vec<u8> {
    Message::new(0, 0, &[], attributes).encode(0)[16..].to_vec()
}
