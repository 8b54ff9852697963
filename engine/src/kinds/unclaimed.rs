//! What no kind claims is refused in words that the operator knows.

use super::{Findings, Seen, SocketSeen};

/// Refuses a description that no kind claims.
pub(crate) fn refuse_unclaimed(seen: &Seen, findings: &mut Findings) {
    let (name, detail) = name(seen);
    let object = seen.object(name);
    let reason = match detail {
        Some(detail) => format!("({detail}) cannot be moved"),
        None => "cannot be moved".to_owned(),
    };
    findings.refuse(object, reason, "Let the program close it first.");
}

/// What it is, and which one.
fn name(seen: &Seen) -> (&'static str, Option<String>) {
    if let Some(socket) = &seen.socket {
        return (socket_name(socket), unix_name(socket));
    }
    let named = |name| (name, Some(seen.link.clone()));
    match seen.shape() {
        libc::S_IFCHR if seen.field("tty-index").is_some() => {
            named("controlling side of a terminal")
        }
        libc::S_IFCHR => named("character device"),
        libc::S_IFBLK => named("block device"),
        libc::S_IFSOCK => named("socket"),
        _ => match anonymous_name(&seen.link) {
            Some(name) => (name, None),
            None => named("descriptor of an unknown kind"),
        },
    }
}

/// The names that the kernel gives its anonymous files: proc(5).
fn anonymous_name(link: &str) -> Option<&'static str> {
    const NAMES: &[(&str, &str)] = &[
        ("anon_inode:[io_uring]", "io_uring"),
        ("anon_inode:[userfaultfd]", "userfaultfd"),
        ("anon_inode:[perf_event]", "perf event"),
        ("anon_inode:[fanotify]", "fanotify group"),
        ("anon_inode:[landlock-ruleset]", "landlock ruleset"),
        ("anon_inode:seccomp notify", "seccomp notifier"),
        ("anon_inode:bpf", "BPF object"),
        ("anon_inode:[fscontext]", "mount in the making"),
        ("anon_inode:kvm", "virtual machine"),
        ("anon_inode:", "anonymous descriptor of the kernel"),
        ("mnt:[", "mount namespace"),
        ("net:[", "network namespace"),
        ("pid:[", "PID namespace"),
        ("user:[", "user namespace"),
        ("uts:[", "UTS namespace"),
        ("ipc:[", "IPC namespace"),
        ("cgroup:[", "cgroup namespace"),
        ("time:[", "time namespace"),
    ];
    NAMES.iter().find(|(start, _)| link.starts_with(start)).map(|(_, name)| *name)
}

/// linux/socket.h; `libc` does not have it.
const AF_SMC: i32 = 43;

fn socket_name(socket: &SocketSeen) -> &'static str {
    match (socket.domain, socket.kind) {
        (libc::AF_UNIX, _) if socket.listening => "listening unix socket",
        (libc::AF_UNIX, _) => "unix socket",
        (libc::AF_INET | libc::AF_INET6, _) => ip_name(socket.protocol),
        (libc::AF_PACKET, _) => "packet socket",
        (libc::AF_VSOCK, _) => "vsock socket",
        (libc::AF_ALG, _) => "crypto socket",
        (libc::AF_XDP, _) => "XDP socket",
        (libc::AF_KEY, _) => "IPsec key socket",
        (libc::AF_CAN, _) => "CAN socket",
        (libc::AF_BLUETOOTH, _) => "Bluetooth socket",
        (libc::AF_TIPC, _) => "TIPC socket",
        (AF_SMC, _) => "SMC socket",
        _ => "socket of an unknown family",
    }
}

fn ip_name(protocol: i32) -> &'static str {
    match protocol {
        libc::IPPROTO_SCTP => "SCTP socket",
        libc::IPPROTO_DCCP => "DCCP socket",
        libc::IPPROTO_UDPLITE => "UDP-Lite socket",
        libc::IPPROTO_MPTCP => "Multipath TCP socket",
        _ => "IP socket of an unknown protocol",
    }
}

fn unix_name(socket: &SocketSeen) -> Option<String> {
    socket.unix.as_ref()?.shown_name()
}

#[cfg(test)]
mod tests {
    use super::super::Rules;
    use crate::descriptors::trip::describe;
    use std::fs::File;

    #[test]
    fn a_namespace_and_a_packet_socket_are_refused_by_name() {
        let namespace = File::open("/proc/self/ns/net").unwrap();
        let packet = crate::sys::sock::socket(libc::AF_PACKET, libc::SOCK_RAW, 0).unwrap();
        let refusals = describe(&[&namespace, &packet], Rules::default()).refusals;
        let text = refusals.iter().map(ToString::to_string).collect::<String>();
        for word in ["network namespace", "packet socket"] {
            assert!(text.contains(word), "{word} in {text}");
        }
    }
}
