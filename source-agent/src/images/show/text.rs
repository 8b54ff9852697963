//! The contents of an image as an indented text.

use super::super::harmless::harmless;
use super::contents::{Contents, Descriptor, File, LeadsTo, Mapping, Process};

pub(super) fn lines(contents: &Contents) -> Vec<String> {
    let mut lines = vec![format!("Image {}", contents.directory)];
    contents.processes.iter().for_each(|one| process(one, &mut lines));
    if !contents.files.is_empty() {
        lines.push("Files that it has besides".to_owned());
    }
    for File { path, size, permissions, uid, gid } in &contents.files {
        lines.push(format!("  {permissions} {uid}:{gid} {size:>12} {path}"));
    }
    if !contents.in_flight.is_empty() {
        lines.push("In flight, sent and not yet received".to_owned());
    }
    for one in &contents.in_flight {
        lines.push(format!("  to description {:<5} {}", one.carrier, leads_to(&one.leads_to)));
    }
    lines.iter().map(|line| harmless(line)).collect()
}

fn process(one: &Process, lines: &mut Vec<String>) {
    let state = match (one.is_zombie, one.is_stopped) {
        (true, _) => ", a zombie",
        (_, true) => ", stopped",
        _ => "",
    };
    let session = one.session.map_or_else(|| "from outside".to_owned(), |sid| sid.to_string());
    lines.push(format!("Process {} {}{state}", one.pid, one.name));
    lines.push(format!("  parent {}, group {}, session {session}", one.ppid, one.group));
    if !one.executable.is_empty() {
        lines.push(format!("  executable {}", one.executable));
    }
    lines.push("  threads".to_owned());
    lines.extend(one.threads.iter().map(|thread| format!("    {} {}", thread.tid, thread.name)));
    lines.push("  mappings".to_owned());
    lines.extend(one.mappings.iter().map(mapping));
    lines.push("  descriptors".to_owned());
    lines.extend(one.descriptors.iter().map(descriptor));
}

fn mapping(one: &Mapping) -> String {
    let Mapping { start, end, protection, offset, backing } = one;
    format!("    {start:012x}-{end:012x} {protection} {offset:08x} {backing}")
}

fn descriptor(one: &Descriptor) -> String {
    let closes = if one.close_on_exec { " (closed on exec)" } else { "" };
    format!("    {:<4} {}{closes}", one.fd, leads_to(&one.leads_to))
}

fn leads_to(one: &LeadsTo) -> String {
    let LeadsTo { kind, object, access, what, .. } = one;
    let what = if what.is_empty() { String::new() } else { format!(": {what}") };
    format!("{access:<2} {kind} {object}{what}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::image::{Identities, StoredImage};
    use std::path::Path;

    #[test]
    fn a_golden_image_reads_as_people_expect() {
        let golden = Path::new("../tests/golden/image-v1/second");
        let image = StoredImage::open(golden, &Identities::default()).unwrap();
        let contents = Contents::of(Path::new("golden"), image.tree()).unwrap();
        let expected = "\
Image golden
Process 4711 counter
  parent 1, group 4711, session 4711
  executable /usr/bin/counter
  threads
    4711 counter
    4712 counter
  mappings
    000000100000-000000140000 rw-p 00000000 anonymous
    000000200000-000000204000 rw-p 00000000 /usr/bin/counter
    000000300000-000000308000 rw-s 00000000 memfd:ring, pages of space 2
    000000400000-000000402000 rw-p 00000000 [vdso]
  descriptors
    3    r  pipe 1: its end that is read, 2 bytes in it";
        let lines = lines(&contents);
        assert_eq!(lines[..14].join("\n"), expected);
        let last = [
            "    4    w  pipe 1: its end that is written, 2 bytes in it (closed on exec)",
            "In flight, sent and not yet received",
            "  to description 1     rw eventfd 2: counter at 5",
        ];
        assert_eq!(lines[lines.len() - 3..], last);
    }
}
