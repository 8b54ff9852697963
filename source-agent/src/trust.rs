//! `migrate trust`: gets to know a destination by its key, as ssh does at the first connection.

use crate::cli::Trust;
use crate::complaint::Complaint;
use crate::connection::{DialError, addresses};
use crate::identity::certificate_words;
use crate::output::print;
use crate::place::Place;
use anyhow::{Context as _, Result, bail};
use link::{Credentials, Fingerprint, KnownHost, KnownHosts, KnownHostsFile, Refused, Tuning};
use std::io::{self, BufRead, IsTerminal as _, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

/// How often a word that is neither yes nor no is asked about.
const QUESTIONS_MAX: usize = 5;

pub(crate) async fn run(trust: &Trust) -> Result<ExitCode> {
    let config = &trust.place.config;
    match &trust.host {
        None => list(config, trust.json),
        Some(place) if trust.remove => remove(config, place),
        Some(place) => get_to_know(trust, place).await,
    }
}

fn list(config: &Path, json: bool) -> Result<ExitCode> {
    if config.exists() {
        let file = KnownHostsFile::open(config)?;
        for (number, text) in file.lines() {
            print(&if json { as_json(number, text) } else { format!("line {number}: {text}") });
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn as_json(number: usize, text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = match words.as_slice() {
        [marker, key, rest @ ..] if marker.starts_with('@') => {
            let patterns = rest.first();
            serde_json::json!({ "line": number, "marker": marker, "fingerprint": key, "names": patterns })
        }
        [host, key, ..] => serde_json::json!({ "line": number, "host": host, "fingerprint": key }),
        _ => serde_json::json!({ "line": number }),
    };
    line.to_string()
}

fn remove(config: &Path, place: &Place) -> Result<ExitCode> {
    let mut file = KnownHostsFile::open(config)?;
    let known = file.of(&place.host)?;
    if known.is_empty() {
        let why = format!("{} does not have {}", file.path().display(), place.host);
        return Ok(Complaint::refused(why).say());
    }
    file.remove(&place.host);
    let path = file.path().display().to_string();
    file.save()?;
    for KnownHost { host, fingerprint, .. } in known {
        print(&format!("Removed from {path}: {host} {fingerprint}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// What there is to be said of a host that has shown its key.
struct Meeting<'a> {
    config: &'a Path,
    host: &'a str,
    address: SocketAddr,
    shown: Credentials,
    known: Vec<KnownHost>,
    /// Where those that are known stand.
    file: String,
}

async fn get_to_know(trust: &Trust, place: &Place) -> Result<ExitCode> {
    let config = trust.place.config.as_path();
    let trusted = KnownHosts::load(config)?;
    let file = KnownHostsFile::open(config)?;
    let known = file.of(&place.host)?;
    let path = file.path().display().to_string();
    // Nobody else has to wait for an operator who compares fingerprints.
    drop(file);
    let (address, shown) = ask_for_its_key(place).await?;
    let meeting = Meeting { config, host: &place.host, address, shown, known, file: path };
    meeting.decide(trust, &trusted)
}

async fn ask_for_its_key(place: &Place) -> Result<(SocketAddr, Credentials), DialError> {
    let mut failure = DialError::NoAddress(place.host.clone());
    for address in addresses(place).await? {
        match link::fetch(&place.host, address, &Tuning::bulk()).await {
            Ok(shown) => return Ok((address, shown)),
            Err(source) => {
                failure = DialError::Link { place: place.to_string(), source: Box::new(source) };
            }
        }
    }
    Err(failure)
}

impl Meeting<'_> {
    fn decide(&self, trust: &Trust, trusted: &KnownHosts) -> Result<ExitCode> {
        let key = self.shown.fingerprint();
        if trust.fingerprint.is_some_and(|wanted| wanted != key) {
            let host = self.host;
            let why = format!("nothing was done: {host} has another key than that, it has {key}");
            return Ok(Complaint::refused(why).say());
        }
        match trusted.recognise(self.host, &self.shown) {
            Ok(()) if !(trust.replace && self.has_other_keys()) => {
                self.say_it_is_known();
                return Ok(ExitCode::SUCCESS);
            }
            Err(
                why @ (Refused::RevokedKey(_)
                | Refused::RevokedAuthority(_)
                | Refused::RevokedSerial { .. }),
            ) => {
                let why =
                    format!("nothing was done: {} is not to be trusted: its {why}", self.host);
                return Ok(Complaint::refused(why).say());
            }
            _ => {}
        }
        if !self.known.is_empty() && !trust.replace {
            return Ok(self.warn_of_another_key().say());
        }
        self.introduce();
        if trust.fingerprint.is_none()
            && let Err(why) = confirm(key)
        {
            return Ok(Complaint::refused(why).say());
        }
        self.write_down()?;
        Ok(ExitCode::SUCCESS)
    }

    fn has_other_keys(&self) -> bool {
        self.known.iter().any(|known| known.fingerprint != self.shown.fingerprint())
    }

    fn say_it_is_known(&self) {
        let (host, key) = (self.host, self.shown.fingerprint());
        match self.known.iter().find(|known| known.fingerprint == key) {
            Some(known) => {
                print(&format!(
                    "{host} is known with this key: {key} ({}, line {})",
                    self.file, known.line
                ));
            }
            None => {
                let words = self.shown.description().map(certificate_words).unwrap_or_default();
                print(&format!("{host} is known by its certificate: it is {words}"));
            }
        }
    }

    fn introduce(&self) {
        eprintln!("The key of {} (UDP {}) is", self.host, self.address);
        eprintln!("    {}", self.shown.fingerprint());
        if let Some(described) = self.shown.description() {
            eprintln!("It says that it is {}.", certificate_words(described));
        }
        eprintln!(
            "Compare it with what `migrate identity` or `dest-agent fingerprint` says on {}.",
            self.host
        );
    }

    /// Loud, because it is either a mistake or an attack.
    fn warn_of_another_key(&self) -> Complaint {
        let host = self.host;
        eprintln!("THE KEY OF {host} IS NOT THE ONE THAT IS KNOWN HERE.");
        for KnownHost { line, fingerprint, .. } in &self.known {
            eprintln!("    known: {fingerprint} ({}, line {line})", self.file);
        }
        eprintln!("    shown: {} (UDP {})", self.shown.fingerprint(), self.address);
        eprintln!("It was made anew, or somebody else answers at this address.");
        eprintln!("Ask the operator of {host} what `migrate identity` says there.");
        Complaint::refused(format!(
            "nothing was done: {host} has another key than {} has for it; if the one that it shows \
             is right: migrate trust --replace {host}",
            self.file
        ))
    }

    fn write_down(&self) -> Result<()> {
        let (host, key) = (self.host, self.shown.fingerprint());
        let mut file = KnownHostsFile::open(self.config)?;
        if file.of(host)? != self.known {
            bail!("nothing was done: {} was changed meanwhile; look again", self.file);
        }
        file.remove(host);
        file.add(host, key);
        let is_there = file.of(host)?.iter().any(|known| known.fingerprint == key);
        if !is_there {
            bail!("nothing was done: {host:?} cannot be written as the name of a host");
        }
        file.save().with_context(|| format!("add {host} to {}", self.file))?;
        print(&format!("Added to {}: {} {key}", self.file, host.to_ascii_lowercase()));
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Unconfirmed {
    #[error(
        "nothing was done: without a terminal to confirm it on, this needs --fingerprint with the \
         key that you expect"
    )]
    NoTerminal,
    #[error("nothing was done: it was not confirmed")]
    NotAgreed,
    #[error("nothing was done: that is another key")]
    OtherKey,
}

fn confirm(key: Fingerprint) -> Result<(), Unconfirmed> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(Unconfirmed::NoTerminal);
    }
    ask(&mut io::stdin().lock(), &mut io::stderr(), key)
}

/// The whole word, as ssh wants it: a "y" is typed too easily. The fingerprint itself will do as
/// well, and is the better answer: it was compared.
fn ask(from: &mut impl BufRead, to: &mut impl Write, key: Fingerprint) -> Result<(), Unconfirmed> {
    for _ in 0..QUESTIONS_MAX {
        let _nobody_reads = write!(to, "Trust it? (yes/no/fingerprint) ").and_then(|()| to.flush());
        let mut answer = String::new();
        if !from.read_line(&mut answer).is_ok_and(|bytes| bytes > 0) {
            return Err(Unconfirmed::NotAgreed);
        }
        match (answer.trim(), answer.trim().parse::<Fingerprint>()) {
            ("yes", _) => return Ok(()),
            ("no", _) => return Err(Unconfirmed::NotAgreed),
            (_, Ok(typed)) if typed == key => return Ok(()),
            (_, Ok(_)) => return Err(Unconfirmed::OtherKey),
            _ => {}
        }
    }
    Err(Unconfirmed::NotAgreed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "SHA256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0";
    const B: &str = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";

    fn answered(text: &str) -> Result<(), Unconfirmed> {
        ask(&mut text.as_bytes(), &mut Vec::new(), A.parse().unwrap())
    }

    #[test]
    fn only_the_whole_word_or_the_fingerprint_is_a_yes() {
        assert_eq!(answered("yes\n"), Ok(()));
        assert_eq!(answered("y\nok\nYES\nyes\n"), Ok(()));
        assert_eq!(answered(&format!("{A}\n")), Ok(()));
        assert_eq!(answered(&format!("{B}\n")), Err(Unconfirmed::OtherKey));
        for text in ["", "no\n", "y\n", "\n\n\n\n\nyes\n", "y\nno\nyes\n"] {
            assert_eq!(answered(text), Err(Unconfirmed::NotAgreed), "{text:?}");
        }
    }
}
