//! Two hosts that get to know each other with `migrate identity`, `migrate trust` and `migrate ca`,
//! as an operator uses them, and moves between hosts that trust each other in that way.

use anyhow::{Context as _, Result, ensure};
use link::{Authority, Role, Terms};
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};
use tests::attempt::fails;
use tests::host_init::Status;
use tests::hosts::{CONFIG, Host, Output, SOURCE_STATE, Started, TwoHosts, start_agent};
use tests::moved::exit;
use tests::place;
use tests::workload::Workload;

fn migrate(host: &Host, arguments: &[&str]) -> Result<Output> {
    let migrate = place::program("migrate")?;
    let argv: Vec<&str> = [migrate.as_str()].iter().chain(arguments).copied().collect();
    host.run(&argv)
}

/// What it says, if it ends with this code.
fn says(host: &Host, arguments: &[&str], code: i32) -> Result<String> {
    let output = migrate(host, arguments)?;
    let said = output.stdout + &output.stderr;
    ensure!(output.status == Status::Exited(code), "{arguments:?}: {:?} {said}", output.status);
    Ok(said)
}

fn has_all(said: &str, words: &[&str]) -> Result<()> {
    words.iter().try_for_each(|word| {
        ensure!(said.contains(word), "{word:?} is not in: {said}");
        Ok(())
    })
}

fn fingerprint(host: &Host) -> Result<String> {
    Ok(says(host, &["fingerprint"], 0)?.trim().to_owned())
}

fn file(name: &str) -> String {
    format!("{CONFIG}/{name}")
}

/// A move that must succeed.
fn goes(hosts: &TwoHosts, workload: &Workload) -> Result<()> {
    hosts.migrate(workload.pid, &hosts.a, &hosts.b, &[])?.success()?;
    workload.proves_itself(&hosts.b)
}

/// Warnings and errors of the agent; each refusal is one.
fn complaints(agent: &Started) -> Result<Vec<String>> {
    let log = fs::read_to_string(&agent.stderr)?;
    let is_one = |line: &&str| line.contains("WARN") || line.contains("ERROR");
    Ok(log.lines().filter(is_one).map(ToOwned::to_owned).collect())
}

#[test]
fn a_host_shows_its_key_and_does_not_make_it_twice() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let none = says(&hosts.a, &["identity"], exit::FAILED)?;
    has_all(&none, &["migrate identity create"])?;
    let made = says(&hosts.a, &["identity", "create"], 0)?;
    let key = fingerprint(&hosts.a)?;
    has_all(&made, &[&key])?;
    let refused = says(&hosts.a, &["identity", "create"], exit::REFUSED)?;
    has_all(&refused, &["there is /etc/migrate/identity already", &key])?;
    let shown = says(&hosts.a, &["identity"], 0)?;
    has_all(&shown, &["/etc/migrate/identity", &format!("{key} hosta"), &format!("hosta {key}")])?;
    let json: serde_json::Value =
        serde_json::from_str(&says(&hosts.a, &["identity", "--json"], 0)?)?;
    ensure!(json["fingerprint"] == key.as_str() && json["certificate"].is_null(), "{json}");
    let public = says(&hosts.a, &["identity", "--public"], 0)?;
    ensure!(public.starts_with("-----BEGIN PUBLIC KEY-----\n"), "{public}");
    Ok(())
}

#[test]
fn a_destination_is_trusted_by_its_fingerprint_and_then_moved_to() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let (source, destination) = (fingerprint(&hosts.a)?, fingerprint(&hosts.b)?);
    hosts.b.write(&file("authorized_hosts"), &format!("{source} hosta\n"))?;
    let agent = start_agent(&hosts.b)?;
    let (known, other) = (file("known_hosts"), format!("SHA256:{}", "A".repeat(43)));

    let silent = says(&hosts.a, &["trust", "hostb"], exit::REFUSED)?;
    has_all(&silent, &[&destination, "--fingerprint", "without a terminal"])?;
    let mismatch = ["trust", "hostb", "--fingerprint", &other];
    has_all(&says(&hosts.a, &mismatch, exit::REFUSED)?, &["another key", &destination])?;
    ensure!(!hosts.a.path(&known).exists(), "nothing was to be added");

    let added = says(&hosts.a, &["trust", "hostb:7747", "--fingerprint", &destination], 0)?;
    has_all(&added, &["Added to /etc/migrate/known_hosts"])?;
    ensure!(hosts.a.read(&known)? == format!("hostb {destination}\n"));
    has_all(&says(&hosts.a, &["trust", "hostb"], 0)?, &["is known with this key", "line 1"])?;
    has_all(&says(&hosts.a, &["trust", "--list"], 0)?, &[&format!("hostb {destination}")])?;
    // Each time that it is asked for its key is a line in its log, and nothing to complain about.
    ensure!(complaints(&agent)?.is_empty(), "{:?}", complaints(&agent)?);
    let log = fs::read_to_string(&agent.stderr)?;
    let asked = log.lines().filter(|line| line.contains("asked for the key of this host"));
    ensure!(asked.count() == 4, "{log}");

    let workload = Workload::start(&hosts.a, "counter", &[])?;
    goes(&hosts, &workload)?;
    workload.stop(&hosts.b)
}

/// script(1) is the terminal.
#[test]
fn on_a_terminal_the_whole_word_is_asked_for() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let destination = fingerprint(&hosts.b)?;
    let _agent = start_agent(&hosts.b)?;
    let typed = |word: &str| -> Result<Output> {
        let migrate = place::program("migrate")?;
        let line = format!("echo {word} | script -qec '{migrate} trust hostb' /dev/null");
        hosts.a.run(&["sh", "-c", &line])
    };
    let no = typed("no")?;
    ensure!(no.status == Status::Exited(exit::REFUSED), "{no:?}");
    has_all(&no.stdout, &["The key of hostb (UDP 192.0.2.2:7747) is", &destination, "yes/no"])?;
    ensure!(!hosts.a.path(&file("known_hosts")).exists(), "nothing was to be added");
    let yes = typed("yes")?;
    ensure!(yes.status == Status::Exited(0), "{yes:?}");
    ensure!(hosts.a.read(&file("known_hosts"))? == format!("hostb {destination}\n"));
    Ok(())
}

#[test]
fn another_key_than_the_known_one_is_refused_loudly_until_it_is_replaced() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let destination = fingerprint(&hosts.b)?;
    let _agent = start_agent(&hosts.b)?;
    let (known, other) = (file("known_hosts"), format!("SHA256:{}", "A".repeat(43)));
    hosts.a.write(&known, &format!("# ours\nhostb {other}\nhostc {other}\n"))?;

    for more in [&[][..], &["--fingerprint", &destination]] {
        let arguments = [&["trust", "hostb"][..], more].concat();
        let refused = says(&hosts.a, &arguments, exit::REFUSED)?;
        let words = ["NOT THE ONE", "known_hosts, line 2", &other, &destination, "--replace hostb"];
        has_all(&refused, &words)?;
    }
    let replace = ["trust", "--replace", "hostb"];
    has_all(&says(&hosts.a, &replace, exit::REFUSED)?, &["--fingerprint"])?;
    says(&hosts.a, &[&replace[..], &["--fingerprint", &destination]].concat(), 0)?;
    ensure!(hosts.a.read(&known)? == format!("# ours\nhostc {other}\nhostb {destination}\n"));

    has_all(&says(&hosts.a, &["trust", "--remove", "hostc"], 0)?, &["hostc", &other])?;
    says(&hosts.a, &["trust", "--remove", "hostc"], exit::REFUSED)?;
    ensure!(hosts.a.read(&known)? == format!("# ours\nhostb {destination}\n"));

    hosts.a.write(&known, "hostb\n")?;
    has_all(&says(&hosts.a, &["trust", "hostb"], exit::FAILED)?, &["known_hosts, line 1"])?;
    Ok(())
}

#[test]
fn a_host_that_nobody_answers_at_is_not_trusted() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let failed = says(&hosts.a, &["trust", "hostb"], exit::FAILED)?;
    has_all(&failed, &["hostb"])
}

/// What an operator does by hand: the public key to the CA, the certificate back.
fn certify(ca: &Host, host: &Host, more: &[&str]) -> Result<()> {
    let public = says(host, &["identity", "--public"], 0)?;
    ca.write("/tmp/host.pub", &public)?;
    let sign = ["ca", "sign", "/tmp/host.pub", "--name", host.name(), "--valid", "90d"];
    let output = migrate(ca, &[&sign[..], more].concat())?;
    ensure!(output.stderr.contains("Signed: serial "), "{}", output.stderr);
    host.write("/tmp/host.cert", &output.success()?)?;
    says(host, &["identity", "certify", "/tmp/host.cert"], 0).map(drop)
}

/// Two hosts that know one CA and nobody else.
fn fleet() -> Result<(TwoHosts, String)> {
    let hosts = TwoHosts::new()?;
    let made = says(&hosts.a, &["ca", "create", "--name", "fleet.example"], 0)?;
    let line =
        made.lines().find(|line| line.starts_with("@cert-authority ")).context("its line")?;
    let authority = line.split_whitespace().nth(1).context("its key")?.to_owned();
    says(&hosts.a, &["ca", "create", "--name", "again"], exit::REFUSED)?;
    for host in [&hosts.a, &hosts.b] {
        says(host, &["identity", "create"], 0)?;
        certify(&hosts.a, host, &[])?;
        host.write(&file("known_hosts"), &format!("{line}\n"))?;
        host.write(&file("authorized_hosts"), &format!("{line}\n"))?;
    }
    Ok((hosts, authority))
}

#[test]
fn hosts_of_one_ca_move_trees_without_knowing_each_other_and_the_policy_knows_names() -> Result<()>
{
    let (hosts, authority) = fleet()?;
    let shown = says(&hosts.a, &["identity"], 0)?;
    has_all(
        &shown,
        &["certified by fleet.example", &authority, "serial 1", "for hosta", "until 20"],
    )?;
    let policy = "[default]\nmemory_mib_max = 0\n[certified.hosta]\nmemory_mib_max = 1000\n";
    hosts.b.write(&file("policy.toml"), policy)?;
    let agent = start_agent(&hosts.b)?;
    let known = says(&hosts.a, &["trust", "hostb"], 0)?;
    has_all(&known, &["hostb is known by its certificate", "serial 2"])?;
    let workload = Workload::start(&hosts.a, "counter", &[])?;
    goes(&hosts, &workload)?;
    workload.stop(&hosts.b)?;
    let said = complaints(&agent)?;
    ensure!(said.is_empty(), "`trust` is nothing to complain about: {said:?}");

    hosts.b.write(&file("policy.toml"), &policy.replace("hosta", "hostc"))?;
    let workload = Workload::start(&hosts.a, "counter", &[])?;
    let moved = hosts.migrate(workload.pid, &hosts.a, &hosts.b, &[])?;
    ensure!(
        moved.exit == exit::REFUSED && moved.story().contains("the destination's policy allows 0")
    );
    workload.stop(&hosts.a)
}

/// The move fails with these words, and each connection of it is one line in the destination's log.
fn is_turned_away(hosts: &TwoHosts, agent: &Started, words: &str, key: &str) -> Result<()> {
    let before = complaints(agent)?.len();
    let workload = Workload::start(&hosts.a, "counter", &[])?;
    fails(hosts, workload.pid, "hostb", &["hostb", words])?;
    workload.stop(&hosts.a)?;
    let said = complaints(agent)?.split_off(before);
    ensure!(said.len() == 1 && said[0].contains(words) && said[0].contains(key), "{said:?}");
    Ok(())
}

#[test]
fn a_revoked_source_is_turned_away_with_one_line_on_each_side() -> Result<()> {
    let (hosts, authority) = fleet()?;
    let agent = start_agent(&hosts.b)?;
    let key = fingerprint(&hosts.a)?;
    let revoked = file("revoked_hosts");
    hosts.b.write(&revoked, &format!("{authority} serial 1 # hosta was stolen\n"))?;
    is_turned_away(&hosts, &agent, "serial 1 of the CA", &key)?;
    let trusted = hosts.b.read(&file("authorized_hosts"))?;
    hosts.b.write(&file("authorized_hosts"), &format!("{trusted}{key} hosta\n"))?;
    hosts.b.write(&revoked, &format!("{key}\n"))?;
    is_turned_away(&hosts, &agent, "is revoked", &key)
}

#[test]
fn an_expired_certificate_is_turned_away_with_one_line_on_each_side() -> Result<()> {
    let (hosts, _) = fleet()?;
    let agent = start_agent(&hosts.b)?;
    let public = says(&hosts.a, &["identity", "--public"], 0)?;
    let authority = Authority::load(&hosts.a.path("/etc/migrate/ca"))?;
    let hour = Duration::from_hours(1);
    let terms = Terms {
        names: vec!["hosta".to_owned()],
        roles: vec![Role::Source],
        from: SystemTime::now() - 2 * hour,
        until: SystemTime::now() - hour,
        serial: None,
    };
    let issue = authority.sign(&public, Path::new("public"), &terms)?;
    hosts.a.write("/tmp/host.cert", &issue.pem)?;
    says(&hosts.a, &["identity", "certify", "/tmp/host.cert"], 0)?;
    has_all(&says(&hosts.a, &["identity"], 0)?, &["which has passed"])?;
    is_turned_away(&hosts, &agent, "certificate has expired", &fingerprint(&hosts.a)?)?;
    // The agent need not be told of a good one, nor the source's file be replaced by hand.
    certify(&hosts.a, &hosts.a, &["--for", "source"])?;
    let workload = Workload::start(&hosts.a, "counter", &[])?;
    goes(&hosts, &workload)?;
    workload.stop(&hosts.b)
}

#[test]
fn a_revoked_destination_is_sent_nothing() -> Result<()> {
    let (hosts, _) = fleet()?;
    let _agent = start_agent(&hosts.b)?;
    let key = fingerprint(&hosts.b)?;
    hosts.a.write(&file("revoked_hosts"), &format!("{key}\n"))?;
    let workload = Workload::start(&hosts.a, "counter", &[])?;
    fails(&hosts, workload.pid, "hostb", &["hostb", "is revoked", &key])?;
    let refused = says(&hosts.a, &["trust", "hostb", "--fingerprint", &key], exit::REFUSED)?;
    has_all(&refused, &["is revoked"])?;
    workload.stop(&hosts.a)
}

#[test]
fn both_keys_are_rotated_between_moves_and_no_agent_is_restarted() -> Result<()> {
    let hosts = TwoHosts::new()?;
    hosts.introduce()?;
    let agent = start_agent(&hosts.b)?;
    for (host, other, list) in
        [(&hosts.a, &hosts.b, "authorized_hosts"), (&hosts.b, &hosts.a, "known_hosts")]
    {
        says(host, &["identity", "rotate", "--finish", "--state", SOURCE_STATE], exit::FAILED)?;
        let begun = says(host, &["identity", "rotate"], 0)?;
        let line = begun.lines().find_map(|line| {
            let line = line.strip_prefix(&format!("In {list} of "))?;
            Some(line.split_once(":  ")?.1.trim().to_owned())
        });
        let line = line.with_context(|| begun.clone())?;
        let before = other.read(&file(list))?;
        other.write(&file(list), &format!("{before}{line}\n"))?;
        // The key in use is still the one from before.
        let workload = Workload::start(&hosts.a, "counter", &[])?;
        goes(&hosts, &workload)?;
        workload.stop(&hosts.b)?;

        let old = fingerprint(host)?;
        says(host, &["identity", "rotate", "--finish", "--state", SOURCE_STATE], 0)?;
        ensure!(fingerprint(host)? != old, "it has no new key");
        has_all(&says(host, &["identity"], 0)?, &["old key", &old, "identity.old.20"])?;
        // And now the old one is struck off everywhere.
        other.write(&file(list), &format!("{line}\n"))?;
        let workload = Workload::start(&hosts.a, "counter", &[])?;
        goes(&hosts, &workload)?;
        workload.stop(&hosts.b)?;
    }
    let said = complaints(&agent)?;
    ensure!(said.is_empty(), "{said:?}");
    Ok(())
}
