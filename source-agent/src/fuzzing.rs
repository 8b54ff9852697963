//! Doors for the fuzz targets of `tests/fuzz`. They are not there in any other build.

use crate::journal;
use crate::place::Place;
use std::path::Path;

/// A journal that an agent before us has left.
pub fn journal(path: &Path) {
    let _ = journal::read(path);
}

/// A destination as on the command line.
pub fn place(text: &str) {
    if let Ok(place) = text.parse::<Place>() {
        assert_eq!(place.to_string().parse(), Ok(place), "it is read as it is written");
    }
}
