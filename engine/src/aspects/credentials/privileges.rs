//! What a thread may do, as a policy asks of it: who it is, and with which capabilities.

use super::super::{AspectImage, Aspect as _};
use super::{Credentials, Image, status};
use crate::error::{Error, Object};

/// SECBIT_NOROOT, capabilities(7): being root gives no capabilities.
const SECBIT_NOROOT: u32 = 1;

/// Of one thread.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Privileges {
    #[prost(int32, tag = "1")]
    pub pid: i32,
    #[prost(int32, tag = "2")]
    pub tid: i32,
    /// Real, effective, saved and file system id.
    #[prost(uint32, repeated, tag = "3")]
    pub users: Vec<u32>,
    /// The same, and supplementary ones.
    #[prost(uint32, repeated, tag = "4")]
    pub groups: Vec<u32>,
    /// Those that it has and those that it can have by its own doing, one bit each.
    #[prost(uint64, tag = "5")]
    pub capabilities: u64,
}

impl Privileges {
    pub(crate) fn of_status(pid: i32, tid: i32, text: &str) -> Option<Self> {
        Some(Self::of(pid, tid, &status::parse(text)?))
    }

    fn of(pid: i32, tid: i32, image: &Image) -> Self {
        let Image { user, group, capabilities, .. } = image;
        let users = vec![user.real, user.effective, user.saved, user.file_system];
        let mut groups = vec![group.real, group.effective, group.saved, group.file_system];
        groups.extend(&image.groups);
        let mut held = capabilities.permitted
            | capabilities.effective
            | capabilities.inheritable
            | capabilities.ambient;
        // Root gets everything up to the bounding set when it executes a program.
        if users.contains(&0) && image.securebits & SECBIT_NOROOT == 0 {
            held |= capabilities.bounding;
        }
        Self { pid, tid, users, groups, capabilities: held }
    }
}

/// What a thread with these aspects would be allowed to do. `None` when they do not say: it stays
/// what we are.
pub fn privileges_in(
    pid: i32,
    tid: i32,
    images: &[AspectImage],
) -> Result<Option<Privileges>, Error> {
    let Some(image) = images.iter().find(|image| image.name == Credentials::NAME) else {
        return Ok(None);
    };
    let read: Result<Image, _> = prost::Message::decode(&image.bytes[..]);
    let part = || Object::Image { part: format!("credentials of thread {tid} of process {pid}") };
    let read = read.map_err(|error| Error::invalid("read the", part(), error.to_string()))?;
    Ok(Some(Privileges::of(pid, tid, &read)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(users: &str, permitted: u64, bounding: u64) -> String {
        format!(
            "Uid:\t{users}\nGid:\t5\t6\t7\t8\nGroups:\t9 \nCapInh:\t0\nCapPrm:\t{permitted:x}\n\
             CapEff:\t0\nCapBnd:\t{bounding:x}\nCapAmb:\t0\nNoNewPrivs:\t0\n"
        )
    }

    #[test]
    fn root_has_what_it_can_get_and_others_have_what_they_have() {
        let user = Privileges::of_status(7, 8, &status("1\t2\t3\t4", 0x1, 0xff)).unwrap();
        assert_eq!((user.users, user.groups), (vec![1, 2, 3, 4], vec![5, 6, 7, 8, 9]));
        assert_eq!(user.capabilities, 0x1);
        let root = Privileges::of_status(7, 8, &status("1\t2\t0\t4", 0x1, 0xff)).unwrap();
        assert_eq!(root.capabilities, 0xff);
    }

    #[test]
    fn an_image_says_the_same_as_the_status_it_was_made_from() {
        let text = status("1\t2\t3\t4", 0x5, 0xff);
        let image = status::parse(&text).unwrap();
        let bytes = prost::Message::encode_to_vec(&image);
        let image = AspectImage { name: Credentials::NAME.into(), version: 1, bytes };
        let told = privileges_in(7, 8, &[image]).unwrap();
        assert_eq!(told, Privileges::of_status(7, 8, &text));
        assert_eq!(privileges_in(7, 8, &[]).unwrap(), None);
    }
}
