//! What `/proc/PID/status` says of a thread's credentials, proc_pid_status(5).

use super::{Capabilities, Ids, Image};

/// Without the securebits, which are not there. `CapAmb` is Linux 4.3, `NoNewPrivs` 4.10.
pub(super) fn parse(status: &str) -> Option<Image> {
    let found = Found::of(status);
    let mask = |text| u64::from_str_radix(text, 16).ok();
    Some(Image {
        user: ids(found.uid?)?,
        group: ids(found.gid?)?,
        groups: numbers(found.groups?)?,
        capabilities: Capabilities {
            inheritable: mask(found.cap_inh?)?,
            permitted: mask(found.cap_prm?)?,
            effective: mask(found.cap_eff?)?,
            bounding: mask(found.cap_bnd?)?,
            ambient: mask(found.cap_amb?)?,
        },
        securebits: 0,
        no_new_privs: found.no_new_privs? == "1",
    })
}

/// The fields, found in one pass: there are sixty, for each of five hundred threads in a freeze.
#[derive(Default)]
struct Found<'a> {
    uid: Option<&'a str>,
    gid: Option<&'a str>,
    groups: Option<&'a str>,
    cap_inh: Option<&'a str>,
    cap_prm: Option<&'a str>,
    cap_eff: Option<&'a str>,
    cap_bnd: Option<&'a str>,
    cap_amb: Option<&'a str>,
    no_new_privs: Option<&'a str>,
}

impl<'a> Found<'a> {
    fn of(status: &'a str) -> Self {
        let mut found = Self::default();
        for (name, text) in status.lines().filter_map(|line| line.split_once(':')) {
            let place = match name {
                "Uid" => &mut found.uid,
                "Gid" => &mut found.gid,
                "Groups" => &mut found.groups,
                "CapInh" => &mut found.cap_inh,
                "CapPrm" => &mut found.cap_prm,
                "CapEff" => &mut found.cap_eff,
                "CapBnd" => &mut found.cap_bnd,
                "CapAmb" => &mut found.cap_amb,
                "NoNewPrivs" => &mut found.no_new_privs,
                _ => continue,
            };
            // The kernel escapes a newline in the name: none of its lines looks like another.
            *place = place.or(Some(text.trim()));
        }
        found
    }
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
