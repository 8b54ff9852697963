//! How much room a message will take when it is decoded, counted before it is.
//!
//! Two bytes in a file can be a message of some hundred bytes in memory: of a file of a GiB, which may be of a
//! hostile hand, no host could hold the result. So the lists that can grow like this are known here. What
//! is not in them takes about as much room decoded as encoded.

use super::copied::{CopiedDirectory, CopiedFile};
use super::manifest::Known;
use super::{AspectImage, MappingImage, ObjectImage, ProcessImage, ProcessLayout, ThreadImage};
use crate::aspects::Privileges;
use crate::descriptors;
use crate::error::{Error, Object};
use crate::kinds::DescriptionImage;

/// Twice what the largest tree that can be staged takes.
const ROOM_MAX: usize = 512 << 20;

/// A message, as one of a list.
pub(super) struct Shape {
    /// That it takes itself.
    bytes: usize,
    /// Messages in it, and lists of them, by tag.
    lists: &'static [(u32, &'static Shape)],
    /// Lists of numbers: one byte can be a number of eight.
    numbers: &'static [u32],
}

const fn of<T>() -> Shape {
    Shape { bytes: size_of::<T>(), lists: &[], numbers: &[] }
}

const fn with_lists<T>(lists: &'static [(u32, &'static Shape)]) -> Shape {
    Shape { bytes: size_of::<T>(), lists, numbers: &[] }
}

const BYTES: Shape = of::<Vec<u8>>();

const LAYOUT: Shape =
    with_lists::<()>(&[(1, &PROCESS_LAYOUT), (2, &of::<ObjectImage>()), (4, &BYTES)]);
const PROCESS_LAYOUT: Shape =
    Shape { numbers: &[8], ..with_lists::<ProcessLayout>(&[(9, &of::<MappingImage>())]) };

const TREE_IMAGE: Shape = with_lists::<()>(&[(1, &PROCESS), (2, &DESCRIPTORS), (4, &MISSING)]);
const MISSING: Shape = Shape { numbers: &[2], ..of::<super::MissingPages>() };
const PROCESS: Shape = with_lists::<ProcessImage>(&[
    (5, &Shape { numbers: &[1], ..of::<()>() }),
    (6, &THREAD),
    (7, &of::<AspectImage>()),
    (8, &BYTES),
]);
const THREAD: Shape =
    Shape { numbers: &[2], ..with_lists::<ThreadImage>(&[(6, &of::<AspectImage>()), (7, &BYTES)]) };
const DESCRIPTORS: Shape = with_lists::<()>(&[
    (1, &of::<descriptors::ObjectImage>()),
    (2, &of::<DescriptionImage>()),
    (3, &of::<descriptors::DescriptorImage>()),
    (4, &of::<descriptors::InFlightImage>()),
]);
const COPIED: Shape = with_lists::<()>(&[(1, &of::<CopiedFile>()), (2, &of::<CopiedDirectory>())]);
const INVENTORY: Shape =
    with_lists::<()>(&[(1, &LAYOUT), (2, &DESCRIPTORS), (5, &BYTES), (6, &of::<Privileges>())]);

pub(super) const TREE: Shape = with_lists::<()>(&[(1, &LAYOUT), (2, &TREE_IMAGE), (3, &COPIED)]);
pub(super) const MANIFEST: Shape =
    with_lists::<()>(&[(3, &INVENTORY), (4, &of::<Known>()), (5, &of::<Known>())]);

/// Refuses what would take more than any tree does.
pub(super) fn check(part: &str, message: &[u8], shape: &Shape) -> Result<(), Error> {
    match room(message, shape) {
        0..=ROOM_MAX => Ok(()),
        room => {
            let why = format!("it would take {} MiB, and no tree does", room >> 20);
            Err(Error::invalid("read the", Object::Image { part: part.to_owned() }, why))
        }
    }
}

/// Up to where it makes no sense any more: there the decoder ends as well.
fn room(message: &[u8], shape: &Shape) -> usize {
    let (mut rest, mut room) = (message, 0usize);
    while let Some((tag, field)) = next(&mut rest) {
        let more = match field {
            Field::Number => size_of::<u64>(),
            Field::Bytes(bytes) => match shape.lists.iter().find(|(list, _)| *list == tag) {
                Some((_, inner)) => inner.bytes.saturating_add(self::room(bytes, inner)),
                None if shape.numbers.contains(&tag) => bytes.len().saturating_mul(8),
                None => 0,
            },
        };
        room = room.saturating_add(more);
    }
    room
}

enum Field<'a> {
    Number,
    Bytes(&'a [u8]),
}

/// The encoding of Protocol Buffers: a number with tag and wire type, and then what it says.
fn next<'a>(rest: &mut &'a [u8]) -> Option<(u32, Field<'a>)> {
    let key = number(rest)?;
    let tag = u32::try_from(key >> 3).ok()?;
    let field = match key & 7 {
        0 => number(rest).map(|_| Field::Number)?,
        1 => take(rest, 8).map(|_| Field::Number)?,
        2 => {
            let length = usize::try_from(number(rest)?).ok()?;
            Field::Bytes(take(rest, length)?)
        }
        5 => take(rest, 4).map(|_| Field::Number)?,
        _ => return None,
    };
    Some((tag, field))
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    prost::encoding::decode_varint(rest).ok()
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Layout, Manifest, Tree, TreeImage};
    use crate::inventory::Inventory;
    use prost::Message as _;

    fn layout(mappings: usize, tids: usize) -> Layout {
        let mappings = vec![MappingImage::default(); mappings];
        let process = ProcessLayout { mappings, tids: vec![1; tids], ..ProcessLayout::default() };
        Layout { processes: vec![process], ..Layout::default() }
    }

    fn tree(layout: Layout) -> Vec<u8> {
        Tree { layout: Some(layout), ..Tree::default() }.encode_to_vec()
    }

    #[test]
    fn what_is_counted_is_no_less_than_what_is_decoded() {
        let one = size_of::<MappingImage>();
        let counted = room(&tree(layout(1000, 0)), &TREE);
        assert!(counted >= 1000 * one && counted < 1100 * one, "{counted}");
        assert!(room(&tree(layout(0, 1000)), &TREE) >= 4000);
        let threads = vec![ThreadImage { registers: vec![1; 100], ..ThreadImage::default() }; 10];
        let processes = vec![ProcessImage { threads, ..ProcessImage::default() }];
        let image = Some(TreeImage { processes, ..TreeImage::default() });
        let counted = room(&Tree { image, ..Tree::default() }.encode_to_vec(), &TREE);
        assert!(counted >= 10 * (size_of::<ThreadImage>() + 800), "{counted}");
    }

    #[test]
    fn a_small_file_that_would_fill_a_host_is_refused_and_the_largest_tree_is_not() {
        check("tree", &tree(layout(1 << 20, 1 << 17)), &TREE).unwrap();
        let hostile = tree(layout(ROOM_MAX / size_of::<MappingImage>() + 1, 0));
        assert!(hostile.len() < 16 << 20, "{}", hostile.len());
        check("tree", &hostile, &TREE).unwrap_err();
        let layout = Some(layout(ROOM_MAX / size_of::<MappingImage>() + 1, 0));
        let inventory = Some(Inventory { layout, ..Inventory::default() });
        let manifest = Manifest { inventory, ..Manifest::default() }.encode_to_vec();
        check("manifest", &manifest, &MANIFEST).unwrap_err();
    }

    #[test]
    fn nonsense_is_counted_up_to_where_it_begins() {
        let mut message = tree(layout(2, 0));
        let whole = room(&message, &TREE);
        message.extend_from_slice(&[0xff; 3]);
        assert_eq!(room(&message, &TREE), whole);
        assert_eq!(room(&[0x0a, 0x7f, 1], &TREE), 0);
    }
}
