//! `migrate` against a destination that breaks off, forgets, or is never heard of again: where the
//! process runs afterwards, and what the command says.
//!
//! Runs as root: a real process is moved as far as the destination lets it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod command;
mod destination;
mod program;

use command::Migrate;
use destination::{Destination, is_handover, is_image};
use program::Program;
use protocol::message::{Complete, Decided, Missing, Refuse};
use protocol::{Message, Outcome, Refusal};

const RUNS_HERE: i32 = 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_the_destination_is_told_in_its_words() {
    let (mut destination, program) = (Destination::start(), Program::start());
    let mut migrate = Migrate::start(&destination, &[&program.pid(), "--json"]);
    let mut line = destination.line().await;
    line.until(|message| matches!(message, Message::Offer(_))).await;
    let refusal = Refusal::new("file /x", "does not exist here", "Install it.");
    line.say(Message::Refuse(Refuse::new(vec![refusal]))).await;
    assert_eq!(migrate.end().await, 3);
    assert!(migrate.said().contains("does not exist here"), "{}", migrate.said());
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
    let mut resumed = migrate.again(&["resume", &migration, "--vouch", "discarded"]);
    assert_eq!(resumed.end().await, RUNS_HERE);
    program.runs_free().await;
    assert!(migrate.list().contains("stayed here"), "{}", migrate.list());
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
    assert_eq!(resumed.end().await, RUNS_HERE);
    program.runs_free().await;
}
