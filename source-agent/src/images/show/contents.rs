//! What an image holds, as `docs/json.md` describes it.

use super::backing::backing;
use engine::aspects::name_of;
use engine::descriptors::{At, Described, describe};
use engine::image::copied::{Access, CopiedFile};
use engine::image::{Layout, ProcessImage, ProcessLayout, Tree};
use engine::memory::mapping_image::{MappingImage, ObjectImage};
use serde::Serialize;
use std::collections::HashMap;
use std::path::Path;

#[derive(Debug, Serialize)]
pub(super) struct Contents {
    pub(super) directory: String,
    /// Parents before their children.
    pub(super) processes: Vec<Process>,
    /// That it has besides.
    pub(super) files: Vec<File>,
    pub(super) in_flight: Vec<Flying>,
}

#[derive(Debug, Serialize)]
pub(super) struct File {
    pub(super) path: String,
    pub(super) size: u64,
    /// Octal.
    pub(super) permissions: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

#[derive(Debug, Serialize)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) ppid: i32,
    pub(super) group: i32,
    /// `None` when it was founded outside of what could be seen.
    pub(super) session: Option<i32>,
    pub(super) name: String,
    pub(super) executable: String,
    pub(super) is_zombie: bool,
    pub(super) is_stopped: bool,
    pub(super) threads: Vec<Thread>,
    pub(super) mappings: Vec<Mapping>,
    pub(super) descriptors: Vec<Descriptor>,
}

#[derive(Debug, Serialize)]
pub(super) struct Thread {
    pub(super) tid: i32,
    pub(super) name: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Mapping {
    pub(super) start: u64,
    pub(super) end: u64,
    /// As in /proc/PID/maps.
    pub(super) protection: String,
    pub(super) offset: u64,
    pub(super) backing: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Descriptor {
    pub(super) fd: i32,
    pub(super) close_on_exec: bool,
    #[serde(flatten)]
    pub(super) leads_to: LeadsTo,
}

/// What lies in the queue of a socket.
#[derive(Debug, Serialize)]
pub(super) struct Flying {
    /// The description in whose queue it lies.
    pub(super) carrier: u32,
    #[serde(flatten)]
    pub(super) leads_to: LeadsTo,
}

#[derive(Debug, Serialize)]
pub(super) struct LeadsTo {
    pub(super) kind: String,
    pub(super) object: u32,
    pub(super) description: u32,
    /// `r`, `w` or `rw`.
    pub(super) access: &'static str,
    pub(super) what: String,
}

impl Contents {
    pub(super) fn of(directory: &Path, tree: &Tree) -> Result<Self, engine::Error> {
        let layout = tree.layout.clone().unwrap_or_default();
        let image = tree.image.clone().unwrap_or_default();
        let (mut tables, mut in_flight) = (HashMap::<i32, Vec<Descriptor>>::new(), Vec::new());
        for one in describe(&image.descriptors.unwrap_or_default())? {
            match one.at {
                At::InFlight { carrier } => {
                    in_flight.push(Flying { carrier, leads_to: one.into() });
                }
                At::Number { pid, fd, close_on_exec } => {
                    let descriptor = Descriptor { fd, close_on_exec, leads_to: one.into() };
                    tables.entry(pid).or_default().push(descriptor);
                }
            }
        }
        tables.values_mut().for_each(|table| table.sort_by_key(|one| one.fd));
        let captured: HashMap<i32, &ProcessImage> =
            image.processes.iter().map(|one| (one.pid, one)).collect();
        let process = |one: &ProcessLayout| {
            let table = tables.remove(&one.pid).unwrap_or_default();
            Process::of(one, captured.get(&one.pid).copied(), &layout, table)
        };
        let processes = layout.processes.iter().map(process).collect();
        let files = tree.copied.iter().flat_map(|copied| &copied.files).map(File::of).collect();
        Ok(Self { directory: directory.display().to_string(), processes, files, in_flight })
    }
}

impl File {
    fn of(file: &CopiedFile) -> Self {
        let Access { permissions, uid, gid } = file.access;
        Self {
            path: file.path().display().to_string(),
            size: file.size,
            permissions: format!("{permissions:04o}"),
            uid,
            gid,
        }
    }
}

impl Process {
    fn of(
        shape: &ProcessLayout,
        captured: Option<&ProcessImage>,
        layout: &Layout,
        descriptors: Vec<Descriptor>,
    ) -> Self {
        let image = captured.cloned().unwrap_or_default();
        let name = |tid: i32| {
            let thread = image.threads.iter().find(|thread| thread.tid == tid);
            let name = thread.and_then(|thread| name_of(&thread.aspects));
            name.map(|name| String::from_utf8_lossy(&name).into_owned())
        };
        let threads = shape.tids.iter();
        let threads = threads.map(|&tid| Thread { tid, name: name(tid).unwrap_or_default() });
        let mappings = shape.mappings.iter();
        Self {
            pid: shape.pid,
            ppid: shape.ppid,
            group: shape.pgid,
            session: (shape.sid != 0).then_some(shape.sid),
            name: name(shape.pid).unwrap_or(image.zombie_name),
            executable: image.memory.map(|memory| memory.executable).unwrap_or_default(),
            is_zombie: shape.is_zombie,
            is_stopped: image.is_stopped,
            threads: threads.collect(),
            mappings: mappings.map(|mapping| Mapping::of(mapping, &layout.shared)).collect(),
            descriptors,
        }
    }
}

impl Mapping {
    fn of(mapping: &MappingImage, objects: &[ObjectImage]) -> Self {
        let bit = |bit, letter| if mapping.protection & bit != 0 { letter } else { '-' };
        // PROT_READ, PROT_WRITE and PROT_EXEC of mmap(2).
        let letters = [bit(1, 'r'), bit(2, 'w'), bit(4, 'x')];
        let last = if mapping.shared { 's' } else { 'p' };
        Self {
            start: mapping.start,
            end: mapping.end,
            protection: letters.into_iter().chain([last]).collect(),
            offset: mapping.offset,
            backing: backing(mapping, objects),
        }
    }
}

impl From<Described> for LeadsTo {
    fn from(one: Described) -> Self {
        let access = match (one.can_read, one.can_write) {
            (true, false) => "r",
            (false, true) => "w",
            _ => "rw",
        };
        let Described { kind, object, description, what, .. } = one;
        Self { kind, object, description, access, what }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const DOCUMENTED: &str = include_str!("../../../../docs/json.md");

    fn contents() -> Contents {
        let leads_to = || LeadsTo {
            kind: "pipe".to_owned(),
            object: 1,
            description: 2,
            access: "r",
            what: String::new(),
        };
        let process = Process {
            pid: 4711,
            ppid: 1,
            group: 4711,
            session: None,
            name: "counter".to_owned(),
            executable: String::new(),
            is_zombie: false,
            is_stopped: false,
            threads: vec![Thread { tid: 4711, name: String::new() }],
            mappings: vec![Mapping::of(&MappingImage::default(), &[])],
            descriptors: vec![Descriptor { fd: 3, close_on_exec: true, leads_to: leads_to() }],
        };
        let in_flight = vec![Flying { carrier: 4, leads_to: leads_to() }];
        let files = vec![File::of(&CopiedFile::default())];
        Contents { directory: "/tmp/image".to_owned(), processes: vec![process], files, in_flight }
    }

    fn fields(value: &Value, into: &mut Vec<String>) {
        match value {
            Value::Object(object) => object.iter().for_each(|(name, value)| {
                into.push(name.clone());
                fields(value, into);
            }),
            Value::Array(list) => list.iter().for_each(|value| fields(value, into)),
            _ => {}
        }
    }

    #[test]
    fn every_field_that_is_shown_is_documented() {
        let section = DOCUMENTED.split("\n## ").find(|one| one.starts_with("`migrate image show"));
        let section = section.unwrap();
        let mut shown = Vec::new();
        fields(&serde_json::to_value(contents()).unwrap(), &mut shown);
        assert!(shown.len() > 20, "{shown:?}");
        for field in shown {
            assert!(section.contains(&format!("`{field}`")), "{field} is not documented");
        }
    }

    #[test]
    fn a_process_of_which_nothing_was_captured_is_shown_by_its_shape() {
        let process = ProcessLayout { pid: 7, tids: vec![7, 8], ..ProcessLayout::default() };
        let layout = Layout { processes: vec![process], ..Layout::default() };
        let tree = Tree { layout: Some(layout), image: None, copied: None };
        let shown = Contents::of(Path::new("/tmp/image"), &tree).unwrap();
        assert_eq!(shown.processes[0].threads.len(), 2);
    }
}
