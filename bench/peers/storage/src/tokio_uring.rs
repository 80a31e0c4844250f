//! tokio-uring 0.5: registered buffers, a task per read in flight.

use std::io;

use futures::future::try_join_all;

use crate::work::{Spent, Work, aligned, whole};

/// Reads.
///
/// # Errors
/// The first that fails.
pub fn run(work: &Work) -> io::Result<Spent> {
    let mut ring = ::tokio_uring::uring_builder();
    ring.setup_single_issuer().setup_coop_taskrun().setup_taskrun_flag();
    let mut builder = ::tokio_uring::builder();
    builder.entries((work.depth * 2).next_power_of_two()).uring_builder(&ring);
    builder.start(async {
        let buffers = ::tokio_uring::buf::fixed::FixedBufRegistry::new(aligned(work.depth));
        buffers.register()?;
        let file = ::tokio_uring::fs::File::from_std(work.open()?);
        let lane = |number: u32| {
            let (file, buffers) = (&file, &buffers);
            async move {
                let mut buffer = buffers.check_out(number as usize).expect("a buffer per read");
                while let Some(offset) = work.next() {
                    let (read, back) = file.read_fixed_at(buffer, offset).await;
                    whole(read)?;
                    buffer = back;
                }
                Ok::<_, io::Error>(())
            }
        };
        try_join_all((0..work.depth).map(lane)).await?;
        Ok(work.spent())
    })
}
