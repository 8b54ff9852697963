//! Whose a lock is, and what it leaves behind: nothing.

use super::super::super::netlink::{Attributes, Message, attributes};
use super::super::super::nftables::Hook;
use super::*;
use crate::sys::here::fork_here;

#[test]
fn two_locks_do_not_know_of_each_other() {
    let Some(town) = Town::new() else { return };
    let listener = town.listen("[::]:0");
    let (one, its_client) = town.pair(&listener, at("192.0.2.1", &listener));
    let (other, others_client) = town.pair(&listener, at("192.0.2.1", &listener));
    let (mut first, mut second) = (town.lock(), town.lock());
    assert_ne!(first.table, second.table);
    first.hold(&[flow(&one)]).unwrap();
    second.hold(&[flow(&other), flow(&one)]).unwrap();
    second.clear().unwrap();
    drop(second);
    says(&others_client, "free", &other);
    (&its_client).write_all(b"held").unwrap();
    sleep(GAP / 3);
    assert!(has_nothing(&one));
    drop(first);
    hears(&one, "held");
}

/// The names of all tables of the family `inet`.
fn tables(host: &Host) -> Vec<String> {
    let kind = u16::try_from(libc::NFNL_SUBSYS_NFTABLES << 8 | libc::NFT_MSG_GETTABLE).unwrap();
    let message = Message::new(kind, 0, &[1, 0, 0, 0], &Attributes::new());
    let list = host.run(|| connect().unwrap().list(&message).unwrap());
    let name = |body: &Vec<u8>| {
        let (_, name) = attributes(&body[4..]).find(|(kind, _)| *kind == 1).unwrap();
        String::from_utf8(name.to_vec()).unwrap().trim_end_matches('\0').to_owned()
    };
    list.iter().map(name).collect()
}

#[test]
fn ends_with_its_owner_when_that_is_killed() {
    let Some(town) = Town::new() else { return };
    let listener = town.listen("[::]:0");
    let (server, client) = town.pair(&listener, at("192.0.2.1", &listener));
    let held = [flow(&server)];
    let owner = town.server.run(|| {
        fork_here(|| {
            let mut lock = Lock::open().map_err(|error| error.source)?;
            lock.hold(&held).map_err(|error| error.source)?;
            std::mem::forget(lock);
            Ok(())
        })
    });
    assert_eq!(tables(&town.server).len(), 1);
    (&client).write_all(b"held").unwrap();
    sleep(GAP / 3);
    assert!(has_nothing(&server));
    // With SIGKILL.
    drop(owner);
    assert_eq!(tables(&town.server), [""; 0]);
    hears(&server, "held");
}

#[test]
fn nobody_else_can_take_it_away_and_others_filters_stay() {
    let Some(town) = Town::new() else { return };
    let stranger = town.server.run(|| connect().unwrap());
    Batch::of("foreign")
        .table_with(0)
        .chain("early", Hook::PreRouting, i32::MIN)
        .chain("late", Hook::Input, 0)
        .commit(&stranger)
        .unwrap();
    let listener = town.listen("[::]:0");
    let (server, client) = town.pair(&listener, at("192.0.2.1", &listener));
    let mut lock = town.lock();
    lock.hold(&[flow(&server)]).unwrap();
    let error = Batch::of(&lock.table).delete_table().commit(&stranger).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    (&client).write_all(b"held").unwrap();
    sleep(GAP / 3);
    assert!(has_nothing(&server));
    drop(lock);
    hears(&server, "held");
    assert_eq!(tables(&town.server), ["foreign"]);
}

#[test]
fn a_probe_leaves_nothing_and_finds_nothing_missing() {
    let Some(host) = Host::new() else { return };
    assert_eq!(host.run(Lock::probe), None);
    assert_eq!(tables(&host), [""; 0]);
}

#[test]
fn a_failure_names_the_part_that_failed() {
    let Some(host) = Host::new() else { return };
    let socket = host.run(|| connect().unwrap());
    let error = Batch::of("t").add("flows4", &[vec![0; 16]]).commit(&socket).unwrap_err();
    assert_eq!(error.to_string(), "set flows4: No such file or directory (os error 2)");
    let error = rules(Batch::of("t").table_with(1 << 31)).commit(&socket).unwrap_err();
    assert!(error.to_string().starts_with("table t: "), "{error}");
}
