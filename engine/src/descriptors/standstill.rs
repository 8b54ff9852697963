//! What is known outside of the tree, and is not to notice that the tree stands still: connections.
//!
//! On the source [`gates`] and [`waiting`] let the program take in who waits for it before it is
//! stopped, [`flows`] says whose packets are held from then on, and [`hold`], [`take_back`] and
//! [`leave`] are what becomes of the frozen originals. On the destination [`go_live`] is for an agent
//! that finds a tree which another one has made.

use super::collect;
use super::table::{ObjectSeen, Table};
use crate::error::{Error, Object, OnObject as _};
use crate::kinds::{HeldObject, KindEntry, Open, Rules, Seen, Wait, kind_named};
use crate::network::{Flow, Gate};
use crate::sys;
use nix::sys::stat::fstat;
use std::os::fd::{AsFd as _, OwnedFd};

/// Whose packets nobody may answer while the tree stands still.
pub fn flows(table: &Table, rules: &Rules) -> Result<Vec<Flow>, Error> {
    told(table, |kind| kind.has_life, |kind, open| (kind.flow)(open, rules))
}

/// Whether anything of it has to be kept silent.
pub fn have_connections(table: &Table, rules: &Rules) -> Result<bool, Error> {
    Ok(!flows(table, rules)?.is_empty() || !gates(table, rules)?.is_empty())
}

/// Where newcomers come in.
pub fn gates(table: &Table, rules: &Rules) -> Result<Vec<Gate>, Error> {
    told(table, |kind| kind.has_gate, |kind, open| (kind.gate)(open, rules))
}

/// What the tree should not be stopped at, and why; of several the first that it cannot be.
pub fn waiting(table: &Table, rules: &Rules) -> Result<Option<(Object, Wait)>, Error> {
    let all = told(
        table,
        |kind| kind.is_waited_for,
        |kind, open| {
            let wait = (kind.waiting)(open, rules)?;
            Ok(wait.map(|wait| (open.seen.object(kind.name), wait)))
        },
    )?;
    Ok(all.into_iter().min_by_key(|(_, wait)| !wait.is_vital))
}

/// Makes sure that nothing changes the frozen originals any more, whoever dies. What was done is
/// added to `held` one by one, so that it can be taken back when another fails.
pub fn hold(table: &Table, rules: &Rules, held: &mut Vec<HeldObject>) -> Result<(), Error> {
    each(
        table,
        |kind| kind.has_life,
        |kind, open| {
            if let Some(before) = (kind.hold)(open.local, rules)? {
                let Seen { pid, fd, inode, .. } = *open.seen;
                held.push(HeldObject { kind: kind.name.to_owned(), pid, fd, inode, before });
            }
            Ok(())
        },
    )
}

/// Undoes it: all of them, and the error is the first.
pub fn take_back(held: &[HeldObject]) -> Result<(), Error> {
    of_originals(held, |kind, one, original| (kind.take_back)(original.as_fd(), &one.before))
}

/// The same for every original of these processes, by what stands in the originals themselves.
pub fn take_back_all(pids: &[i32]) -> Result<(), Error> {
    let mut held = Vec::new();
    // What was held before answers with what it was then; what was not is let go again at once.
    let asked = hold(&collect(pids)?, &Rules::default(), &mut held);
    asked.and(take_back(&held))
}

/// The originals that are about to be ended: nobody is to notice. Until they have ended, what is
/// returned must be kept.
pub fn leave(held: &[HeldObject]) -> Result<Vec<OwnedFd>, Error> {
    let mut originals = Vec::with_capacity(held.len());
    of_originals(held, |kind, one, original| {
        (kind.leave)(original.as_fd(), &one.before)?;
        originals.push(original);
        Ok(())
    })?;
    Ok(originals)
}

/// What is left to be done to the objects of a tree that has the right to run, by a successor of
/// the agent which made it.
pub fn go_live(pids: &[i32]) -> Result<(), Error> {
    let table = collect(pids)?;
    each(&table, |kind| kind.has_life, |kind, open| (kind.go_live)(None, open.local))?;
    each(&table, |kind| kind.has_life, |kind, open| (kind.speak)(open.local))
}

fn told<T>(
    table: &Table,
    concerns: fn(&KindEntry) -> bool,
    ask: impl Fn(&KindEntry, &Open<'_>) -> Result<Option<T>, Error>,
) -> Result<Vec<T>, Error> {
    let mut all = Vec::new();
    each(table, concerns, |kind, open| {
        all.extend(ask(kind, open)?);
        Ok(())
    })?;
    Ok(all)
}

fn each(
    table: &Table,
    concerns: fn(&KindEntry) -> bool,
    mut with: impl FnMut(&'static KindEntry, &Open<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    for ObjectSeen { kind, descriptions } in &table.objects {
        let Some(kind) = kind.filter(|kind| concerns(kind)) else { continue };
        for &index in descriptions {
            let seen = &table.descriptions[index];
            let local = table.steal_what_is_left(seen);
            // What is passed over for another reason than its end would go unheld.
            let local = local.on("duplicate", || seen.object(kind.name))?;
            let Some(local) = local else { continue };
            with(kind, &Open { seen, local: local.as_fd(), index })?;
        }
    }
    Ok(())
}

fn of_originals(
    held: &[HeldObject],
    mut with: impl FnMut(&'static KindEntry, &HeldObject, OwnedFd) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut result = Ok(());
    for one in held {
        let done = original(one).and_then(|found| match found {
            Some((kind, original)) => with(kind, one, original),
            // Its process has ended, and so has it.
            None => Ok(()),
        });
        result = result.and(done);
    }
    result
}

fn original(held: &HeldObject) -> Result<Option<(&'static KindEntry, OwnedFd)>, Error> {
    let object = || Object::Fd { pid: held.pid, fd: held.fd, kind: "held connection" };
    let Some(kind) = kind_named(&held.kind, 1) else {
        return Err(Error::invalid("find", object(), format!("{} is no kind", held.kind)));
    };
    let stolen = sys::fd::pidfd_open(held.pid, 0)
        .and_then(|process| sys::fd::pidfd_getfd(process.as_fd(), held.fd));
    let original = match stolen {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EBADF)) => {
            return Ok(None);
        }
        stolen => stolen.on("find", object)?,
    };
    let is_it = fstat(&original).on("find", object)?.st_ino == held.inode;
    Ok(is_it.then_some((kind, original)))
}

#[cfg(test)]
mod tests {
    use super::super::trip::us;
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd as _;

    fn connection() -> (TcpStream, OwnedFd, Table) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let server = OwnedFd::from(listener.accept().unwrap().0);
        let table = Table::of(us(), &[server.as_raw_fd()]).unwrap();
        (client, server, table)
    }

    #[test]
    fn a_connection_that_cannot_be_duplicated_is_not_passed_over() {
        let (_client, _server, mut table) = connection();
        assert_eq!(flows(&table, &Rules::default()).unwrap().len(), 1);
        table.descriptions[0].pid = 0;
        let mut held = Vec::new();
        assert!(flows(&table, &Rules::default()).is_err());
        assert!(hold(&table, &Rules::default(), &mut held).is_err());
        assert_eq!(held.len(), 0);
    }

    #[test]
    fn one_that_was_closed_since_has_nothing_to_be_held() {
        let (client, mut server, table) = connection();
        // The number stays taken, so that no other test of this process opens something at it.
        nix::unistd::dup2(&client, &mut server).unwrap();
        assert_eq!(flows(&table, &Rules::default()).unwrap().len(), 0);
    }
}
