//! What a mapping stands on, in a few words.

use engine::memory::mapping_image::{
    AnonymousImage, BackingImage, MappingImage, ObjectImage, OriginImage, SpecialImage,
};

/// Bytes of a path or a name, which need not be text.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// As /proc/PID/maps has it where it has a word for it.
pub(super) fn backing(mapping: &MappingImage, objects: &[ObjectImage]) -> String {
    let name = text(&mapping.name);
    match &mapping.backing {
        Some(BackingImage::Anonymous(one)) => anonymous(*one, &name),
        Some(BackingImage::File(file)) => text(&file.path),
        Some(BackingImage::Object(one)) => {
            let object = objects.iter().find(|object| object.space == one.space);
            let origin = object.and_then(|object| object.origin.as_ref());
            let what = origin.map_or_else(|| "nothing that is known".to_owned(), shared);
            let name = if name.is_empty() { name } else { format!(" [{name}]") };
            format!("{what}{name}, pages of space {}", one.space)
        }
        Some(BackingImage::Special(number)) => {
            match SpecialImage::try_from(*number).unwrap_or(SpecialImage::Unknown) {
                SpecialImage::Unknown => "unknown".to_owned(),
                SpecialImage::Vdso => "[vdso]".to_owned(),
                SpecialImage::Vvar => "[vvar]".to_owned(),
                SpecialImage::VvarVclock => "[vvar_vclock]".to_owned(),
                SpecialImage::Vsyscall => "[vsyscall]".to_owned(),
            }
        }
        None => "nothing that is known".to_owned(),
    }
}

fn anonymous(one: AnonymousImage, name: &str) -> String {
    match one {
        AnonymousImage { is_heap: true, .. } => "[heap]".to_owned(),
        AnonymousImage { is_stack: true, .. } => "[stack]".to_owned(),
        AnonymousImage { is_dev_zero: true, .. } => "/dev/zero".to_owned(),
        _ if name.is_empty() => "anonymous".to_owned(),
        _ => format!("[anon:{name}]"),
    }
}

fn shared(origin: &OriginImage) -> String {
    match origin {
        OriginImage::SharedAnonymous(_) => "shared anonymous".to_owned(),
        OriginImage::MemfdName(name) => format!("memfd:{}", text(name)),
        OriginImage::SystemV(one) => format!("System V segment {} (key {:#x})", one.id, one.key),
        OriginImage::TmpfsPath(path) => format!("{} (tmpfs)", text(path)),
        OriginImage::DeletedPath(path) => format!("{} (removed)", text(path)),
    }
}
