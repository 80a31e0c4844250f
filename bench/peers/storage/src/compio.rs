//! compio 0.18: its io_uring driver, a task per read in flight.

use std::io;
use std::rc::Rc;

use ::compio::io::AsyncReadAt;

use crate::work::{Spent, Work, aligned, whole};

/// Reads.
///
/// # Errors
/// The first that fails.
pub fn run(work: &Rc<Work>) -> io::Result<Spent> {
    let mut driver = ::compio::driver::ProactorBuilder::new();
    driver.capacity((work.depth * 2).next_power_of_two()).coop_taskrun(true).taskrun_flag(true);
    let mut builder = ::compio::runtime::RuntimeBuilder::new();
    let runtime = builder.with_proactor(driver).build()?;
    runtime.block_on(async {
        let flags = if work.direct { libc::O_DIRECT } else { 0 };
        let mut options = ::compio::fs::OpenOptions::new();
        let file = options.read(true).custom_flags(flags).open(&work.path).await?;
        let lane = |mut buffer: Vec<u8>| {
            let (file, work) = (file.clone(), Rc::clone(work));
            ::compio::runtime::spawn(async move {
                while let Some(offset) = work.next() {
                    buffer.clear();
                    let ::compio::BufResult(read, back) = file.read_at(buffer, offset).await;
                    whole(read)?;
                    buffer = back;
                }
                Ok::<_, io::Error>(())
            })
        };
        for lane in aligned(work.depth).into_iter().map(lane).collect::<Vec<_>>() {
            lane.await.map_err(|_panic| io::Error::other("a task panicked"))??;
        }
        Ok(work.spent())
    })
}
