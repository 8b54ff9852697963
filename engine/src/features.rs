//! The kernel features that we use: what each is for, and whether this host has it.
//!
//! A feature is judged by what it does, tried out on memory, processes and sockets of our own. Only
//! where an errno cannot lie is it believed. Nothing of a trial is left.
//!
//! To add one: an entry in the file that it belongs to.

mod descriptors;
mod groups;
mod memory;
mod network;
mod presence;
mod processes;
mod sockets;
mod tracing;
mod verdict;

pub(crate) use memory::USERFAULTFD;
pub use presence::{Absence, Presence};
pub(crate) use processes::TIME_NAMESPACE;
use std::io;
pub use verdict::{Ability, Found, Verdict};

/// What a host can do with a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Send,
    Receive,
    Store,
    Restore,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Send, Self::Receive, Self::Store, Self::Restore];

    /// As a verb, and in the events of `--json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Receive => "receive",
            Self::Store => "store",
            Self::Restore => "restore",
        }
    }
}

const EVERYTHING: Need = Need::Needed(&Role::ALL);
const TAKING_APART: Need = Need::Needed(&[Role::Send, Role::Store]);
const PUTTING_TOGETHER: Need = Need::Needed(&[Role::Receive, Role::Restore]);

/// How bad it is to be without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// None of this can be done.
    Needed(&'static [Role]),
    /// None of this can be done, unless the feature of that name is here.
    NeededUnless(&'static str, &'static [Role]),
    /// Something is lost; the rest can be done.
    Useful,
}

impl Need {
    pub fn roles(self) -> &'static [Role] {
        match self {
            Self::Needed(roles) | Self::NeededUnless(_, roles) => roles,
            Self::Useful => &[],
        }
    }
}

/// What we must be allowed for it, and what else the operator can forbid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    /// As capabilities(7) has it, and its number.
    pub capability: Option<(&'static str, u32)>,
    /// As sysctl(8) has it.
    pub sysctl: Option<&'static str>,
}

impl Permission {
    /// Everybody may.
    pub const FREE: Self = Self { capability: None, sysctl: None };

    const fn of(capability: (&'static str, u32)) -> Self {
        Self { capability: Some(capability), sysctl: None }
    }

    const fn and(self, sysctl: &'static str) -> Self {
        Self { sysctl: Some(sysctl), ..self }
    }
}

const DAC_READ_SEARCH: (&str, u32) = ("CAP_DAC_READ_SEARCH", 2);
const NET_ADMIN: (&str, u32) = ("CAP_NET_ADMIN", 12);
const NET_RAW: (&str, u32) = ("CAP_NET_RAW", 13);
const SYS_PTRACE: (&str, u32) = ("CAP_SYS_PTRACE", 19);
const SYS_ADMIN: (&str, u32) = ("CAP_SYS_ADMIN", 21);
const SYS_NICE: (&str, u32) = ("CAP_SYS_NICE", 23);

#[derive(Clone, Copy, Debug)]
pub struct Feature {
    /// As the kernel's documentation or the man page has it.
    pub name: &'static str,
    /// The first Linux that has it: "6.7".
    pub since: &'static str,
    pub need: Need,
    /// A sentence: what is lost without it.
    pub loss: &'static str,
    /// A sentence: what the operator can do about a kernel that does not have it.
    pub advice: &'static str,
    pub permission: Permission,
    /// Whether it does what it should.
    pub probe: fn() -> io::Result<()>,
}

/// Every one of them, in the order in which people read about them.
pub fn all() -> impl Iterator<Item = &'static Feature> {
    let parts: [&[Feature]; 7] = [
        tracing::FEATURES,
        processes::FEATURES,
        groups::FEATURES,
        memory::FEATURES,
        descriptors::FEATURES,
        sockets::FEATURES,
        network::FEATURES,
    ];
    parts.into_iter().flatten()
}

/// For what is there in every kernel of its age, unless somebody left it out.
const NEWER_KERNEL: &str = "Use a kernel of that version or newer.";
const CHECKPOINT_RESTORE: &str = "Use a kernel with CONFIG_CHECKPOINT_RESTORE.";

fn no_effect() -> io::Error {
    io::Error::other("it is accepted and has no effect")
}

fn must(does: bool) -> io::Result<()> {
    if does { Ok(()) } else { Err(no_effect()) }
}

fn ourselves() -> i32 {
    std::process::id().cast_signed()
}

#[cfg(test)]
mod tests;
