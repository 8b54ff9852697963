//! The sentences that say where the tree runs now, and the command that goes on from there.

use super::Purpose;
use protocol::MigrationId;

pub(super) const GONE: &str =
    "It ended here, by itself or by somebody's hand: there is nothing left to move.";
pub(super) const GIVEN_UP: &str = "What stood still here is ended, as was asked. Whether the tree runs on the destination, only \
     that host can say.";
pub(super) const KEPT_HERE: &str = "It runs here again, as was asked.";
pub(super) const FORGOTTEN: &str =
    "It ran on the destination, and the destination does not answer for it any more.";
pub(super) const IN_DOUBT: &str = "It is not known where the tree is to run.";
pub(super) const NOT_LET_GO: &str = "It was not moved, and could not be let go on here: some of it may stand \
                          still.";
pub(super) const STANDS_STILL: &str = "It was not dumped, and could not be let go on: some of it may stand still. A process of it that \
     is stopped goes on by SIGCONT.";
pub(super) const MISSING: &str = "It runs on the destination, and lacks pages.";
pub(super) const NOT_ENDED: &str = "It runs on the destination with every page, but its original, which \
                         stands still here, could not be ended.";

pub(super) fn failed(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Move => "It was not moved, and runs here as before.",
        Purpose::Check => "It could not be checked. Nothing was touched.",
        Purpose::Dump => "It was not dumped, and runs here as before.",
        Purpose::Clone => "It was not cloned, and runs here as before.",
        Purpose::Restore => "It was not restored: nothing of it runs here.",
    }
}

/// The last word of a copy was on its way when nothing more was heard.
pub(super) fn may_run_there(host: &str) -> String {
    format!(
        "It runs here as before. One more copy of it may run on {host}: the connection ended before \
         that was known. Look there."
    )
}

/// What a cancelled command was about to do.
pub(super) fn wanted(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Move | Purpose::Check => "move the tree",
        Purpose::Dump => "dump the tree",
        Purpose::Clone => "clone the tree",
        Purpose::Restore => "restore the tree",
    }
}

pub(super) fn refused(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Move | Purpose::Check => "It cannot be moved, and nothing was touched:",
        Purpose::Dump => "It cannot be dumped, and nothing was touched:",
        Purpose::Clone => "It cannot be cloned, and nothing was touched:",
        Purpose::Restore => "It cannot be restored here, and nothing was touched:",
    }
}

pub(super) fn cancelled(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Restore => "Cancelled. Nothing of it runs here.",
        Purpose::Move | Purpose::Check | Purpose::Dump | Purpose::Clone => {
            "Cancelled. It runs here as before."
        }
    }
}

/// What to do when nobody can be asked.
pub(super) fn doubt(id: MigrationId) -> String {
    format!(
        "It stands still here, and must not run while it may run there. Ask the destination again \
         with: migrate resume {id}\nOnly if it can never be asked again, find out by yourself and \
         answer for it: migrate settle {id} --keep-here, or --gone"
    )
}

pub(super) fn forget(id: MigrationId) -> String {
    format!(
        "What stands still here is from before it ran there. Ask again with: migrate resume {id}\n\
         To let it go on from there, which undoes what it did since: migrate settle {id} \
         --keep-here\nTo give it up, which ends what is left of it here: migrate settle {id} --gone"
    )
}

pub(super) fn let_go(id: MigrationId) -> String {
    format!("It does not run anywhere else. Let it go on here with: migrate resume {id}")
}

pub(super) fn send(id: MigrationId) -> String {
    format!(
        "It stands still there when it needs one. The pages are here; send them with: migrate \
         resume {id}"
    )
}

pub(super) fn end(id: MigrationId) -> String {
    format!("It must never run here again. End it with: migrate resume {id}")
}

pub(super) fn and_then(mut lines: Vec<String>, advice: String) -> Vec<String> {
    lines.push(advice);
    lines
}
