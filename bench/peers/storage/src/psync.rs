//! `pread(2)` on one thread.

use std::io;
use std::os::unix::fs::FileExt;

use crate::work::{Spent, Work, aligned, whole};

/// Reads.
///
/// # Errors
/// The first that fails.
pub fn run(work: &Work) -> io::Result<Spent> {
    let file = work.open()?;
    let mut buffer = aligned(1).swap_remove(0);
    while let Some(offset) = work.next() {
        whole(file.read_at(&mut buffer, offset))?;
    }
    Ok(work.spent())
}
