//! The table of registered files of a ring.
//!
//! Data flow: descriptor → free entry → `IORING_REGISTER_FILES_UPDATE` → [`FileRef::Fixed`].
//! The table cannot grow: replacing it would leave every op without its file if the larger one
//! were refused. It is therefore as large as the process may have descriptors, up to a bound;
//! an unused entry is 8 bytes of the kernel's, and nothing here.
//!
//! Not here: which target uses which entry, and when it is through with it (`target`).

use io_uring::Submitter;
use nix::errno::Errno;

use super::setup::errno_of;
use crate::ring::{Features, FileRef};
use crate::sys;

/// What [`Features::in_use`] calls it.
const FILES: &str = "registered files";

/// Smaller tables than this are not worth another attempt.
const ENTRIES_MIN: u32 = 64;

#[derive(Debug)]
pub(super) struct FileTable {
    entries: u32,
    /// Entries from here on have never been used.
    unused_from: u32,
    /// Entries that have been given back; the last one is the next one out.
    free: Vec<u32>,
    /// The descriptor in each entry that was ever used; -1 for none.
    descriptors: Vec<i32>,
    /// That it is full has been said.
    full_told: bool,
}

impl FileTable {
    /// Makes a table of at most `files_max` entries, no more than the process may open.
    pub(super) fn new(submitter: &Submitter<'_>, files_max: u32, features: &mut Features) -> Self {
        let most = u32::try_from(sys::open_files_max()).unwrap_or(u32::MAX);
        let mut entries = files_max.min(most);
        while entries > 0 {
            let made = submitter.register_files_sparse(entries).or_else(|_| {
                // Before Linux 5.19 an empty table is a table of -1.
                submitter.register_files(&vec![-1; entries as usize])
            });
            let Err(error) = made else {
                if !features.in_use.contains(&FILES) {
                    features.in_use.push(FILES);
                }
                break;
            };
            if matches!(errno_of(&error), Errno::ENOMEM) && entries > ENTRIES_MIN {
                entries /= 4;
                continue;
            }
            features.degraded.push(format!(
                "registered files: a table of {entries} was refused ({:?}); files go as plain \
                 descriptors; raise RLIMIT_NOFILE (ulimit -n) if that is EMFILE",
                errno_of(&error)
            ));
            entries = 0;
        }
        Self {
            entries,
            unused_from: 0,
            free: Vec::new(),
            descriptors: Vec::new(),
            full_told: entries == 0,
        }
    }

    /// Registers `fd`, or leaves it the plain descriptor that it is (F36).
    pub(super) fn add(
        &mut self,
        submitter: &Submitter<'_>,
        fd: i32,
        features: &mut Features,
    ) -> FileRef {
        let Some(index) = self.pop() else {
            if !self.full_told {
                self.full_told = true;
                features.degraded.push(format!(
                    "registered files: all {} entries are taken, further files go as plain \
                     descriptors; raise KernelConfig::files_max, and RLIMIT_NOFILE (ulimit -n) \
                     before the ring is made",
                    self.entries
                ));
            }
            return FileRef::Plain(fd);
        };
        match submitter.register_files_update(index, &[fd]) {
            Ok(1) => {
                self.descriptors[index as usize] = fd;
                FileRef::Fixed(index)
            }
            Ok(_) | Err(_) => {
                self.free.push(index);
                FileRef::Plain(fd)
            }
        }
    }

    fn pop(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| {
            let index = self.unused_from;
            (index < self.entries).then(|| {
                self.unused_from += 1;
                self.descriptors.push(-1);
                index
            })
        })
    }

    /// The plain descriptor of an entry, which its owner keeps open.
    pub(super) fn descriptor(&self, index: u32) -> Option<i32> {
        self.descriptors.get(index as usize).copied().filter(|&fd| fd >= 0)
    }

    /// Empties the entry of `file`, if it has one.
    pub(super) fn remove(&mut self, submitter: &Submitter<'_>, file: FileRef) {
        let FileRef::Fixed(index) = file else { return };
        self.descriptors[index as usize] = -1;
        // An entry that could not be cleared keeps its file open and is not used again.
        if submitter.register_files_update(index, &[-1]).is_ok() {
            self.free.push(index);
        }
    }
}
