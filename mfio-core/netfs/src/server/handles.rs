//! What a connection has open, by numbers that are never used twice.
//!
//! Data flow: number → directory, file or listing, for as long as anybody works with it.
//!
//! Not here: what is done with them (`answer`).

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use mfio_rt::{DirEntry, DirHandle, Error, ErrorKind, Op};

/// A directory, and the path by which it was reached from the exported one.
pub(super) struct Node<D> {
    pub(super) dir: D,
    /// `None` where it is confined to itself, or the path was too long to keep.
    pub(super) path: Option<Vec<u8>>,
}

/// A listing, while nobody is reading it.
pub(super) struct Listing<E> {
    pub(super) entries: E,
    /// What did not fit into the last reply.
    pub(super) left: Option<Result<DirEntry, Error>>,
}

/// Where a listing is while nobody is reading it.
type Shelf<D> = Rc<RefCell<Option<Listing<<D as DirHandle>::Entries>>>>;

pub(super) enum Handle<D: DirHandle> {
    Dir(Rc<Node<D>>),
    File(Rc<D::File>),
    Listing(Shelf<D>),
}

pub(super) struct Handles<D: DirHandle> {
    open: RefCell<BTreeMap<u64, Handle<D>>>,
    last: Cell<u64>,
    handles_max: usize,
}

impl<D: DirHandle> Handles<D> {
    pub(super) fn new(root: Node<D>, handles_max: usize) -> Self {
        let open = RefCell::new(BTreeMap::from([(0, Handle::Dir(Rc::new(root)))]));
        Self { open, last: Cell::new(0), handles_max }
    }

    /// Whether one more may be opened.
    pub(super) fn room(&self, op: Op) -> Result<(), Error> {
        if self.open.borrow().len() > self.handles_max {
            return Err(Error::new(op, ErrorKind::TooManyOpen));
        }
        Ok(())
    }

    pub(super) fn insert(&self, handle: Handle<D>) -> u64 {
        let number = self.last.get() + 1;
        self.last.set(number);
        self.open.borrow_mut().insert(number, handle);
        number
    }

    /// Closes it, when those who work with it have done so. The exported directory stays.
    pub(super) fn close(&self, number: u64) {
        if number != 0 {
            let closed = self.open.borrow_mut().remove(&number);
            drop(closed);
        }
    }

    pub(super) fn dir(&self, number: u64, op: Op) -> Result<Rc<Node<D>>, Error> {
        match self.open.borrow().get(&number) {
            Some(Handle::Dir(node)) => Ok(Rc::clone(node)),
            _ => Err(Error::new(op, ErrorKind::BadHandle)),
        }
    }

    pub(super) fn file(&self, number: u64, op: Op) -> Result<Rc<D::File>, Error> {
        match self.open.borrow().get(&number) {
            Some(Handle::File(file)) => Ok(Rc::clone(file)),
            _ => Err(Error::new(op, ErrorKind::BadHandle)),
        }
    }

    /// A listing, for one reader at a time.
    pub(super) fn listing(&self, number: u64) -> Result<Shelf<D>, Error> {
        match self.open.borrow().get(&number) {
            Some(Handle::Listing(listing)) => Ok(Rc::clone(listing)),
            _ => Err(Error::new(Op::ReadDir, ErrorKind::BadHandle)),
        }
    }
}
