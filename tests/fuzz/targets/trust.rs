//! The files that say whom we trust, fingerprints, and addresses as an operator writes them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use link::{AuthorizedHosts, Fingerprint, KnownHosts, RevokedHosts};
use std::path::Path;

fuzz_target!(|text: &str| {
    let file = Path::new("hosts");
    let _ = AuthorizedHosts::parse(text, file);
    let _ = KnownHosts::parse(text, file);
    let _ = RevokedHosts::parse(text, file);
    source_agent::fuzzing::place(text);
    if let Ok(fingerprint) = text.parse::<Fingerprint>() {
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint), "it is read as it is written");
    }
});
