//! What stands against moving the network namespace of a tree.

use super::super::netlink::{Attributes, Message, Socket, number};
use super::contents::{Blocker, NamespaceImage};
use super::{Namespace, link};
use crate::error::{Error, Object};
use crate::refusal::Refusal;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

/// A look at the network namespace of a tree. Of a tree that lives in ours there is nothing to say.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) namespace: Option<Namespace>,
    pub(crate) image: Option<NamespaceImage>,
    pub(crate) refusals: Vec<Refusal>,
}

/// The first process is the root of the tree.
pub(crate) fn examine(pids: &[i32]) -> Result<Found, Error> {
    let Some(&root) = pids.first() else { return Ok(Found::default()) };
    let apart = apart(root, pids);
    let Some(namespace) = Namespace::of_process(root)? else {
        return Ok(Found { refusals: apart, ..Found::default() });
    };
    let (image, mut blockers) = NamespaceImage::read(&namespace)?;
    blockers.extend(foreign_rules(&namespace)?);
    let mut refusals = apart;
    refusals.extend(strangers(namespace.inode()?, root, pids));
    refusals.extend(blockers.into_iter().map(|blocker| refusal(root, blocker)));
    let image = Some(image.with_settings(&namespace)?);
    Ok(Found { namespace: Some(namespace), image, refusals })
}

fn refusal(root: i32, (name, reason): Blocker) -> Refusal {
    let name = format!("{name} in the network namespace of process {root}");
    let advice = "Take it out of the namespace, or move the program without.".to_owned();
    Refusal { object: Object::Network { name }, reason, advice }
}

/// Processes of the tree that are elsewhere. One that ends meanwhile is nowhere.
fn apart(root: i32, pids: &[i32]) -> Vec<Refusal> {
    let of = |pid: i32| fs::metadata(format!("/proc/{pid}/ns/net")).map(|found| found.ino()).ok();
    let of_root = of(root);
    let differs = |pid: &&i32| of_root.is_some() && of(**pid).is_some_and(|it| Some(it) != of_root);
    let refusal = |pid: &i32| Refusal {
        object: Object::Process { pid: *pid },
        reason: format!("is in another network namespace than process {root}"),
        advice: "A tree moves with one network namespace, or with none of its own.".to_owned(),
    };
    pids.iter().filter(differs).map(refusal).collect()
}

/// Processes in the namespace that are not of the tree: they would be left without a network.
fn strangers(inode: u64, root: i32, pids: &[i32]) -> Vec<Refusal> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let all = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let ours = std::process::id().cast_signed();
    let others = all.filter(|pid: &i32| *pid != ours && !pids.contains(pid));
    let refusal = |pid| Refusal {
        object: Object::Process { pid },
        reason: format!("lives in the network namespace of process {root} and is not of its tree"),
        advice: "Move the process that both descend from, or stop this one.".to_owned(),
    };
    others.filter(|pid| lives_in(*pid, inode)).map(refusal).collect()
}

/// Whether any of its threads does.
fn lives_in(pid: i32, inode: u64) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().any(|thread| {
        fs::metadata(thread.path().join("ns/net")).is_ok_and(|found| found.ino() == inode)
    })
}

/// Rules of the kernel for packets, which nothing here can read and make again.
fn foreign_rules(namespace: &Namespace) -> Result<Vec<Blocker>, Error> {
    let _inside = namespace.enter()?;
    let mut found = Vec::new();
    let mut refuse = |is_there: bool, name: &str| {
        if is_there {
            found.push((name.to_owned(), "cannot be moved".to_owned()));
        }
    };
    refuse(has_nftables(), "a ruleset of nf_tables");
    for version in ["ip", "ip6", "arp"] {
        let names = proc(&format!("{version}_tables_names"));
        refuse(!names.trim().is_empty(), &format!("a ruleset of {version}tables"));
    }
    // The first three lines say what the columns are.
    refuse(proc("ip_vs").lines().count() > 3, "a virtual service (IPVS)");
    refuse(has_ipsec(), "an IPsec policy or association");
    for device in shaped()? {
        found.push((format!("device {device}"), "has a queueing discipline of its own".to_owned()));
    }
    Ok(found)
}

fn proc(name: &str) -> String {
    fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default()
}

/// A kernel without any of it has nothing of it.
fn has_any(protocol: i32, kind: u16, fixed: &[u8]) -> bool {
    let message = Message::new(kind, 0, fixed, &Attributes::new());
    let list = Socket::open(protocol).map(|socket| socket.list(&message).unwrap_or_default());
    list.is_ok_and(|list| !list.is_empty())
}

/// NFT_MSG_GETTABLE, of every family.
fn has_nftables() -> bool {
    const GET_TABLE: u16 = 10 << 8 | 1;
    has_any(libc::NETLINK_NETFILTER, GET_TABLE, &[0; 4])
}

/// XFRM_MSG_GETSA with `struct xfrm_usersa_id`, XFRM_MSG_GETPOLICY with `struct xfrm_userpolicy_id`.
fn has_ipsec() -> bool {
    const GET_ASSOCIATION: u16 = 0x12;
    const GET_POLICY: u16 = 0x15;
    has_any(libc::NETLINK_XFRM, GET_ASSOCIATION, &[0; 24])
        || has_any(libc::NETLINK_XFRM, GET_POLICY, &[0; 64])
}

/// Devices with a discipline that somebody has set, tc(8): it has a handle, and the kernel's own
/// have none. `struct tcmsg` has the device before it.
fn shaped() -> Result<Vec<String>, Error> {
    const TCMSG_BYTES: usize = 20;
    let message = Message::new(libc::RTM_GETQDISC, 0, &[0; TCMSG_BYTES], &Attributes::new());
    let list = Socket::open(libc::NETLINK_ROUTE).map(|socket| socket.list(&message));
    let list = list.ok().and_then(Result::ok).unwrap_or_default();
    let of = list.iter().filter(|body| number(body, 8).is_some_and(|handle| handle != 0));
    let of: Vec<u32> = of.filter_map(|body| number(body, 4)).collect();
    let shaped = link::all()?.into_iter().filter(|device| of.contains(&device.index));
    Ok(shaped.map(|device| device.name).collect())
}
