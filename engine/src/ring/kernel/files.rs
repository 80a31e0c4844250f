//! The table of registered files of a ring.
//!
//! Not here: which target uses which entry (`target`).

use io_uring::IoUring;

use super::setup::errno_of;
use crate::ring::Features;

/// Makes the registered file table; returns its free entries, the lowest last.
pub(super) fn file_table(ring: &IoUring, files_max: u32, features: &mut Features) -> Vec<u32> {
    if files_max == 0 {
        return Vec::new();
    }
    let submitter = ring.submitter();
    let made = submitter.register_files_sparse(files_max).or_else(|_| {
        // Before Linux 5.19 an empty table is a table of -1.
        submitter.register_files(&vec![-1; files_max as usize])
    });
    match made {
        Ok(()) => {
            features.in_use.push("registered files");
            (0..files_max).rev().collect()
        }
        Err(error) => {
            features.degraded.push(format!(
                "registered files: a table of {files_max} was refused ({:?}); files go as plain \
                 descriptors; raise RLIMIT_NOFILE (ulimit -n) if that is EMFILE",
                errno_of(&error)
            ));
            Vec::new()
        }
    }
}
