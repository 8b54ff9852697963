//! `migrate check` of this host alone: every kernel feature that we use, and what can be done here.

use crate::ending::refusal_event;
use crate::events::{Event, FeatureFound, FeatureState, HostVerdict, Says};
use crate::output::Output;
use engine::features::{self, Ability, Feature, Found, Need, Presence, Role, Verdict};
use protocol::Refusal;
use std::fmt::Write as _;

/// Looks at all of them. Children of ours are traced meanwhile, so it stays on one thread.
pub(super) fn look() -> Vec<Found> {
    features::all().map(Found::look).collect()
}

/// Says what was found, and with which code the command ends: 3 when something needed is missing.
pub(super) fn say(found: &[Found], host: &str, output: &Output) -> u8 {
    for event in events(found, host) {
        output.event(&event);
    }
    for line in table(found).into_iter().chain(summary(found)) {
        output.text(&line);
    }
    if Verdict(found).lacking().next().is_some() { REFUSED } else { 0 }
}

const REFUSED: u8 = 3;

fn events(found: &[Found], host: &str) -> Vec<Event> {
    let verdict = Verdict(found);
    let features = found.iter().map(|found| Event::Feature(event(found)));
    let refusals = verdict.lacking().map(|found| refusal_event(&refusal(found, host)));
    let says = |role| Says::from(verdict.on(role));
    let last = Event::Verdict(HostVerdict {
        send: says(Role::Send),
        receive: says(Role::Receive),
        store: says(Role::Store),
        restore: says(Role::Restore),
    });
    features.chain(refusals).chain([last]).collect()
}

fn event(Found { feature, presence }: &Found) -> FeatureFound {
    let (state, absence) = match presence {
        Presence::Present => (FeatureState::Present, None),
        Presence::Missing(absence) => (FeatureState::Missing, Some(absence.clone())),
        Presence::Unknown(absence) => (FeatureState::Unknown, Some(absence.clone())),
    };
    let (why, advice) = absence.map(|absence| (absence.why, absence.advice)).unzip();
    FeatureFound {
        name: feature.name,
        since: feature.since,
        state,
        needed_for: feature.need.roles().iter().map(|role| role.name()).collect(),
        unless: match feature.need {
            Need::NeededUnless(other, _) => Some(other),
            Need::Needed(_) | Need::Useful => None,
        },
        loss: feature.loss,
        why,
        advice,
    }
}

fn refusal(Found { feature, presence }: &Found, host: &str) -> Refusal {
    let (Presence::Missing(absence) | Presence::Unknown(absence)) = presence else {
        unreachable!("what is lacking is not present");
    };
    let reason = format!("lacks {}: {}", feature.name, absence.why);
    Refusal::new(format!("host {host}"), reason, absence.advice.clone())
}

impl From<Ability> for Says {
    fn from(ability: Ability) -> Self {
        match ability {
            Ability::Can => Self::Yes,
            Ability::Cannot => Self::No,
            Ability::Unknown => Self::Unknown,
        }
    }
}

/// A line each, and below what is not here why, what is lost and what to do.
fn table(found: &[Found]) -> Vec<String> {
    let longest = found.iter().map(|found| found.feature.name.len()).max().unwrap_or(0);
    let row = |name: &str, since: &str, state: &str, need: &str| {
        format!("{name:longest$}  {since:7} {state:8} {need}").trim_end().to_owned()
    };
    let mut lines = vec![row("feature", "Linux", "here", "needed to")];
    for Found { feature, presence } in found {
        let (state, absence) = match presence {
            Presence::Present => ("present", None),
            Presence::Missing(absence) => ("missing", Some(absence)),
            Presence::Unknown(absence) => ("unknown", Some(absence)),
        };
        lines.push(row(feature.name, feature.since, state, &need(feature)));
        if let Some(absence) = absence {
            let below = [absence.why.as_str(), feature.loss, &absence.advice];
            lines.extend(below.map(|text| format!("    {text}")));
        }
    }
    lines
}

fn need(feature: &Feature) -> String {
    let mut need =
        listed(&feature.need.roles().iter().map(|role| role.name()).collect::<Vec<_>>(), "and");
    if let Need::NeededUnless(other, _) = feature.need {
        let _a_string_takes_everything = write!(need, ", or {other}");
    }
    need
}

fn summary(found: &[Found]) -> Vec<String> {
    let verdict = Verdict(found);
    let those = |wanted| {
        let roles = Role::ALL.into_iter().filter(|role| verdict.on(*role) == wanted);
        roles.map(Role::name).collect::<Vec<_>>()
    };
    let lacking: Vec<_> = verdict.lacking().map(|found| found.feature.name).collect();
    let (can, cannot) = (those(Ability::Can), those(Ability::Cannot));
    let unknown = those(Ability::Unknown);
    let mut lines = vec![String::new()];
    if !can.is_empty() {
        lines.push(format!("This host can {}.", listed(&can, "and")));
    }
    if !cannot.is_empty() {
        let lacking = listed(&lacking, "and");
        lines.push(format!("This host cannot {}: it lacks {lacking}.", listed(&cannot, "or")));
    }
    if !unknown.is_empty() {
        let unknown = listed(&unknown, "and");
        lines.push(format!("Whether it can {unknown} is not known: some could not be tried out."));
    }
    lines
}

/// "a", "a and b", "a, b and c"
fn listed(words: &[&str], before_last: &str) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} {before_last} {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::features::{Absence, Permission};
    use std::io;

    const NOT_SUPPORTED: i32 = 38;

    fn feature(name: &'static str, need: Need, probe: fn() -> io::Result<()>) -> Feature {
        let (loss, advice) = ("All is lost.", "Use another kernel.");
        Feature { name, since: "6.7", need, loss, advice, permission: Permission::FREE, probe }
    }

    fn missing() -> io::Result<()> {
        Err(io::Error::from_raw_os_error(NOT_SUPPORTED))
    }

    fn here() -> Found {
        Found::look(&feature("here(2)", Need::Needed(&Role::ALL), || Ok(())))
    }

    #[test]
    fn a_needed_feature_that_is_missing_refuses_and_a_useful_one_does_not() {
        let needed = Found::look(&feature("gone(2)", Need::Needed(&[Role::Send]), missing));
        let useful = Found::look(&feature("nice(2)", Need::Useful, missing));
        let code = |found: &[Found]| say(found, "a", &Output::Json);
        assert_eq!(code(&[here(), useful.clone()]), 0);
        assert_eq!(code(&[here(), useful, needed]), REFUSED);
    }

    #[test]
    fn the_events_have_a_shape_that_never_changes() {
        let gone =
            Found::look(&feature("gone(2)", Need::NeededUnless("b", &[Role::Send]), missing));
        let said = events(&[here(), gone], "a");
        let lines: Vec<_> =
            said.iter().map(|event| serde_json::to_string(event).unwrap()).collect();
        assert_eq!(
            lines,
            [
                r#"{"event":"feature","name":"here(2)","since":"6.7","state":"present","needed_for":["send","receive","store","restore"],"unless":null,"loss":"All is lost.","why":null,"advice":null}"#,
                r#"{"event":"feature","name":"gone(2)","since":"6.7","state":"missing","needed_for":["send"],"unless":"b","loss":"All is lost.","why":"Function not implemented (os error 38)","advice":"Use another kernel."}"#,
                r#"{"event":"refusal","object":"host a","reason":"host a lacks gone(2): Function not implemented (os error 38).","advice":"Use another kernel."}"#,
                r#"{"event":"verdict","send":"no","receive":"yes","store":"yes","restore":"yes"}"#,
            ]
        );
    }

    #[test]
    fn people_read_a_table_with_what_is_missing_explained() {
        let gone = Found::look(&feature("g(2)", Need::NeededUnless("b", &[Role::Send]), missing));
        assert_eq!(
            table(&[here(), gone]),
            [
                "feature  Linux   here     needed to",
                "here(2)  6.7     present  send, receive, store and restore",
                "g(2)     6.7     missing  send, or b",
                "    Function not implemented (os error 38)",
                "    All is lost.",
                "    Use another kernel.",
            ]
        );
    }

    #[test]
    fn the_summary_says_what_this_host_can_do_and_what_is_not_known() {
        let absence = Absence { why: "denied".to_owned(), advice: "Ask as root.".to_owned() };
        let found = |roles, presence| Found {
            feature: feature("a", Need::Needed(roles), missing),
            presence,
        };
        assert_eq!(summary(&[here()]), ["", "This host can send, receive, store and restore."]);
        let mixed = [
            found(&[Role::Send], Presence::Missing(absence.clone())),
            found(&[Role::Receive, Role::Restore], Presence::Unknown(absence)),
        ];
        assert_eq!(
            summary(&mixed),
            [
                "",
                "This host can store.",
                "This host cannot send: it lacks a.",
                "Whether it can receive and restore is not known: some could not be tried out.",
            ]
        );
    }
}
