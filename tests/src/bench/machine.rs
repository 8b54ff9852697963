//! What all of it was measured on: figures are the machine's as much as ours.

use super::load::Load;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    pub processor: String,
    pub processors: usize,
    pub memory_mib: u64,
    pub kernel: String,
    /// How many wanted to run, over the last minute: before the first run, and most of all later. The
    /// benchmark itself is among them later.
    pub load_before: f64,
    pub load_max: f64,
}

impl Machine {
    pub(super) fn look() -> Result<Self> {
        let processors = fs::read_to_string("/proc/cpuinfo").context("read /proc/cpuinfo")?;
        let names: Vec<&str> = processors.lines().filter_map(model).collect();
        let load = load_average()?;
        Ok(Self {
            processor: names.first().map_or_else(|| "unknown".into(), |name| (*name).to_owned()),
            processors: names.len(),
            memory_mib: meminfo_mib("MemTotal:").context("how much memory there is")?,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            load_before: load,
            load_max: load,
        })
    }

    pub(super) fn look_at_load(&mut self) -> Result<()> {
        self.load_max = self.load_max.max(load_average()?);
        Ok(())
    }

    /// With what stands between brackets in the tables.
    pub(super) fn in_words(&self) -> String {
        format!(
            "median (least–most). {} processors ({}), {} MiB of memory, Linux {}. \
             Load average {:.2} before the first run, at most {:.2} later, with the benchmark itself.",
            self.processors,
            self.processor,
            self.memory_mib,
            self.kernel,
            self.load_before,
            self.load_max
        )
    }
}

fn model(line: &str) -> Option<&str> {
    let (name, value) = line.split_once(':')?;
    (name.trim() == "model name").then_some(value.trim())
}

fn load_average() -> Result<f64> {
    let averages = fs::read_to_string("/proc/loadavg").context("read /proc/loadavg")?;
    Ok(averages.split(' ').next().context("a load average")?.parse()?)
}

fn meminfo_mib(name: &str) -> Option<u64> {
    let lines = fs::read_to_string("/proc/meminfo").ok()?;
    let line = lines.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? / 1024)
}

/// Why a load does not fit here. It exists twice while it moves; in a peer's hands three times, with its
/// images.
pub(super) fn lacks_memory_for(load: &Load, has_peer: bool) -> Option<String> {
    const BESIDES_MIB: u64 = 1024;
    let needed = load.mib * if has_peer { 3 } else { 2 } + BESIDES_MIB;
    let available = meminfo_mib("MemAvailable:").unwrap_or(0);
    (available < needed)
        .then(|| format!("it needs {needed} MiB, and {available} MiB are available"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::LOADS;

    #[test]
    fn this_machine_has_a_processor_and_memory() {
        let machine = Machine::look().unwrap();
        assert!(machine.memory_mib > 0 && !machine.kernel.is_empty(), "{machine:?}");
        assert_eq!(model("model name\t: Some CPU @ 1 GHz"), Some("Some CPU @ 1 GHz"));
        assert_eq!(model("flags\t: fpu"), None);
    }

    #[test]
    fn what_does_not_fit_is_said_with_its_size() {
        let huge = Load {
            name: "",
            title: "",
            program: crate::bench::load::Program::Load(&[]),
            mib: 1 << 40,
        };
        assert!(lacks_memory_for(&huge, true).unwrap().contains("MiB are available"));
        assert!(LOADS.iter().any(|load| lacks_memory_for(load, false).is_none()));
    }
}
