//! The area through which the kernel tells a thread its CPU and restarts its critical sections,
//! rseq(2). Read by PTRACE_GET_RSEQ_CONFIGURATION (Linux 5.13), so it is no aspect of the list.

use super::Subject;
use crate::args;
use crate::batch::Batch;
use crate::error::Error;

/// As struct ptrace_rseq_configuration has it.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct RseqImage {
    /// Zero: not registered.
    #[prost(uint64, tag = "1")]
    pub pointer: u64,
    #[prost(uint32, tag = "2")]
    pub size_bytes: u32,
    #[prost(uint32, tag = "3")]
    pub signature: u32,
    #[prost(uint32, tag = "4")]
    pub flags: u32,
}

/// Writes the call that registers the area again. The kernel writes the area at once, so its page
/// must be there. EBUSY if the new thread still has the registration that it was born with.
pub fn restore_rseq(
    image: &RseqImage,
    subject: &Subject<'_>,
    batch: &mut Batch,
) -> Result<(), Error> {
    let object = subject.object("restartable sequences");
    if image.flags != 0 {
        let why = format!("flags {:#x} are not known", image.flags);
        return Err(Error::invalid("register", object, why));
    }
    if image.pointer != 0 {
        let args = args![image.pointer, image.size_bytes, 0, image.signature];
        batch.call("register", &object, libc::SYS_rseq, args);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::trial::{alone, run, this_thread};
    use super::*;
    use crate::sys::here::run_here;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// cpu_id_start, cpu_id, and what is not looked at.
    #[repr(align(32))]
    struct Area([AtomicU32; 8]);

    /// No CPU has this number: RSEQ_CPU_ID_UNINITIALIZED.
    const NO_CPU: u32 = u32::MAX;

    #[test]
    fn are_registered_where_they_were() {
        alone(|| {
            let area: &Area =
                Box::leak(Box::new(Area([NO_CPU, NO_CPU, 0, 0, 0, 0, 0, 0].map(AtomicU32::new))));
            let pointer = std::ptr::from_ref(area).addr() as u64;
            let image = RseqImage { pointer, size_bytes: 32, signature: 0x5305_3053, flags: 0 };
            let register = |batch: &mut Batch| restore_rseq(&image, &this_thread(), batch).unwrap();
            run(register);
            assert_ne!(area.0[1].load(Ordering::Relaxed), NO_CPU, "the kernel tells the CPU");
            let mut again = Batch::new();
            register(&mut again);
            assert_eq!(run_here(&again).results, [-i64::from(libc::EBUSY)]);
        });
    }

    #[test]
    fn with_unknown_flags_are_an_error() {
        let image = RseqImage { flags: 1, ..RseqImage::default() };
        assert!(restore_rseq(&image, &this_thread(), &mut Batch::new()).is_err());
    }

    #[test]
    fn of_a_thread_without_any_are_left_out() {
        let mut batch = Batch::new();
        restore_rseq(&RseqImage::default(), &this_thread(), &mut batch).unwrap();
        assert!(batch.is_empty());
    }
}
