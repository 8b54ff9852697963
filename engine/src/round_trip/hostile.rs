//! Images that mean harm: a good one with one thing wrong. Each is refused with the object named,
//! and no process of it is left.

use super::captured;
use crate::asleep::Asleep;
use crate::clocks::Clocks;
use crate::error::Error;
use crate::image::{Layout, MissingPages, TreeImage};
use crate::memory::mapping_image::{AnonymousImage, BackingImage, MappingImage, SpecialImage};
use crate::restore;
use crate::stage::Stage;
use std::error::Error as _;
use std::fs;
use std::process::Command;

struct Good {
    layout: Layout,
    image: TreeImage,
    pid: i32,
}

fn good() -> Good {
    let mut program = Asleep::run(Command::new("setsid").args(["sleep", "60"]));
    let (layout, image, _) = captured(program.child());
    Good { layout, image, pid: program.pid() }
}

impl Good {
    /// What comes of it with something changed. Without its pages it is never let run.
    fn with(&self, change: impl FnOnce(&mut Layout, &mut TreeImage)) -> Result<(), Error> {
        let (mut layout, mut image) = (self.layout.clone(), self.image.clone());
        change(&mut layout, &mut image);
        let strangers: Vec<i32> = layout.ids().filter(|&pid| exists(pid)).collect();
        let stage = Stage::begin(&layout, Clocks::default(), None);
        let built = stage.and_then(|stage| restore::build(stage, &image));
        let came = built.map(restore::Restored::discard);
        for pid in layout.ids().filter(|pid| !strangers.contains(pid)).chain([self.pid]) {
            assert!(is_gone_soon(pid), "process {pid} is left behind");
        }
        came
    }

    /// Refused, with this in what is told.
    fn refuses(&self, told: &str, change: impl FnOnce(&mut Layout, &mut TreeImage)) {
        let error = self.with(change).expect_err(told);
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        let text = format!("{error}: {cause}");
        assert!(text.contains(told), "{told:?} is not in {text:?}");
    }
}

fn exists(pid: i32) -> bool {
    fs::exists(format!("/proc/{pid}")).unwrap_or(false)
}

/// Whoever was killed may take a moment to be gone.
fn is_gone_soon(pid: i32) -> bool {
    (0..200).any(|_| {
        let is_gone = !exists(pid);
        if !is_gone {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        is_gone
    })
}

fn anonymous(start: u64, end: u64) -> MappingImage {
    let backing = Some(BackingImage::Anonymous(AnonymousImage::default()));
    MappingImage { start, end, protection: 3, backing, ..MappingImage::default() }
}

fn first_file(layout: &mut Layout) -> &mut Vec<u8> {
    let mappings = layout.processes[0].mappings.iter_mut();
    let file = mappings.filter_map(|mapping| match &mut mapping.backing {
        Some(BackingImage::File(file)) => Some(&mut file.path),
        _ => None,
    });
    file.into_iter().next().expect("a program has its own file mapped")
}

#[test]
fn layouts_that_mean_harm_are_refused_by_name_and_leave_no_process() {
    let good = good();
    good.with(|_, _| ()).expect("unchanged it can be built");
    let pid = good.pid;
    let process = format!("process {pid}");

    good.refuses("has no process", |layout, _| layout.processes.clear());
    good.refuses("only the content of a file has", |layout, _| layout.processes[0].space = 1 << 31);
    good.refuses("overlaps", |layout, _| {
        let mappings = &mut layout.processes[0].mappings;
        mappings[1].start = mappings[0].start;
    });
    good.refuses(&format!("0x1000000000000000-0x1000000000001000 of {process}"), |layout, _| {
        layout.processes[0].mappings.push(anonymous(1 << 60, (1 << 60) + 4096));
    });
    good.refuses("empty or not aligned", |layout, _| {
        layout.processes[0].mappings.insert(0, anonymous(0x3000, 0x2000));
    });
    good.refuses("beyond the end of every file", |layout, _| {
        layout.processes[0].mappings[0].offset = u64::MAX - 4095;
    });
    good.refuses("never puts pages of its own", |layout, _| {
        let backing = Some(BackingImage::Special(SpecialImage::Vvar.into()));
        let mapping = MappingImage { backing, ..anonymous(4096, 8192) };
        layout.processes[0].mappings.insert(0, mapping);
    });
    good.refuses("two of the kernel's vdso", |layout, _| {
        for start in [1_u64 << 30, 1 << 31] {
            let backing = Some(BackingImage::Special(SpecialImage::Vdso.into()));
            let mapping = MappingImage { backing, ..anonymous(start, start + 4096) };
            layout.processes[0].mappings.push(mapping);
        }
    });
    good.refuses("stands in it twice", |layout, _| {
        let twin = layout.processes[0].clone();
        layout.processes.push(crate::image::ProcessLayout { ppid: pid, ..twin });
    });
    good.refuses(&format!("thread 1 of {process}"), |layout, _| layout.processes[0].tids.push(1));
    good.refuses("comes before its parent", |layout, _| {
        let child = layout.processes[0].clone();
        layout.processes.push(crate::image::ProcessLayout { pid: pid + 1, ppid: pid + 1, ..child });
    });
    good.refuses("20001 processes", |layout, _| {
        let child = layout.processes[0].clone();
        layout.processes.extend(std::iter::repeat_n(child, 20_000));
    });
    good.refuses("131073 threads", |layout, _| {
        layout.processes[0].tids = (5_000_000..=5_000_000 + (1 << 17)).collect();
    });
    good.refuses("generations below the root", |layout, _| {
        for (pid, space) in (pid + 1..pid + 200).zip(1000..) {
            let child = layout.processes[0].clone();
            let (ppid, tids) = (pid - 1, vec![pid]);
            layout.processes.push(crate::image::ProcessLayout { pid, ppid, tids, space, ..child });
        }
    });
    good.refuses("beyond every limit", |layout, _| {
        layout.processes[0].descriptors_end = u32::MAX;
    });
    good.refuses("process group or session that cannot be", |layout, _| {
        layout.processes[0].pgid = -5;
    });
    good.refuses("make process 1", |layout, _| layout.processes[0].pgid = 1);
    good.refuses("process 1", |layout, _| layout.processes[0].sid = 1);
    let own = std::process::id().cast_signed();
    good.refuses(&format!("process {own}"), |layout, _| {
        layout.processes[0].pid = own;
        layout.processes[0].tids = vec![own];
    });
}

#[test]
fn a_mapped_file_behind_a_trap_is_refused_by_name() {
    let good = good();
    let home = tempfile::tempdir().unwrap();
    let fifo = home.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [
        concat!("/proc/1/root", "/etc/hostname"),
        "/proc/self/exe",
        "/usr/../etc/hostname",
        "etc/hostname",
        "/dev/zero",
        fifo.to_str().unwrap(),
    ] {
        let told = format!("open file {path}");
        good.refuses(&told, |layout, _| *first_file(layout) = path.into());
        good.refuses(&format!("file {path}"), |_, image| {
            let memory = image.processes[0].memory.as_mut().unwrap();
            memory.executable = path.to_owned();
        });
    }
}

#[test]
fn images_that_mean_harm_are_refused_by_name_and_leave_no_process() {
    let good = good();
    let process = format!("process {}", good.pid);

    good.refuses(&process, |_, image| image.processes[0].threads.clear());
    good.refuses("lacks a thread", |_, image| {
        let twin = image.processes[0].threads[0].clone();
        image.processes[0].threads.push(twin);
    });
    good.refuses("thread 77 was not staged", |_, image| image.processes[0].threads[0].tid = 77);
    good.refuses("stands in it twice", |_, image| {
        let twin = image.processes[0].clone();
        image.processes.push(twin);
    });
    good.refuses("was staged, and is missing", |_, image| {
        image.processes.clear();
        image.descriptors = None;
    });
    good.refuses("was not staged", |_, image| image.processes[0].pid += 1);
    good.refuses("staged dead", |_, image| image.processes[0].is_zombie = true);
    good.refuses("registers of thread", |_, image| {
        image.processes[0].threads[0].registers.pop();
    });
    good.refuses("vector registers of thread", |_, image| {
        image.processes[0].threads[0].xstate_bytes = u32::MAX;
    });
    good.refuses("memory fields of process", |_, image| {
        image.processes[0].memory.as_mut().unwrap().bounds.push(0);
    });
    good.refuses("the aspect \"flight\"", |_, image| {
        image.processes[0].aspects[0].name = "flight".into();
    });
    good.refuses("it is there twice", |_, image| {
        let twin = image.processes[0].aspects[0].clone();
        image.processes[0].aspects.push(twin);
    });
    let space = good.layout.processes[0].space;
    for runs in [vec![4096], vec![1, 1], vec![4096, u64::MAX], vec![4096, 1 << 52]] {
        good.refuses("missing pages of space", |_, image| {
            image.missing = vec![MissingPages { space, runs }];
        });
    }
    good.refuses("no process has that space", |_, image| {
        image.missing = vec![MissingPages { space: space + 1, runs: vec![4096, 1] }];
    });
}

#[test]
fn tables_that_mean_harm_are_refused_by_name_and_leave_no_process() {
    let good = good();
    let table = |image: &mut TreeImage| image.descriptors.clone().expect("it has descriptors");
    let set = |image: &mut TreeImage, table| image.descriptors = Some(table);

    good.refuses("descriptors of process 1", |_, image| {
        let mut one = table(image);
        one.descriptors[0].pid = 1;
        set(image, one);
    });
    good.refuses("fd 1000000000 of process", |_, image| {
        let mut one = table(image);
        one.descriptors[0].fd = 1_000_000_000;
        set(image, one);
    });
    good.refuses("fd -1 of process", |_, image| {
        let mut one = table(image);
        one.descriptors[0].fd = -1;
        set(image, one);
    });
    good.refuses("is impossible, or there twice", |_, image| {
        let mut one = table(image);
        one.descriptors.push(one.descriptors[0].clone());
        set(image, one);
    });
    good.refuses("refers to a description that is missing", |_, image| {
        let mut one = table(image);
        one.descriptors[0].description = 12_345;
        set(image, one);
    });
    good.refuses("is of a kind or version that is not known here", |_, image| {
        let mut one = table(image);
        one.objects[0].kind = "teapot".into();
        set(image, one);
    });
    good.refuses("is there twice", |_, image| {
        let mut one = table(image);
        one.descriptions.push(one.descriptions[0]);
        set(image, one);
    });
}
