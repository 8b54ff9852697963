//! A C program in many files and the `make` that builds it again and again until it is told to stop:
//! a tree in which processes are born and die all the time.

use crate::host_init::Status;
use crate::hosts::{Host, TwoHosts};
use crate::{place, wait};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug)]
pub struct Build {
    pub pid: i32,
    directory: PathBuf,
    errors: PathBuf,
}

const FILES: u32 = 24;

/// `rounds` gets a line for every complete and correct build.
///
/// The two hosts share a kernel, so a program whose linker was moved is busy (126, ETXTBSY) until the
/// linker's original, which still has it open, has ended with the last late page.
const MAKEFILE: &str = "\
objects := $(patsubst %.c,%.o,$(wildcard file*.c))
forever:
\t+while ! test -e stop; do $(MAKE) clean && $(MAKE) program && $(MAKE) run || exit 1; done
run:
\t@while ./program >> rounds; status=$$?; test $$status = 126; do sleep .1; done; exit $$status
program: $(objects) main.o
\tcc -o $@ $^
%.o: %.c
\tcc -O2 -c -o $@ $<
clean:
\trm -f *.o program
";

/// How long one build may take, with both processors busy.
const BUILD_LIMIT: Duration = Duration::from_secs(300);

impl Build {
    pub fn start(hosts: &TwoHosts, host: &Host) -> Result<Self> {
        let directory = hosts.shared().join("build");
        write_sources(&directory)?;
        let path = place::text(&directory)?;
        // The compiler's own temporary files have to exist on both hosts, and /tmp is private.
        let environment = [("TMPDIR", path.as_str())];
        let make = host.spawn_with(&["make", "-j4", "-C", &path, "forever"], &environment)?;
        let build = Self { pid: make.pid, directory, errors: make.stderr };
        build.completes_another(host)?;
        Ok(build)
    }

    /// Waits until one more build is complete. Whatever broke makes `make` end.
    pub fn completes_another(&self, host: &Host) -> Result<()> {
        let enough = self.rounds()? + 1;
        wait::until(
            BUILD_LIMIT,
            || format!("build {enough}"),
            || {
                ensure!(host.exists(self.pid), "make ended: {}", fs::read_to_string(&self.errors)?);
                Ok((self.rounds()? >= enough).then_some(()))
            },
        )
    }

    fn rounds(&self) -> Result<usize> {
        let lines = fs::read_to_string(self.directory.join("rounds")).unwrap_or_default();
        let expected = sum().to_string();
        let wrong = lines.lines().find(|line| *line != expected);
        ensure!(wrong.is_none(), "a program was built that says {wrong:?} instead of {expected}");
        Ok(lines.lines().count())
    }

    pub fn stop(&self, host: &Host) -> Result<()> {
        fs::write(self.directory.join("stop"), "")?;
        let status = host.end_of(self.pid, BUILD_LIMIT)?;
        let is_good = matches!(status, Status::Exited(0) | Status::Unknown);
        ensure!(is_good, "make: {status:?}: {}", fs::read_to_string(&self.errors)?);
        self.rounds().map(drop)
    }
}

fn sum() -> u32 {
    (0..FILES).map(|number| number * number).sum()
}

fn write_sources(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).context("make the build directory")?;
    fs::write(directory.join("Makefile"), MAKEFILE)?;
    for number in 0..FILES {
        fs::write(directory.join(format!("file{number}.c")), source(number))?;
    }
    let names: Vec<String> = (0..FILES).map(|number| format!("f{number}()")).collect();
    let declarations: String = names.iter().map(|name| format!("int {name};\n")).collect();
    let main = format!(
        "#include <stdio.h>\n{declarations}int main() {{ printf(\"%d\\n\", {}); }}\n",
        names.join("+")
    );
    fs::write(directory.join("main.c"), main).context("write main.c")
}

/// Enough code to keep the optimiser busy for a while.
fn source(number: u32) -> String {
    let noise: String = (0..25)
        .map(|i| {
            format!(
                "int n{number}_{i}(int *a, int n) {{ int s = {i}; for (int i = 0; i < n; i++) \
                 s += a[i] * (s ^ {i}) / (i + 1); return s; }}\n"
            )
        })
        .collect();
    format!("{noise}int f{number}() {{ return {}; }}\n", number * number)
}
