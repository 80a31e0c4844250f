//! monoio 0.2: its io_uring driver, a task per read in flight.

use std::io;
use std::rc::Rc;

use crate::work::{Spent, Work, aligned, whole};

/// Reads.
///
/// # Errors
/// The first that fails.
pub fn run(work: &Rc<Work>) -> io::Result<Spent> {
    let entries = (work.depth * 2).next_power_of_two().max(256);
    let mut runtime =
        ::monoio::RuntimeBuilder::<::monoio::IoUringDriver>::new().with_entries(entries).build()?;
    runtime.block_on(async {
        let file = Rc::new(::monoio::fs::File::from_std(work.open()?)?);
        let lane = |mut buffer: Vec<u8>| {
            let (file, work) = (Rc::clone(&file), Rc::clone(work));
            ::monoio::spawn(async move {
                while let Some(offset) = work.next() {
                    let (read, back) = file.read_at(buffer, offset).await;
                    whole(read)?;
                    buffer = back;
                }
                Ok::<_, io::Error>(())
            })
        };
        for lane in aligned(work.depth).into_iter().map(lane).collect::<Vec<_>>() {
            lane.await?;
        }
        Ok(work.spent())
    })
}
