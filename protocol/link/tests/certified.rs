//! Hosts that trust a CA instead of each other's keys: who is let in, and why everybody else is not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "support/pair.rs"]
mod pair;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use link::{
    AUTHORIZED_HOSTS, Authority, AuthorizedHosts, Connection, Fingerprint, Identity, KNOWN_HOSTS,
    KnownHosts, LinkError, Listener, REVOKED_HOSTS, Refused, Role, Terms, Tuning, certify, connect,
    fetch,
};
use pair::{HOST, anywhere};
use tempfile::TempDir;

const DAY: Duration = Duration::from_hours(24);

/// A CA, and the directories of a source and of a destination.
struct Fleet {
    home: TempDir,
    authority: Authority,
}

type Met = (Result<Connection, LinkError>, Result<Connection, LinkError>);

impl Fleet {
    /// Two hosts that trust nobody yet.
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let authority = Authority::create(&home.path().join("ca"), "fleet.example").unwrap();
        let fleet = Self { home, authority };
        for host in ["hosta", HOST] {
            Identity::create(&fleet.of(host)).unwrap();
        }
        fleet
    }

    /// Two hosts that trust this CA, and are certified by it.
    fn certified() -> Self {
        let fleet = Self::new();
        fleet.certify("hosta", &terms(&["hosta"]));
        fleet.certify(HOST, &terms(&[HOST, "192.0.2.7"]));
        let line = format!("@cert-authority {}\n", fleet.authority.fingerprint());
        fleet.write(HOST, AUTHORIZED_HOSTS, &line);
        fleet.write("hosta", KNOWN_HOSTS, &line);
        fleet
    }

    fn of(&self, host: &str) -> std::path::PathBuf {
        self.home.path().join(host)
    }

    fn write(&self, host: &str, file: &str, text: &str) {
        fs::write(self.of(host).join(file), text).unwrap();
    }

    fn key(&self, host: &str) -> Fingerprint {
        Identity::load(&self.of(host)).unwrap().fingerprint()
    }

    fn certify(&self, host: &str, terms: &Terms) -> u64 {
        certify_by(&self.authority, &self.of(host), terms)
    }

    /// What the source and what the destination make of one attempt.
    async fn meet(&self) -> Met {
        self.meet_as(HOST).await
    }

    async fn meet_as(&self, name: &str) -> Met {
        let (source, listener) = (Identity::load(&self.of("hosta")).unwrap(), self.listener());
        let known = KnownHosts::load(&self.of("hosta")).unwrap();
        let tuning = Tuning::bulk();
        tokio::join!(connect(name, listener.address(), &source, &known, &tuning), async {
            listener.accept().await?.establish().await
        })
    }

    fn listener(&self) -> Listener {
        let destination = Identity::load(&self.of(HOST)).unwrap();
        let hosts = AuthorizedHosts::load(&self.of(HOST)).unwrap();
        let authorised = Arc::new(move |shown: &_| Ok(hosts.admit(shown)?));
        Listener::bind(anywhere(), &destination, authorised, &Tuning::bulk()).unwrap()
    }

    /// The destination's reason, after the source has been told of it in the same words.
    async fn turned_away(&self) -> Refused {
        let (source, destination) = self.meet().await;
        let Err(LinkError::TurnedAway { fingerprint, source: why, .. }) = destination else {
            panic!("{destination:?}");
        };
        assert_eq!(fingerprint, self.key("hosta"));
        let Err(LinkError::Rejected { reason, .. }) = source else { panic!("{source:?}") };
        assert_eq!(reason, format!("its {why}"));
        why
    }

    /// The source's reason; the destination only sees that it goes away.
    async fn distrusted(&self) -> Refused {
        let (source, destination) = self.meet().await;
        let Err(LinkError::Untrusted { source: why, .. }) = source else { panic!("{source:?}") };
        assert!(matches!(destination, Err(LinkError::TurnedDown { .. })), "{destination:?}");
        why
    }
}

fn certify_by(authority: &Authority, directory: &Path, terms: &Terms) -> u64 {
    let identity = Identity::load(directory).unwrap();
    let from = Path::new("pub");
    let issue = authority.sign(identity.public_key(), from, terms).unwrap();
    assert_eq!(issue.fingerprint, identity.fingerprint());
    certify(directory, &issue.pem, from).unwrap();
    issue.serial
}

fn terms(names: &[&str]) -> Terms {
    let now = SystemTime::now();
    Terms {
        names: names.iter().map(ToString::to_string).collect(),
        roles: vec![Role::Source, Role::Destination],
        from: now - DAY,
        until: now + DAY,
        serial: None,
    }
}

#[tokio::test]
async fn two_certified_hosts_meet_and_the_source_has_its_names() {
    let fleet = Fleet::certified();
    let (source, destination) = fleet.meet().await;
    let destination = destination.unwrap();
    assert_eq!(source.unwrap().fingerprint(), fleet.key(HOST));
    assert_eq!(destination.fingerprint(), fleet.key("hosta"));
    assert_eq!(destination.names(), ["hosta"]);
}

#[tokio::test]
async fn a_certified_destination_is_known_by_its_names_and_addresses_only() {
    let fleet = Fleet::certified();
    assert!(fleet.meet_as("HostB").await.0.is_ok(), "names have no case");
    assert!(fleet.meet_as("192.0.2.7").await.0.is_ok());
    for name in ["hostc", "192.0.2.8", "not a name"] {
        let (source, _) = fleet.meet_as(name).await;
        let Err(LinkError::Untrusted { source: why, .. }) = source else { panic!("{source:?}") };
        assert!(matches!(why, Refused::ForeignName { .. }), "{name}: {why}");
    }
}

#[tokio::test]
async fn a_second_connection_of_a_certified_host_is_judged_too() {
    let fleet = Fleet::certified();
    let (source, listener) = (Identity::load(&fleet.of("hosta")).unwrap(), fleet.listener());
    let known = KnownHosts::load(&fleet.of("hosta")).unwrap();
    let tuning = Tuning::bulk();
    let accept = || async { listener.accept().await?.establish().await };
    let (first, _there) =
        tokio::join!(connect(HOST, listener.address(), &source, &known, &tuning), accept());
    let first = first.unwrap();
    let (second, _there) = tokio::join!(first.connect_again(&source, &tuning), accept());
    assert_eq!(second.unwrap().fingerprint(), fleet.key(HOST));
    // Another key is not the same host, whoever has certified it.
    Identity::create(&fleet.of("other")).unwrap();
    fleet.certify("other", &terms(&[HOST]));
    listener.show(&Identity::load(&fleet.of("other")).unwrap(), &tuning).unwrap();
    let (third, _there) = tokio::join!(first.connect_again(&source, &tuning), accept());
    assert!(matches!(third, Err(LinkError::ChangedHost { .. })), "{third:?}");
}

#[tokio::test]
async fn a_listed_key_needs_no_certificate_and_has_no_name_by_a_bad_one() {
    let fleet = Fleet::certified();
    let long_ago = SystemTime::now() - 3 * DAY;
    for host in ["hosta", HOST] {
        fleet.certify(host, &Terms { from: long_ago - DAY, until: long_ago, ..terms(&[host]) });
    }
    let authority = fleet.authority.fingerprint();
    let authorised = format!("@cert-authority {authority}\n{}\n", fleet.key("hosta"));
    fleet.write(HOST, AUTHORIZED_HOSTS, &authorised);
    fleet.write("hosta", KNOWN_HOSTS, &format!("{HOST} {}\n", fleet.key(HOST)));
    let (source, destination) = fleet.meet().await;
    source.unwrap();
    assert_eq!(destination.unwrap().names(), [""; 0]);
}

#[tokio::test]
async fn expired_certificates_are_refused_on_both_sides() {
    let fleet = Fleet::certified();
    let (from, until) = (SystemTime::now() - 2 * DAY, SystemTime::now() - DAY);
    fleet.certify("hosta", &Terms { from, until, ..terms(&["hosta"]) });
    let why = fleet.turned_away().await;
    assert!(matches!(why, Refused::Expired { .. }), "{why}");
    assert!(why.to_string().contains("valid until 20"), "{why}");

    let fleet = Fleet::certified();
    fleet.certify(HOST, &Terms { from, until, ..terms(&[HOST]) });
    assert!(matches!(fleet.distrusted().await, Refused::Expired { .. }));
}

#[tokio::test]
async fn a_certificate_of_tomorrow_is_refused() {
    let fleet = Fleet::certified();
    let (from, until) = (SystemTime::now() + DAY, SystemTime::now() + 2 * DAY);
    fleet.certify("hosta", &Terms { from, until, ..terms(&["hosta"]) });
    assert!(matches!(fleet.turned_away().await, Refused::NotYet { .. }));
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused_on_both_sides() {
    let fleet = Fleet::certified();
    let other = Authority::create(&fleet.home.path().join("ca2"), "fleet.example").unwrap();
    certify_by(&other, &fleet.of("hosta"), &terms(&["hosta"]));
    assert_eq!(fleet.turned_away().await, Refused::UnknownAuthority(other.fingerprint()));

    let fleet = Fleet::certified();
    certify_by(&other, &fleet.of(HOST), &terms(&[HOST]));
    assert_eq!(fleet.distrusted().await, Refused::UnknownAuthority(other.fingerprint()));
}

/// The CA's certificate is public: showing it beside one that it has not signed is easy.
#[tokio::test]
async fn a_certificate_that_the_ca_has_not_signed_is_refused() {
    let fleet = Fleet::certified();
    // Of the same name, so that the issuer's name is right and only the signature is not.
    let other = Authority::create(&fleet.home.path().join("ca2"), "fleet.example").unwrap();
    let identity = Identity::load(&fleet.of("hosta")).unwrap();
    let sign = |by: &Authority| {
        by.sign(identity.public_key(), Path::new("p"), &terms(&["hosta"])).unwrap().pem
    };
    let (forged, genuine) = (sign(&other), sign(&fleet.authority));
    let end = "-----END CERTIFICATE-----\n";
    let host = forged.split_inclusive(end).next().unwrap();
    let authority = genuine.split_inclusive(end).nth(1).unwrap();
    let key = fs::read_to_string(fleet.of("hosta").join(link::IDENTITY)).unwrap();
    let key = key.split_inclusive("-----END PRIVATE KEY-----\n").next().unwrap();
    fleet.write("hosta", link::IDENTITY, &format!("{key}{host}{authority}"));
    let why = fleet.turned_away().await;
    assert!(matches!(why, Refused::BadCertificate(_)), "{why}");
}

#[tokio::test]
async fn a_certificate_for_the_other_side_is_refused() {
    let fleet = Fleet::certified();
    fleet.certify("hosta", &Terms { roles: vec![Role::Destination], ..terms(&["hosta"]) });
    assert_eq!(fleet.turned_away().await, Refused::WrongRole(Role::Source));

    let fleet = Fleet::certified();
    fleet.certify(HOST, &Terms { roles: vec![Role::Source], ..terms(&[HOST]) });
    assert_eq!(fleet.distrusted().await, Refused::WrongRole(Role::Destination));
}

#[tokio::test]
async fn a_ca_is_trusted_for_the_names_of_its_patterns_only() {
    let fleet = Fleet::certified();
    let authority = fleet.authority.fingerprint();
    fleet.write(HOST, AUTHORIZED_HOSTS, &format!("@cert-authority {authority} *.example\n"));
    let why = fleet.turned_away().await;
    assert_eq!(why, Refused::ForeignName { names: "hosta".to_owned() });
    fleet.certify("hosta", &terms(&["hosta", "a.example"]));
    assert_eq!(fleet.meet().await.1.unwrap().names(), ["a.example"], "other names do not count");

    fleet.write("hosta", KNOWN_HOSTS, &format!("@cert-authority {authority} *.example\n"));
    assert_eq!(fleet.distrusted().await, Refused::UnknownAuthority(authority));
}

#[tokio::test]
async fn a_revoked_key_is_refused_although_it_is_listed_and_certified() {
    for (file, marker) in [(REVOKED_HOSTS, ""), (AUTHORIZED_HOSTS, "@revoked ")] {
        let fleet = Fleet::certified();
        let (authority, key) = (fleet.authority.fingerprint(), fleet.key("hosta"));
        let trusted = format!("{key} hosta\n@cert-authority {authority}\n");
        fleet.write(HOST, AUTHORIZED_HOSTS, &trusted);
        assert!(fleet.meet().await.1.is_ok());
        let trusted = if file == AUTHORIZED_HOSTS { trusted } else { String::new() };
        fleet.write(HOST, file, &format!("{trusted}{marker}{key}\n"));
        assert_eq!(fleet.turned_away().await, Refused::RevokedKey(key), "{file}");
    }
}

#[tokio::test]
async fn a_revoked_destination_is_not_sent_to_although_it_is_known() {
    for (file, marker) in [(REVOKED_HOSTS, ""), (KNOWN_HOSTS, "@revoked ")] {
        let fleet = Fleet::certified();
        let key = fleet.key(HOST);
        let known = format!("{HOST} {key}\n");
        fleet.write("hosta", KNOWN_HOSTS, &known);
        assert!(fleet.meet().await.0.is_ok());
        let known = if file == KNOWN_HOSTS { known } else { String::new() };
        fleet.write("hosta", file, &format!("{known}{marker}{key}\n"));
        assert_eq!(fleet.distrusted().await, Refused::RevokedKey(key), "{file}");
    }
}

#[tokio::test]
async fn a_revoked_serial_is_refused_and_the_next_one_is_not() {
    let fleet = Fleet::certified();
    let authority = fleet.authority.fingerprint();
    let serial = fleet.certify("hosta", &terms(&["hosta"]));
    fleet.write(HOST, REVOKED_HOSTS, &format!("{authority} serial {serial}\n"));
    assert_eq!(fleet.turned_away().await, Refused::RevokedSerial { serial, authority });
    assert_eq!(fleet.certify("hosta", &terms(&["hosta"])), serial + 1);
    assert!(fleet.meet().await.1.is_ok());

    let serial =
        fleet.certify(HOST, &Terms { serial: Some(i64::MAX.cast_unsigned()), ..terms(&[HOST]) });
    fleet.write("hosta", REVOKED_HOSTS, &format!("{authority} serial 1000-{serial}\n"));
    assert_eq!(fleet.distrusted().await, Refused::RevokedSerial { serial, authority });
}

#[tokio::test]
async fn a_revoked_ca_certifies_nobody() {
    let fleet = Fleet::certified();
    let authority = fleet.authority.fingerprint();
    fleet.write(HOST, REVOKED_HOSTS, &format!("{authority}\n"));
    assert_eq!(fleet.turned_away().await, Refused::RevokedAuthority(authority));
    fleet.write("hosta", REVOKED_HOSTS, &format!("{authority}\n"));
    assert_eq!(fleet.distrusted().await, Refused::RevokedAuthority(authority));
}

/// A list that cannot be read may hold the very key that knocks.
#[tokio::test]
async fn a_garbled_revocation_list_fails_both_files() {
    let fleet = Fleet::certified();
    for host in ["hosta", HOST] {
        fleet.write(host, REVOKED_HOSTS, "SHA256:oops\n");
        let authorised = AuthorizedHosts::load(&fleet.of(host)).unwrap_err().to_string();
        assert!(authorised.contains("revoked_hosts, line 1: "), "{authorised}");
        assert!(KnownHosts::load(&fleet.of(host)).is_err());
    }
}

#[tokio::test]
async fn a_host_is_asked_for_its_key_and_gets_nothing_for_it() {
    let fleet = Fleet::certified();
    let listener = fleet.listener();
    let tuning = Tuning::bulk();
    let (shown, seen) = tokio::join!(fetch(HOST, listener.address(), &tuning), async {
        listener.accept().await?.establish().await
    });
    let shown = shown.unwrap();
    assert_eq!(shown.fingerprint(), fleet.key(HOST));
    let described = shown.description().unwrap().unwrap();
    assert_eq!(described.authority, fleet.authority.fingerprint());
    assert_eq!(described.authority_name, "fleet.example");
    assert_eq!((described.serial, described.names), (2, vec![HOST.to_owned()]));
    assert_eq!(described.roles, [Role::Source, Role::Destination]);
    assert!(described.until_unix_s > described.from_unix_s);
    assert!(matches!(seen.unwrap_err(), LinkError::TurnedDown { .. }));
}

#[tokio::test]
async fn a_new_key_is_shown_without_another_listener() {
    let fleet = Fleet::certified();
    let listener = fleet.listener();
    Identity::create(&fleet.of("next")).unwrap();
    let next = Identity::load(&fleet.of("next")).unwrap();
    listener.show(&next, &Tuning::bulk()).unwrap();
    let tuning = Tuning::bulk();
    let (shown, _) = tokio::join!(fetch(HOST, listener.address(), &tuning), async {
        listener.accept().await?.establish().await
    });
    assert_eq!(shown.unwrap().fingerprint(), next.fingerprint());
}

#[test]
fn a_ca_signs_only_what_can_be_told_apart_and_revoked() {
    let fleet = Fleet::new();
    let identity = Identity::load(&fleet.of("hosta")).unwrap();
    let sign =
        |terms: &Terms| fleet.authority.sign(identity.public_key(), Path::new("/p.pub"), terms);
    assert_eq!(sign(&Terms { serial: Some(7), ..terms(&["hosta"]) }).unwrap().serial, 7);
    assert_eq!(sign(&terms(&["hosta"])).unwrap().serial, 8);
    let taken = sign(&Terms { serial: Some(7), ..terms(&["hosta"]) }).unwrap_err();
    assert!(taken.to_string().contains("serial 7 was given"), "{taken}");
    for name in ["", "*.example", "a b", "hosta,hostb", "@"] {
        let refused = sign(&terms(&[name])).unwrap_err().to_string();
        assert!(refused.contains("is not the name of a host"), "{name:?}: {refused}");
    }
    assert!(sign(&terms(&[])).is_err());
    let public = fleet.authority.sign("garbage", Path::new("/p.pub"), &terms(&["hosta"]));
    assert!(public.unwrap_err().to_string().starts_with("/p.pub: there is no public key"));
    let issued = fs::read_to_string(fleet.home.path().join("ca.issued")).unwrap();
    let first = format!("7 {} hosta # until 20", identity.fingerprint());
    assert!(issued.starts_with(&first) && issued.lines().count() == 2, "{issued}");
}

#[test]
fn a_ca_is_not_made_over_another_and_not_read_by_others() {
    let fleet = Fleet::new();
    let path = fleet.home.path().join("ca");
    assert!(Authority::create(&path, "other").is_err());
    assert_eq!(Authority::load(&path).unwrap().fingerprint(), fleet.authority.fingerprint());
    assert_eq!(Authority::load(&path).unwrap().name(), "fleet.example");
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(Authority::load(&path).unwrap_err().to_string().contains("chmod 0600"));
}

#[test]
fn a_certificate_goes_to_the_key_that_it_is_for() {
    let fleet = Fleet::new();
    let (directory, from) = (fleet.of("hosta"), Path::new("/c"));
    let next = link::Rotation::of(&directory).begin().unwrap();
    let pem = fleet.authority.sign(next.public_key(), from, &terms(&["hosta"])).unwrap().pem;
    assert_eq!(certify(&directory, &pem, from).unwrap(), directory.join("identity.next"));
    assert!(Identity::load(&directory).unwrap().description().is_none());
    link::Rotation::of(&directory).finish().unwrap();
    let described = Identity::load(&directory).unwrap().description().unwrap().unwrap();
    assert_eq!(described.names, ["hosta"]);

    let before = fs::read_to_string(directory.join(link::IDENTITY)).unwrap();
    let other = Identity::load(&fleet.of(HOST)).unwrap();
    let foreign = fleet.authority.sign(other.public_key(), from, &terms(&[HOST])).unwrap().pem;
    let end = "-----END CERTIFICATE-----\n";
    let half = pem.split_inclusive(end).next().unwrap();
    for (text, words) in [
        (foreign.as_str(), "not for a key of this host"),
        (half, "two certificates"),
        ("", "two certificates"),
        (&pem.replace("MII", "MIJ"), "/c"),
    ] {
        let refused = certify(&directory, text, from).unwrap_err().to_string();
        assert!(refused.contains(words), "{refused}");
    }
    assert_eq!(fs::read_to_string(directory.join(link::IDENTITY)).unwrap(), before);
}
