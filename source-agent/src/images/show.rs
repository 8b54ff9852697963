//! `migrate image show`: what is in an image, without the program that it is of.

mod backing;
mod contents;
mod text;

use crate::cli::OneImage;
use crate::output::print;
use contents::Contents;

pub(super) fn show(one: &OneImage) -> Result<(), engine::Error> {
    let image = super::open(one)?;
    let contents = Contents::of(image.path(), image.tree())?;
    match one.json {
        true => print(&serde_json::to_string(&contents).unwrap_or_default()),
        false => text::lines(&contents).iter().for_each(|line| print(line)),
    }
    Ok(())
}
