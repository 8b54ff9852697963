//! Making the processes of a tree with their ids, parents, sessions and process groups.
//!
//! A session is inherited at birth or founded by setsid(2), so the order matters: a child that
//! is in the session its parent had *before* founding its own must be born before that.

use super::Stub;
use super::cradle::{Cradle, unmap_all_but};
use super::layout;
use crate::args;
use crate::batch::Batch;
use crate::error::{Error, Object};
use crate::image::ProcessLayout;
use crate::puppet::Puppet;
use crate::puppet::Steered;
use crate::sys::process::CloneArguments;
use crate::tracee::Stopped;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

const CLONE_PTRACE: u64 = 0x2000;

/// Who may fork a new process: the cradle or a stub.
pub(super) struct Parent<'a> {
    pub(super) puppet: &'a Puppet,
    pub(super) thread: &'a Stopped,
}

/// Makes the processes of `wanted` that are not among `stubs` yet.
pub(super) fn complete(
    wanted: &[ProcessLayout],
    cradle: Option<&Cradle>,
    stubs: &mut BTreeMap<i32, Stub>,
) -> Result<(), Error> {
    let root = wanted.first().ok_or_else(|| {
        Error::invalid("read", Object::Image { part: "layout".into() }, "it has no process")
    })?;
    if let Entry::Vacant(place) = stubs.entry(root.pid) {
        let object = || Object::Process { pid: root.pid };
        let cradle = cradle.ok_or_else(|| {
            Error::invalid("replace", object(), "the root of a tree cannot change")
        })?;
        let parent = Parent { puppet: &cradle.puppet, thread: &cradle.thread };
        place.insert(fork(&parent, root, cradle.pid())?);
    }
    children(root, wanted, stubs)?;
    for process in wanted {
        join_group(process, wanted, stubs)?;
    }
    Ok(())
}

/// Completes a process: children for its inherited session, its own session, the others.
fn children(
    process: &ProcessLayout,
    wanted: &[ProcessLayout],
    stubs: &mut BTreeMap<i32, Stub>,
) -> Result<(), Error> {
    let mine =
        || wanted.iter().filter(|child| child.ppid == process.pid && child.pid != process.pid);
    let founds = process.sid == process.pid && stubs[&process.pid].session != process.pid;
    if founds {
        for child in mine().filter(|c| session_needed(c, wanted).is_some_and(|s| s != process.sid))
        {
            child_of(process, child, wanted, stubs)?;
        }
        let stub = stubs.get_mut(&process.pid).expect("made before its children");
        found_session(stub)?;
    }
    for child in mine() {
        child_of(process, child, wanted, stubs)?;
    }
    Ok(())
}

fn child_of(
    parent: &ProcessLayout,
    child: &ProcessLayout,
    wanted: &[ProcessLayout],
    stubs: &mut BTreeMap<i32, Stub>,
) -> Result<(), Error> {
    if !stubs.contains_key(&child.pid) {
        let stub = &stubs[&parent.pid];
        if session_needed(child, wanted).is_some_and(|session| session != stub.session) {
            return Err(Error::invalid(
                "stage",
                Object::Process { pid: child.pid },
                format!("its session {} is not that of its parent at any time", child.sid),
            ));
        }
        let made = match child.forked_from {
            0 => {
                let parent = Parent { puppet: &stub.puppet, thread: &stub.threads[0] };
                fork(&parent, child, stub.session)?
            }
            space if space == stub.space => fork_with_memory(stub, child)?,
            _ => {
                let object = Object::Process { pid: child.pid };
                let why = "it is to begin with memory that its parent does not have";
                return Err(Error::invalid("stage", object, why));
            }
        };
        stubs.insert(child.pid, made);
    }
    children(child, wanted, stubs)
}

/// The session in which a process must be born: its own children may need it, too. 0 means that
/// its session lies outside of what could be seen, and any will do.
pub(crate) fn session_needed(process: &ProcessLayout, wanted: &[ProcessLayout]) -> Option<i32> {
    if process.sid == 0 {
        return None;
    }
    if process.sid != process.pid {
        return Some(process.sid);
    }
    wanted
        .iter()
        .filter(|child| child.ppid == process.pid && child.pid != process.pid)
        .filter_map(|child| session_needed(child, wanted))
        .find(|&session| session != process.pid)
}

fn found_session(stub: &mut Stub) -> Result<(), Error> {
    let object = Object::Process { pid: stub.pid };
    let mut batch = Batch::new();
    batch.call("found the session of", &object, libc::SYS_setsid, args![]);
    stub.run(&batch)?;
    stub.session = stub.pid;
    stub.group = stub.pid;
    Ok(())
}

/// Forks a stopped, empty stub with the wanted id.
fn fork(parent: &Parent<'_>, child: &ProcessLayout, session: i32) -> Result<Stub, Error> {
    let stub = fork_whole(parent, child, session)?;
    let mut batch = Batch::new();
    unmap_all_but(stub.puppet.address(), &stub.object(), &mut batch);
    begin_with(stub, batch)
}

/// Forks a stopped stub that shares every page of its parent's, until one of them is written.
fn fork_with_memory(parent: &Stub, child: &ProcessLayout) -> Result<Stub, Error> {
    let forking = Parent { puppet: &parent.puppet, thread: &parent.threads[0] };
    let mut stub = fork_whole(&forking, child, parent.session)?;
    stub.mappings = layout::inherited(&parent.mappings);
    stub.vdso_at = parent.vdso_at;
    begin_with(stub, Batch::new())
}

fn fork_whole(parent: &Parent<'_>, child: &ProcessLayout, session: i32) -> Result<Stub, Error> {
    let steered = Steered::begin(parent.thread)?;
    let made = fork_steered(parent.puppet, &steered, child.pid, child.exit_signal);
    steered.end()?;
    Ok(Stub::new(child.pid, child.space, parent.puppet.clone(), made?, session))
}

fn begin_with(stub: Stub, mut batch: Batch) -> Result<Stub, Error> {
    let all = args![0, u32::MAX, 0];
    batch.call("close the descriptors of", &stub.object(), libc::SYS_close_range, all);
    match stub.run(&batch) {
        Ok(_) => Ok(stub),
        Err(error) => {
            // Nobody else knows of it yet.
            stub.end();
            Err(error)
        }
    }
}

fn fork_steered(
    puppet: &Puppet,
    steered: &Steered<'_>,
    pid: i32,
    exit_signal: i32,
) -> Result<Stopped, Error> {
    let object = Object::Process { pid };
    let mut batch = Batch::new();
    let id = batch.bytes(&pid.to_ne_bytes());
    let arguments = CloneArguments {
        flags: CLONE_PTRACE,
        exit_signal: u64::try_from(exit_signal).unwrap_or(0),
        set_tid_size: 1,
        ..Default::default()
    };
    let arguments = batch.bytes(&arguments.bytes());
    batch.pointer(arguments, CloneArguments::SET_TID_OFFSET, id);
    let size = size_of::<CloneArguments>();
    batch.call("make", &object, libc::SYS_clone3, args![arguments, size]);
    puppet.run(steered, &batch)?;
    Stopped::born(pid, pid)
}

/// Puts a process into its group, by way of a short-lived leader where the leader has died or
/// stays behind.
fn join_group(
    process: &ProcessLayout,
    wanted: &[ProcessLayout],
    stubs: &mut BTreeMap<i32, Stub>,
) -> Result<(), Error> {
    let group = process.pgid;
    if group == 0 || stubs[&process.pid].group == group {
        return Ok(());
    }
    let leads = |p: &&ProcessLayout| p.pid == group && p.pgid == group;
    if let Some(leader) = wanted.iter().find(leads) {
        set_group(stubs.get_mut(&leader.pid).expect("every process is made"), group)?;
        return set_group(stubs.get_mut(&process.pid).expect("every process is made"), group);
    }
    // A group that exists in this session already may be joined at once.
    let stub = stubs.get_mut(&process.pid).expect("every process is made");
    if set_group(stub, group).is_ok() {
        return Ok(());
    }
    let steered = Steered::begin(&stub.threads[0])?;
    let leader = fork_steered(&stub.puppet, &steered, group, libc::SIGCHLD);
    steered.end()?;
    let leader = Stub::new(group, 0, stub.puppet.clone(), leader?, stub.session);
    let joined = lead_and_join(leader, stub, group);
    stub.wait_for_child(group)?;
    joined
}

fn lead_and_join(mut leader: Stub, stub: &mut Stub, group: i32) -> Result<(), Error> {
    leader.group = 0;
    let joined = set_group(&mut leader, group).and_then(|()| set_group(stub, group));
    leader.end();
    joined
}

fn set_group(stub: &mut Stub, group: i32) -> Result<(), Error> {
    if stub.group == group {
        return Ok(());
    }
    let object = Object::Process { pid: stub.pid };
    let mut batch = Batch::new();
    batch.call("set the process group of", &object, libc::SYS_setpgid, args![0, group]);
    stub.run(&batch)?;
    stub.group = group;
    Ok(())
}
