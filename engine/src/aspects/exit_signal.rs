//! The signal that a process's parent gets when it ends: an argument of clone(2), so the main path
//! needs it before there is a process to restore.

/// From the text of `/proc/PID/stat`: its 38th field, Linux 2.1. Usually SIGCHLD; 0 is none, and
/// -1 is of a thread that does not lead.
pub fn exit_signal(stat: &str) -> Option<i32> {
    // The name may hold spaces and parentheses, but nothing after it does.
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(38 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_found_behind_a_name_with_spaces_and_parentheses() {
        let stat = "13899 (a) R 1 (x) S 13891 13899 8855 0 -1 4194304 132 0 0 0 0 0 0 0 20 0 1 0 \
                    4117 3133440 439 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0";
        assert_eq!(exit_signal(stat), Some(17));
        assert_eq!(exit_signal("1 (x) S 1 2 3"), None);
        assert_eq!(exit_signal(""), None);
    }

    #[test]
    fn of_this_process_is_sigchld() {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        assert_eq!(exit_signal(&stat), Some(libc::SIGCHLD));
    }
}
