//! The hand-written loop: registered buffers and file, completions when they are asked for, a
//! quarter of the depth awaited at once.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, opcode, types};

use crate::work::{BLOCK, Spent, Work, aligned, whole};

/// Reads.
///
/// # Errors
/// The first that fails.
pub fn run(work: &Work) -> io::Result<Spent> {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun();
    let mut ring: IoUring = builder.build(work.depth.next_power_of_two())?;
    let file = work.open()?;
    let mut buffers = aligned(work.depth);
    let ranges = buffers
        .iter_mut()
        .map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: BLOCK });
    let ranges: Vec<_> = ranges.collect();
    // SAFETY: the buffers outlive the ring's use of them: every read is reaped before they go.
    unsafe { ring.submitter().register_buffers(&ranges) }?;
    ring.submitter().register_files(&[file.as_raw_fd()])?;
    let batch = (work.depth / 4).clamp(1, 32) as usize;
    let mut idle: Vec<u32> = (0..work.depth).collect();
    let mut in_flight = 0_usize;
    loop {
        {
            let mut queue = ring.submission();
            while let Some(slot) = idle.last().copied() {
                let Some(offset) = work.next() else { break };
                idle.pop();
                let address = buffers[slot as usize].as_mut_ptr();
                let index = u16::try_from(slot).map_err(io::Error::other)?;
                let entry = opcode::ReadFixed::new(types::Fixed(0), address, BLOCK as u32, index);
                let entry = entry.offset(offset).build().user_data(u64::from(slot));
                // SAFETY: the buffer of the slot is not in use until its completion is reaped.
                unsafe { queue.push(&entry) }.map_err(io::Error::other)?;
                in_flight += 1;
            }
        }
        if in_flight == 0 {
            return Ok(work.spent());
        }
        ring.submit_and_wait(batch.min(in_flight))?;
        for completion in ring.completion() {
            let result = completion.result();
            let read = usize::try_from(result);
            whole(read.map_err(|_| io::Error::from_raw_os_error(-result)))?;
            idle.push(completion.user_data() as u32);
            in_flight -= 1;
        }
    }
}
