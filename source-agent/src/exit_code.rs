//! How a command ends that stands for a program: as that has ended, and as a shell has it.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};

pub(crate) fn of(ended: ExitStatus) -> ExitCode {
    match (ended.code(), ended.signal()) {
        (Some(code), _) => exited(code),
        (None, Some(signal)) => killed_by(signal),
        // Only one that has ended is waited for.
        (None, None) => ExitCode::from(4),
    }
}

pub(crate) fn exited(code: i32) -> ExitCode {
    u8::try_from(code & 0xff).unwrap_or(u8::MAX).into()
}

pub(crate) fn killed_by(signal: i32) -> ExitCode {
    exited(128 + signal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_program_is_told_as_a_shell_tells_it() {
        let code = |raw| format!("{:?}", of(ExitStatus::from_raw(raw)));
        assert_eq!(code(3 << 8), format!("{:?}", ExitCode::from(3)));
        assert_eq!(code(9), format!("{:?}", ExitCode::from(137)));
        // wait(2): it was only stopped.
        assert_eq!(code(0x137f), format!("{:?}", ExitCode::from(4)));
    }
}
