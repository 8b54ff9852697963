use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap as Model;

const SPACES: u32 = 2;

#[derive(Clone, Debug)]
enum Step {
    Block(u32, u64, u16),
    Zeros(u32, u64, u64),
    Parent(u32, u64, u64),
    Remove(u32, u64, u64),
    Fork,
}

fn step() -> impl Strategy<Value = Step> {
    let run = || (0..SPACES, 0..40_u64, 1..20_u64);
    prop_oneof![
        (0..SPACES, 0..40_u64, 1..=16_u16).prop_map(|(s, page, n)| Step::Block(s, page, n)),
        run().prop_map(|(s, page, n)| Step::Zeros(s, page, n)),
        run().prop_map(|(s, page, n)| Step::Parent(s, page, n)),
        run().prop_map(|(s, page, n)| Step::Remove(s, page, n)),
        Just(Step::Fork),
    ]
}

/// Page by page.
type Pages = Model<(u32, u64), Place>;

fn run(page: u64, pages: u64) -> Run {
    Run { address: page * PAGE_BYTES, pages }
}

/// The same steps on an index and on single pages.
fn both(steps: &[Step]) -> (Index, Pages) {
    let (mut index, mut pages) = (Index::default(), Pages::new());
    for step in steps {
        match *step {
            Step::Block(space, page, count) => {
                let block = Block::new(0, u32::from(count) * 4096, count, Codec::Plain, 7);
                let block = index.add(block);
                index.put(space, run(page, count.into()), Place::Block { block, first: 0 });
                let at = |n: u16| ((space, page + u64::from(n)), Place::Block { block, first: n });
                pages.extend((0..count).map(at));
            }
            Step::Zeros(space, page, count) => {
                index.put(space, run(page, count), Place::Zeros);
                pages.extend((0..count).map(|n| ((space, page + n), Place::Zeros)));
            }
            Step::Parent(space, page, count) => {
                let place = Place::Parent { space: 9 };
                index.put(space, run(page, count), place);
                pages.extend((0..count).map(|n| ((space, page + n), place)));
            }
            Step::Remove(space, page, count) => {
                index.remove(space, run(page, count));
                pages.retain(|&(s, at), _| s != space || !(page..page + count).contains(&at));
            }
            Step::Fork => {
                index.retain_spaces(|space| space != 1);
                index.fork(0, 1);
                pages.retain(|&(space, _), _| space == 0);
                let child: Vec<_> = pages.iter().map(|(&(_, at), &p)| ((1, at), p)).collect();
                pages.extend(child);
            }
        }
    }
    (index, pages)
}

fn page_by_page(index: &Index, space: u32, window: Run) -> Pages {
    let mut pages = Pages::new();
    for (address, extent) in index.within(space, window) {
        for n in 0..extent.pages {
            let place = Extent { pages: extent.pages, ..extent }.after(n).place;
            let before = pages.insert((space, address / PAGE_BYTES + n), place);
            assert_eq!(before, None, "a page came twice");
        }
    }
    pages
}

fn whole(index: &Index) -> Pages {
    (0..SPACES).flat_map(|space| page_by_page(index, space, run(0, 100))).collect()
}

proptest! {
    #[test]
    fn knows_every_page_as_if_it_stood_alone(
        steps in prop::collection::vec(step(), 0..40), from in 0..50_u64, count in 0..30_u64
    ) {
        let (index, pages) = both(&steps);
        prop_assert_eq!(whole(&index), pages.clone());
        let window = page_by_page(&index, 0, run(from, count));
        let is_inside = |&(space, page): &(u32, u64)| {
            space == 0 && (from..from + count).contains(&page)
        };
        let expected: Pages = pages.into_iter().filter(|(page, _)| is_inside(page)).collect();
        prop_assert_eq!(window, expected);
    }

    #[test]
    fn a_block_is_dead_when_no_page_of_it_is_shown(
        steps in prop::collection::vec(step(), 0..40)
    ) {
        let (index, pages) = both(&steps);
        for (number, block) in index.blocks().iter().enumerate() {
            let shown = pages.values().filter(
                |place| matches!(place, Place::Block { block, .. } if *block as usize == number)
            );
            prop_assert_eq!(block.live as usize, shown.count());
        }
    }

    #[test]
    fn comes_back_from_its_bytes(steps in prop::collection::vec(step(), 0..40)) {
        let (index, pages) = both(&steps);
        let again = Index::decode(&index.encode(), 1 << 20).unwrap();
        // Dead blocks are left out, so the others have other numbers.
        let is_block = |place: &Place| matches!(place, Place::Block { .. });
        let shape = |pages: &Pages| -> Vec<_> {
            pages.iter().map(|(at, place)| (*at, is_block(place))).collect()
        };
        prop_assert_eq!(shape(&whole(&again)), shape(&pages));
        prop_assert_eq!(Index::decode(&again.encode(), 1 << 20).unwrap(), again);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Index::decode(&bytes, 4096);
    }
}

#[test]
fn what_leads_out_of_the_file_is_refused() {
    let mut index = Index::default();
    let block = index.add(Block::new(4096, 4096, 1, Codec::Plain, 7));
    index.put(3, run(1, 1), Place::Block { block, first: 0 });
    let bytes = index.encode();
    assert_eq!(Index::decode(&bytes, 8192).unwrap(), index);
    assert!(Index::decode(&bytes, 8191).unwrap_err().contains("block 0"));
    for length in 0..bytes.len() {
        Index::decode(&bytes[..length], 8192).expect_err("it was cut off");
    }
    // The first page of the extent in its block.
    let mut beyond = bytes.clone();
    let at = bytes.len() - 6;
    beyond[at] = 1;
    assert!(Index::decode(&beyond, 8192).unwrap_err().contains("in no block"));
}
