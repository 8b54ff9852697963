//! Where what a tree has open may lie: files are opened here by the agent, which is root, whoever
//! the tree's processes are.
//!
//! It is judged three times: by what the inventory says, by what the image says before anything of
//! it is opened, and, since a directory of the way may be changed in between, by what the tree's
//! processes have open in the end.

use super::rules::{Rules, refusal};
use engine::descriptors::{self, DescriptorsImage, ObjectImage};
use engine::image::Layout;
use engine::inventory::Inventory;
use engine::memory::mapping_image::BackingImage;
use protocol::Refusal;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};

/// Programs and libraries of the system: what everybody may read there, a tree may read as well.
const SYSTEM: [&str; 5] = ["/usr", "/lib", "/lib64", "/bin", "/sbin"];

/// Readable by everybody.
const PUBLIC_MODE: u32 = 0o004;

/// Something that a tree has open or maps.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    path: PathBuf,
    writes: bool,
}

impl Rules {
    /// What an inventory or an image has open where nothing may be.
    pub fn against_descriptors(
        &self,
        image: &DescriptorsImage,
    ) -> Result<Vec<Refusal>, engine::Error> {
        let Some(paths) = &self.paths else { return Ok(Vec::new()) };
        let mut places = BTreeSet::new();
        for object in &image.objects {
            places.extend(opened(image, object)?);
        }
        Ok(self.against_places(paths, &places))
    }

    /// What a layout maps from where nothing may be.
    pub fn against_mappings(&self, layout: &Layout) -> Vec<Refusal> {
        self.paths
            .as_ref()
            .map_or_else(Vec::new, |paths| self.against_places(paths, &mapped(layout).collect()))
    }

    /// What these processes have open, and map, as the kernel says it. Of one that is gone nothing.
    pub fn against_processes(&self, pids: &[i32]) -> io::Result<Vec<Refusal>> {
        let Some(paths) = &self.paths else { return Ok(Vec::new()) };
        let mut places = BTreeSet::new();
        for pid in pids {
            places.extend(really_opened(*pid)?);
            places.extend(really_mapped(*pid)?);
        }
        Ok(self.against_places(paths, &places))
    }

    /// The inventory without what is refused already: what else there is to say of that (that it
    /// is not here, or how large it is) is not the source's business.
    pub fn what_it_may_ask(&self, inventory: &Inventory) -> Result<Inventory, engine::Error> {
        let mut asked = inventory.clone();
        asked.executables.retain(|path| self.allows_program(path));
        let Some(paths) = &self.paths else { return Ok(asked) };
        for process in asked.layout.iter_mut().flat_map(|layout| &mut layout.processes) {
            process.mappings.retain(|mapping| match &mapping.backing {
                Some(BackingImage::File(file)) => {
                    let writes = file.is_opened_for_writing;
                    self.allows(paths, &Place { path: path_of(&file.path), writes })
                }
                _ => true,
            });
        }
        if let (Some(outline), Some(whole)) = (&mut asked.outline, &inventory.outline) {
            let mut forbidden = BTreeSet::new();
            for object in &whole.objects {
                if !opened(whole, object)?.iter().all(|place| self.allows(paths, place)) {
                    forbidden.insert(object.id);
                }
            }
            forget(outline, &forbidden);
        }
        Ok(asked)
    }

    fn against_places(&self, paths: &[PathBuf], places: &BTreeSet<Place>) -> Vec<Refusal> {
        let forbidden = places.iter().filter(|place| !self.allows(paths, place));
        let names: BTreeSet<&Path> = forbidden.map(|place| place.path.as_path()).collect();
        let refused = |path: &Path| {
            // It comes from another host, and goes into a log.
            let object = format!("the file {}", path.to_string_lossy().escape_debug());
            refusal(object, "lies where the destination's policy allows none".to_owned())
        };
        names.into_iter().map(refused).collect()
    }

    fn allows(&self, paths: &[PathBuf], place: &Place) -> bool {
        if place.path.starts_with("/proc") {
            // Of which the engine opens what is the tree's own or everybody's, and nothing else.
            return !place.path.components().any(|part| part == Component::ParentDir);
        }
        let real = fs::canonicalize(&place.path).unwrap_or_else(|_| place.path.clone());
        if is_beneath(&real, paths) {
            return true;
        }
        let of_programs = self.executables.as_deref().unwrap_or_default();
        !place.writes && (is_beneath(&real, of_programs) || is_of_the_system(&real))
    }
}

/// Symbolic links in a prefix are its author's, and followed.
fn is_beneath(real: &Path, prefixes: &[PathBuf]) -> bool {
    let is_clean = !real.components().any(|part| part == Component::ParentDir);
    let leads = |prefix: &PathBuf| {
        real.starts_with(fs::canonicalize(prefix).unwrap_or_else(|_| prefix.clone()))
    };
    is_clean && prefixes.iter().any(leads)
}

fn is_of_the_system(real: &Path) -> bool {
    SYSTEM.iter().any(|prefix| real.starts_with(prefix))
        && fs::metadata(real).is_ok_and(|found| found.mode() & PUBLIC_MODE != 0)
}

/// Without these objects, and the descriptions and numbers that lead to them.
fn forget(image: &mut DescriptorsImage, objects: &BTreeSet<u32>) {
    let lost = image.descriptions.iter().filter(|one| objects.contains(&one.object));
    let lost: BTreeSet<u32> = lost.map(|one| one.id).collect();
    image.objects.retain(|object| !objects.contains(&object.id));
    image.descriptions.retain(|one| !lost.contains(&one.id));
    image.descriptors.retain(|one| !lost.contains(&one.description));
}

/// Devices and terminals have rules of their own.
fn opened(image: &DescriptorsImage, object: &ObjectImage) -> Result<Vec<Place>, engine::Error> {
    let paths = descriptors::paths(image, object)?;
    Ok(paths.into_iter().map(|(path, writes)| Place { path: path.into(), writes }).collect())
}

fn mapped(layout: &Layout) -> impl Iterator<Item = Place> + '_ {
    let mappings = layout.processes.iter().flat_map(|process| &process.mappings);
    mappings.filter_map(|mapping| match &mapping.backing {
        Some(BackingImage::File(file)) => {
            Some(Place { path: path_of(&file.path), writes: file.is_opened_for_writing })
        }
        _ => None,
    })
}

fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// `/proc/PID/fd` (proc_pid_fd(5)): the mode of a link says what it is open for.
fn really_opened(pid: i32) -> io::Result<Vec<Place>> {
    let mut places = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let link = entry?.path();
        let path = fs::read_link(&link)?;
        let found = fs::metadata(&link)?;
        let is_named = path.is_absolute() && found.nlink() > 0;
        if is_named && !found.file_type().is_char_device() {
            let writes = fs::symlink_metadata(&link)?.mode() & 0o200 != 0;
            places.push(Place { path, writes });
        }
    }
    Ok(places)
}

/// `/proc/PID/maps` (proc_pid_maps(5)). What is removed, or in memory alone, has nothing of a file
/// of this host; what is private is written to nobody else.
fn really_mapped(pid: i32) -> io::Result<Vec<Place>> {
    let maps = fs::read(format!("/proc/{pid}/maps"))?;
    Ok(maps.split(|byte| *byte == b'\n').filter_map(mapping).collect())
}

fn mapping(line: &[u8]) -> Option<Place> {
    // The sixth word, and all that follows; of anonymous memory it is a name in brackets.
    let path = (0..5).fold(line, |rest, _| behind_a_word(rest));
    if path.first() != Some(&b'/') {
        return None;
    }
    let is_of_memory = [&b"/memfd:"[..], b"/SYSV", b"/dev/zero", b"/anon_hugepage"];
    if path.ends_with(b" (deleted)") || is_of_memory.iter().any(|name| path.starts_with(name)) {
        return None;
    }
    let rights = line.split(|byte| *byte == b' ').nth(1)?;
    let writes = rights.contains(&b'w') && rights.contains(&b's');
    Some(Place { path: path_of(path), writes })
}

fn behind_a_word(text: &[u8]) -> &[u8] {
    let word = text.iter().take_while(|byte| **byte != b' ').count();
    let gap = text[word..].iter().take_while(|byte| **byte == b' ').count();
    &text[word + gap..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::symlink;

    fn beneath(paths: &[&Path]) -> Rules {
        let paths = paths.iter().map(|path| path.to_path_buf()).collect();
        Rules { paths: Some(paths), ..Rules::default() }
    }

    fn reads(rules: &Rules, path: &str) -> bool {
        rules.allows(rules.paths.as_ref().unwrap(), &Place { path: path.into(), writes: false })
    }

    fn writes(rules: &Rules, path: &str) -> bool {
        rules.allows(rules.paths.as_ref().unwrap(), &Place { path: path.into(), writes: true })
    }

    #[test]
    fn prefixes_are_whole_components() {
        let rules = beneath(&[Path::new("/srv")]);
        assert!(writes(&rules, "/srv/a") && writes(&rules, "/srv"));
        assert!(!reads(&rules, "/srvx") && !reads(&rules, "/etc/shadow") && !reads(&rules, "/"));
        assert!(!reads(&rules, "/srv/none/../../etc/shadow") && !reads(&rules, "srv/a"));
    }

    #[test]
    fn a_link_beneath_a_prefix_does_not_lead_out_of_it() {
        let home = tempfile::tempdir().unwrap();
        let rules = beneath(&[home.path()]);
        symlink("/etc", home.path().join("out")).unwrap();
        let out = home.path().join("out/shadow").display().to_string();
        let real = home.path().join("real").display().to_string();
        fs::write(&real, "").unwrap();
        assert!(!reads(&rules, &out) && writes(&rules, &real));
    }

    #[test]
    fn a_prefix_may_be_a_link() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("real")).unwrap();
        let link = home.path().join("link");
        symlink("real", &link).unwrap();
        fs::write(link.join("file"), "").unwrap();
        let rules = beneath(&[&link]);
        assert!(writes(&rules, link.join("file").to_str().unwrap()));
    }

    #[test]
    fn of_the_system_and_of_programs_a_tree_reads_what_everybody_may() {
        let home = tempfile::tempdir().unwrap();
        let inside = home.path().join("library.so").display().to_string();
        fs::write(&inside, "").unwrap();
        let rules = Rules { executables: Some(vec![home.path().into()]), ..beneath(&[]) };
        assert!(reads(&rules, "/usr/bin/perl") && !writes(&rules, "/usr/bin/perl"));
        assert!(reads(&rules, &inside) && !writes(&rules, &inside));
        assert!(!reads(&beneath(&[]), &inside));
        assert!(reads(&rules, "/proc/self/maps") && !reads(&rules, "/proc/../etc/shadow"));
    }

    #[test]
    fn what_a_process_has_open_is_found_whatever_its_image_said() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("secret");
        let _open = File::create(&path).unwrap();
        let own = std::process::id().cast_signed();
        let found = beneath(&[]).against_processes(&[own]).unwrap();
        let is_it = |refusal: &Refusal| refusal.object.contains(path.to_str().unwrap());
        assert!(found.iter().any(is_it), "{found:?}");
        let found = beneath(&[home.path()]).against_processes(&[own]).unwrap();
        assert!(!found.iter().any(is_it), "{found:?}");
        assert_eq!(Rules::default().against_processes(&[own]).unwrap(), []);
    }

    #[test]
    fn a_mapping_that_is_shared_and_writable_writes() {
        let line = |rights: &str, path: &str| {
            mapping(format!("7f00-7f01 {rights} 0000 08:01 77      {path}").as_bytes())
        };
        let place = |writes| Some(Place { path: "/srv/a b".into(), writes });
        assert_eq!(line("rw-s", "/srv/a b"), place(true));
        assert_eq!(line("rw-p", "/srv/a b"), place(false));
        assert_eq!(line("r--s", "/srv/a b"), place(false));
        assert_eq!(line("rw-s", "/memfd:x (deleted)"), None);
        assert_eq!(line("rw-p", "[anon:a/b]"), None);
        assert_eq!(mapping(b"7f00-7f01 rw-p 0000 00:00 0 "), None);
    }
}
