//! A network namespace that a tree lives in and nobody else: network_namespaces(7). It moves with
//! the tree, as a whole: its devices, addresses, routes, rules, neighbours and settings.
//!
//! Its devices are virtual. One end of each cable (veth) is in it and the other on the host, as a
//! port of a bridge. At the destination all of it is made while the tree is staged, complete but for
//! the cables, whose far ends are down until the tree may run. So nothing of the tree is heard
//! there before, and nobody is heard; at the source the same is done to the originals.
//!
//! Sockets are in the namespace of the thread that makes them. Ours goes where the tree is for as
//! long as it works on the tree's sockets: [`Namespace::enter`].

pub mod cable;
mod contents;
mod examine;
mod link;
mod make;
mod settings;
mod tables;

use crate::error::{Error, Object, OnObject as _};
use crate::sys;
pub use cable::Cable;
pub use contents::NamespaceImage;
pub(crate) use examine::examine;
pub use link::{CableImage, LinkImage, LinkKind};
pub use make::{Made, join_of};
pub(crate) use make::{join, judge};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;

/// What a destination has to know to take such a tree in, beside the kinds.
pub const NAME: &str = "network namespace";
pub const VERSION: u32 = 1;

/// The index of the loopback device, in every namespace.
const LOOPBACK: u32 = 1;

#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// The one that a process is in; `None` when it is ours.
    ///
    /// # Errors
    /// ESRCH or ENOENT when the process has ended.
    pub fn of_process(pid: i32) -> Result<Option<Self>, Error> {
        let theirs = Self::at(&format!("/proc/{pid}/ns/net"));
        // A leader that has ended is in none any more; its threads are.
        let of_threads = || {
            let threads = crate::tree::threads(pid).ok()?.into_iter();
            let mut paths = threads.map(|tid| format!("/proc/{pid}/task/{tid}/ns/net"));
            paths.find_map(|path| Self::at(&path).ok())
        };
        let theirs = theirs.or_else(|error| of_threads().ok_or(error))?;
        Ok((theirs.inode()? != Self::ours()?.inode()?).then_some(theirs))
    }

    /// Of this agent, wherever the calling thread is at the moment.
    pub(crate) fn ours() -> Result<Self, Error> {
        Self::at("/proc/self/ns/net")
    }

    /// Of the calling thread.
    pub(crate) fn here() -> Result<Self, Error> {
        Self::at("/proc/thread-self/ns/net")
    }

    /// A new one with nothing in it. It ends with the last process, descriptor and mount of it.
    pub(crate) fn make() -> Result<Self, Error> {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        });
        let made = made.join().unwrap_or_else(|_| Err(io::Error::other("its thread panicked")));
        made.map(Self).on("make", || Object::Network { name: NAME.to_owned() })
    }

    /// This process gets a new one, in which it can speak with nobody but itself. For a process that
    /// has one thread: others stay where they are.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN.
    pub fn seclude() -> Result<(), Error> {
        let new = || Object::Network { name: NAME.to_owned() };
        unshare(CloneFlags::CLONE_NEWNET).on("make", new)?;
        link::set_up(LOOPBACK).on("set the loopback up in", new)
    }

    /// Makes a cable in a namespace that ends with the call, so that nothing is left of either.
    pub(crate) fn rehearse_a_cable() -> io::Result<()> {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            link::make_a_cable()
        });
        made.join().unwrap_or_else(|_| Err(io::Error::other("its thread panicked")))
    }

    fn at(path: &str) -> Result<Self, Error> {
        File::open(path).map(Self).on("open", || Object::File { path: path.to_owned() })
    }

    pub(crate) fn inode(&self) -> Result<u64, Error> {
        let inode = self.0.metadata().map(|namespace| namespace.ino());
        inode.on("look at", || Object::Network { name: NAME.to_owned() })
    }

    /// The calling thread is in it until what is returned is dropped.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN.
    pub fn enter(&self) -> Result<Inside, Error> {
        let home = Self::here()?;
        let entered = setns(&self.0, CloneFlags::CLONE_NEWNET);
        entered.on("enter", || Object::Network { name: NAME.to_owned() })?;
        Ok(Inside { home, of_one_thread: PhantomData })
    }

    /// Another hold on the same one.
    ///
    /// # Errors
    /// EMFILE.
    pub fn again(&self) -> Result<Self, Error> {
        let again = self.0.try_clone().map(Self);
        again.on("hold", || Object::Network { name: NAME.to_owned() })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The calling thread is in another network namespace as long as this is there.
#[derive(Debug)]
#[must_use]
pub struct Inside {
    home: Namespace,
    of_one_thread: PhantomData<*const ()>,
}

impl Drop for Inside {
    fn drop(&mut self) {
        // Whatever is done next would be done to the wrong host.
        setns(&self.home.0, CloneFlags::CLONE_NEWNET)
            .expect("a thread may always return to the namespace that it came from");
    }
}

/// All that it has, and nothing of what stands against moving it: that was said before.
pub(crate) fn read(namespace: &Namespace) -> Result<NamespaceImage, Error> {
    NamespaceImage::read(namespace)?.0.with_settings(namespace)
}

/// What is another in it than it was, but for settings: they take milliseconds to read.
pub(crate) fn change(namespace: &Namespace, was: &NamespaceImage) -> Result<Option<String>, Error> {
    Ok(was.change(&NamespaceImage::read(namespace)?.0))
}

/// Enters one, if there is one to enter.
pub(crate) fn enter(namespace: Option<&Namespace>) -> Result<Option<Inside>, Error> {
    namespace.map(Namespace::enter).transpose()
}

/// Whether a socket is in another namespace than this process.
pub(crate) fn is_elsewhere(socket: BorrowedFd<'_>, pid: i32) -> io::Result<bool> {
    let of_process = std::fs::metadata(format!("/proc/{pid}/ns/net"))?.ino();
    let of_socket = File::from(sys::sock::namespace(socket)?).metadata()?.ino();
    Ok(of_socket != of_process)
}

#[cfg(test)]
mod tests;
