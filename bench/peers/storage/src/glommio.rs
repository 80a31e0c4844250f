//! glommio 0.9: its own direct or buffered files, a future per read in flight.

use std::io;

use ::glommio::io::{BufferedFile, DmaFile};
use ::glommio::{LocalExecutorBuilder, Placement};
use futures::future::try_join_all;

use crate::work::{BLOCK, Spent, Work, whole};

/// Its errors cannot cross threads, and so are no sources of an `io::Error`.
fn failed<T>(error: ::glommio::GlommioError<T>) -> io::Error {
    io::Error::other(error.to_string())
}

/// Reads.
///
/// # Errors
/// The first that fails.
pub fn run(work: &Work) -> io::Result<Spent> {
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .ring_depth((work.depth as usize * 2).next_power_of_two())
        .make()
        .map_err(failed)?;
    executor.run(async {
        if work.direct {
            let file = DmaFile::open(&work.path).await.map_err(failed)?;
            let lane = |_| {
                let file = &file;
                async move {
                    while let Some(offset) = work.next() {
                        let read = file.read_at_aligned(offset, BLOCK).await;
                        whole(read.map(|read| read.len()).map_err(failed))?;
                    }
                    Ok::<_, io::Error>(())
                }
            };
            try_join_all((0..work.depth).map(lane)).await?;
        } else {
            let file = BufferedFile::open(&work.path).await.map_err(failed)?;
            let lane = |_| {
                let file = &file;
                async move {
                    while let Some(offset) = work.next() {
                        let read = file.read_at(offset, BLOCK).await;
                        whole(read.map(|read| read.len()).map_err(failed))?;
                    }
                    Ok::<_, io::Error>(())
                }
            };
            try_join_all((0..work.depth).map(lane)).await?;
        }
        Ok(work.spent())
    })
}
