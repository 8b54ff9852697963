//! The pictures of the states in `docs/` are drawn from the machines themselves.
//!
//! `UPDATE=1 cargo test -p protocol --test states` draws them anew.

mod destination_inputs;
mod source_inputs;

use protocol::{Failure, MigrationId, destination, source};
use std::collections::{BTreeMap, BTreeSet};

const ID: MigrationId = MigrationId { high: 1, low: 2 };

/// Follows every input from every state that can be reached, and draws where it leads.
fn picture<S: Clone + PartialEq, I: Clone>(
    first: Vec<(&str, S)>,
    inputs: &[(&'static str, I)],
    name: fn(&S) -> &'static str,
    step: fn(S, I) -> Option<S>,
) -> String {
    let mut edges: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    let mut text = String::from("stateDiagram-v2\n");
    for (label, state) in &first {
        text += &format!("    [*] --> {}: {label}\n", name(state));
    }
    let mut queue: Vec<S> = first.into_iter().map(|(_, state)| state).collect();
    let mut seen: Vec<S> = Vec::new();
    while let Some(state) = queue.pop() {
        if seen.contains(&state) {
            continue;
        }
        for (label, input) in inputs {
            let Some(next) = step(state.clone(), input.clone()) else { continue };
            if name(&next) != name(&state) {
                edges.entry((name(&state), name(&next))).or_default().insert(label);
            }
            queue.push(next);
        }
        seen.push(state);
    }
    for ((from, to), labels) in edges {
        let labels: Vec<_> = labels.into_iter().collect();
        text += &format!("    {from} --> {to}: {}\n", labels.join(" / "));
    }
    text
}

fn assert_current(file: &str, drawn: &str) {
    let path = format!("{}/../docs/{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, drawn).expect("docs can be written");
    }
    let kept = std::fs::read_to_string(&path).expect("docs can be read");
    assert_eq!(drawn, kept, "run with UPDATE=1");
}

fn failure() -> Failure {
    Failure::default()
}

fn source_picture() -> String {
    picture(
        source_inputs::first(),
        &source_inputs::inputs(),
        source::State::name,
        |state, input| state.handle(input, &mut protocol::Outbox::new()).ok(),
    )
}

fn destination_picture() -> String {
    picture(
        destination_inputs::first(),
        &destination_inputs::inputs(),
        destination::State::name,
        |state, input| state.handle(input, &mut protocol::Outbox::new()).ok(),
    )
}

#[test]
fn the_picture_of_the_source_is_current() {
    assert_current("source-states.mmd", &source_picture());
}

#[test]
fn the_picture_of_the_destination_is_current() {
    assert_current("destination-states.mmd", &destination_picture());
}

/// The edges out of a state, by the names of the states they lead to.
fn leads_to(picture: &str, from: &str) -> BTreeSet<String> {
    let prefix = format!("    {from} --> ");
    let lines = picture.lines().filter_map(|line| line.strip_prefix(&prefix));
    lines.filter_map(|line| line.split(':').next()).map(str::to_owned).collect()
}

#[test]
fn a_source_that_surrendered_never_keeps_its_tree_without_a_decision() {
    let picture = source_picture();
    for state in ["Surrendering", "Awaiting", "InDoubt", "Serving"] {
        assert!(!leads_to(&picture, state).contains("Kept"), "{state}");
        let to_thawing = format!("    {state} --> Thawing: ");
        let thaws = picture.lines().find_map(|line| line.strip_prefix(&to_thawing));
        let allowed = ["discarded there", "vouched: discarded"];
        let labels = thaws.into_iter().flat_map(|labels| labels.split(" / "));
        assert!(labels.into_iter().all(|label| allowed.contains(&label)), "{state}: {thaws:?}");
    }
}

#[test]
fn a_decision_leads_to_nothing_but_itself() {
    let picture = destination_picture();
    assert_eq!(leads_to(&picture, "Discarded"), BTreeSet::new());
    for state in ["Filling", "Starving", "Completing", "Complete", "Done", "Lost"] {
        let next = leads_to(&picture, state);
        assert!(!next.contains("Discarded") && !next.contains("Deciding"), "{state}: {next:?}");
    }
}
