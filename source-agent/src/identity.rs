//! `migrate identity`: this host's key, its certificate, and the key that is to come.

use crate::cli::{Identity as Command, IdentityStep, Rotate, Show};
use crate::complaint::Complaint;
use crate::list;
use crate::output::print;
use anyhow::{Context as _, Result};
use link::{Description, Identity, Refused, Rotation, TrustFileError, utc};
use serde_json::{Value, json};
use std::io::{self, Read as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// The most that is taken from standard input.
const INPUT_BYTES_MAX: u64 = 1 << 20;

pub(crate) async fn run(command: &Command) -> Result<ExitCode> {
    match &command.step {
        None => show(&command.show),
        Some(IdentityStep::Create(place)) => create(&place.config),
        Some(IdentityStep::Rotate(rotate)) if rotate.finish => finish(rotate).await,
        Some(IdentityStep::Rotate(rotate)) => begin(&rotate.place.config),
        Some(IdentityStep::Certify { file, place }) => certify(&place.config, file),
    }
}

fn create(config: &Path) -> Result<ExitCode> {
    match Identity::create(config) {
        Ok(identity) => {
            print(&format!("{} is the key of this host.", identity.fingerprint()));
            lines(&identity).into_iter().for_each(|line| print(&line));
            Ok(ExitCode::SUCCESS)
        }
        Err(error @ TrustFileError::Exists { .. }) => {
            let there = Identity::load(config)?.fingerprint();
            Ok(Complaint::refused(format!("{error}: {there}")).say())
        }
        Err(error) => Err(error.into()),
    }
}

/// Where there is none, nothing is made: a look at a host changes nothing on it.
fn load(config: &Path) -> Result<Identity> {
    match Identity::load(config) {
        Err(error) if error.is_absent() => {
            Err(error).context("this host has no key yet; `migrate identity create` makes one")
        }
        loaded => Ok(loaded?),
    }
}

fn show(show: &Show) -> Result<ExitCode> {
    let config = &show.place.config;
    let identity = load(config)?;
    let rotation = Rotation::of(config);
    if show.public {
        let shown = if show.next { rotation.next()? } else { Some(identity) };
        let shown = shown.context("there is no next key; `migrate identity rotate` makes one")?;
        print(shown.public_key().trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    let whole = Whole { config, next: rotation.next()?, old: rotation.old()?, identity };
    match show.json {
        true => print(&whole.json().to_string()),
        false => whole.text().into_iter().for_each(|line| print(&line)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Everything that there is of this host.
struct Whole<'a> {
    config: &'a Path,
    identity: Identity,
    next: Option<Identity>,
    old: Vec<link::OldKey>,
}

impl Whole<'_> {
    fn text(&self) -> Vec<String> {
        let file = self.config.join(link::IDENTITY);
        let mut text = vec![
            format!("key file     {}", file.display()),
            format!("fingerprint  {}", self.identity.fingerprint()),
            format!("kind         {}", kind(&self.identity)),
        ];
        if let Some(next) = &self.next {
            let path = Rotation::of(self.config).path();
            text.push(format!("next key     {} in {}", next.fingerprint(), path.display()));
            text.push(format!("  kind       {}", kind(next)));
        }
        for old in &self.old {
            let key = old.identity.fingerprint();
            text.push(format!("old key      {key} in {}", old.path.display()));
        }
        text.push(String::new());
        text.extend(lines(&self.identity));
        text.extend(self.next.iter().flat_map(lines));
        text
    }

    fn json(&self) -> Value {
        let next = self.next.as_ref().map(|next| key(&Rotation::of(self.config).path(), next));
        let old: Vec<Value> = self.old.iter().map(|old| key(&old.path, &old.identity)).collect();
        let mut whole = key(&self.config.join(link::IDENTITY), &self.identity);
        whole["next"] = json!(next);
        whole["old"] = json!(old);
        whole
    }
}

fn key(file: &Path, identity: &Identity) -> Value {
    let fingerprint = identity.fingerprint();
    let host = host_name();
    json!({
        "file": file.display().to_string(),
        "fingerprint": fingerprint.to_string(),
        "certificate": identity.description().map(|described| match described {
            Ok(certificate) => as_json(&certificate),
            Err(refused) => json!({ "error": format!("its {refused}") }),
        }),
        "authorized_hosts": format!("{fingerprint} {host}"),
        "known_hosts": format!("{host} {fingerprint}"),
    })
}

fn as_json(certificate: &Description) -> Value {
    let roles: Vec<String> = certificate.roles.iter().map(ToString::to_string).collect();
    json!({
        "authority": certificate.authority.to_string(),
        "authority_name": certificate.authority_name,
        "serial": certificate.serial,
        "names": certificate.names,
        "roles": roles,
        "from_unix_s": certificate.from_unix_s,
        "until_unix_s": certificate.until_unix_s,
    })
}

fn kind(identity: &Identity) -> String {
    match identity.description() {
        None => "host key, known by its fingerprint".to_owned(),
        Some(described) => certificate_words(described),
    }
}

/// What a certificate says of itself, as one line. Not that it is trusted by anybody.
pub(crate) fn certificate_words(described: Result<Description, Refused>) -> String {
    let certificate = match described {
        Ok(certificate) => certificate,
        Err(refused) => return format!("its {refused}"),
    };
    let Description { authority, authority_name, serial, names, until_unix_s, .. } = &certificate;
    let names = if names.is_empty() { "addresses only".to_owned() } else { names.join(", ") };
    let roles: Vec<String> = certificate.roles.iter().map(ToString::to_string).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let expired = if *until_unix_s < now { ", which has passed" } else { "" };
    format!(
        "certified by {authority_name} ({authority}), serial {serial}, for {names}, as {}, until {}{expired}",
        roles.join(" and "),
        utc(*until_unix_s)
    )
}

/// What goes into the files of others.
fn lines(identity: &Identity) -> [String; 2] {
    let (key, host) = (identity.fingerprint(), host_name());
    [
        format!("In authorized_hosts of destinations:  {key} {host}"),
        format!("In known_hosts of sources:            {host} {key}"),
    ]
}

/// As sources are likely to call this host; they may call it something else.
fn host_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "HOST".to_owned())
}

fn begin(config: &Path) -> Result<ExitCode> {
    load(config)?;
    let rotation = Rotation::of(config);
    let next = rotation.begin()?;
    print(&format!("The next key is {} in {}.", next.fingerprint(), rotation.path().display()));
    print(
        "Add it on the other hosts beside the one in use, which stays valid until it is removed:",
    );
    lines(&next).into_iter().for_each(|line| print(&line));
    print(
        "Or have it certified: migrate identity --public --next, migrate ca sign, migrate identity certify.",
    );
    print("Then put it in use here: migrate identity rotate --finish");
    Ok(ExitCode::SUCCESS)
}

/// A destination answers only the key that began a migration.
async fn finish(rotate: &Rotate) -> Result<ExitCode> {
    let config = &rotate.place.config;
    load(config)?;
    if let Some(id) = list::open(&rotate.agent, &rotate.state.state).await? {
        let why = format!(
            "nothing was done: migration {id} is not settled, and the destination would take the \
             new key for another host's; see `migrate status`, and settle it first"
        );
        return Ok(Complaint::refused(why).say());
    }
    let old = Rotation::of(config).finish()?;
    let new = load(config)?.fingerprint();
    print(&format!("{new} is in use, for every connection from now on."));
    print(&format!("The key before it is kept in {}.", old.display()));
    print("Remove its lines on the other hosts, and then that file.");
    Ok(ExitCode::SUCCESS)
}

fn certify(config: &Path, file: &Path) -> Result<ExitCode> {
    let path = link::certify(config, &read(file)?, file)?;
    print(&format!("{} has its certificate.", path.display()));
    Ok(ExitCode::SUCCESS)
}

/// A file that an operator names; "-" is standard input.
pub(crate) fn read(file: &Path) -> Result<String> {
    if file != Path::new("-") {
        return Ok(link::read_small(file)?);
    }
    let mut text = String::new();
    io::stdin().take(INPUT_BYTES_MAX).read_to_string(&mut text).context("read standard input")?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Agent, Config, State};
    use crate::journal::{Header, Journal};
    use protocol::MigrationId;
    use protocol::source::Entry;

    const ID: MigrationId = MigrationId { high: 1, low: 2 };

    /// The destination would answer the new key that the migration is another source's.
    #[tokio::test]
    async fn a_key_that_began_an_unsettled_migration_stays_in_use() {
        let home = tempfile::tempdir().unwrap();
        let config = home.path().join("etc");
        let first = Identity::create(&config).unwrap().fingerprint();
        Rotation::of(&config).begin().unwrap();
        let rotate = Rotate {
            finish: true,
            place: Config { config: config.clone() },
            state: State { state: home.path().join("var") },
            agent: Agent { socket: home.path().join("sock") },
        };
        let header = Header {
            root: 7,
            destination: "hostb:7747".into(),
            boot_id: "boot".into(),
            ..Header::default()
        };
        let mut journal = Journal::plan(&rotate.state.state, ID, header).unwrap();
        journal.will_freeze(Vec::new()).unwrap();
        assert_eq!(list::open(&rotate.agent, &rotate.state.state).await.unwrap(), Some(ID));
        finish(&rotate).await.unwrap();
        assert_eq!(Identity::load(&config).unwrap().fingerprint(), first);

        journal.record(Entry::Kept).unwrap();
        drop(journal);
        finish(&rotate).await.unwrap();
        assert_ne!(Identity::load(&config).unwrap().fingerprint(), first);
    }
}
