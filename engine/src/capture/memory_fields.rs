//! The bounds that the kernel keeps of an address space, from `/proc/PID/stat`.

use crate::error::{Error, Object, OnObject as _};
use crate::image::MemoryFields;
use crate::tree::Process;
use std::fs;

pub(super) fn capture(process: &Process, brk: u64) -> Result<MemoryFields, Error> {
    let pid = process.pid;
    let object = || Object::Process { pid };
    let stat = &process.stat;
    let field = |value: Option<u64>| value.unwrap_or(0);
    let executable = fs::read_link(format!("/proc/{pid}/exe")).on("find the program of", object)?;
    Ok(MemoryFields {
        bounds: vec![
            stat.startcode,
            stat.endcode,
            field(stat.start_data),
            field(stat.end_data),
            field(stat.start_brk),
            brk,
            stat.startstack,
            field(stat.arg_start),
            field(stat.arg_end),
            field(stat.env_start),
            field(stat.env_end),
        ],
        auxv: fs::read(format!("/proc/{pid}/auxv")).on("read the auxiliary vector of", object)?,
        executable: executable.to_string_lossy().into_owned(),
    })
}
