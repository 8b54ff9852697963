//! Which processes share their pages with their parents, copy-on-write, as fork(2) left them.
//!
//! A child that shares much is *held back*: nothing of it is sent until its parent's pages have
//! landed. Then the layout says that its space begins as a fork of its parent's space, and only
//! the pages that differ are sent. Everything else begins empty and is sent whole.
//!
//! A page may be left out when the child's is the very frame of its parent's, and the destination
//! has that frame's content. The frames are compared while both run, so the order counts:
//!
//! 1. What was written in the child is collected. From here on its tracker tells what changes.
//! 2. The frames are compared.
//! 3. What was written in the parent is collected.
//!
//! A page that 1 or a later collection of the child reports is stale and will be sent. Any other
//! has not changed since 1, so at 2 it was the frame that the parent had too, and its content is
//! what the parent had at 2. A page that 3 reports is not left out; any other has not changed in
//! the parent since it was sent, so what was sent is what it held at 2.

use super::Spaces;
use super::tracked::{Birth, Tracked};
use crate::error::Error;
use crate::image::ProcessLayout;
use crate::memory::PageSet;
use crate::memory::frames;
use crate::stage::{kept_by_fork, session_needed};
use std::collections::{BTreeMap, BTreeSet};

/// One MiB. Holding back costs a round, and making a stub again some hundred microseconds.
pub(crate) const WORTH_PAGES: u64 = 256;

/// What follows the round that a layout is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    MoreRounds,
    /// What is held back now would be left for the freeze, so nothing is.
    TheFreeze,
}

/// Decides on every process that was not decided on yet, as far as that can be done now.
pub(super) fn settle(
    tracked: &mut BTreeMap<i32, Tracked>,
    layouts: &mut [ProcessLayout],
    spaces: &mut Spaces,
    before: Before,
) -> Result<(), Error> {
    let mut family = Family { tracked, layouts, spaces, before };
    family.settle_root();
    // Parents come first, so a child finds its parent decided on.
    for index in 0..family.layouts.len() {
        family.settle_children(index)?;
    }
    Ok(())
}

struct Family<'a> {
    tracked: &'a mut BTreeMap<i32, Tracked>,
    layouts: &'a mut [ProcessLayout],
    spaces: &'a mut Spaces,
    before: Before,
}

impl Family<'_> {
    fn settle_root(&mut self) {
        let root = self.layouts.first().map(|root| root.pid);
        if let Some(root) = root.and_then(|root| self.tracked.get_mut(&root)) {
            root.birth = Birth::Settled;
        }
    }

    fn settle_children(&mut self, parent: usize) -> Result<(), Error> {
        let pid = self.layouts[parent].pid;
        let children: Vec<usize> = (0..self.layouts.len())
            .filter(|&child| child != parent && self.layouts[child].ppid == pid)
            .filter(|&child| self.of(child).is_some_and(|t| t.birth != Birth::Settled))
            .collect();
        let Some(this) = self.of(parent).filter(|_| !children.is_empty()) else { return Ok(()) };
        let (is_settled, has_landed) = (this.birth == Birth::Settled, this.was_sent);
        if !is_settled && self.before == Before::MoreRounds {
            // It is made anew with its parent, if that is.
            children.iter().for_each(|&child| self.set(child, Birth::HeldBack));
            return Ok(());
        }
        let shared = self.shared_with(parent, &children)?;
        for (&child, shared) in children.iter().zip(shared) {
            let is_worth_it =
                shared.pages() >= WORTH_PAGES && can_be_made_anew(self.layouts, child);
            match (is_worth_it, has_landed, self.before) {
                (true, true, _) => self.fork(parent, child, &shared),
                (true, false, Before::MoreRounds) => self.set(child, Birth::HeldBack),
                _ => self.set(child, Birth::Settled),
            }
        }
        Ok(())
    }

    /// The pages of each child that need not be sent; of a parent that was not sent yet, enough to
    /// know whether it will be worth it.
    fn shared_with(&mut self, parent: usize, children: &[usize]) -> Result<Vec<PageSet>, Error> {
        let mut shared = Vec::new();
        for &child in children {
            let kept = kept_by_fork(&self.layouts[parent].mappings, &self.layouts[child].mappings);
            let child = self.of_mut(child);
            child.collect()?;
            shared.push(kept.intersection(child.memory.stale()));
        }
        let this = self.of(parent).expect("looked up by the caller");
        let has_landed = this.was_sent;
        if has_landed {
            let sent = this.memory.sent().clone();
            shared.iter_mut().for_each(|pages| *pages = pages.intersection(&sent));
        }
        let enough = if has_landed { u64::MAX } else { WORTH_PAGES };
        for (&child, pages) in children.iter().zip(&mut shared) {
            let (one, other) = (self.layouts[parent].pid, self.layouts[child].pid);
            *pages = frames::alike(one, other, pages, enough)?;
        }
        if has_landed {
            let parent = self.of_mut(parent);
            parent.collect()?;
            let stale = parent.memory.stale();
            shared.iter_mut().for_each(|pages| pages.remove_all(stale));
        }
        Ok(shared)
    }

    /// Its space is another one from here on, which begins with what its parent's has.
    fn fork(&mut self, parent: usize, child: usize, shared: &PageSet) {
        let this = self.of(parent).expect("looked up by the caller");
        let (space, sent) = (this.shape.space, this.memory.legacy());
        for pid in with_descendants(self.layouts, self.layouts[child].pid) {
            self.begin_anew(pid);
        }
        let of_child = self.of_mut(child);
        of_child.memory.inherit(sent, shared);
        of_child.shape.forked_from = space;
        of_child.birth = Birth::Settled;
        self.layouts[child].forked_from = space;
    }

    /// Whatever was sent of it is lost with its stub.
    fn begin_anew(&mut self, pid: i32) {
        let Some(tracked) = self.tracked.get_mut(&pid) else { return };
        let space = self.spaces.next();
        tracked.memory.begin_anew(space);
        (tracked.shape.space, tracked.shape.forked_from) = (space, 0);
        tracked.was_sent = false;
        for layout in self.layouts.iter_mut().filter(|layout| layout.pid == pid) {
            (layout.space, layout.forked_from) = (space, 0);
        }
    }

    fn set(&mut self, index: usize, birth: Birth) {
        self.of_mut(index).birth = birth;
    }

    fn of(&self, index: usize) -> Option<&Tracked> {
        self.tracked.get(&self.layouts[index].pid)
    }

    fn of_mut(&mut self, index: usize) -> &mut Tracked {
        self.tracked.get_mut(&self.layouts[index].pid).expect("only tracked processes are settled")
    }
}

/// Whether its stub can be ended and forked again at the destination, with all that descend from
/// it: an id is not free while it names a group or session of somebody else, and a session is
/// inherited.
pub(crate) fn can_be_made_anew(layouts: &[ProcessLayout], child: usize) -> bool {
    let child = &layouts[child];
    let ids = with_descendants(layouts, child.pid);
    let mut others = layouts.iter().filter(|other| !ids.contains(&other.pid));
    let parent = layouts.iter().find(|parent| parent.pid == child.ppid);
    let session = session_needed(child, layouts);
    others.all(|other| !ids.contains(&other.pgid) && !ids.contains(&other.sid))
        && parent.is_some_and(|parent| session.is_none_or(|needed| needed == parent.sid))
}

/// `layouts` have parents before their children.
fn with_descendants(layouts: &[ProcessLayout], pid: i32) -> BTreeSet<i32> {
    let mut found = BTreeSet::from([pid]);
    for layout in layouts {
        if found.contains(&layout.ppid) {
            found.insert(layout.pid);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (pid, ppid, pgid, sid), a line each.
    fn tree(processes: &[[i32; 4]]) -> Vec<ProcessLayout> {
        let layout = |&[pid, ppid, pgid, sid]: &[i32; 4]| ProcessLayout {
            pid,
            ppid,
            pgid,
            sid,
            ..ProcessLayout::default()
        };
        processes.iter().map(layout).collect()
    }

    #[test]
    fn a_worker_in_its_server_s_group_and_session_can_be_made_anew() {
        let tree = tree(&[[10, 1, 10, 10], [11, 10, 10, 10], [12, 11, 10, 10]]);
        assert!(can_be_made_anew(&tree, 1) && can_be_made_anew(&tree, 2));
        assert_eq!(with_descendants(&tree, 11), BTreeSet::from([11, 12]));
    }

    #[test]
    fn who_leads_the_group_of_a_sibling_cannot() {
        let tree = tree(&[[10, 1, 10, 10], [11, 10, 11, 10], [12, 10, 11, 10]]);
        assert!(!can_be_made_anew(&tree, 1) && can_be_made_anew(&tree, 2));
    }

    #[test]
    fn who_leads_a_session_of_its_own_descendants_can() {
        let tree = tree(&[[10, 1, 10, 10], [11, 10, 11, 11], [12, 11, 11, 11]]);
        assert!(can_be_made_anew(&tree, 1));
    }

    #[test]
    fn who_was_born_before_its_parent_founded_a_session_cannot() {
        let older = tree(&[[10, 1, 10, 9], [11, 10, 11, 11], [12, 11, 12, 9]]);
        assert!(!can_be_made_anew(&older, 2) && can_be_made_anew(&older, 1));
        let unseen = tree(&[[10, 1, 10, 0], [11, 10, 10, 0]]);
        assert!(can_be_made_anew(&unseen, 1), "any session will do");
    }
}
