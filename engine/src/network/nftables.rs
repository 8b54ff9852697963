//! Sentences to nf_tables, the kernel's packet filter: tables, sets, chains and rules, all or
//! nothing in one batch. No `nft` is needed, and what we write it can list.

pub(super) mod expression;

use super::netlink::{Attributes, Failure, Message, Socket};
use expression::Expression;
use std::io;

/// One batch for one table of the family `inet`.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    table: &'a str,
    steps: Vec<Step>,
}

/// What a message is for, to be said when it fails.
#[derive(Debug)]
struct Step {
    what: String,
    message: Message,
}

/// Where packets are looked at: NF_INET_* of the kernel.
#[derive(Clone, Copy, Debug)]
pub(super) enum Hook {
    PreRouting = 0,
    Input = 1,
    Output = 3,
}

/// A named part of a set's key: what `nft` calls its type, and the registers that it fills.
#[derive(Clone, Copy, Debug)]
pub(super) enum Field {
    Ipv4,
    Ipv6,
    Port,
}

impl Field {
    /// `enum datatypes` of nft(8), by which it lists the set; the kernel does not look at it.
    fn datatype(self) -> u32 {
        match self {
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::Port => 13,
        }
    }

    pub(super) fn bytes(self) -> u32 {
        match self {
            Self::Ipv4 => 4,
            Self::Ipv6 => 16,
            Self::Port => 2,
        }
    }

    /// Every part of a key fills whole registers of four bytes.
    pub(super) fn registers(self) -> u32 {
        self.bytes().div_ceil(4)
    }
}

impl<'a> Batch<'a> {
    pub(super) fn of(table: &'a str) -> Self {
        Self { table, steps: Vec::new() }
    }

    /// A table that nobody else can change, and that ends with the socket over which it was made:
    /// NFT_TABLE_F_OWNER, Linux 5.12.
    pub(super) fn own_table(self) -> Self {
        const OWNER: u32 = 2;
        self.table_with(OWNER)
    }

    pub(super) fn table_with(self, flags: u32) -> Self {
        let name = self.table;
        let attributes = Attributes::new().text(1, name).big_endian(2, flags);
        self.step("table", name, libc::NFT_MSG_NEWTABLE, NEW, &attributes)
    }

    #[cfg(test)]
    pub(super) fn delete_table(self) -> Self {
        let name = self.table;
        let attributes = Attributes::new().text(1, name);
        self.step("table", name, libc::NFT_MSG_DELTABLE, 0, &attributes)
    }

    pub(super) fn set(self, name: &str, key: &[Field]) -> Self {
        const TYPE_BITS: u32 = 6;
        let datatype = key.iter().fold(0, |all, field| all << TYPE_BITS | field.datatype());
        // To be told from others of the batch; what refers to it does so by name.
        let id = u32::try_from(self.steps.len()).expect("a batch is short");
        let registers: u32 = key.iter().map(|field| field.registers()).sum();
        let attributes = Attributes::new()
            .text(1, self.table)
            .text(2, name)
            .big_endian(3, 0)
            .big_endian(4, datatype)
            .big_endian(5, 4 * registers)
            .big_endian(10, id);
        self.step("set", name, libc::NFT_MSG_NEWSET, NEW, &attributes)
    }

    /// A chain that accepts what none of its rules drops.
    pub(super) fn chain(self, name: &str, hook: Hook, priority: i32) -> Self {
        let at =
            Attributes::new().big_endian(1, hook as u32).big_endian(2, priority.cast_unsigned());
        let accept = 1;
        let attributes = Attributes::new()
            .text(1, self.table)
            .text(3, name)
            .nest(4, &at)
            .big_endian(5, accept)
            .text(7, "filter");
        self.step("chain", name, libc::NFT_MSG_NEWCHAIN, NEW, &attributes)
    }

    pub(super) fn rule(self, chain: &str, expressions: &[Expression]) -> Self {
        let list = expressions
            .iter()
            .fold(Attributes::new(), |list, expression| list.nest(1, expression.attributes()));
        let attributes = Attributes::new().text(1, self.table).text(2, chain).nest(4, &list);
        let flags = libc::NLM_F_CREATE | libc::NLM_F_APPEND;
        self.step("rule of chain", chain, libc::NFT_MSG_NEWRULE, flags, &attributes)
    }

    /// Members that are there already stay.
    pub(super) fn add(self, set: &str, keys: &[Vec<u8>]) -> Self {
        self.members(set, keys, libc::NFT_MSG_NEWSETELEM, libc::NLM_F_CREATE)
    }

    /// Members that must be there.
    pub(super) fn remove(self, set: &str, keys: &[Vec<u8>]) -> Self {
        self.members(set, keys, libc::NFT_MSG_DELSETELEM, 0)
    }

    fn members(mut self, set: &str, keys: &[Vec<u8>], message: i32, flags: i32) -> Self {
        /// An attribute is shorter than 64 KiB; a member with the longest key has 52 bytes.
        const AT_ONCE: usize = 1000;
        for keys in keys.chunks(AT_ONCE) {
            let list = keys.iter().fold(Attributes::new(), |list, key| {
                let value = Attributes::new().bytes(1, key);
                list.nest(1, &Attributes::new().nest(1, &value))
            });
            let attributes = Attributes::new().text(1, self.table).text(2, set).nest(3, &list);
            self = self.step("set", set, message, flags, &attributes);
        }
        self
    }

    fn step(
        mut self,
        part: &str,
        name: &str,
        message: i32,
        flags: i32,
        attributes: &Attributes,
    ) -> Self {
        let kind = u16::try_from(libc::NFNL_SUBSYS_NFTABLES << 8 | message).expect("a short kind");
        let family = [u8::try_from(libc::NFPROTO_INET).expect("a short family"), 0, 0, 0];
        let message = Message::new(kind, flags | libc::NLM_F_ACK, &family, attributes);
        self.steps.push(Step { what: format!("{part} {name}"), message });
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Does all of it, or nothing.
    pub(super) fn commit(&self, socket: &Socket) -> io::Result<()> {
        self.converse(socket, &[self.begin(), self.middle(), self.end()].concat())
    }

    /// Whether the kernel would do all of it. A batch without an end is looked at and taken back.
    pub(super) fn rehearse(&self, socket: &Socket) -> io::Result<()> {
        self.converse(socket, &[self.begin(), self.middle()].concat())
    }

    fn begin(&self) -> Vec<u8> {
        edge(libc::NFNL_MSG_BATCH_BEGIN).encode(0)
    }

    fn middle(&self) -> Vec<u8> {
        self.steps.iter().zip(1..).flat_map(|(step, at)| step.message.encode(at)).collect()
    }

    fn end(&self) -> Vec<u8> {
        let after = u32::try_from(self.steps.len() + 1).expect("a batch is short");
        edge(libc::NFNL_MSG_BATCH_END).encode(after)
    }

    /// The kernel works while we send, so every answer is there when that returns.
    fn converse(&self, socket: &Socket, bytes: &[u8]) -> io::Result<()> {
        socket.send(bytes)?;
        let answers = socket.answers_at_once()?;
        for answer in &answers {
            if let Some(failure) = answer.failure() {
                return Err(self.blame(answer.sequence, failure));
            }
        }
        if answers.len() < self.steps.len() {
            return Err(io::Error::other("the kernel did not answer to every part of the batch"));
        }
        Ok(())
    }

    fn blame(&self, sequence: u32, failure: Failure) -> io::Error {
        let error = io::Error::from(failure);
        let step = (sequence as usize).checked_sub(1).and_then(|at| self.steps.get(at));
        let what = step.map_or("the batch", |step| &step.what);
        io::Error::new(error.kind(), format!("{what}: {error}"))
    }
}

const NEW: i32 = libc::NLM_F_CREATE | libc::NLM_F_EXCL;

/// The beginning or the end of a batch names the subsystem it is for, in network order.
fn edge(kind: i32) -> Message {
    let kind = u16::try_from(kind).expect("a short kind");
    let subsystem = u8::try_from(libc::NFNL_SUBSYS_NFTABLES).expect("a short number");
    Message::new(kind, 0, &[0, 0, 0, subsystem], &Attributes::new())
}
