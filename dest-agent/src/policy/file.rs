//! `policy.toml`: what each source may bring, as the operator has written it.
//!
//! Read anew for every offer, so that a change counts at once. A file that cannot be understood
//! admits nobody: half a policy is not what its author meant.

use super::capabilities;
use super::rules::Rules;
use ipnet::IpNet;
use link::{Fingerprint, TrustFileError};
use nix::unistd::{Group, User};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Beside `authorized_hosts`.
pub const POLICY: &str = "policy.toml";

#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error(transparent)]
    File(#[from] TrustFileError),
    /// The parser's own words have several lines, with a picture of the place.
    #[error("understand {}, line {line}: {problem}", path.display())]
    Syntax { path: PathBuf, line: usize, problem: String },
    #[error("understand {}: {key} has {prefix:?}, which is no absolute path", path.display())]
    Relative { path: PathBuf, key: &'static str, prefix: PathBuf },
    #[error("understand {}: {what} {name:?} is not known on this host", path.display())]
    Name { path: PathBuf, what: &'static str, name: String },
    #[error("understand {}: [source] has a key that is no fingerprint: {key}", path.display())]
    Key { path: PathBuf, key: String },
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    #[serde(default)]
    default: Section,
    /// By fingerprints.
    #[serde(default)]
    source: BTreeMap<String, Section>,
    /// By names that a CA has certified, apart from the fingerprints: a fingerprint with a mistake
    /// in it must not be taken for a name that nobody has.
    #[serde(default)]
    certified: BTreeMap<String, Section>,
}

/// What is left out is as in `[default]`, and what is left out there is as without a file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    users: Option<Vec<Name>>,
    groups: Option<Vec<Name>>,
    executables: Option<Vec<PathBuf>>,
    paths: Option<Vec<PathBuf>>,
    capabilities: Option<Vec<String>>,
    memory_mib_max: Option<u64>,
    trees_max: Option<usize>,
    processes_max: Option<usize>,
    threads_max: Option<usize>,
    addresses: Option<Vec<IpNet>>,
    bridges: Option<BTreeSet<String>>,
}

/// "*" is everybody.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Name {
    Id(u32),
    Name(String),
}

/// What this source may bring. Its fingerprint goes before its names, and these go in the order of
/// its certificate.
pub fn rules(config: &Path, source: &Fingerprint, names: &[String]) -> Result<Rules, PolicyError> {
    let Some(text) = link::read_if_there(config, POLICY)? else { return Ok(Rules::default()) };
    let path = &config.join(POLICY);
    let Text { default, source: sections, certified } = parse(path, &text)?;
    let mut rules = Rules::default();
    default.apply(path, &mut rules)?;
    // All of them are looked at, so that a mistake shows before its source comes.
    let mut by_key = None;
    for (key, section) in sections {
        let mut trial = rules.clone();
        section.apply(path, &mut trial)?;
        match key.parse::<Fingerprint>() {
            Ok(key) if key == *source => by_key = Some(trial),
            Ok(_) => {}
            Err(_) => return Err(PolicyError::Key { path: path.to_owned(), key }),
        }
    }
    let mut by_name = BTreeMap::new();
    for (name, section) in certified {
        let mut trial = rules.clone();
        section.apply(path, &mut trial)?;
        by_name.insert(name.to_ascii_lowercase(), trial);
    }
    let first = names.iter().find_map(|name| by_name.remove(&name.to_ascii_lowercase()));
    Ok(by_key.or(first).unwrap_or(rules))
}

fn parse(path: &Path, text: &str) -> Result<Text, PolicyError> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let problem = error.message().lines().collect::<Vec<_>>().join(" ");
        PolicyError::Syntax { path: path.to_owned(), line, problem }
    })
}

impl Section {
    fn apply(self, path: &Path, rules: &mut Rules) -> Result<(), PolicyError> {
        let unknown = |what, name| PolicyError::Name { path: path.to_owned(), what, name };
        if let Some(users) = self.users {
            rules.users = ids(&users, uid).map_err(|name| unknown("user", name))?;
        }
        if let Some(groups) = self.groups {
            rules.groups = ids(&groups, gid).map_err(|name| unknown("group", name))?;
        }
        if let Some(names) = self.capabilities {
            rules.capabilities =
                capabilities::mask(&names).map_err(|name| unknown("capability", name))?;
        }
        if let Some(executables) = self.executables {
            rules.executables = Some(absolute(path, "executables", executables)?);
        }
        if let Some(paths) = self.paths {
            rules.paths = Some(absolute(path, "paths", paths)?);
        }
        if let Some(mib) = self.memory_mib_max {
            rules.memory_bytes_max = mib.saturating_mul(1 << 20);
        }
        if let Some(addresses) = self.addresses {
            rules.addresses = Some(addresses);
        }
        if let Some(bridges) = self.bridges {
            rules.bridges = Some(bridges);
        }
        rules.trees_max = self.trees_max.unwrap_or(rules.trees_max);
        rules.processes_max = self.processes_max.unwrap_or(rules.processes_max);
        rules.threads_max = self.threads_max.unwrap_or(rules.threads_max);
        Ok(())
    }
}

/// A prefix that nothing begins with would be a mistake that shows only when a tree comes.
fn absolute(
    path: &Path,
    key: &'static str,
    prefixes: Vec<PathBuf>,
) -> Result<Vec<PathBuf>, PolicyError> {
    match prefixes.iter().find(|prefix| !prefix.is_absolute()) {
        Some(prefix) => {
            Err(PolicyError::Relative { path: path.to_owned(), key, prefix: prefix.clone() })
        }
        None => Ok(prefixes),
    }
}

/// `None` is everybody; the error is the name that nobody has here.
fn ids(
    names: &[Name],
    look_up: impl Fn(&str) -> Option<u32>,
) -> Result<Option<BTreeSet<u32>>, String> {
    let mut ids = BTreeSet::new();
    for name in names {
        match name {
            Name::Name(name) if name == "*" => return Ok(None),
            Name::Id(id) => ids.insert(*id),
            Name::Name(name) => ids.insert(look_up(name).ok_or_else(|| name.clone())?),
        };
    }
    Ok(Some(ids))
}

fn uid(name: &str) -> Option<u32> {
    User::from_name(name).ok().flatten().map(|user| user.uid.as_raw())
}

fn gid(name: &str) -> Option<u32> {
    Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    fn fingerprint(letter: char) -> Fingerprint {
        format!("SHA256:{}", letter.to_string().repeat(42) + "A").parse().unwrap()
    }

    fn read_as(text: &str, source: &Fingerprint) -> Result<Rules, PolicyError> {
        read_as_named(text, source, &[])
    }

    fn read_as_named(text: &str, key: &Fingerprint, names: &[&str]) -> Result<Rules, PolicyError> {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(POLICY);
        fs::write(&path, text).unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        rules(home.path(), key, &names)
    }

    #[test]
    fn a_certified_source_is_found_by_its_names_in_their_order_and_by_its_key_first() {
        let key = fingerprint('B');
        let text = format!(
            "[certified.hosta]\ntrees_max = 1\n[certified.\"rack.Example\"]\ntrees_max = 2\n\
             [source.\"{key}\"]\ntrees_max = 3\n"
        );
        let trees = |key, names: &[&str]| read_as_named(&text, key, names).unwrap().trees_max;
        let other = fingerprint('A');
        assert_eq!(trees(&other, &["rack.example", "hosta"]), 2);
        assert_eq!(trees(&other, &["hosta"]), 1);
        assert_eq!(trees(&other, &["hostc"]), Rules::default().trees_max);
        assert_eq!(trees(&key, &["hosta"]), 3);
        assert_eq!(trees(&other, &[]), Rules::default().trees_max);
    }

    #[test]
    fn without_a_file_the_documented_default_holds() {
        let found = rules(Path::new("/nonexistent"), &fingerprint('A'), &[]).unwrap();
        assert_eq!(found, Rules::default());
    }

    #[test]
    fn a_source_has_its_own_section_over_the_default() {
        let text = format!(
            "[default]\nusers = [1000]\ntrees_max = 3\n[source.\"{}\"]\nusers = [\"root\", 7]\n\
             memory_mib_max = 5\ncapabilities = [\"kill\", \"CAP_CHOWN\"]\n",
            fingerprint('B')
        );
        let default = read_as(&text, &fingerprint('A')).unwrap();
        assert_eq!(default.users, Some(BTreeSet::from([1000])));
        let own = read_as(&text, &fingerprint('B')).unwrap();
        assert_eq!(own.users, Some(BTreeSet::from([0, 7])));
        assert_eq!(
            (own.trees_max, own.memory_bytes_max, own.capabilities),
            (3, 5 << 20, 0b10_0001)
        );
    }

    #[test]
    fn a_mistake_is_an_error_with_its_line_and_admits_nobody() {
        let chain =
            |text: &str| crate::report::chain(&read_as(text, &fingerprint('A')).unwrap_err());
        let unknown = chain("[default]\nusers = [1]\nuser = [2]\n");
        assert!(unknown.contains("line 3") && unknown.contains("`user`"), "{unknown}");
        assert!(chain("[defaults]\n").contains("line 1"));
        let mistaken = chain("[default]\nusers = [\"no-such-user\"]\n");
        assert!(mistaken.contains("user \"no-such-user\" is not known"), "{mistaken}");
        assert!(chain("[default]\ncapabilities = [\"fly\"]\n").contains("capability \"fly\""));
        assert!(chain("[source.hosta]\n").contains("no fingerprint: hosta"));
        assert!(chain("[default]\npaths = [\"srv\"]\n").contains("no absolute path"));
        for mistake in ["[default]\nuser = [2]\n", "[default]\nusers = [\n", "[default\n"] {
            assert_eq!(chain(mistake).lines().count(), 1, "{}", chain(mistake));
        }
    }

    #[test]
    fn a_file_that_others_may_write_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(POLICY);
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
        let refused = rules(home.path(), &fingerprint('A'), &[]).unwrap_err();
        let chain = crate::report::chain(&refused);
        assert!(chain.contains("chmod 0644"), "{chain}");
    }

    #[test]
    fn what_is_no_file_is_refused_and_nobody_waits_for_it() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(POLICY);
        let refused = || rules(home.path(), &fingerprint('A'), &[]).unwrap_err().to_string();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(refused().contains("not a regular file"), "{}", refused());
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        assert!(refused().contains("leads nowhere"), "{}", refused());
        fs::remove_file(&path).unwrap();
        fs::File::create(&path).unwrap().set_len((1 << 20) + 1).unwrap();
        assert!(refused().contains("at most 1 MiB"), "{}", refused());
    }
}
