//! What `/proc/PID/status` says of a thread's credentials, proc_pid_status(5).

use super::super::field;
use super::{Capabilities, Ids, Image};

/// Without the securebits, which are not there. `CapAmb` is Linux 4.3, `NoNewPrivs` 4.10.
pub(super) fn parse(status: &str) -> Option<Image> {
    let mask = |name| u64::from_str_radix(field(status, name)?, 16).ok();
    Some(Image {
        user: ids(field(status, "Uid")?)?,
        group: ids(field(status, "Gid")?)?,
        groups: numbers(field(status, "Groups")?)?,
        capabilities: Capabilities {
            inheritable: mask("CapInh")?,
            permitted: mask("CapPrm")?,
            effective: mask("CapEff")?,
            bounding: mask("CapBnd")?,
            ambient: mask("CapAmb")?,
        },
        securebits: 0,
        no_new_privs: field(status, "NoNewPrivs")? == "1",
    })
}

fn ids(text: &str) -> Option<Ids> {
    let [real, effective, saved, file_system] = numbers(text)?.try_into().ok()?;
    Some(Ids { real, effective, saved, file_system })
}

fn numbers(text: &str) -> Option<Vec<u32>> {
    text.split_whitespace().map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tx\nUmask:\t0022\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\n\
        FDSize:\t256\nGroups:\t10 4294967294 \nCapInh:\t0000000000000001\n\
        CapPrm:\t000001fffeffffff\nCapEff:\t0000000000000002\nCapBnd:\t0000000000000400\n\
        CapAmb:\t0000000000000001\nNoNewPrivs:\t1\nSeccomp:\t0\n";

    #[test]
    fn every_part_is_found() {
        let image = parse(STATUS).unwrap();
        assert_eq!(image.user, Ids { real: 1, effective: 2, saved: 3, file_system: 4 });
        assert_eq!(image.group, Ids { real: 5, effective: 6, saved: 7, file_system: 8 });
        assert_eq!(image.groups, [10, 4_294_967_294]);
        let expected = Capabilities {
            inheritable: 1,
            permitted: 0x1ff_feff_ffff,
            effective: 2,
            bounding: 0x400,
            ambient: 1,
        };
        assert_eq!(image.capabilities, expected);
        assert!(image.no_new_privs);
    }

    #[test]
    fn a_missing_or_malformed_part_is_no_answer() {
        assert_eq!(parse(""), None);
        assert_eq!(parse(&STATUS.replace("Uid:\t1", "Uid:\t-1")), None);
        assert_eq!(parse(&STATUS.replace("\t8\n", "\n")), None);
        assert_eq!(parse(&STATUS.replace("CapAmb", "CapXxx")), None);
        assert!(parse(&STATUS.replace("10 4294967294 ", " ")).unwrap().groups.is_empty());
    }
}
