//! State that is seen and cannot be carried: each is a Refusal before anything is stopped.

mod namespaces;
mod seccomp;
mod security_label;
mod thirty_two_bit;
#[cfg(target_arch = "x86_64")]
mod x86_64;

use super::{Scope, Subject};
use crate::refusal::Refusal;

/// What looks for it, and whether at every thread.
pub(super) type Examine = fn(&Subject<'_>) -> Vec<Refusal>;

pub(super) static ALL: &[(Scope, Examine)] = &[
    (Scope::Process, thirty_two_bit::examine),
    (Scope::Thread, namespaces::examine),
    (Scope::Thread, seccomp::examine),
    (Scope::Thread, security_label::examine),
    #[cfg(target_arch = "x86_64")]
    (Scope::Thread, x86_64::examine),
];
