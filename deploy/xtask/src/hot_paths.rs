//! The hot paths, each as a ratio to a yardstick that was measured beside it: seconds would tell
//! of the machine. A report and no test: what others do meanwhile shows in a ratio as well.

use crate::{command, install};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const BASELINE: &str = "docs/hot-paths.json";

/// Of criterion, in `target`.
const MEASURED: &str = "target/criterion";

/// How much larger than in the baseline a ratio is, before it is pointed at. On a machine that others
/// use, too, two runs may differ by so much.
const MARGIN_PERCENT: f64 = 50.0;

/// What a group's other benchmarks are held against has a name that begins so.
const YARDSTICK: &str = "yardstick ";

/// By `group/name`.
type Ratios = BTreeMap<String, f64>;

pub(crate) fn run(save: bool) -> Result<()> {
    install::for_building()?;
    measure()?;
    let paths = read_groups(Path::new(MEASURED))?;
    let baseline = read_baseline(Path::new(BASELINE))?;
    command::say(&table(&paths, &baseline))?;
    command::say(&verdict(&paths, &baseline))?;
    if save {
        let ratios: Ratios =
            paths.iter().map(|path| (path.name(), rounded(path.ratio()))).collect();
        fs::write(BASELINE, serde_json::to_string_pretty(&ratios)? + "\n")
            .with_context(|| format!("write {BASELINE}"))?;
        command::say(&format!("saved as {BASELINE}"))?;
    }
    Ok(())
}

fn measure() -> Result<()> {
    match fs::remove_dir_all(MEASURED) {
        // What was there of benchmarks that are no more would be read as well.
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {MEASURED}"));
        }
        _ => {}
    }
    let benches = ["-p", "protocol", "--bench", "page_stream", "-p", "engine", "--bench", "memory"];
    let mut bench = command::cargo(&["bench"]);
    bench.args(benches).env("CRITERION_HOME", command::workspace()?.join(MEASURED));
    command::run(&mut bench)
}

#[derive(Clone, Debug, PartialEq)]
struct HotPath {
    group: String,
    name: String,
    nanos: f64,
    yardstick: String,
    yardstick_nanos: f64,
}

impl HotPath {
    fn name(&self) -> String {
        format!("{}/{}", self.group, self.name)
    }

    fn ratio(&self) -> f64 {
        self.nanos / self.yardstick_nanos
    }

    /// Above 0, in percent, when it is slower than the baseline.
    fn change(&self, baseline: &Ratios) -> Option<f64> {
        baseline.get(&self.name()).map(|before| (self.ratio() / before - 1.0) * 100.0)
    }
}

fn read_groups(measured: &Path) -> Result<Vec<HotPath>> {
    let mut paths = Vec::new();
    for (group, directory) in directories(measured)? {
        let mut times = BTreeMap::new();
        for (name, directory) in directories(&directory)? {
            times.insert(name, nanos(&directory.join("new/sample.json"))?);
        }
        paths.extend(of_group(&group, &times)?);
    }
    Ok(paths)
}

fn directories(of: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let entries = fs::read_dir(of).with_context(|| format!("list {}", of.display()))?;
    let directories = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    let named = |path: PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (name, path)
    };
    Ok(directories.map(named).collect())
}

/// The lower quartile of the samples: what others do meanwhile only makes them longer, and the very
/// shortest may be luck.
fn nanos(sample: &Path) -> Result<f64> {
    let of = || format!("read {}", sample.display());
    let text = fs::read_to_string(sample).with_context(of)?;
    let Sample { iters, times } = serde_json::from_str(&text).with_context(of)?;
    let mut each: Vec<f64> = times.iter().zip(iters).map(|(time, iters)| time / iters).collect();
    each.sort_by(f64::total_cmp);
    each.get(each.len() / 4).copied().context("samples").with_context(of)
}

/// As criterion writes it.
#[derive(serde::Deserialize)]
struct Sample {
    iters: Vec<f64>,
    /// Of all that many, in nanoseconds.
    times: Vec<f64>,
}

fn of_group(group: &str, times: &BTreeMap<String, f64>) -> Result<Vec<HotPath>> {
    let found = times.iter().find_map(|(name, nanos)| Some((name.strip_prefix(YARDSTICK)?, nanos)));
    let (yardstick, yardstick_nanos) = found.with_context(|| format!("a yardstick of {group}"))?;
    let others = times.iter().filter(|(name, _)| !name.starts_with(YARDSTICK));
    let path = |(name, nanos): (&String, &f64)| HotPath {
        group: group.to_owned(),
        name: name.clone(),
        nanos: *nanos,
        yardstick: yardstick.to_owned(),
        yardstick_nanos: *yardstick_nanos,
    };
    Ok(others.map(path).collect())
}

fn read_baseline(path: &Path) -> Result<Ratios> {
    match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).with_context(|| format!("read {}", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Ratios::new()),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// In Markdown, as in docs/performance.md.
fn table(paths: &[HotPath], baseline: &Ratios) -> String {
    let mut table = "\n| path | time | yardstick | ratio | baseline ratio |\n".to_owned();
    table += "|---|---|---|---|---|\n";
    for path in paths {
        let before = baseline.get(&path.name()).map_or("–".to_owned(), |ratio| digits(*ratio));
        let (time, yardstick) = (time(path.nanos), time(path.yardstick_nanos));
        let (name, kind, ratio) = (path.name(), &path.yardstick, digits(path.ratio()));
        let _ = writeln!(table, "| {name} | {time} | {kind}, {yardstick} | {ratio} | {before} |");
    }
    table
}

fn verdict(paths: &[HotPath], baseline: &Ratios) -> String {
    let slower = |path: &HotPath| {
        let percent = path.change(baseline).filter(|percent| *percent > MARGIN_PERCENT)?;
        Some(format!("{} (+{percent:.0} %)", path.name()))
    };
    let slower: Vec<_> = paths.iter().filter_map(slower).collect();
    match slower.as_slice() {
        [] => format!("None is slower than the baseline by more than {MARGIN_PERCENT} %."),
        _ => format!("Slower by more than {MARGIN_PERCENT} %: {}", slower.join(", ")),
    }
}

fn time(nanos: f64) -> String {
    let units = [(1e9, "s"), (1e6, "ms"), (1e3, "us")];
    let (unit, name) = units.into_iter().find(|(unit, _)| nanos >= *unit).unwrap_or((1.0, "ns"));
    format!("{} {name}", digits(nanos / unit))
}

/// Three of them.
fn digits(number: f64) -> String {
    format!("{}", rounded(number))
}

fn rounded(number: f64) -> f64 {
    format!("{number:.2e}").parse().unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(of: &[(&str, f64)]) -> BTreeMap<String, f64> {
        of.iter().map(|(name, nanos)| ((*name).to_owned(), *nanos)).collect()
    }

    fn read(nanos: f64) -> Vec<HotPath> {
        of_group("read", &times(&[("in a row", nanos), ("yardstick memcpy", 1000.0)])).unwrap()
    }

    #[test]
    fn a_path_is_told_by_its_yardstick() {
        let before = times(&[("read/in a row", 2.0)]);
        let table = table(&read(2345.6), &before);
        assert!(
            table.ends_with("| read/in a row | 2.35 us | memcpy, 1 us | 2.35 | 2 |\n"),
            "{table}"
        );
        assert!(of_group("read", &times(&[("in a row", 1.0)])).is_err());
    }

    #[test]
    fn only_what_is_slower_by_more_than_the_margin_is_pointed_at() {
        let before = times(&[("read/in a row", 2.0)]);
        assert!(verdict(&read(4000.0), &before).ends_with("50 %: read/in a row (+100 %)"));
        for fine in [1000.0, 2500.0] {
            assert!(verdict(&read(fine), &before).starts_with("None"));
        }
        assert!(verdict(&read(9000.0), &Ratios::new()).starts_with("None"), "nothing to compare");
    }

    #[test]
    fn what_criterion_writes_is_read() {
        let top = tempfile::tempdir().unwrap();
        for (name, nanos) in [("in a row", 3), ("yardstick memcpy", 2)] {
            let new = top.path().join("read").join(name).join("new");
            fs::create_dir_all(&new).unwrap();
            let sample = format!(r#"{{"iters":[1,2,3,4],"times":[1,{},27,36]}}"#, 2 * nanos);
            fs::write(new.join("sample.json"), sample).unwrap();
        }
        let [path] = read_groups(top.path()).unwrap().try_into().unwrap();
        assert_eq!((path.name().as_str(), path.ratio()), ("read/in a row", 1.5));
    }

    #[test]
    fn three_digits_are_kept() {
        assert_eq!([0.012_345, 1.0, 9.876_54, 1234.5].map(digits), ["0.0123", "1", "9.88", "1230"]);
    }
}
