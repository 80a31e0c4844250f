//! mfio-rt 0.1.0: its io_uring backend, a future per read in flight on its own executor. It has
//! no direct I/O.

use std::io;
use std::rc::Rc;

use ::mfio_rt::{Fs, NativeRt, OpenOptions};
use futures::future::try_join_all;
use mfio::backend::IoBackendExt;
use mfio::traits::IoRead;

use crate::work::{BLOCK, Spent, Work};

fn failed(error: mfio::error::Error) -> io::Error {
    io::Error::other(error.to_string())
}

/// Reads.
///
/// # Errors
/// The first that fails.
pub fn run(work: &Rc<Work>) -> io::Result<Spent> {
    let runtime = NativeRt::builder().io_uring(true).build().map_err(failed)?;
    runtime.block_on(async {
        let options = OpenOptions::new().read(true);
        let file = &runtime.open(&work.path, options).await.map_err(failed)?;
        let lane = |_| async move {
            let mut buffer = vec![0; BLOCK];
            while let Some(offset) = work.next() {
                file.read_all(offset, &mut buffer[..]).await.map_err(failed)?;
            }
            Ok::<_, io::Error>(())
        };
        try_join_all((0..work.depth).map(lane)).await?;
        Ok(work.spent())
    })
}
