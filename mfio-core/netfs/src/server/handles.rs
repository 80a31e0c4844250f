//! What a connection has open, by numbers that are never used twice.
//!
//! Data flow: number → directory, file or listing, for as long as anybody works with it. Each
//! has its place from before it is opened until it is closed: out of the connection's own share
//! first, then out of what all connections have together.
//!
//! Not here: what is done with them (`answer`).

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::sync::atomic::{AtomicUsize, Ordering};

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

/// Places for handles of all connections. Half of them are shared out evenly, so that no
/// connection can leave another without any.
#[derive(Debug)]
pub(super) struct Places {
    /// What a connection has to itself.
    share: usize,
    /// What is left of the others.
    left: AtomicUsize,
}

impl Places {
    pub(super) fn new(places: usize, connections_max: usize) -> Self {
        let share = places / 2 / connections_max.max(1);
        let shared_out = share.saturating_mul(connections_max);
        Self { share, left: AtomicUsize::new(places.saturating_sub(shared_out)) }
    }

    fn take(&self) -> bool {
        let one_less = |left: usize| left.checked_sub(1);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }
}

/// How many a connection has.
struct Held<'s> {
    places: &'s Places,
    held: Cell<usize>,
}

/// Where a handle is, or will be when it has been opened.
pub(super) struct Place<'s>(Rc<Held<'s>>);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Held { places, held } = &*self.0;
        held.set(held.get() - 1);
        if held.get() >= places.share {
            places.left.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The exported directory has no place: it is always open.
type Placed<'s, D> = (Handle<D>, Option<Place<'s>>);

pub(super) struct Handles<'s, D: DirHandle> {
    open: RefCell<BTreeMap<u64, Placed<'s, D>>>,
    last: Cell<u64>,
    handles_max: usize,
    held: Rc<Held<'s>>,
}

impl<'s, D: DirHandle> Handles<'s, D> {
    pub(super) fn new(root: Node<D>, handles_max: usize, places: &'s Places) -> Self {
        let open = RefCell::new(BTreeMap::from([(0, (Handle::Dir(Rc::new(root)), None))]));
        let held = Rc::new(Held { places, held: Cell::new(0) });
        Self { open, last: Cell::new(0), handles_max, held }
    }

    /// A place for one more, to be had before it is opened.
    pub(super) fn place(&self, op: Op) -> Result<Place<'s>, Error> {
        let Held { places, held } = &*self.held;
        let mine = held.get() < places.share;
        if held.get() >= self.handles_max || !(mine || places.take()) {
            return Err(Error::new(op, ErrorKind::TooManyOpen));
        }
        held.set(held.get() + 1);
        Ok(Place(Rc::clone(&self.held)))
    }

    pub(super) fn insert(&self, place: Place<'s>, handle: Handle<D>) -> u64 {
        let number = self.last.get() + 1;
        self.last.set(number);
        self.open.borrow_mut().insert(number, (handle, Some(place)));
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
            Some((Handle::Dir(node), _)) => Ok(Rc::clone(node)),
            _ => Err(Error::new(op, ErrorKind::BadHandle)),
        }
    }

    pub(super) fn file(&self, number: u64, op: Op) -> Result<Rc<D::File>, Error> {
        match self.open.borrow().get(&number) {
            Some((Handle::File(file), _)) => Ok(Rc::clone(file)),
            _ => Err(Error::new(op, ErrorKind::BadHandle)),
        }
    }

    /// A listing, for one reader at a time.
    pub(super) fn listing(&self, number: u64) -> Result<Shelf<D>, Error> {
        match self.open.borrow().get(&number) {
            Some((Handle::Listing(listing), _)) => Ok(Rc::clone(listing)),
            _ => Err(Error::new(Op::ReadDir, ErrorKind::BadHandle)),
        }
    }
}
