use super::super::trial::{alone, capture, in_thread, restore, run, set};
use super::*;

const CHOWN: u64 = 1 << 0;
const KILL: u64 = 1 << 5;
const NET_BIND: u64 = 1 << 10;

fn of_a_service() -> Image {
    Image {
        user: Ids { real: 1000, effective: 1001, saved: 1002, file_system: 1003 },
        group: Ids { real: 2000, effective: 2001, saved: 2002, file_system: 2003 },
        groups: vec![5, 70_000, 4_000_000_000],
        capabilities: Capabilities {
            // Inheritable without being in the bounding set: it was dropped from that later.
            inheritable: NET_BIND | CHOWN,
            permitted: NET_BIND | KILL,
            effective: KILL,
            bounding: NET_BIND,
            ambient: NET_BIND,
        },
        // SECBIT_NOROOT and its lock, SECBIT_KEEP_CAPS.
        securebits: 0b1_0011,
        no_new_privs: true,
    }
}

#[test]
fn of_an_unprivileged_thread_come_back_to_the_last_bit() {
    alone(|| {
        let expected = of_a_service();
        let (image, status) = in_thread(|| {
            restore::<Credentials>(&expected).unwrap();
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            (capture::<Credentials>(), status)
        });
        assert_eq!(image, expected);
        assert!(status.contains("Uid:\t1000\t1001\t1002\t1003\n"), "{status}");
        assert!(status.contains("Groups:\t5 70000 4000000000 \n"), "{status}");
        assert!(status.contains("CapAmb:\t0000000000000400\n"), "{status}");
        // What was captured is enough to make another such thread.
        let again = in_thread(|| {
            restore::<Credentials>(&image).unwrap();
            capture::<Credentials>()
        });
        assert_eq!(again, expected);
    });
}

#[test]
fn of_root_come_back_as_root() {
    alone(|| {
        let before = capture::<Credentials>();
        assert_eq!(before.capabilities, grant::tests::own());
        in_thread(|| {
            restore::<Credentials>(&before).unwrap();
            assert_eq!(capture::<Credentials>(), before);
        });
    });
}

#[test]
fn of_root_without_capabilities_get_none_back() {
    alone(|| {
        let before = capture::<Credentials>();
        let image = Image { capabilities: Capabilities::default(), ..before };
        in_thread(|| {
            restore::<Credentials>(&image).unwrap();
            assert_eq!(capture::<Credentials>(), image);
        });
    });
}

/// One at a time.
#[test]
fn that_changed_in_any_part_are_seen_to_have_changed() {
    alone(|| {
        type Change = fn(&mut Batch);
        let changes: [Change; 7] = [
            |batch| set(batch, libc::SYS_setresuid, args![0, 0, 77]),
            |batch| set(batch, libc::SYS_setresgid, args![-1, 78, -1]),
            |batch| set(batch, libc::SYS_setfsgid, args![79]),
            |batch| {
                let groups = batch.bytes(&4_u32.to_ne_bytes());
                set(batch, libc::SYS_setgroups, args![1, groups]);
            },
            |batch| set(batch, libc::SYS_prctl, args![libc::PR_CAPBSET_DROP, 5]),
            |batch| {
                let header = batch.bytes(&capability::cap_header());
                let none = batch.bytes(&[0; 24]);
                set(batch, libc::SYS_capset, args![header, none]);
            },
            |batch| set(batch, libc::SYS_prctl, args![libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0]),
        ];
        for change in changes {
            in_thread(|| {
                let before = capture::<Credentials>();
                run(change);
                assert_ne!(capture::<Credentials>(), before);
            });
        }
    });
}

#[test]
fn with_an_ambient_capability_raised_are_seen_so() {
    alone(|| {
        in_thread(|| {
            let mut image = capture::<Credentials>();
            image.capabilities.inheritable = NET_BIND;
            restore::<Credentials>(&image).unwrap();
            let raise = args![libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, 10, 0, 0].to_vec();
            run(|batch| set(batch, libc::SYS_prctl, &raise));
            let seen = capture::<Credentials>();
            assert_eq!(seen.capabilities.ambient, NET_BIND);
        });
    });
}

#[test]
fn that_the_agent_cannot_give_are_named() {
    alone(|| {
        let mut image = of_a_service();
        image.capabilities.permitted |= 1 << 63;
        let error = restore::<Credentials>(&image).unwrap_err();
        assert_eq!(error.source.to_string(), "this host's agent cannot give capability 63");
    });
}

/// setresuid(2) takes -1 for "as it is", and the stub is root's.
#[test]
fn with_an_id_that_means_no_change_are_refused() {
    alone(|| {
        let forge: [fn(&mut Image); 5] = [
            |image| image.user.real = u32::MAX,
            |image| image.user.effective = u32::MAX,
            |image| image.user.file_system = u32::MAX,
            |image| image.group.saved = u32::MAX,
            |image| image.groups.push(u32::MAX),
        ];
        for forge in forge {
            let mut image = of_a_service();
            forge(&mut image);
            let error = restore::<Credentials>(&image).unwrap_err();
            assert_eq!(error.source.to_string(), "4294967295 is nobody's id");
        }
    });
}
