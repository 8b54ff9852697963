//! The silence around connections that stand still: nothing of them comes in, and nothing goes out.
//!
//! A frozen program's connections live on in the kernel. It answers the peer, sends again what was
//! not answered, and where a connection is gone already, it resets it. So while a connection is on
//! its way from one host to another, both hosts drop every segment of it; to the peer that is a
//! network which loses packets, and TCP was made for such.
//!
//! The lock is a table of nf_tables that belongs to a socket of ours (NFT_TABLE_F_OWNER). It ends
//! with that socket, also when we are killed, so nothing is ever left behind. Nobody else can
//! change it, also not `nft flush ruleset`, and what others filter stays as it is. A child that we
//! fork and that does not call execve(2) keeps the socket, and so the lock.
//!
//! What is dropped where:
//!
//! | hook | connections | gates | why there |
//! |---|---|---|---|
//! | prerouting | incoming | | before the routing decision: no reset, redirect or ICMP error either, when the address has moved and packets for it would be forwarded |
//! | input | incoming | SYN | as the socket sees it, should an address have been translated before |
//! | output | outgoing | | whatever the kernel sends, including resets; before translation |
//!
//! All of it comes before connection tracking, so that a window seen there stays the last one that
//! both ends know. What was given to a device's queue before cannot be called back.

mod flow;
mod rules;

use super::netlink::Socket;
use super::nftables::Batch;
use crate::error::{Error, Object, OnObject as _};
use crate::refusal::Refusal;
use flow::Key;
pub use flow::{Flow, Gate};
use rules::rules;
use std::collections::BTreeSet;
use std::io;

/// Holds connections still and gates shut, in the network namespace of the thread that opened it,
/// until it is dropped.
///
/// Dropping waits until no processor works with the table any more, which takes some milliseconds:
/// where time counts, use [`Lock::end`].
#[derive(Debug)]
pub struct Lock {
    socket: Socket,
    table: String,
    held: BTreeSet<Key>,
    shut: BTreeSet<Key>,
}

/// Room for a batch of 100,000 connections.
const BATCH_BYTES_MAX: i32 = 8 << 20;

impl Lock {
    /// Makes an empty lock. The first filter of a host changes kernel code, which takes some
    /// milliseconds, so this is done while the tree still runs.
    ///
    /// # Errors
    /// EOPNOTSUPP or EINVAL without nf_tables or before Linux 5.12; EPERM without CAP_NET_ADMIN.
    pub fn open() -> Result<Self, Error> {
        let object = || Object::Network { name: "the packet filter".to_owned() };
        let socket = connect().on("open", object)?;
        let port = socket.port().on("name", object)?;
        let lock = Self {
            socket,
            table: format!("migrate-{port}"),
            held: BTreeSet::new(),
            shut: BTreeSet::new(),
        };
        lock.whole().commit(&lock.socket).on("make", || lock.object())?;
        Ok(lock)
    }

    /// What this host lacks for a lock. Nothing is made.
    pub fn probe() -> Option<Refusal> {
        Self::rehearse().err().map(|error| Refusal {
            object: Object::Host,
            reason: format!("cannot keep connections silent: {error}"),
            advice: "It takes nf_tables of Linux 5.12 or newer (CONFIG_NF_TABLES_INET), and root."
                .to_owned(),
        })
    }

    /// Has the kernel look at one, and make nothing. Errors as of [`Self::open`].
    pub(crate) fn rehearse() -> io::Result<()> {
        let socket = connect()?;
        rules(Batch::of("migrate-probe").own_table()).rehearse(&socket)
    }

    /// From now on nothing of these connections comes in or goes out. Those that are held already
    /// stay so.
    ///
    /// # Errors
    /// None is held that was not: EINVAL for an end without an address, the kernel's own errors.
    pub fn hold(&mut self, flows: &[Flow]) -> Result<(), Error> {
        let keys = flow_keys(flows)?;
        self.change(|batch| add(batch, "flows", &keys))
            .on("hold connections by", || self.object())?;
        self.held.extend(keys);
        Ok(())
    }

    /// From now on new connections (SYN without ACK) to these are not heard. The peer asks again
    /// after a second. What was asked before still ends up with the listener.
    ///
    /// # Errors
    /// Those of the kernel; none is shut that was not.
    pub fn shut(&mut self, gates: &[Gate]) -> Result<(), Error> {
        let keys: BTreeSet<_> = gates.iter().map(Gate::key).collect();
        self.change(|batch| add(batch, "gates", &keys)).on("shut gates by", || self.object())?;
        self.shut.extend(keys);
        Ok(())
    }

    /// Releases every connection and opens every gate, at once. The empty lock stays.
    ///
    /// # Errors
    /// Those of the kernel; nothing is changed.
    pub fn clear(&mut self) -> Result<(), Error> {
        let removed =
            self.change(|batch| remove(remove(batch, "flows", &self.held), "gates", &self.shut));
        removed.on("clear", || self.object())?;
        self.held.clear();
        self.shut.clear();
        Ok(())
    }

    /// Ends it with nothing held, and without waiting for that.
    ///
    /// # Errors
    /// Those of [`Self::clear`]; it ends all the same.
    pub fn end(mut self) -> Result<(), Error> {
        let cleared = self.clear();
        // Without a thread it has ended at once.
        drop(std::thread::Builder::new().name("unlock".to_owned()).spawn(move || drop(self)));
        cleared
    }

    fn change<'a>(&'a self, with: impl FnOnce(Batch<'a>) -> Batch<'a>) -> io::Result<()> {
        let batch = with(Batch::of(&self.table));
        if batch.is_empty() { Ok(()) } else { batch.commit(&self.socket) }
    }

    fn whole(&self) -> Batch<'_> {
        rules(Batch::of(&self.table).own_table())
    }

    fn object(&self) -> Object {
        Object::Network { name: format!("the packet filter {}", self.table) }
    }
}

fn connect() -> io::Result<Socket> {
    let socket = Socket::open(libc::NETLINK_NETFILTER)?;
    socket.make_room(BATCH_BYTES_MAX)?;
    Ok(socket)
}

fn flow_keys(flows: &[Flow]) -> Result<BTreeSet<Key>, Error> {
    flows.iter().map(Flow::key).collect()
}

fn add<'a>(batch: Batch<'a>, what: &str, keys: &BTreeSet<Key>) -> Batch<'a> {
    by_set(what, keys).into_iter().fold(batch, |batch, (set, keys)| batch.add(&set, &keys))
}

fn remove<'a>(batch: Batch<'a>, what: &str, keys: &BTreeSet<Key>) -> Batch<'a> {
    by_set(what, keys).into_iter().fold(batch, |batch, (set, keys)| batch.remove(&set, &keys))
}

fn by_set(what: &str, keys: &BTreeSet<Key>) -> [(String, Vec<Vec<u8>>); 3] {
    let mut sets = ["4", "6", ""].map(|version| (format!("{what}{version}"), Vec::new()));
    for key in keys {
        match key {
            Key::V4(key) => sets[0].1.push(key.clone()),
            Key::V6(key) => sets[1].1.push(key.clone()),
            Key::Any(key) => sets[2].1.push(key.clone()),
        }
    }
    sets
}

#[cfg(test)]
mod tests;
