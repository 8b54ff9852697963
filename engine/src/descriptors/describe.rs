//! The descriptors of an image as people are shown them.

use super::create::wrong;
use super::{DescriptorImage, DescriptorsImage, ObjectImage};
use crate::error::Error;
use crate::kinds::{DescriptionImage, kind_named};
use std::collections::HashMap;

/// A descriptor of a process, or a description that lies in the queue of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub at: At,
    pub kind: String,
    /// Descriptors with the same number lead to the same object: both ends of a pipe do.
    pub object: u32,
    /// Those with the same number share an offset and flags.
    pub description: u32,
    pub can_read: bool,
    pub can_write: bool,
    /// What tells the object from others of its kind.
    pub what: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    Number {
        pid: i32,
        fd: i32,
        close_on_exec: bool,
    },
    /// In the queue of that description.
    InFlight {
        carrier: u32,
    },
}

/// All of them, also of kinds that are not known here.
pub fn describe(image: &DescriptorsImage) -> Result<Vec<Described>, Error> {
    let index = Index {
        descriptions: image.descriptions.iter().map(|one| (one.id, one)).collect(),
        objects: image.objects.iter().map(|one| (one.id, one)).collect(),
    };
    let numbers = image.descriptors.iter().map(|one| {
        let &DescriptorImage { pid, fd, close_on_exec, description } = one;
        index.described(At::Number { pid, fd, close_on_exec }, description)
    });
    let in_flight = image
        .in_flight
        .iter()
        .map(|one| index.described(At::InFlight { carrier: one.carrier }, one.description));
    numbers.chain(in_flight).collect()
}

struct Index<'a> {
    descriptions: HashMap<u32, &'a DescriptionImage>,
    objects: HashMap<u32, &'a ObjectImage>,
}

impl Index<'_> {
    fn described(&self, at: At, id: u32) -> Result<Described, Error> {
        let missing = || wrong(format!("description {id}"), "is missing, or its object is");
        let description = *self.descriptions.get(&id).ok_or_else(missing)?;
        let object = *self.objects.get(&description.object).ok_or_else(missing)?;
        let what = match kind_named(&object.kind, object.version) {
            Some(kind) => (kind.describe)(&object.bytes, description)?,
            None => format!("version {}, which is not known here", object.version),
        };
        let access = description.access();
        Ok(Described {
            at,
            kind: object.kind.clone(),
            object: object.id,
            description: id,
            can_read: access != libc::O_WRONLY,
            can_write: access != libc::O_RDONLY,
            what,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::trip::capture_own;
    use super::*;
    use std::fs::File;
    use std::io::{Write as _, pipe};
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::UnixStream;

    fn what(image: &DescriptorsImage) -> Vec<(String, String)> {
        describe(image).unwrap().into_iter().map(|one| (one.kind, one.what)).collect()
    }

    #[test]
    fn both_ends_of_a_pipe_are_of_one_object() {
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(b"hello").unwrap();
        let shown = describe(&capture_own(&[&reader, &writer])).unwrap();
        assert_eq!(shown[0].object, shown[1].object);
        assert_ne!(shown[0].description, shown[1].description);
        assert!(shown[0].can_read && !shown[0].can_write && shown[1].can_write);
        assert_eq!(shown[0].what, "its end that is read, 5 bytes in it");
    }

    #[test]
    fn objects_are_told_from_others_by_what_people_know_of_them() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display().to_string();
        let file = File::open(file.path()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.connect(listener.local_addr().unwrap()).unwrap();
        let (one, other) = UnixStream::pair().unwrap();
        let shown = what(&capture_own(&[&file, &listener, &udp, &one, &other]));
        let has = |kind: &str, part: &str| {
            shown.iter().any(|(name, what)| name == kind && what.contains(part))
        };
        let listens = listener.local_addr().unwrap();
        let udp = format!("{} to {listens}", udp.local_addr().unwrap());
        assert!(has("file", &path), "{shown:?}");
        assert!(has("listening TCP socket", &format!("{listens}, listening")), "{shown:?}");
        assert!(has("UDP socket", &udp), "{shown:?}");
        assert!(has("unix socket pair", "end 1 (without a name), connected"), "{shown:?}");
    }

    #[test]
    fn a_kind_that_is_not_known_here_is_shown_by_its_name() {
        let (reader, writer) = pipe().unwrap();
        let mut image = capture_own(&[&reader, &writer]);
        image.objects[0].kind = "wormhole".to_owned();
        assert_eq!(what(&image)[0].0, "wormhole");
        image.descriptions.clear();
        describe(&image).unwrap_err();
    }
}
