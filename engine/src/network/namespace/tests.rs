//! A namespace with everything in it that moves, on a small host with a bridge.

use super::super::hosts::Host;
use super::*;
use std::fs;
use std::process::Command;

/// A host with bridges, and a namespace with a cable to one of them.
struct Scene {
    host: Host,
    namespace: Namespace,
}

impl Scene {
    /// `None`, and said, where no namespaces can be made.
    fn new() -> Option<Self> {
        let host = Host::new()?;
        host.bridge("br0", &[]);
        let inner = Host::new()?;
        host.cable("tree0", &inner, "eth0");
        let namespace = Namespace(inner.namespace());
        host.plug("tree0", "br0");
        let scene = Self { host, namespace };
        scene.run(|| {
            settings("net/ipv6/conf/eth0/accept_dad", "0");
        });
        Some(scene)
    }

    /// Within the namespace.
    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.host.run(|| {
            let _inside = self.namespace.enter().unwrap();
            work()
        })
    }

    fn read(&self) -> NamespaceImage {
        let (image, blockers) = self.look();
        assert_eq!(blockers, []);
        image
    }

    fn look(&self) -> (NamespaceImage, Vec<(String, String)>) {
        self.host.run(|| {
            let (image, blockers) = NamespaceImage::read(&self.namespace).unwrap();
            (image.with_settings(&self.namespace).unwrap(), blockers)
        })
    }
}

fn settings(name: &str, value: &str) {
    fs::write(format!("/proc/sys/{name}"), value).unwrap();
}

/// `ip` as an administrator would use it; `None`, and said, where it is not installed.
fn ip(lines: &str) -> Option<()> {
    for line in lines.lines() {
        let words = line.split_whitespace();
        let Ok(output) = Command::new("ip").args(words).output() else {
            crate::skipped::skip("ip (iproute2) is not installed");
            return None;
        };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {line}: {said}");
    }
    Some(())
}

/// Not every kernel has it.
fn dummy() {
    let made = Command::new("ip").args(["link", "add", "d0", "type", "dummy"]).status();
    if !made.is_ok_and(|made| made.success()) {
        crate::skipped::skip("this kernel cannot make dummy devices");
    }
}

const EVERYTHING: &str = "\
link set eth0 mtu 1400 address 02:00:00:00:00:07 alias known
addr add 192.0.2.7/24 brd + dev eth0
addr add 192.0.2.8/24 dev eth0 label eth0:old
addr add 2001:db8::7/64 dev eth0 nodad
addr add 198.51.100.9/32 dev lo
addr add 198.51.100.1/30 dev lo
addr add 192.0.2.77/24 dev eth0 valid_lft 3000 preferred_lft 2000
route add default via 192.0.2.1
route add 203.0.113.0/24 via 192.0.2.1 metric 50 mtu 1300
route add 203.0.113.0/25 nexthop via 192.0.2.1 nexthop via 192.0.2.2
route add blackhole 203.0.113.128/25
route add default via 192.0.2.3 table 100
-6 route add default via 2001:db8::1
-6 route add 2001:db8:5::/48 via 2001:db8::2 metric 30
rule add from 192.0.2.8 lookup 100 priority 90
-6 rule add to 2001:db8:9::/48 lookup main priority 91
neigh add 192.0.2.1 lladdr 02:00:00:00:00:01 dev eth0
-6 neigh add proxy 2001:db8::99 dev eth0";

#[test]
fn everything_in_it_comes_back_as_it_was() {
    let Some(scene) = Scene::new() else { return };
    let prepared = scene.run(|| {
        settings("net/ipv4/ip_forward", "1");
        settings("net/ipv4/ip_unprivileged_port_start", "80");
        settings("net/core/somaxconn", "77");
        settings("net/ipv4/conf/eth0/arp_ignore", "1");
        dummy();
        ip(EVERYTHING)
    });
    let Some(()) = prepared else { return };
    let image = scene.read();
    let has = |path: &str| image.settings.iter().any(|setting| setting.path == path);
    assert!(has("ipv4/ip_forward") && has("ipv4/conf/eth0/arp_ignore"), "{:?}", image.settings);

    let Some(other) = Host::new() else { return };
    other.bridge("br0", &[]);
    let made = other.run(|| Made::make(&image).unwrap());
    let again = other.run(|| {
        let (again, blockers) = NamespaceImage::read(made.namespace()).unwrap();
        assert_eq!(blockers, []);
        again.with_settings(made.namespace()).unwrap()
    });
    assert_eq!(image.change(&again), None);
    let values = |image: &NamespaceImage| {
        let mut all: Vec<_> =
            image.settings.iter().map(|s| (s.path.clone(), s.value.clone())).collect();
        all.sort();
        all
    };
    assert_eq!(values(&again), values(&image));
    let cables = other.run(|| cable::into(made.namespace()).unwrap());
    assert_eq!(cables.len(), 1);
    assert_eq!(cables[0].bridge.as_deref(), Some("br0"));
    assert!(!cables[0].was_up, "nobody hears of it before it may run");
}

#[test]
fn what_was_made_is_silent_until_it_is_joined_and_reached_from_then_on() {
    let Some(scene) = Scene::new() else { return };
    let Some(()) = scene.run(|| ip("addr add 192.0.2.7/24 dev eth0")) else { return };
    let image = scene.read();
    let (Some(other), Some(client)) = (Host::new(), Host::new()) else { return };
    other.bridge("br0", &[]);
    other.cable("port0", &client, "eth0");
    other.plug("port0", "br0");
    client.address("192.0.2.9", 24, "eth0");
    let made = other.run(|| Made::make(&image).unwrap());
    let server = other.run(|| {
        let _inside = made.namespace().enter().unwrap();
        std::net::UdpSocket::bind("192.0.2.7:4711").unwrap()
    });
    server.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
    let reaches = || {
        client.run(|| {
            let socket = std::net::UdpSocket::bind("192.0.2.9:0").unwrap();
            socket.send_to(b"hello", "192.0.2.7:4711").unwrap();
        });
        server.recv(&mut [0; 8]).is_ok()
    };
    assert!(!reaches());
    let errors = other.run(|| join(made.namespace()));
    assert!(errors.is_empty(), "{errors:?}");
    assert!(reaches());
}

#[test]
fn its_cables_are_cut_and_joined_and_it_stays_what_it_was() {
    let Some(scene) = Scene::new() else { return };
    let Some(()) = scene.run(|| ip(EVERYTHING)) else { return };
    let before = scene.read();
    let cables = scene.host.run(|| cable::into(&scene.namespace).unwrap());
    assert_eq!(cables.len(), 1);
    assert_eq!((cables[0].name.as_str(), cables[0].was_up), ("tree0", true));
    scene.host.run(|| cables[0].cut().unwrap());
    assert!(!scene.host.run(|| cable::into(&scene.namespace).unwrap())[0].was_up);
    assert_eq!(before.change(&scene.read()), None, "while it is silent");
    scene.host.run(|| cables[0].join().unwrap());
    assert_eq!(scene.host.run(|| cable::into(&scene.namespace).unwrap()), cables);
    assert_eq!(before.change(&scene.read()), None, "afterwards");
    scene.host.run(|| cables[0].remove().unwrap());
    scene.host.run(|| cables[0].remove().unwrap());
    assert_eq!(scene.host.run(|| cable::into(&scene.namespace).unwrap()), []);
    scene.host.run(|| cables[0].join().unwrap());
}

#[test]
fn what_cannot_be_made_again_is_named_with_its_reason() {
    let Some(scene) = Scene::new() else { return };
    let prepared = scene.run(|| {
        ip("link add br1 type bridge\nlink add one type veth peer name two\n\
            link set two master br1")
    });
    let Some(()) = prepared else { return };
    let (_, blockers) = scene.look();
    let text: Vec<_> = blockers.iter().map(|(name, why)| format!("{name} {why}")).collect();
    for wanted in [
        "device br1 is of the kind bridge, which cannot be made again",
        "device one is a cable (veth) whose other end is not on this host",
        "device two is a port of another device",
    ] {
        assert!(text.iter().any(|text| text == wanted), "{wanted}: {text:?}");
    }
}

#[test]
fn a_cable_goes_to_the_bridge_of_the_same_name_or_the_one_that_is_named() {
    let Some(scene) = Scene::new() else { return };
    let bridges = |wanted: &[&str]| {
        let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        let mut image = scene.read();
        let refusals = image.plug_into(&wanted);
        let plugged: Vec<_> = image.bridges().map(|(d, b)| format!("{d}={b}")).collect();
        (plugged.join(" "), refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    };
    assert_eq!(bridges(&[]), ("eth0=br0".to_owned(), String::new()));
    assert_eq!(bridges(&["br7"]).0, "eth0=br7");
    assert_eq!(bridges(&["br7", "eth0=br8"]).0, "eth0=br8");
    assert!(bridges(&["eth9=br8"]).1.contains("device eth9 is no cable"));
    scene.host.unplug("tree0");
    assert!(bridges(&[]).1.contains("is a port of no bridge"), "{}", bridges(&[]).1);
    assert_eq!(bridges(&["br7"]), ("eth0=br7".to_owned(), String::new()));
}

#[test]
fn a_destination_says_what_it_lacks_and_nothing_of_it_stays() {
    let Some(scene) = Scene::new() else { return };
    let image = scene.read();
    let Some(other) = Host::new() else { return };
    let judged = |image: &NamespaceImage| {
        let (like_it, refusals) = other.run(|| judge(image).unwrap());
        let text = refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        (like_it.is_some(), text)
    };
    let (can_be_made, text) = judged(&image);
    assert!(can_be_made && text.contains("bridge br0 is not here"), "{text}");
    other.bridge("br0", &[]);
    assert_eq!(judged(&image), (true, String::new()));
    let Some(()) = scene.run(|| ip("addr add 192.0.2.7/24 dev eth0")) else { return };
    let with_address = scene.read();
    other.run(|| {
        let like_it = judge(&with_address).unwrap().0.unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
        let _inside = like_it.enter().unwrap();
        std::net::UdpSocket::bind("192.0.2.7:0").unwrap();
    });
    let unknown = settings::Setting { path: "ipv4/no_such".to_owned(), value: "1".to_owned() };
    let with = |settings| {
        let mut image = image.clone();
        image.settings = settings;
        image
    };
    let (can_be_made, text) = judged(&with(vec![unknown]));
    assert!(!can_be_made && text.contains("net/ipv4/no_such"), "{text}");
    let out = settings::Setting { path: "../kernel/hostname".to_owned(), value: "x".to_owned() };
    let (can_be_made, text) = judged(&with(vec![out]));
    assert!(!can_be_made && text.contains("no setting of a network"), "{text}");
    assert_eq!(other.run(|| link::all().unwrap().len()), 2, "its own lo and br0");
}

#[test]
fn a_thread_is_in_it_until_it_leaves() {
    let here = || fs::read_link("/proc/thread-self/ns/net").unwrap();
    let before = here();
    let Ok(made) = Namespace::make() else {
        return crate::skipped::skip("network namespaces cannot be made here");
    };
    let inside = made.enter().unwrap();
    assert_ne!(here(), before);
    let ours = Namespace::ours().unwrap().inode().unwrap();
    assert_ne!(made.inode().unwrap(), ours, "wherever the thread is");
    drop(inside);
    assert_eq!(here(), before);
}

#[test]
fn a_process_of_our_own_is_in_none() {
    assert!(Namespace::of_process(std::process::id().cast_signed()).unwrap().is_none());
}

#[test]
fn a_socket_stays_where_it_was_made() {
    let Ok(made) = Namespace::make() else {
        return crate::skipped::skip("network namespaces cannot be made here");
    };
    let us = std::process::id().cast_signed();
    let inside = made.enter().unwrap();
    let there = sys::sock::socket(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
    drop(inside);
    let here = sys::sock::socket(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
    assert!(is_elsewhere(there.as_fd(), us).unwrap());
    assert!(!is_elsewhere(here.as_fd(), us).unwrap());
}
