//! monoio 0.2: its io_uring driver, a future per read in flight.

use std::io;

use futures::future::try_join_all;

use crate::work::{Spent, Work, aligned, whole};

/// Reads.
///
/// # Errors
/// The first that fails.
pub fn run(work: &Work) -> io::Result<Spent> {
    let entries = (work.depth * 2).next_power_of_two().max(256);
    let mut runtime =
        ::monoio::RuntimeBuilder::<::monoio::IoUringDriver>::new().with_entries(entries).build()?;
    runtime.block_on(async {
        let file = ::monoio::fs::File::from_std(work.open()?)?;
        let lane = |mut buffer: Vec<u8>| {
            let file = &file;
            async move {
                while let Some(offset) = work.next() {
                    let (read, back) = file.read_at(buffer, offset).await;
                    whole(read)?;
                    buffer = back;
                }
                Ok::<_, io::Error>(())
            }
        };
        try_join_all(aligned(work.depth).into_iter().map(lane)).await?;
        Ok(work.spent())
    })
}
