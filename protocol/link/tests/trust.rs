//! Who comes together, and what those who do not are told.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "support/pair.rs"]
mod pair;

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use link::{KnownHosts, LinkError, Refused, Tuning, connect};
use pair::{HOST, Pair, WAIT, identity};

#[tokio::test]
async fn two_hosts_that_trust_each_other_know_whom_they_reached() {
    let pair = Pair::new(Tuning::bulk());
    let (source, destination) = pair.established().await;
    assert_eq!(source.fingerprint(), pair.destination.fingerprint());
    assert_eq!(destination.fingerprint(), pair.source.fingerprint());
    assert_eq!(source.address(), pair.listener.address());
}

#[tokio::test]
async fn a_source_that_is_not_authorised_is_told_what_to_add() {
    let pair = Pair::unauthorised();
    let (source, destination) = pair.meet().await;

    let told = source.unwrap_err();
    let own_key = pair.source.fingerprint();
    assert!(
        matches!(&told, LinkError::Unauthorised { fingerprint, .. } if *fingerprint == own_key)
    );
    assert_eq!(
        told.to_string(),
        format!("hostb does not accept us; add to its authorized_hosts the line: {own_key}")
    );

    let seen = destination.unwrap_err();
    assert!(matches!(seen, LinkError::Stranger { fingerprint, .. } if fingerprint == own_key));
}

#[tokio::test]
async fn a_destination_that_is_not_known_is_named_with_its_key() {
    let mut pair = Pair::new(Tuning::bulk());
    pair.known_hosts = KnownHosts::default();
    let (source, destination) = pair.meet().await;

    let told = source.unwrap_err();
    let shown = pair.destination.fingerprint();
    assert!(matches!(&told, LinkError::UnknownHost { fingerprint, .. } if *fingerprint == shown));
    assert!(told.to_string().ends_with(&format!("the line: hostb {shown}")), "{told}");
    assert!(matches!(destination.unwrap_err(), LinkError::TurnedDown { .. }));
}

#[tokio::test]
async fn a_destination_whose_key_changed_is_not_trusted() {
    let mut pair = Pair::new(Tuning::bulk());
    let before = identity().fingerprint();
    pair.known_hosts = KnownHosts::default();
    pair.known_hosts.add(HOST, before);

    let (source, _) = pair.meet().await;
    let told = source.unwrap_err();
    let LinkError::ChangedHost { fingerprint, known, .. } = told else { panic!("{told:?}") };
    assert_eq!(fingerprint, pair.destination.fingerprint());
    assert_eq!(known, [before]);
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_named_after_the_wait() {
    // Bound and never read: nothing answers, and nobody else can take the port meanwhile.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let own = identity();
    let wait = Duration::from_millis(200);
    let tuning = Tuning { handshake_wait: wait, ..Tuning::bulk() };

    let told = connect(HOST, address, &own, &KnownHosts::default(), &tuning).await.unwrap_err();
    assert!(matches!(told, LinkError::Unreachable { waited, .. } if waited == wait));
    let words = format!("hostb does not answer at UDP {address} (waited 200ms)");
    assert_eq!(told.to_string(), words);
}

#[tokio::test]
async fn a_key_that_is_struck_off_is_out_at_the_next_connection() {
    let mut pair = Pair::new(Tuning::bulk());
    let listed = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&listed);
    pair.listener = link::Listener::bind(
        pair::anywhere(),
        &pair.destination,
        Arc::new(move |_| match asked.load(Ordering::Relaxed) {
            true => Ok(Vec::new()),
            false => Err(Refused::NotListed.into()),
        }),
        &pair.tuning,
    )
    .unwrap();

    let (source, _destination) = pair.established().await;
    listed.store(false, Ordering::Relaxed);
    let (again, refused) =
        tokio::join!(source.connect_again(&pair.source, &pair.tuning), pair.accept());
    assert!(matches!(again.unwrap_err(), LinkError::Unauthorised { .. }));
    assert!(matches!(refused.unwrap_err(), LinkError::Stranger { .. }));
}

#[tokio::test]
async fn a_source_is_not_told_to_add_a_line_to_a_file_that_cannot_be_read() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join(link::AUTHORIZED_HOSTS), "garbage\n").unwrap();
    let mut pair = Pair::new(Tuning::bulk());
    let authorised: link::Authorised =
        Arc::new(move |shown| Ok(link::AuthorizedHosts::load(home.path())?.admit(shown)?));
    pair.listener =
        link::Listener::bind(pair::anywhere(), &pair.destination, authorised, &pair.tuning)
            .unwrap();

    let (source, destination) = pair.meet().await;
    let told = source.unwrap_err().to_string();
    assert!(told.contains("configuration is broken") && !told.contains("garbage"), "{told}");
    assert!(!told.contains("authorized_hosts"), "{told}");
    let seen = destination.unwrap_err();
    assert!(matches!(seen, LinkError::Undecided { .. }), "{seen:?}");
}

#[tokio::test]
async fn a_second_connection_shares_the_socket_and_nothing_else() {
    let pair = Pair::new(Tuning::bulk());
    let (first, _first) = pair.established().await;
    let tuning = Tuning::faults();
    let (second, second_there) =
        tokio::join!(first.connect_again(&pair.source, &tuning), pair.accept());
    let (second, second_there) = (second.unwrap(), second_there.unwrap());
    assert_eq!(second.fingerprint(), first.fingerprint());

    first.close(16, "the first one is done");
    let (here, there) =
        tokio::join!(second.open_control(1, 1024, WAIT), second_there.accept_control(1024, WAIT));
    assert_eq!((here.unwrap().index, there.unwrap().index), (1, 1));
}
