//! `migrate` against a destination that breaks off, forgets, or is never heard of again: where the
//! process runs afterwards, and what the command says.
//!
//! Runs as root: a real process is moved as far as the destination lets it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod agent;
mod command;
mod destination;
mod program;

use agent::SourceAgent;
use command::Migrate;
use destination::{Destination, is_handover, is_image};
use program::Program;
use protocol::message::{Accept, Complete, Decided, Missing, Refuse};
use protocol::{Message, Outcome, Refusal};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

const RUNS_HERE: i32 = 4;
const CANCELLED: i32 = 5;
const WRONG_USAGE: i32 = 2;
const REFUSED: i32 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_the_destination_is_told_in_its_words() {
    let (mut destination, program) = (Destination::start(), Program::start());
    let mut migrate = Migrate::start(&destination, &[&program.pid(), "--json"]);
    let mut line = destination.line().await;
    line.until(|message| matches!(message, Message::Offer(_))).await;
    let refusal = Refusal::new("file /x", "does not exist here", "Install it.");
    line.say(Message::Refuse(Refuse::new(vec![refusal]))).await;
    assert_eq!(migrate.end().await, 3);
    assert!(migrate.said().contains("file /x does not exist here."), "{}", migrate.said());
    assert_eq!(migrate.list(), "", "nothing was touched");
    program.runs_free().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_touches_nothing() {
    let (mut destination, program) = (Destination::start(), Program::start());
    let mut migrate = Migrate::start(&destination, &["check", &program.pid()]);
    let mut line = destination.line().await;
    line.until(|message| matches!(message, Message::Abort(_))).await;
    assert_eq!(migrate.end().await, 0);
    assert_eq!(migrate.list(), "");
    program.runs_free().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_dies_before_the_handover_leaves_it_here() {
    let (mut destination, program) = (Destination::start(), Program::start());
    let mut migrate = Migrate::start(&destination, &[&program.pid()]);
    let mut line = destination.line().await;
    line.until(is_image).await;
    line.cut();
    assert_eq!(migrate.end().await, RUNS_HERE);
    assert!(migrate.said().contains("runs here as before"), "{}", migrate.said());
    program.runs_free().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_is_told_before_the_phase_that_follows_it() {
    let (mut destination, program) = (Destination::start(), Program::start());
    let arguments = [&*program.pid(), "--json", "--lazy", "never"];
    let mut migrate = Migrate::start(&destination, &arguments);
    let mut line = destination.line().await;
    line.until(is_image).await;
    line.cut();
    assert_eq!(migrate.end().await, RUNS_HERE);
    let said = migrate.said();
    let at = |event: &str| said.find(event).unwrap_or_else(|| panic!("{event}: {said}"));
    assert!(at(r#""event":"round""#) > at(r#""name":"rounds""#), "{said}");
    assert!(said.rfind(r#""event":"round""#).unwrap() < at(r#""name":"freeze""#), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_in_doubt_asks_and_takes_the_answer() {
    let (mut destination, program) = (Destination::start(), Program::start());
    let mut migrate = Migrate::start(&destination, &[&program.pid()]);
    let mut line = destination.line().await;
    line.until(is_handover).await;
    program.stands_still().await;
    line.cut();
    let mut line = destination.line().await;
    let migration = line.inquiry().await;
    let outcome = Outcome::Discarded.into();
    line.say(Message::Decided(Decided { migration, outcome, resumed_after_ns: 0 })).await;
    assert_eq!(migrate.end().await, RUNS_HERE);
    program.runs_free().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_answer_it_stands_still_until_somebody_answers_for_it() {
    let (mut destination, program) = (Destination::start(), Program::start());
    let mut migrate = Migrate::start(&destination, &[&program.pid()]);
    let mut line = destination.line().await;
    let migration = line.until(is_handover).await;
    drop(destination);
    line.cut();
    migrate.interrupt().await;
    assert_eq!(migrate.end().await, 6);
    assert!(migrate.said().contains(&format!("migrate resume {migration}")), "{}", migrate.said());
    program.stands_still().await;
    assert!(migrate.list().contains("in doubt"), "{}", migrate.list());
    let mut unconfirmed = migrate.again(&["settle", &migration, "--keep-here"]);
    assert_eq!(unconfirmed.end().await, REFUSED);
    let complaint = unconfirmed.complained();
    let last = complaint.lines().last().unwrap();
    assert!(last.starts_with("migrate: nothing was done: "), "a sentence and no log: {complaint}");
    assert!(last.contains("--yes"), "{complaint}");
    program.stands_still().await;
    let mut settled = migrate.again(&["settle", &migration, "--keep-here", "--yes"]);
    assert_eq!(settled.end().await, 0);
    assert!(settled.said().contains("It runs here again, as was asked."), "{}", settled.said());
    assert!(settled.complained().contains("there are two of it"), "{}", settled.complained());
    program.runs_free().await;
    assert!(migrate.list().contains("stayed here"), "{}", migrate.list());
}

/// Nobody has said that it runs there, so nobody is told that it does.
#[tokio::test(flavor = "multi_thread")]
async fn who_gives_a_tree_up_is_not_told_that_it_runs_there() {
    let (mut destination, mut program) = (Destination::start(), Program::start());
    let mut migrate = Migrate::start(&destination, &[&program.pid()]);
    let mut line = destination.line().await;
    let migration = line.until(is_handover).await;
    drop(destination);
    line.cut();
    migrate.interrupt().await;
    assert_eq!(migrate.end().await, 6);
    let mut settled = migrate.again(&["settle", &migration, "--gone", "--yes"]);
    assert_eq!(settled.end().await, 0);
    assert!(settled.said().contains("What stood still here is ended"), "{}", settled.said());
    assert!(!settled.said().contains("Moved"), "{}", settled.said());
    program.is_gone();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_source_takes_up_where_it_was_and_ends_the_original() {
    let (mut destination, mut program) = (Destination::start(), Program::start());
    let mut migrate = Migrate::start(&destination, &[&program.pid(), "--lazy", "always"]);
    let mut line = destination.line().await;
    let id = line.until(is_handover).await;
    let migration = id.parse().unwrap();
    let decided = Decided { migration, outcome: Outcome::Running.into(), resumed_after_ns: 1 };
    line.say(Message::Decided(decided)).await;
    line.until(|message| matches!(message, Message::PushDone(_))).await;
    migrate.kill();
    program.stands_still().await;
    assert!(migrate.list().contains("runs there"), "{}", migrate.list());
    let mut resumed = migrate.again(&["resume", &id]);
    let mut line = destination.line().await;
    assert_eq!(line.inquiry().await, migration);
    line.say(Message::Decided(decided)).await;
    line.say(Message::Missing(Missing::default())).await;
    line.until(|message| matches!(message, Message::PushDone(_))).await;
    line.say(Message::Complete(Complete::default())).await;
    line.until(|message| matches!(message, Message::Done(_))).await;
    assert_eq!(resumed.end().await, 0);
    program.is_gone();
    assert!(migrate.list().contains("moved"), "{}", migrate.list());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_was_killed_before_the_handover_has_nothing_to_settle() {
    let (mut destination, program) = (Destination::start(), Program::start());
    let mut migrate = Migrate::start(&destination, &[&program.pid()]);
    let mut line = destination.line().await;
    let id = line.until(is_image).await;
    migrate.kill();
    program.runs_free().await;
    let mut resumed = migrate.again(&["resume", &id]);
    let mut line = destination.line().await;
    assert_eq!(line.inquiry().await.to_string(), id, "the destination is to discard its stub");
    assert_eq!(resumed.end().await, RUNS_HERE);
    program.runs_free().await;
    let mut again = migrate.again(&["resume", &id]);
    assert_eq!(again.end().await, 0);
    assert!(again.said().contains("is settled: it stayed on this host."), "{}", again.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_fault_connection_alone_is_dialled_again_at_once() {
    let (mut destination, program) = (Destination::start(), Program::start());
    let mut migrate = Migrate::start(&destination, &[&program.pid(), "--lazy", "always"]);
    let mut line = destination.line().await;
    let migration = line.until(is_handover).await.parse().unwrap();
    let decided = Decided { migration, outcome: Outcome::Running.into(), resumed_after_ns: 1 };
    line.say(Message::Decided(decided)).await;
    line.until(|message| matches!(message, Message::PushDone(_))).await;
    let lost = Instant::now();
    destination.faults().await.finish().await;
    let mut again = destination.line().await;
    assert_eq!(again.inquiry().await, migration);
    assert!(lost.elapsed() < Duration::from_secs(14), "{:?}", lost.elapsed());
    again.say(Message::Decided(decided)).await;
    again.say(Message::Complete(Complete::default())).await;
    again.until(|message| matches!(message, Message::Done(_))).await;
    assert_eq!(migrate.end().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_names_nothing_is_wrong_usage() {
    let (destination, program) = (Destination::start(), Program::start());
    let mut migrate = Migrate::start(&destination, &["check", &program.pid()]);
    migrate.kill();
    let id = "000000000000000000000000000000ff";
    for arguments in [vec!["resume", id], vec!["settle", id, "--gone", "--yes"]] {
        let mut command = migrate.again(&arguments);
        assert_eq!(command.end().await, WRONG_USAGE);
        let complaint = command.complained();
        assert!(
            complaint.starts_with(&format!("migrate: there is no migration {id}")),
            "{complaint}"
        );
        assert_eq!(complaint.lines().count(), 1, "one sentence, and no colours: {complaint:?}");
        assert!(!complaint.contains('\x1b'), "no colours in a file: {complaint:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_is_at_work_on_is_not_taken_from_it() {
    let (mut destination, program) = (Destination::start(), Program::start());
    let mut migrate = Migrate::start(&destination, &[&program.pid()]);
    let mut line = destination.line().await;
    let id = line.until(is_handover).await;
    for arguments in [vec!["resume", &id], vec!["settle", &id, "--gone", "--yes"]] {
        let mut other = migrate.beside(&arguments);
        assert_eq!(other.end().await, REFUSED, "{}", other.complained());
        let complaint = other.complained();
        let last = complaint.lines().last().unwrap();
        assert!(last.starts_with("migrate: another `migrate` is at work on"), "{complaint}");
    }
    let mut cancel = migrate.beside(&["cancel", &id]);
    assert_eq!(cancel.end().await, REFUSED);
    assert!(cancel.complained().contains("with Ctrl-C"), "{}", cancel.complained());
    program.stands_still().await;
    let outcome = Outcome::Discarded.into();
    let migration = id.parse().unwrap();
    line.say(Message::Decided(Decided { migration, outcome, resumed_after_ns: 0 })).await;
    assert_eq!(migrate.end().await, RUNS_HERE);
    program.runs_free().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_root_is_told_that_nothing_was_touched() {
    let program = Program::start();
    let (code, said, complained) = command::as_nobody(&[&program.pid(), "--to", "127.0.0.1:9"]);
    assert_eq!(code, REFUSED, "{said}{complained}");
    assert!(said.contains("nothing was touched"), "{said}");
    let runs_on =
        format!("process {} runs here as before, and only root may move it", program.pid());
    assert!(said.contains(&runs_on), "{said}");
    assert_eq!(complained, "");
    program.runs_free().await;

    let id = "000000000000000000000000000000ff";
    for arguments in [vec!["resume", id], vec!["cancel", id], vec!["settle", id, "--gone"]] {
        let (code, said, complained) = command::as_nobody(&arguments);
        assert_eq!((code, said.as_str()), (REFUSED, ""), "{complained}");
        assert!(complained.starts_with("migrate: only root may"), "{complained}");
        assert_eq!(complained.lines().count(), 1, "{complained}");
    }
}

#[test]
fn a_check_of_this_host_tells_every_feature_and_what_can_be_done_here() {
    let (code, said, complained) = command::checked(&[]);
    assert_eq!((code, complained.as_str()), (0, ""), "{said}");
    assert!(said.starts_with("feature "), "{said}");
    let last = said.lines().last().unwrap();
    assert_eq!(last, "This host can send, receive, store and restore.", "{said}");

    let (code, said, _) = command::checked(&["--json"]);
    assert_eq!(code, 0, "{said}");
    let events: Vec<serde_json::Value> =
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (verdict, features) = events.split_last().unwrap();
    assert_eq!(verdict["event"], "verdict");
    assert_eq!([&verdict["send"], &verdict["restore"]], ["yes", "yes"]);
    assert!(features.iter().all(|event| event["event"] == "feature"), "{said}");
    assert!(features.iter().any(|event| event["name"] == "clone3(2) set_tid"), "{said}");
}

#[test]
fn who_is_not_root_hears_what_could_not_be_tried_out() {
    let (code, said, complained) = command::as_nobody(&["check"]);
    assert_eq!((code, complained.as_str()), (0, ""), "{said}");
    let line = said.lines().find(|line| line.starts_with("time_namespaces(7)")).unwrap();
    assert!(line.contains(" unknown "), "{said}");
    let last = said.lines().last().unwrap();
    assert!(
        last.starts_with("Whether it can send, receive, store and restore is not known"),
        "{last}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_told_as_a_sentence_with_its_causes() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("source"), "no directory").unwrap();
    let (code, said, complained) = command::told(home.path(), &["list"]);
    assert_eq!((code, said.as_str()), (RUNS_HERE, ""), "{complained}");
    assert!(complained.starts_with("migrate: list file "), "{complained}");
    assert!(complained.contains(": Not a directory"), "with its cause: {complained}");
    assert_eq!(complained.lines().count(), 1, "{complained}");
}

/// What is listed, as soon as it has these words.
async fn is_listed(home: &Path, socket: &str, words: &str) {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let (_, said, _) = command::told(home, &["list", "--socket", socket]);
        if said.contains(words) {
            return;
        }
        assert!(Instant::now() < end, "{words:?} is not in: {said}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_of_the_agent_says_when_it_began_and_that_it_is_being_cancelled() {
    let (mut destination, program) = (Destination::start(), Program::start());
    let home = command::home(&destination);
    let held = home.path().join("held");
    let agent =
        SourceAgent::start(home.path(), &format!("source.thaw.before=hold:{}", held.display()));
    let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let arguments = [&*program.pid(), "--socket", agent.socket()];
    let mut migrate = Migrate::start_at(home.clone(), &destination, &arguments);
    let mut line = destination.line().await;

    // Nothing was touched yet, so there is no journal.
    line.until(|message| matches!(message, Message::Offer(_))).await;
    let status = ["status", "--json", "--socket", agent.socket()];
    let (_, said, _) = command::told(home.path(), &status);
    let status: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(status["state"], "under way: offer");
    assert!(status["at_unix_s"].as_u64().unwrap() >= began, "{status}");

    let (monotonic_ns, boottime_ns) = (1_000_000_000, 1_000_000_000);
    line.say(Message::Accept(Accept { monotonic_ns, boottime_ns })).await;
    line.until(is_image).await;
    migrate.interrupt().await;
    is_listed(home.path(), agent.socket(), "under way: being cancelled").await;
    std::fs::remove_file(&held).unwrap();
    assert_eq!(migrate.end().await, CANCELLED);
    is_listed(home.path(), agent.socket(), ": stayed here, 20").await;
    program.runs_free().await;
}
