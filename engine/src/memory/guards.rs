//! Guard pages: addresses inside a mapping that fault, without a mapping of their own
//! (MADV_GUARD_INSTALL, Linux 6.13; seen from outside since 6.15).

use super::mapping::Mapping;
use super::vm_flags::VmFlags;
use super::{PageSet, Run};
use crate::error::{Error, Object, OnObject as _};
use crate::sys::pagemap::{Categories, Pagemap, Query};

/// Of one mapping. The destination installs them after the pages are in place.
pub fn runs(pid: i32, mapping: &Mapping) -> Result<Vec<Run>, Error> {
    if !mapping.flags.has(VmFlags::GUARDS) {
        return Ok(Vec::new());
    }
    let mut guards = PageSet::new();
    let none = Categories::NONE;
    let (start, end) = (mapping.start, mapping.end);
    let query =
        Query { start, end, all: Categories::GUARD, none, any: none, tell: none, protect: false };
    Pagemap::open(pid)
        .on("open the pagemap of", || Object::Process { pid })?
        .scan(&query, &mut |region| guards.insert(region.start, region.pages()))
        .on("find the guard pages of", || mapping.object(pid))?;
    Ok(guards.runs().collect())
}

#[cfg(test)]
mod tests {
    use super::super::{mapping, test_program::Program};
    use super::*;

    #[test]
    fn guard_pages_are_found_where_the_program_put_them() {
        let program = Program::start("regions");
        let address = program.address("guarded");
        let mappings = mapping::read(program.pid).unwrap();
        let mapping = mapping::between(&mappings, address, address + 1).first().unwrap();
        if program.address("has_guards") == 0 {
            return crate::skipped::skip("this kernel has no guard pages");
        }
        assert_eq!(
            runs(program.pid, mapping).unwrap(),
            [Run { address: address + 4096, pages: 2 }]
        );
    }
}
