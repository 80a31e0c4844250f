//! What every stream is inside: at most one read, a bounded number of writes, and a place.
//!
//! Data flow: read: place → packet → own buffer → caller's slice, now or later. Write: caller's
//! slice → own buffer → packet → result, kept until somebody asks.
//!
//! Not here: the target, which every call is given, and the standard traits.

use alloc::vec::Vec;
use core::mem;
use core::task::{Context, Poll, ready};

use super::Limits;
use crate::error::{Error, ErrorKind};
use crate::io::PacketIo;
#[cfg(feature = "std")]
use crate::io::PacketIoExt;
use crate::packet::{Completed, CompletionQueue, Packet, Read, Write};

/// Where in a target: a byte offset, or simply what comes next.
pub(super) trait Place: Copy {
    /// Whether reads and writes are of the same bytes: a read then waits for the writes.
    const ADDRESSED: bool;

    /// How many bytes there can be from here on.
    fn room(self) -> u64;

    /// The place that many bytes further, which is at most `room`.
    fn after(self, bytes: u64) -> Self;
}

impl Place for u64 {
    const ADDRESSED: bool = true;

    fn room(self) -> u64 {
        Self::MAX - self
    }

    fn after(self, bytes: u64) -> Self {
        self.saturating_add(bytes)
    }
}

impl Place for () {
    const ADDRESSED: bool = false;

    fn room(self) -> u64 {
        u64::MAX
    }

    fn after(self, _bytes: u64) -> Self {}
}

pub(super) struct Cursor<At> {
    at: At,
    limits: Limits,
    reading: Reading,
    /// At most one packet: a read that was forgotten is waited for before the next is sent.
    reads: CompletionQueue<Read, Vec<u8>>,
    read_spare: Vec<u8>,
    writes: CompletionQueue<Write, Vec<u8>>,
    write_spare: Vec<u8>,
    /// Of the writes since it was last asked for.
    write_error: Option<Error>,
    /// The next write may overlap those under way, so it waits for them.
    write_waits: bool,
    #[cfg(feature = "tokio")]
    pub(super) seeking: Option<std::io::SeekFrom>,
}

enum Reading {
    Idle,
    /// The packet in `reads` is for whoever reads next.
    InFlight,
    /// Bytes from the current place on that nobody has fetched yet, then perhaps an error.
    Arrived {
        buffer: Vec<u8>,
        from: usize,
        to: usize,
        error: Option<Error>,
    },
}

impl<At: Place> Cursor<At> {
    pub(super) fn new(at: At, limits: Limits) -> Self {
        Self {
            at,
            limits,
            reading: Reading::Idle,
            reads: CompletionQueue::new(),
            read_spare: Vec::new(),
            writes: CompletionQueue::new(),
            write_spare: Vec::new(),
            write_error: None,
            write_waits: false,
            #[cfg(feature = "tokio")]
            seeking: None,
        }
    }

    /// How many of `len` bytes go into one packet from here.
    fn clip(&self, len: usize) -> usize {
        let room = usize::try_from(self.at.room()).unwrap_or(usize::MAX);
        len.min(self.limits.transfer_bytes_max.get()).min(room)
    }

    pub(super) fn poll_read<Io>(
        &mut self,
        io: &Io,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<Result<usize, Error>>
    where
        Io: PacketIo<Read, At> + ?Sized,
    {
        let asked = self.clip(into.len());
        if asked == 0 {
            return Poll::Ready(Ok(0));
        }
        if At::ADDRESSED {
            ready!(self.poll_written(cx));
        }
        loop {
            match mem::replace(&mut self.reading, Reading::Idle) {
                Reading::Idle => {
                    // One that was forgotten.
                    while let Some((_, done)) = ready!(self.reads.poll_pop(cx)) {
                        self.read_spare = done.into_buffer();
                    }
                    ready!(self.poll_send_read(io, cx, asked));
                    self.reading = Reading::InFlight;
                }
                Reading::InFlight => match self.reads.poll_pop(cx) {
                    Poll::Pending => {
                        self.reading = Reading::InFlight;
                        return Poll::Pending;
                    }
                    Poll::Ready(None) => {}
                    Poll::Ready(Some((_, done))) => {
                        if let Some(nothing) = self.arrive(done) {
                            return Poll::Ready(nothing);
                        }
                    }
                },
                Reading::Arrived { buffer, from, to, error } => {
                    return Poll::Ready(self.fetch(into, buffer, from..to, error));
                }
            }
        }
    }

    /// Sends a read of `asked` bytes, once there is room for it.
    fn poll_send_read<Io>(&mut self, io: &Io, cx: &mut Context<'_>, asked: usize) -> Poll<()>
    where
        Io: PacketIo<Read, At> + ?Sized,
    {
        loop {
            ready!(io.poll_ready(cx));
            let mut buffer = mem::take(&mut self.read_spare);
            buffer.resize(asked, 0);
            match self.reads.send(io, self.at, Packet::new(buffer), 0) {
                Ok(()) => return Poll::Ready(()),
                Err(unsent) => self.read_spare = unsent.packet.into_buffer(),
            }
        }
    }

    /// Keeps what a read has brought; where that is nothing, says why.
    fn arrive(&mut self, done: Completed<Read, Vec<u8>>) -> Option<Result<usize, Error>> {
        let error = done.error().filter(|error| error.kind() != ErrorKind::UnexpectedEof);
        let to = usize::try_from(done.contiguous_bytes()).unwrap_or(usize::MAX);
        let buffer = done.into_buffer();
        if to == 0 {
            self.read_spare = buffer;
            return Some(error.map_or(Ok(0), Err));
        }
        self.reading = Reading::Arrived { to: to.min(buffer.len()), buffer, from: 0, error };
        None
    }

    /// Hands out what has arrived, and then the error behind it.
    fn fetch(
        &mut self,
        into: &mut [u8],
        buffer: Vec<u8>,
        arrived: core::ops::Range<usize>,
        error: Option<Error>,
    ) -> Result<usize, Error> {
        let len = arrived.len().min(into.len());
        let from = arrived.start + len;
        into[..len].copy_from_slice(&buffer[arrived.start..from]);
        self.at = self.at.after(len as u64);
        // An error with an address shows again when its bytes are read; one without would not.
        let error = error.filter(|_| !At::ADDRESSED);
        if len > 0 && (from < arrived.end || error.is_some()) {
            self.reading = Reading::Arrived { buffer, from, to: arrived.end, error };
            return Ok(len);
        }
        self.read_spare = buffer;
        if len > 0 { Ok(len) } else { error.map_or(Ok(0), Err) }
    }

    pub(super) fn poll_write<Io>(
        &mut self,
        io: &Io,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<Result<usize, Error>>
    where
        Io: PacketIo<Write, At> + ?Sized,
    {
        if from.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let most = if At::ADDRESSED { self.limits.writes_in_flight_max.get() } else { 1 };
        while let Some((_, done)) = self.writes.pop() {
            self.note(done);
        }
        if mem::take(&mut self.write_waits) && self.poll_written(cx).is_pending() {
            self.write_waits = true;
            return Poll::Pending;
        }
        while self.writes.in_flight() >= most {
            let Some((_, done)) = ready!(self.writes.poll_pop(cx)) else { break };
            self.note(done);
        }
        if let Some(error) = self.write_error.take() {
            return Poll::Ready(Err(error));
        }
        let len = self.clip(from.len());
        if len == 0 {
            return Poll::Ready(Err(Error::new(ErrorKind::OutOfRange)));
        }
        loop {
            ready!(io.poll_ready(cx));
            let packet = self.packet_of(&from[..len]);
            match self.writes.send(io, self.at, packet, 0) {
                Ok(()) => break,
                Err(unsent) => self.write_spare = unsent.packet.into_buffer(),
            }
        }
        self.advance_written(len);
        Poll::Ready(Ok(len))
    }

    fn packet_of(&mut self, bytes: &[u8]) -> Packet<Write, Vec<u8>> {
        let mut buffer = mem::take(&mut self.write_spare);
        buffer.clear();
        buffer.extend_from_slice(bytes);
        Packet::new(buffer)
    }

    fn advance_written(&mut self, len: usize) {
        self.at = self.at.after(len as u64);
        if At::ADDRESSED {
            // What was read for the old place is not what is at the new one.
            self.reading = Reading::Idle;
        }
    }

    fn note(&mut self, done: Completed<Write, Vec<u8>>) {
        self.write_error = self.write_error.or(done.error());
        self.write_spare = done.into_buffer();
    }

    /// Ready when no write is under way. Their errors are kept.
    pub(super) fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some((_, done)) = ready!(self.writes.poll_pop(cx)) {
            self.note(done);
        }
        Poll::Ready(())
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        ready!(self.poll_written(cx));
        Poll::Ready(self.write_error.take().map_or(Ok(()), Err))
    }

    /// Writes and waits for it: what is returned has been written, and an error means nothing.
    #[cfg(feature = "std")]
    pub(super) async fn write_through<Io>(&mut self, io: &Io, from: &[u8]) -> Result<usize, Error>
    where
        Io: PacketIo<Write, At> + ?Sized,
    {
        core::future::poll_fn(|cx| self.poll_flush(cx)).await?;
        let len = self.clip(from.len());
        if from.is_empty() {
            return Ok(0);
        }
        if len == 0 {
            return Err(Error::new(ErrorKind::OutOfRange));
        }
        let done = io.io(self.at, self.packet_of(&from[..len])).await;
        let written = usize::try_from(done.contiguous_bytes()).unwrap_or(usize::MAX).min(len);
        let error = done.error();
        self.write_spare = done.into_buffer();
        if let (0, Some(error)) = (written, error) {
            return Err(error);
        }
        self.advance_written(written);
        // Without offsets the next write would be another place, so the error is kept for it.
        self.write_error = error.filter(|_| !At::ADDRESSED);
        Ok(written)
    }
}

impl Cursor<u64> {
    pub(super) fn position(&self) -> u64 {
        self.at
    }

    pub(super) fn set_position(&mut self, position: u64) {
        if position != self.at {
            self.at = position;
            self.reading = Reading::Idle;
            self.write_waits = true;
        }
    }
}
