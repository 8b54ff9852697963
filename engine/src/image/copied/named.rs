//! Which files go with a tree: all that it has open or mapped, wherever they lie.

use crate::descriptors::{self, DescriptorsImage};
use crate::error::{Error, Object};
use crate::image::Layout;
use crate::memory::mapping_image::BackingImage;
use crate::refusal::Refusal;
use nix::sys::statfs::{self, FsType};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Regular files, and whether the tree may write to them.
pub type Named = BTreeMap<PathBuf, bool>;

pub fn named(
    layout: &Layout,
    descriptors: Option<&DescriptorsImage>,
    executables: impl Iterator<Item = String>,
) -> Result<Named, Error> {
    let mut named = Named::new();
    let mut add = |path: PathBuf, writes: bool| {
        if is_a_file_of_its_own(&path) {
            *named.entry(path).or_default() |= writes;
        }
    };
    executables.for_each(|path| add(path.into(), false));
    for mapping in layout.processes.iter().flat_map(|process| &process.mappings) {
        if let Some(BackingImage::File(file)) = &mapping.backing {
            add(OsStr::from_bytes(&file.path).into(), file.is_opened_for_writing);
        }
    }
    for (image, object) in descriptors
        .into_iter()
        .flat_map(|image| image.objects.iter().map(move |object| (image, object)))
    {
        for (path, writes) in descriptors::paths(image, object)? {
            add(path.into(), writes);
        }
    }
    Ok(named)
}

/// What the kernel makes up has no content to be copied: proc(5), sysfs(5), control groups and the like.
/// They have no blocks, in a file system without blocks.
fn is_a_file_of_its_own(path: &Path) -> bool {
    const MADE_UP: [FsType; 8] = [
        statfs::PROC_SUPER_MAGIC,
        statfs::SYSFS_MAGIC,
        statfs::CGROUP_SUPER_MAGIC,
        statfs::CGROUP2_SUPER_MAGIC,
        statfs::DEBUGFS_MAGIC,
        statfs::TRACEFS_MAGIC,
        statfs::SECURITYFS_MAGIC,
        statfs::BPF_FS_MAGIC,
    ];
    let is_file = fs::symlink_metadata(path).is_ok_and(|found| found.is_file());
    is_file && statfs::statfs(path).is_ok_and(|on| !MADE_UP.contains(&on.filesystem_type()))
}

/// Said before anything is stopped.
pub fn too_much(named: &Named, bytes_max: u64) -> Option<Refusal> {
    // Holes count for nothing.
    let bytes = |path: &PathBuf| {
        fs::symlink_metadata(path).map_or(0, |found| found.size().min(found.blocks() * 512))
    };
    let sizes: Vec<(u64, &PathBuf)> = named.keys().map(|path| (bytes(path), path)).collect();
    let all: u64 = sizes.iter().map(|(bytes, _)| bytes).sum();
    let (largest, path) = sizes.iter().max().filter(|_| all > bytes_max)?;
    Some(Refusal {
        object: Object::File { path: path.display().to_string() },
        reason: format!(
            "with {} MiB is the largest of {} files, which have {} MiB where {} are admitted",
            largest >> 20,
            sizes.len(),
            all >> 20,
            bytes_max >> 20
        ),
        advice: "Admit more (`--copy-files-max MIB`), or have the files on both hosts.".to_owned(),
    })
}
