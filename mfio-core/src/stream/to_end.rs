//! All there is from an offset on, in one buffer.
//!
//! Data flow: offset → reads that double in length → one `Vec`, until the target says that it
//! has ended or failed.
//!
//! Not here: a position (`Seekable`).

use alloc::vec::Vec;

use crate::error::{Error, ErrorKind};
use crate::io::{PacketIo, PacketIoExt};
use crate::packet::{Packet, Read};

const FIRST_BYTES: usize = 4 << 10;
const MOST_BYTES: usize = 1 << 20;
/// Out of memory, as every Unix numbers it.
const ENOMEM: i32 = 12;

/// Reads to the end of anything that takes [`Read`] packets at offsets.
pub trait ReadToEnd: PacketIo<Read, u64> {
    /// Reads from `at` to the end of the target: the number of bytes, and the bytes. They are
    /// all there is, or it is an error; where the end is not known beforehand, it is found by
    /// reading.
    ///
    /// Packets start at 4 KiB and grow with what has been read, up to 1 MiB.
    ///
    /// ```
    /// use mfio_core::{block_on, mem::Mem, stream::ReadToEnd};
    /// let target = Mem::from(vec![7; 10_000]);
    /// let (result, bytes) = block_on(&target, target.read_to_end(9_000)).unwrap();
    /// assert_eq!((result, bytes.len()), (Ok(1_000), 1_000));
    /// ```
    ///
    /// # Errors
    /// The first that is not [`ErrorKind::UnexpectedEof`], with the bytes before it;
    /// `ENOMEM` where the bytes do not fit in memory. Resolves to `(Err, bytes)`.
    ///
    /// # Cancel safety
    /// Dropping the future loses the bytes, and nothing else.
    #[allow(async_fn_in_trait, reason = "the future is Send where the target is Sync")]
    async fn read_to_end(&self, at: u64) -> (Result<u64, Error>, Vec<u8>) {
        let mut bytes = Vec::new();
        let mut buffer = Vec::new();
        loop {
            let read = bytes.len() as u64;
            let room = usize::try_from(u64::MAX - at.saturating_add(read)).unwrap_or(usize::MAX);
            let asked = bytes.len().clamp(FIRST_BYTES, MOST_BYTES).min(room);
            if asked == 0 {
                return (Ok(read), bytes);
            }
            buffer.resize(asked, 0);
            let done = self.io(at + read, Packet::new(buffer)).await;
            let some = done.bytes();
            if bytes.try_reserve(some.len()).is_err() {
                return (Err(Error::os(ENOMEM)), bytes);
            }
            bytes.extend_from_slice(some);
            // A short read without the error that explains it would be asked again for ever.
            let short = some.len() < asked;
            match done.error() {
                Some(error) if error.kind() != ErrorKind::UnexpectedEof => {
                    return (Err(error), bytes);
                }
                Some(_) => return (Ok(bytes.len() as u64), bytes),
                None if short => return (Ok(bytes.len() as u64), bytes),
                None => buffer = done.into_buffer(),
            }
        }
    }
}

impl<Io: PacketIo<Read, u64> + ?Sized> ReadToEnd for Io {}
