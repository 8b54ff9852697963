//! A tree that is only looked at.

use super::mappings::Identities;
use super::objects::Objects;
use super::shape::{self, Shape};
use super::{Spaces, retain_connected};
use crate::error::Error;
use crate::image::Layout;
use crate::tree::{Life, Process};

/// Its shape: nothing is tracked, nothing is stopped.
pub(crate) fn outline(processes: &[Process]) -> Result<Layout, Error> {
    let (mut objects, mut spaces) = (Objects::default(), Spaces::default());
    let mut identities = Identities::default();
    let mut layouts = Vec::with_capacity(processes.len());
    for process in processes {
        if process.life == Life::Zombie {
            layouts.push(shape::ids(process));
            continue;
        }
        let mut shape = Shape::of(process, spaces.next());
        match shape.layout(process, &mut objects, &mut spaces, &mut identities) {
            Ok(layout) => layouts.push(layout),
            Err(error) if error.is_gone() && !layouts.is_empty() => {}
            Err(error) => return Err(error),
        }
    }
    retain_connected(&mut layouts);
    Ok(Layout { processes: layouts, shared: objects.images()?, ..Layout::default() })
}
