//! What `migrate` can be told about keys, certificates and trust.

use crate::place::Place;
use clap::{Args, Subcommand, ValueEnum};
use link::{Fingerprint, Role};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

#[derive(Clone, Debug, Args)]
pub(crate) struct Config {
    /// Where this host keeps its key and whom it knows
    #[arg(long, value_name = "DIR", default_value = link::DIRECTORY)]
    pub(crate) config: PathBuf,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Identity {
    #[command(subcommand)]
    pub(crate) step: Option<IdentityStep>,
    #[command(flatten)]
    pub(crate) show: Show,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    #[command(flatten)]
    pub(crate) place: Config,
    /// Print the public key, for `migrate ca sign`
    #[arg(long, conflicts_with = "json")]
    pub(crate) public: bool,
    /// With --public: of the key that is to be used next
    #[arg(long, requires = "public")]
    pub(crate) next: bool,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IdentityStep {
    /// Make this host's key; refused where there is one
    Create(Config),
    /// Make the key that is to be used next, or put it in use
    Rotate(Rotate),
    /// Give the key the certificate that a CA has signed
    Certify {
        /// What `migrate ca sign` has printed; - is standard input
        file: PathBuf,
        #[command(flatten)]
        place: Config,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Rotate {
    /// Put the next key in use, and the one in use aside
    #[arg(long)]
    pub(crate) finish: bool,
    #[command(flatten)]
    pub(crate) place: Config,
    #[command(flatten)]
    pub(crate) state: super::State,
    #[command(flatten)]
    pub(crate) agent: super::Agent,
}

#[derive(Debug, Args)]
pub(crate) struct Trust {
    /// The destination: HOST[:PORT]
    #[arg(value_name = "HOST[:PORT]", required_unless_present = "list")]
    pub(crate) host: Option<Place>,
    /// Add it without a question if its key is this one
    #[arg(long, value_name = "SHA256:...")]
    pub(crate) fingerprint: Option<Fingerprint>,
    /// Put its key in the place of the one that is known
    #[arg(long)]
    pub(crate) replace: bool,
    /// Forget it
    #[arg(long, conflicts_with_all = ["fingerprint", "replace"])]
    pub(crate) remove: bool,
    /// Say whom this host knows
    #[arg(long, conflicts_with_all = ["host", "fingerprint", "replace", "remove"])]
    pub(crate) list: bool,
    /// With --list: one JSON object a line
    #[arg(long, requires = "list", conflicts_with = "host")]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: Config,
}

#[derive(Debug, Args)]
pub(crate) struct Ca {
    #[command(subcommand)]
    pub(crate) step: CaStep,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CaStep {
    /// Make the key of a CA; refused where there is one
    Create {
        /// What it is called, as a host would be
        #[arg(long)]
        name: String,
        #[command(flatten)]
        place: CaPlace,
    },
    /// Say which CA this is, and the line that trusts it
    Show {
        #[command(flatten)]
        place: CaPlace,
    },
    /// Certify the key of a host; prints what `migrate identity certify` takes there
    Sign(Sign),
}

#[derive(Debug, Args)]
pub(crate) struct CaPlace {
    /// The file of the CA's key; what it has signed is written down in FILE.issued
    #[arg(long, value_name = "FILE", default_value = link::AUTHORITY)]
    pub(crate) ca: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Sign {
    /// What `migrate identity --public` has printed on the host; - is standard input
    pub(crate) key: PathBuf,
    /// A name or an address of the host; several are possible
    #[arg(long, required = true)]
    pub(crate) name: Vec<String>,
    /// For how long: a number and m, h, d, w or y
    #[arg(long, value_name = "TIME")]
    pub(crate) valid: Validity,
    /// Its number among the CA's; without this the next one
    #[arg(long, value_name = "N")]
    pub(crate) serial: Option<u64>,
    /// What the host may be with it
    #[arg(long, value_enum, default_value_t = Use::Both)]
    pub(crate) r#for: Use,
    #[command(flatten)]
    pub(crate) place: CaPlace,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Use {
    Source,
    Destination,
    Both,
}

impl Use {
    pub(crate) fn roles(self) -> Vec<Role> {
        match self {
            Self::Source => vec![Role::Source],
            Self::Destination => vec![Role::Destination],
            Self::Both => vec![Role::Source, Role::Destination],
        }
    }
}

/// As OpenSSH writes lengths of time, with years in addition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity(pub(crate) Duration);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a length of time from 1m to 100y, as 12h, 90d or 1y")]
pub(crate) struct NotAValidity;

impl FromStr for Validity {
    type Err = NotAValidity;

    fn from_str(text: &str) -> Result<Self, NotAValidity> {
        const DAY_S: u64 = 86_400;
        let unit = text.chars().last().ok_or(NotAValidity)?;
        let unit_s = match unit {
            'm' => 60,
            'h' => 3_600,
            'd' => DAY_S,
            'w' => 7 * DAY_S,
            'y' => 365 * DAY_S,
            _ => return Err(NotAValidity),
        };
        let number = &text[..text.len() - unit.len_utf8()];
        let is_number = !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit());
        let count: u64 = number.parse().ok().filter(|_| is_number).ok_or(NotAValidity)?;
        let length_s = count.checked_mul(unit_s).ok_or(NotAValidity)?;
        let is_sensible = (60..=100 * 365 * DAY_S).contains(&length_s);
        is_sensible.then(|| Self(Duration::from_secs(length_s))).ok_or(NotAValidity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_validity_is_a_number_and_a_unit() {
        let seconds = |text: &str| text.parse::<Validity>().map(|validity| validity.0.as_secs());
        assert_eq!(seconds("5m"), Ok(300));
        assert_eq!(seconds("90d"), Ok(90 * 86_400));
        assert_eq!(seconds("1y"), Ok(365 * 86_400));
        for text in ["", "d", "90", "-1d", "+1d", "1.5d", "0d", "101y", "1d2h", "9ü", "1M"] {
            assert_eq!(seconds(text), Err(NotAValidity), "{text}");
        }
        assert_eq!(seconds("99999999999999999999d"), Err(NotAValidity));
    }
}
