//! New connections wait at a shut gate, and only these.

use super::*;

const ASKS: u8 = 0x02;
const ANSWERS: u8 = 0x12;

/// What is said at a port of the server: the flags, and whether by the server.
fn said(capture: &Capture, port: u16) -> Vec<(u8, bool)> {
    let about = capture.segments().into_iter().filter(|one| one.to == port || one.from == port);
    about.map(|one| (one.flags, one.from == port)).collect()
}

/// Until somebody has asked; everything that was said so far.
fn said_until_asked(capture: &Capture, port: u16) -> Vec<(u8, bool)> {
    let (mut all, deadline) = (Vec::new(), Instant::now() + LIMIT);
    while !all.contains(&(ASKS, false)) {
        assert!(Instant::now() < deadline, "nobody has asked");
        sleep(Duration::from_millis(5));
        all.extend(said(capture, port));
    }
    all
}

#[test]
fn a_new_connection_waits_at_a_shut_gate() {
    let Some(town) = Town::new() else { return };
    for (ip, gate) in [
        ("192.0.2.1", Some("192.0.2.1")),
        ("2001:db8::1", Some("2001:db8::1")),
        ("192.0.2.1", Some("::ffff:192.0.2.1")),
        ("192.0.2.1", None),
        ("2001:db8::1", None),
    ] {
        let (listener, other) = (town.listen("[::]:0"), town.listen("[::]:0"));
        let (server, client) = town.pair(&listener, at(ip, &listener));
        let port = listener.local_addr().unwrap().port();
        let mut lock = town.lock();
        lock.shut(&[Gate { address: gate.map(|ip| ip.parse().unwrap()), port }]).unwrap();
        let capture = town.server.run(Capture::new);
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| town.connect(at(ip, &listener)));
            let mut heard = said_until_asked(&capture, port);
            // They came later by the same cable, and were answered.
            town.pair(&other, at(ip, &other));
            says(&client, "those that are there go on", &server);
            heard.extend(said(&capture, port));
            assert!(!heard.contains(&(ANSWERS, true)) && !asking.is_finished(), "{heard:?}");
            lock.clear().unwrap();
            asking.join().unwrap();
        });
        listener.accept().unwrap();
    }
}

#[test]
fn a_gate_on_one_address_leaves_the_others_open() {
    let Some(town) = Town::new() else { return };
    town.server.address("192.0.2.9", 24, "s0");
    let listener = town.listen("[::]:0");
    let port = listener.local_addr().unwrap().port();
    let mut lock = town.lock();
    lock.shut(&[Gate { address: Some([192, 0, 2, 9].into()), port }]).unwrap();
    for ip in ["192.0.2.1", "2001:db8::1"] {
        let capture = town.server.run(Capture::new);
        town.pair(&listener, at(ip, &listener));
        // Who asks twice has not been heard at first.
        assert_eq!(said(&capture, port)[..2], [(ASKS, false), (ANSWERS, true)]);
    }
}
