//! Makes buffers and files known to a ring, as far as the kernel grants it.
//!
//! Data flow: a [`Region`] or a number of files → `io_uring_register(2)` → what was granted, and
//! in [`Features`] what was not and how to change that. Registering is an optimisation: every
//! refusal leaves a ring that works (F32, F36).
//!
//! Not here: which op uses what is registered (`sqe`, `buffer::arena`).
#![allow(unsafe_code, reason = "hands addresses of the region to the kernel")]

use io_uring::{IoUring, Submitter};
use nix::errno::Errno;

use super::setup::errno_of;
use crate::buffer::{PIECE_BYTES, Region};
use crate::ring::Features;
use crate::sys;

/// Registering less than this is not worth a fixed buffer.
const REGISTERED_BYTES_MIN: usize = 64 << 10;

/// A registered prefix is a multiple of this, the size of a page.
const REGISTERED_BYTES_STEP: usize = 4 << 10;

/// What [`Features::in_use`] calls registered buffers.
const BUFFERS: &str = "registered buffers";

/// Registers `region` as fixed buffers, halving while memory is what lacks, and records in it
/// how much is covered. A ring takes one region.
pub(super) fn buffers(submitter: &Submitter<'_>, region: &Region, features: &mut Features) {
    if features.in_use.contains(&BUFFERS) {
        features.degraded.push(format!("{BUFFERS}: a ring takes one region, and has one"));
        return;
    }
    features.in_use.push(region.pages().name());
    let need_bytes = region.len_bytes();
    let (got_bytes, refusal) = register_prefix(submitter, region);
    region.set_registered_bytes(got_bytes);
    if got_bytes > 0 {
        features.in_use.push(BUFFERS);
    }
    if got_bytes < need_bytes {
        features.degraded.push(format!(
            "{BUFFERS}: {got_bytes} of {need_bytes} bytes ({refusal:?}), the rest goes \
             unregistered; RLIMIT_MEMLOCK is {} bytes: raise it (ulimit -l, LimitMEMLOCK=) or \
             grant CAP_IPC_LOCK",
            sys::memlock_bytes_max()
        ));
    }
}

/// Returns how many bytes were registered, and why not more.
fn register_prefix(submitter: &Submitter<'_>, region: &Region) -> (usize, Errno) {
    let mut bytes = region.len_bytes();
    loop {
        match try_register(submitter, region, bytes) {
            Ok(()) => return (bytes, Errno::ENOMEM),
            Err(Errno::ENOMEM) if bytes >= 2 * REGISTERED_BYTES_MIN => {
                bytes = bytes / 2 / REGISTERED_BYTES_STEP * REGISTERED_BYTES_STEP;
            }
            Err(errno) => return (0, errno),
        }
    }
}

/// Registers the first `bytes` of `region`, piece by piece.
fn try_register(submitter: &Submitter<'_>, region: &Region, bytes: usize) -> Result<(), Errno> {
    let piece = usize::try_from(PIECE_BYTES).expect("1 GiB fits");
    let mut pieces = Vec::with_capacity(bytes.div_ceil(piece));
    for start in (0..bytes).step_by(piece) {
        let iov_base = region.base().wrapping_add(start).cast();
        pieces.push(libc::iovec { iov_base, iov_len: piece.min(bytes - start) });
    }
    // SAFETY: lifetime: the kernel pins the pages itself, so they outlive even the mapping;
    // ops name them only through ranges of a live region. Aliasing: registering reads and
    // writes nothing. Bounds: the pieces tile a prefix of the mapping.
    let registered = unsafe { submitter.register_buffers(&pieces) };
    registered.map_err(|error| errno_of(&error))
}

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
