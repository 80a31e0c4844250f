//! tokio 1: `tokio::fs`, a task and an open file per read in flight, on its blocking threads. Its
//! buffers are not aligned, so it has no direct I/O.

use std::io;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncSeekExt, SeekFrom};
use tokio::task::LocalSet;

use crate::work::{BLOCK, Spent, Work};

/// Reads.
///
/// # Errors
/// The first that fails.
pub fn run(work: &Rc<Work>) -> io::Result<Spent> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, async {
        let lane = |_| {
            let work = Rc::clone(work);
            tasks.spawn_local(async move {
                let mut file = tokio::fs::File::open(&work.path).await?;
                let mut buffer = vec![0; BLOCK];
                while let Some(offset) = work.next() {
                    file.seek(SeekFrom::Start(offset)).await?;
                    file.read_exact(&mut buffer).await?;
                }
                Ok::<_, io::Error>(())
            })
        };
        for lane in (0..work.depth).map(lane).collect::<Vec<_>>() {
            lane.await??;
        }
        Ok(work.spent())
    })
}
