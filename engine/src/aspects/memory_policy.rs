//! Which memory nodes a thread's new pages come from, set_mempolicy(2).
//!
//! A destination without these nodes, or with one only, leaves its default: where a page lies is
//! about speed, not about meaning. The policies of mappings (mbind(2)) belong to the mappings.

use super::{Aspect, Scope, Subject, mask};
use crate::args;
use crate::batch::{Answers, Batch, Bytes, Call};
use crate::error::{Error, OnObject as _};

pub(super) struct MemoryPolicy;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    /// MPOL_DEFAULT is 0; with its MPOL_F_* flags.
    #[prost(uint32, tag = "1")]
    mode: u32,
    /// One bit a node.
    #[prost(fixed64, repeated, tag = "2")]
    nodes: Vec<u64>,
}

/// The most that Linux can be built for; the kernel refuses less room than it has nodes.
const NODES_MAX: usize = 1024;

impl Aspect for MemoryPolicy {
    const NAME: &'static str = "memory policy";
    const SCOPE: Scope = Scope::Thread;
    type Image = Image;
    type Asked = (Call, Bytes, Bytes);

    fn ask(_subject: &Subject<'_>, batch: &mut Batch) -> Self::Asked {
        let (mode, nodes) = (batch.room(4), batch.room(NODES_MAX / 8));
        let args = args![mode, nodes, NODES_MAX, 0, 0];
        (batch.try_call(libc::SYS_get_mempolicy, args), mode, nodes)
    }

    fn read(
        subject: &Subject<'_>,
        (call, mode, nodes): Self::Asked,
        answers: &Answers,
    ) -> Result<Image, Error> {
        if answers.raw(call) == -i64::from(libc::ENOSYS) {
            return Ok(Image::default()); // A kernel without CONFIG_NUMA has one node.
        }
        answers.result(call).on("read", || subject.object(Self::NAME))?;
        let nodes = mask::from_bytes(answers.bytes(nodes));
        Ok(Image { mode: answers.u32_at(mode, 0), nodes })
    }

    fn restore(image: &Image, subject: &Subject<'_>, batch: &mut Batch) -> Result<(), Error> {
        if image.nodes.len() > NODES_MAX / 64 {
            let why = format!("{} words of nodes are too many", image.nodes.len());
            return Err(Error::invalid("restore", subject.object(Self::NAME), why));
        }
        // MPOL_DEFAULT takes no nodes, and is what is left if the policy cannot be had.
        batch.try_call(libc::SYS_set_mempolicy, args![0, 0, 0]);
        if image.mode != 0 {
            let bytes = batch.bytes(&mask::to_bytes(&image.nodes));
            // The kernel counts one bit less than it is told.
            let args = args![image.mode, bytes, image.nodes.len() * 64 + 1];
            batch.try_call(libc::SYS_set_mempolicy, args);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::trial::{alone, capture, comes_back, in_thread, restore, run, set};
    use super::*;

    fn prefer(mode: u32, nodes: u64) -> impl FnOnce(&mut Batch) {
        move |batch| {
            let bytes = batch.bytes(&nodes.to_ne_bytes());
            set(batch, libc::SYS_set_mempolicy, args![mode, bytes, 65]);
        }
    }

    /// Node 0 is there on every host; what is not is a kernel without NUMA.
    fn numa() -> bool {
        let answers = run(|batch| {
            batch.try_call(libc::SYS_set_mempolicy, args![0, 0, 0]);
        });
        answers.results[0] != -i64::from(libc::ENOSYS)
    }

    #[test]
    fn comes_back_with_its_flags() {
        alone(|| {
            if !numa() {
                return crate::skipped::skip("this kernel knows no memory nodes");
            }
            // MPOL_INTERLEAVE | MPOL_F_STATIC_NODES, then MPOL_BIND.
            let interleave = 3 | (1 << 15);
            let image = in_thread(|| {
                comes_back::<MemoryPolicy>(prefer(interleave, 1), prefer(2, 1))
            });
            assert_eq!(image, Image { mode: interleave, nodes: vec![1] });
        });
    }

    #[test]
    fn for_nodes_that_are_not_there_is_dropped() {
        alone(|| {
            let far = Image { mode: 2, nodes: vec![0, 0, 0, 0, 0, 0, 1 << 63] };
            restore::<MemoryPolicy>(&far).unwrap();
            assert_eq!(capture::<MemoryPolicy>(), Image::default());
            assert!(restore::<MemoryPolicy>(&Image { mode: 2, nodes: vec![1; 17] }).is_err());
        });
    }
}
