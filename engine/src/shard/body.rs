//! The user's bytes while an op moves them, and how they end.
//!
//! Data flow: view → lent or bounced → [`Body`], kept in a slot → whole, in part or failed → the
//! packet.
//!
//! Not here: where it is kept meanwhile (`slot`), when it ends (`reap`).

use std::panic::{AssertUnwindSafe, catch_unwind};

use mfio_core::{CompletionBatch, Error, ErrorKind, Gone, Lent, PacketId, Read, View, Write};

use crate::buffer::ArenaBuf;

/// The user's bytes that an op moves: lent in place, or copied through a bounce buffer, which
/// the slot table keeps beside the slot.
#[derive(Debug)]
pub(super) enum Body {
    ReadInto(Lent<Read>),
    WriteFrom(Lent<Write>),
    BouncedRead(View<Read>),
    BouncedWrite(View<Write>),
}

impl Body {
    pub(super) fn packet_id(&self) -> PacketId {
        match self {
            Self::ReadInto(lent) => lent.packet_id(),
            Self::WriteFrom(lent) => lent.packet_id(),
            Self::BouncedRead(view) => view.packet_id(),
            Self::BouncedWrite(view) => view.packet_id(),
        }
    }

    /// The first `bytes` of the user's bytes succeed, the others fail with `error`.
    #[cold]
    pub(super) fn finish_part(self, bytes: u64, error: Error) {
        match self {
            Self::ReadInto(lent) => lent.into_view().fail_after(bytes, error).filled(),
            Self::WriteFrom(lent) => lent.into_view().fail_after(bytes, error).written(),
            Self::BouncedRead(view) => view.fail_after(bytes, error).filled(),
            Self::BouncedWrite(view) => view.fail_after(bytes, error).written(),
        }
    }

    /// All of the user's bytes succeed.
    #[inline]
    pub(super) fn finish(self, batch: &mut CompletionBatch) {
        match self {
            Self::ReadInto(lent) => lent.done_in(batch),
            Self::WriteFrom(lent) => lent.done_in(batch),
            Self::BouncedRead(view) => view.filled(),
            Self::BouncedWrite(view) => view.written(),
        }
    }

    /// As [`Body::finish`], where it is the only one.
    #[inline]
    pub(super) fn finish_alone(self) {
        match self {
            Self::ReadInto(lent) => lent.done(),
            Self::WriteFrom(lent) => lent.done(),
            Self::BouncedRead(view) => view.filled(),
            Self::BouncedWrite(view) => view.written(),
        }
    }

    /// All of the user's bytes fail.
    #[cold]
    pub(super) fn fail(self, error: Error) {
        match self {
            Self::ReadInto(lent) => lent.fail(error),
            Self::WriteFrom(lent) => lent.fail(error),
            Self::BouncedRead(view) => view.fail(error),
            Self::BouncedWrite(view) => view.fail(error),
        }
    }

    /// Copies what was read through `bounce` to where the user wants it: up to byte `reached`
    /// of the buffer. What lies beyond is somebody else's (F50). False where it is not taken.
    #[cold]
    pub(super) fn copy_back(&mut self, bounce: &ArenaBuf, lead_bytes: u32, reached: u32) -> bool {
        let Self::BouncedRead(view) = self else { return true };
        let lead = lead_bytes as usize;
        let len = usize::try_from(view.len()).expect("as short as the bounce buffer");
        let end = (lead + len).min(reached as usize);
        contained(|| view.write_at(0, &bounce[lead.min(end)..end]))
    }
}

/// Copies what is to be written out of a packet; why not, where its bytes have gone or are not
/// made up.
#[cold]
pub(super) fn copy_out(view: &View<Write>, to: &mut [u8]) -> Result<(), ErrorKind> {
    let mut there = Err(Gone);
    if !contained(|| there = view.read_at(0, to)) {
        return Err(ErrorKind::Aborted);
    }
    there.map_err(|Gone| ErrorKind::Cancelled)
}

/// Copies from a packet or into it, which may call code of its own (`Source`, `Sink`). False
/// where that panics: it is the packet that fails, not those whose completions are at hand, nor
/// whoever turns the shard.
#[cold]
pub(super) fn contained(copy: impl FnOnce()) -> bool {
    let copied = catch_unwind(AssertUnwindSafe(copy));
    let fine = copied.is_ok();
    // What it has panicked with may panic when it is dropped.
    let _dropped = catch_unwind(AssertUnwindSafe(|| drop(copied)));
    fine
}
