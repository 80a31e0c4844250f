//! The one way that all handles of a file go: through the page cache, or past it.
//!
//! A buffered page and a direct write of the same bytes can miss each other: the kernel drops
//! the page as well as it can, and where it cannot, a reader sees old bytes, and a dirty page
//! may be written over new ones (F45). So within this process the first open decides.
//!
//! Data flow: open → [`Way::claim`] → the target keeps it until its last op is over.
//!
//! Not here: other processes, which the lock of an open keeps away.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::poison::Inode;

/// Keeps a file on its way for as long as it lives.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    _held: Arc<()>,
}

/// A file that is open, whether past the page cache, and by whom.
type Entry = (Inode, bool, Weak<()>);

static OPEN: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

impl Way {
    /// Takes `inode` past the page cache (`direct`) or through it, as whoever has it open does.
    /// The error says which way that is, where it is the other one.
    pub(crate) fn claim(inode: Inode, direct: bool) -> Result<Self, bool> {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, _, held)| held.strong_count() > 0);
        let found = open.iter().find(|(other, ..)| *other == inode);
        // Where the last one goes at this very moment, there is nobody left to agree with.
        if let Some((way, held)) = found.and_then(|(_, way, held)| Some((*way, held.upgrade()?))) {
            return if way == direct { Ok(Self { _held: held }) } else { Err(way) };
        }
        let held = Arc::new(());
        open.retain(|(other, ..)| *other != inode);
        open.push((inode, direct, Arc::downgrade(&held)));
        Ok(Self { _held: held })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f45_first_claim_decides_until_the_last_one_has_gone() {
        let inode = |number| Inode { device: u64::MAX - 2, number, special: 0 };
        let first = Way::claim(inode(1), true).unwrap();
        let second = Way::claim(inode(1), true).unwrap();
        assert_eq!(Way::claim(inode(1), false).map(drop), Err(true));
        let other = Way::claim(inode(2), false).unwrap();
        assert_eq!(Way::claim(inode(2), true).map(drop), Err(false));
        drop(first);
        assert_eq!(Way::claim(inode(1), false).map(drop), Err(true));
        drop(second);
        let turned = Way::claim(inode(1), false).unwrap();
        assert_eq!(Way::claim(inode(1), true).map(drop), Err(false));
        drop((other, turned));
    }
}
