//! What a test says that cannot run here. `cargo xtask test` names the file in which it is said, and
//! counts it as skipped: a runner would count it as passed, and hide what it printed.

use std::fs::OpenOptions;
use std::io::Write as _;

/// The calling test returns right after it. The scenarios of the package `tests` say it the same way.
pub(crate) fn skip(reason: &str) {
    let line = format!("{}: {reason}\n", name());
    eprint!("SKIPPED {line}");
    let Some(path) = std::env::var_os("MIGRATE_TEST_SKIPS") else { return };
    let file = OpenOptions::new().append(true).create(true).open(path);
    // One write in append mode: tests of several processes write here at once.
    file.unwrap().write_all(line.as_bytes()).unwrap();
}

/// The harness names a test's thread after it; where it has only one thread, the command line says
/// which test was asked for.
fn name() -> String {
    let thread = std::thread::current();
    let named = thread.name().filter(|name| *name != "main").map(str::to_owned);
    let asked = || std::env::args().skip(1).find(|word| !word.starts_with('-'));
    named.or_else(asked).unwrap_or_else(|| "a test of the engine".to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    const INNER: &str = "MIGRATE_TEST_INNER";

    #[test]
    fn is_said_with_the_name_of_the_test() {
        let reason = "this is only tried";
        if std::env::var_os(INNER).is_some() {
            return super::skip(reason);
        }
        let test = "skipped::tests::is_said_with_the_name_of_the_test";
        for threads in ["--test-threads=1", "--test-threads=2"] {
            let folder = tempfile::tempdir().unwrap();
            let said = folder.path().join("skips");
            let mut inner = Command::new(std::env::current_exe().unwrap());
            inner.args([test, "--exact", threads]).env(INNER, "1");
            let output = inner.env("MIGRATE_TEST_SKIPS", &said).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            assert_eq!(std::fs::read_to_string(said).unwrap(), format!("{test}: {reason}\n"));
        }
    }
}
