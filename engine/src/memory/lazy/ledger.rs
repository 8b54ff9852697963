//! What a program did to its layout in the lazy phase, for the agent that comes after us.
//!
//! A successor knows which pages were missing when the tree began to run. Pages that came since do
//! no harm: they are there, and the kernel says so. But a page that the program dropped would be
//! brought back, and one that it moved would be looked for at the wrong place. So every change that
//! touched a missing page is left with the holder, in one order with the descriptors of the
//! children: a child begins with what its parent missed at that point.
//!
//! What happens in the instant between reading an event and noting it dies with us.

use super::space::{Space, name_of};
use crate::memory::holder::Kept;
use crate::memory::page_set::Run;
use crate::sys::uffd_missing::MissingUffd;
use std::io;

const FORKED: &str = " forked ";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Remove { start: u64, end: u64 },
    Unmap { start: u64, end: u64 },
    Remap { from: u64, to: u64, bytes: u64 },
}

impl Change {
    pub(super) fn note(self, space: &str) -> String {
        match self {
            Self::Remove { start, end } => format!("remove {start} {end} 0 {space}"),
            Self::Unmap { start, end } => format!("unmap {start} {end} 0 {space}"),
            Self::Remap { from, to, bytes } => format!("remap {from} {to} {bytes} {space}"),
        }
    }

    /// The change and the name of its space.
    fn parse(note: &str) -> Option<(Self, &str)> {
        let mut words = note.splitn(5, ' ');
        let verb = words.next()?;
        let mut number = || words.next()?.parse::<u64>().ok();
        let (a, b, c) = (number()?, number()?, number()?);
        let change = match verb {
            "remove" => Self::Remove { start: a, end: b },
            "unmap" => Self::Unmap { start: a, end: b },
            "remap" => Self::Remap { from: a, to: b, bytes: c },
            _ => return None,
        };
        Some((change, words.next()?))
    }

    /// Returns what is missing no more.
    pub(super) fn apply(self, space: &mut Space) -> Vec<Run> {
        match self {
            Self::Remove { start, end } => space.remove(start, end),
            Self::Unmap { start, end } => space.unmap(start, end),
            Self::Remap { from, to, bytes } => space.remap(from, to, bytes),
        }
    }

    /// Whether a successor needs to know; most programs drop what they have long seen.
    pub(super) fn touches_missing(self, space: &Space) -> bool {
        let touches = |start, end| {
            let pieces = space.layout.overlapping(start, end).into_iter();
            pieces.filter_map(|piece| piece.cut(start, end)).any(|piece| {
                let run = piece.origin_run();
                space.missing.within(run.address, run.pages).next().is_some()
            })
        };
        match self {
            Self::Remove { start, end } | Self::Unmap { start, end } => touches(start, end),
            Self::Remap { from, to, bytes } => {
                touches(from, from + bytes) || touches(to, to + bytes)
            }
        }
    }
}

pub(super) fn name_of_child(parent: &str, number: u64) -> String {
    format!("{parent}{FORKED}{number}")
}

/// Does again what was noted, to spaces as they were when the tree began to run.
pub(super) fn replay(spaces: &mut Vec<Space>, kept: Vec<Kept>) -> io::Result<()> {
    for kept in kept {
        match kept {
            Kept::Held { name, fd } => {
                // The first spaces are here already; what was forked names its parent.
                if let Some((parent, _)) = name.rsplit_once(FORKED) {
                    let child = find(spaces, parent)?.fork(name, MissingUffd::new(fd)?);
                    spaces.push(child);
                }
            }
            Kept::Note(note) => {
                let (change, space) = Change::parse(&note).ok_or_else(|| invalid(&note))?;
                change.apply(find(spaces, space)?);
            }
        }
    }
    Ok(())
}

/// Takes the descriptor of a space of the source out of what was kept.
pub(super) fn take_held(kept: &mut Vec<Kept>, space: u32) -> io::Result<MissingUffd> {
    let wanted = name_of(space);
    let is_it = |kept: &Kept| matches!(kept, Kept::Held { name, .. } if *name == wanted);
    match kept.iter().position(is_it).map(|index| kept.remove(index)) {
        Some(Kept::Held { fd, .. }) => MissingUffd::new(fd),
        _ => Err(invalid(&wanted)),
    }
}

fn find<'a>(spaces: &'a mut [Space], name: &str) -> io::Result<&'a mut Space> {
    spaces.iter_mut().find(|space| space.name == name).ok_or_else(|| invalid(name))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the holder has kept no \"{what}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_says_what_happened_to_whom() {
        let changes = [
            Change::Remove { start: 4096, end: 8192 },
            Change::Unmap { start: 4096, end: 8192 },
            Change::Remap { from: 4096, to: 1 << 40, bytes: 4096 },
        ];
        for change in changes {
            let note = change.note("space 7 forked 1");
            assert_eq!(Change::parse(&note), Some((change, "space 7 forked 1")));
        }
        assert_eq!(Change::parse("remove 1 x 0 space 7"), None);
    }
}
