use super::*;
use std::collections::BTreeSet;

fn found() -> Vec<Found> {
    all().map(Found::look).collect()
}

#[test]
fn every_probe_answers_and_says_why_not() {
    for Found { feature, presence } in found() {
        match presence {
            Presence::Present => {}
            Presence::Missing(absence) | Presence::Unknown(absence) => {
                assert!(!absence.why.is_empty(), "{}", feature.name);
                assert!(absence.advice.ends_with('.'), "{}: {}", feature.name, absence.advice);
                eprintln!("{}: {}", feature.name, absence.why);
            }
        }
    }
}

#[test]
fn a_probe_answers_the_same_when_it_is_asked_again() {
    let states = || found().into_iter().map(|found| found.presence).collect::<Vec<_>>();
    for (once, again) in states().iter().zip(states()) {
        assert_eq!(once, &again);
    }
}

#[test]
fn what_runs_this_test_can_do_everything() {
    if !nix::unistd::geteuid().is_root() {
        return crate::skipped::skip("only root can try everything out");
    }
    let found = found();
    for role in Role::ALL {
        let lacking: Vec<_> = Verdict(&found).lacking().collect();
        assert_eq!(Verdict(&found).on(role), Ability::Can, "{lacking:#?}");
    }
}

#[test]
fn every_feature_has_a_name_of_its_own_and_says_what_it_is_for() {
    let mut names = BTreeSet::new();
    for feature in all() {
        assert!(names.insert(feature.name), "{} is there twice", feature.name);
        assert!(feature.loss.ends_with('.') && feature.advice.ends_with('.'), "{feature:?}");
        let numbers = feature.since.split('.').map(str::parse::<u32>);
        assert!(numbers.clone().all(|number| number.is_ok()), "{feature:?}");
        assert!(numbers.count() >= 2, "{feature:?}");
    }
}

#[test]
fn what_is_needed_unless_another_is_here_names_one_that_says_the_same_of_it() {
    for feature in all() {
        let Need::NeededUnless(name, roles) = feature.need else { continue };
        let other = all().find(|other| other.name == name).expect(name);
        assert_eq!(other.need, Need::NeededUnless(feature.name, roles));
    }
}

#[test]
fn no_process_and_no_control_group_is_left_of_a_trial() {
    found();
    let children = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    assert_eq!(children, "");
    let group = format!("migrate-check-{}", nix::unistd::gettid());
    let is_there = |root: std::path::PathBuf| root.join(&group).exists();
    assert!(!crate::cgroup::root().is_some_and(is_there));
}
