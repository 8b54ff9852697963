//! `/proc/TID/status` of all threads of a frozen process.

use crate::aspects::read_status;
use crate::error::{Error, Object, OnObject as _};
use crate::spread::spread;
use crate::tracee::Stopped;
use std::collections::HashMap;

#[derive(Debug)]
pub(super) struct Statuses(HashMap<i32, String>);

/// 12 us each: what two threads can share before it is worth while.
const SHARE_MIN: usize = 32;

impl Statuses {
    pub(super) fn read(threads: &[Stopped]) -> Result<Self, Error> {
        let tids: Vec<i32> = threads.iter().map(Stopped::tid).collect();
        let pid = threads.first().map_or(0, Stopped::pid);
        let statuses = spread(&tids, SHARE_MIN, |&tid| {
            let text = read_status(tid).on("read the status of", || Object::Thread { pid, tid })?;
            Ok((tid, text))
        });
        Ok(Self(statuses.into_iter().collect::<Result<_, Error>>()?))
    }

    pub(super) fn of(&self, thread: &Stopped) -> &str {
        self.0.get(&thread.tid()).expect("those of all threads were read")
    }
}
