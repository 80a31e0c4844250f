//! tokio-uring 0.5: registered buffers, a task per read in flight.

use std::io;
use std::rc::Rc;

use crate::work::{Spent, Work, aligned, whole};

/// Reads.
///
/// # Errors
/// The first that fails.
pub fn run(work: &Rc<Work>) -> io::Result<Spent> {
    let mut ring = ::tokio_uring::uring_builder();
    ring.setup_single_issuer().setup_coop_taskrun().setup_taskrun_flag();
    let mut builder = ::tokio_uring::builder();
    builder.entries((work.depth * 2).next_power_of_two()).uring_builder(&ring);
    builder.start(async {
        let buffers = ::tokio_uring::buf::fixed::FixedBufRegistry::new(aligned(work.depth));
        buffers.register()?;
        let file = Rc::new(::tokio_uring::fs::File::from_std(work.open()?));
        let lane = |number: u32| {
            let (file, buffers, work) = (Rc::clone(&file), buffers.clone(), Rc::clone(work));
            ::tokio_uring::spawn(async move {
                let mut buffer = buffers.check_out(number as usize).expect("a buffer per read");
                while let Some(offset) = work.next() {
                    let (read, back) = file.read_fixed_at(buffer, offset).await;
                    whole(read)?;
                    buffer = back;
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
