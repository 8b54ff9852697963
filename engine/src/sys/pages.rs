//! Whether pages of a process are in memory, many in one call.

use std::io;

/// One answer a page. A page in swap, the kernel's page of zeros and what is not mapped count as
/// not there. So does everything where the kernel does not tell (no CONFIG_NUMA, a seccomp
/// filter on us): whoever asks looks closer at what is not there.
///
/// ESRCH: there is no such process, or it has no memory any more.
pub(crate) fn are_there(pid: i32, pages: &[u64]) -> io::Result<Vec<bool>> {
    let mut nodes = vec![-1_i32; pages.len()];
    // SAFETY: without a list of nodes, move_pages(2) only reads the addresses, of which there are
    // as many as are said, and writes one int for each. They are another process's addresses.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            pid,
            pages.len(),
            pages.as_ptr(),
            std::ptr::null::<i32>(),
            nodes.as_mut_ptr(),
            0,
        )
    };
    if ret < 0 {
        let error = io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::ESRCH) {
            return Err(error);
        }
        nodes.fill(-1);
    }
    Ok(nodes.into_iter().map(|node| node >= 0).collect())
}

#[cfg(test)]
mod tests {
    use super::super::vm::Scratch;
    use super::*;

    #[test]
    fn a_page_is_there_when_it_was_written() {
        let mut scratch = Scratch::new(4 * 4096).unwrap();
        scratch.write(4096, 1);
        scratch.read(2 * 4096);
        let pages: Vec<u64> = (0..4).map(|page| scratch.address() + page * 4096).collect();
        let us = std::process::id().cast_signed();
        let found = are_there(us, &pages).unwrap();
        if found == [false; 4] {
            return crate::skipped::skip("this kernel does not tell where pages are");
        }
        assert_eq!(found, [false, true, false, false]);
        assert!(are_there(us, &[]).unwrap().is_empty());
    }

    #[test]
    fn a_process_that_is_gone_is_said_to_be_gone() {
        let error = are_there(i32::MAX, &[4096]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
    }
}
