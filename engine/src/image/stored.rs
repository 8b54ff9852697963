//! An image that was written into a directory, opened and checked: nothing of it is trusted.

use super::directory::{Finished, INDEX, MANIFEST, PAGES, TREE, is_image};
use super::forks;
use super::framed::{self, Digest, Framed};
use super::keys::Identities;
use super::manifest::{Manifest, Parent, Tree};
use super::playback::{Fill, Playback};
use super::store::Store;
use super::{decode, expansion};
use crate::error::{Error, Object};
use crate::stage::check;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Increments upon increments; each has to be opened to read one page.
const PARENTS_MAX: usize = 64;

#[derive(Debug)]
pub struct StoredImage {
    path: PathBuf,
    is_sealed: bool,
    version: u32,
    digest: Digest,
    manifest: Manifest,
    tree: Tree,
    store: Store,
}

impl StoredImage {
    /// With all of its parents. Every file but the pages is read and held against its digest; of
    /// the pages each block is, when it is read. `identities` open what is sealed.
    pub fn open(path: &Path, identities: &Identities) -> Result<Self, Error> {
        Self::open_above(path, None, identities, PARENTS_MAX)
    }

    /// One that has no parent, or it is refused: nothing else of this host is opened in its name.
    pub fn open_alone(path: &Path, identities: &Identities) -> Result<Self, Error> {
        Self::open_above(path, None, identities, 0)
    }

    /// For an image that is to have it as its parent: one more than its parents has to be read.
    pub(super) fn open_as_parent(path: &Path, identities: &Identities) -> Result<Self, Error> {
        Self::open_above(path, None, identities, PARENTS_MAX - 1)
    }

    fn open_above(
        path: &Path,
        expected: Option<&[u8]>,
        identities: &Identities,
        parents: usize,
    ) -> Result<Self, Error> {
        let directory = Finished::find(path, identities)?;
        let path = directory.path();
        let Framed { message, digest, version } =
            framed::read(&directory.open(MANIFEST)?, MANIFEST)?;
        if expected.is_some_and(|expected| expected != digest) {
            let object = Object::File { path: path.display().to_string() };
            let why = "it is another image than the one that was the parent";
            return Err(Error::invalid("read the parent", object, why));
        }
        expansion::check("manifest", &message, &expansion::MANIFEST)?;
        let manifest: Manifest = decode("manifest", &message)?;
        let tree = part(&directory, TREE, &manifest.tree_digest)?;
        expansion::check("tree", &tree, &expansion::TREE)?;
        let tree: Tree = decode("tree", &tree)?;
        let index = part(&directory, INDEX, &manifest.index_digest)?;
        let parent = manifest.parent.as_ref();
        let parent = parent.map(|parent| open_parent(path, parent, identities, parents));
        let parent = parent.transpose()?.map(|parent| parent.store);
        let pages = directory.open(PAGES)?;
        if pages.bytes() != manifest.pages_bytes {
            let (bytes, written) = (pages.bytes(), manifest.pages_bytes);
            let why = format!("it has {bytes} bytes, and {written} were written");
            return Err(Error::invalid("read", pages.object(), why));
        }
        let store = Store::open(pages, &index, parent)?;
        tree.copied.as_ref().map_or(Ok(()), |copied| copied.check(&store))?;
        let is_sealed = directory.is_sealed();
        Ok(Self { path: path.to_owned(), is_sealed, version, digest, manifest, tree, store })
    }

    /// Nobody reads it without an identity.
    pub fn is_sealed(&self) -> bool {
        self.is_sealed
    }

    /// The version of the format in which it was written.
    pub fn version(&self) -> u32 {
        self.version
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Of its manifest, and so of all of it but the pages of its parents.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Of memory that it needs when it is restored.
    pub fn memory_pages(&self, fill: Fill) -> u64 {
        let all = self.store.size().pages;
        let layout = self.tree.layout.as_ref().filter(|layout| check::check(layout).is_ok());
        match (fill, layout) {
            (Fill::Everything, Some(layout)) => all - forks::shared_pages(layout, &self.store),
            // What comes by fault comes for each by itself.
            _ => all,
        }
    }

    /// Every byte of it and of its parents is read.
    pub fn verify(&self) -> Result<(), Error> {
        self.store.verify()?;
        let layout = self.tree.layout.as_ref();
        let part = || Object::Image { part: "tree".to_owned() };
        let layout =
            layout.ok_or_else(|| Error::invalid("read the", part(), "it has no layout"))?;
        check::check(layout)
    }

    pub fn play_back(self, fill: Fill) -> Result<Playback, Error> {
        Playback::new(self.tree, self.store, fill)
    }
}

fn part(directory: &Finished<'_>, name: &str, expected: &[u8]) -> Result<Vec<u8>, Error> {
    let file = directory.open(name)?;
    let Framed { message, digest, .. } = framed::read(&file, name)?;
    match digest == expected {
        true => Ok(message),
        false => Err(Error::invalid("read", file.object(), "it belongs to another image")),
    }
}

/// Where it was, or beside its child: whoever carries both elsewhere keeps them together.
fn open_parent(
    child: &Path,
    parent: &Parent,
    identities: &Identities,
    parents: usize,
) -> Result<StoredImage, Error> {
    let was = Path::new(OsStr::from_bytes(&parent.path));
    let object = || Object::File { path: was.display().to_string() };
    let Some(parents) = parents.checked_sub(1) else {
        let why = "there are more parents than are read here; merge some of them";
        return Err(Error::invalid("read the parent", object(), why));
    };
    let beside = was.file_name().zip(child.parent()).map(|(name, above)| above.join(name));
    let there = [Some(was.to_owned()), beside].into_iter().flatten();
    let there = there.into_iter().find(|path| is_image(path));
    let there = there.ok_or_else(|| {
        Error::invalid("find the parent", object(), "it is gone, and so are the pages in it")
    })?;
    StoredImage::open_above(&there, Some(&parent.digest), identities, parents)
}
