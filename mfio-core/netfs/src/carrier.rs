//! What carries frames: any ordered, reliable stream of bytes that takes packets.
//!
//! Data flow: header and body → batch → carrier; data → carrier, from where it lies; and back.
//!
//! Not here: what frames mean (`wire`), when they are sent (`client`, `server`).

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use async_io::Timer;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::sync::atomic::{AtomicU64, Ordering};
use core::task::Poll;
use core::time::Duration;
use mfio_core::packet::{Buffer, Completed, Inline};
use mfio_core::{Error as ByteError, ErrorKind as ByteKind};
use mfio_core::{Fragment, Output, Packet, PacketIo, PacketIoExt, Read, Write};
use mfio_rt::Whole;

use crate::wire::{
    CHECKED, HEADER_BYTES, HELLO_BYTES, Header, Hello, Reason, Reply, WireError, frame,
};

/// A connection: what was sent first comes first. Every
/// [`StreamHandle`](mfio_rt::StreamHandle) is one.
pub trait Carrier: PacketIo<Read, ()> + PacketIo<Read, Whole> + PacketIo<Write, ()> {}

impl<C: PacketIo<Read, ()> + PacketIo<Read, Whole> + PacketIo<Write, ()>> Carrier for C {}

/// Why a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cut {
    /// The other side closed it.
    Ended,
    /// The carrier failed.
    Broken(ByteError),
    /// The other side broke the rules of the protocol.
    Wire(WireError),
    /// The other side said why.
    Goodbye(Reason),
    /// The other side said nothing for too long.
    Silent,
    /// The secrets are not the same, or only one side has one.
    Secret,
    /// Nobody needs it any more.
    Finished,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => f.write_str("the other side closed the connection"),
            Self::Broken(error) => write!(f, "the connection broke: {error}"),
            Self::Wire(error) => error.fmt(f),
            Self::Goodbye(reason) => reason.fmt(f),
            Self::Silent => f.write_str("the other side said nothing for too long"),
            Self::Secret => Reason::Secret.fmt(f),
            Self::Finished => f.write_str("the connection is not needed any more"),
        }
    }
}

impl core::error::Error for Cut {}

impl From<WireError> for Cut {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

/// What a read of the carrier ended with. The end of a stream inside a frame is never the end
/// of a file.
fn cut(error: ByteError) -> Cut {
    if error.kind() == ByteKind::UnexpectedEof { Cut::Ended } else { Cut::Broken(error) }
}

/// Counts what moves, a long packet's parts among it: a slow connection is none that is silent.
#[derive(Debug, Default)]
pub(crate) struct Progress(AtomicU64);

impl Progress {
    pub(crate) fn step(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Output for Progress {
    fn fragment(&self, fragment: Fragment) {
        if fragment.error.is_none() {
            self.step();
        }
    }
}

/// Fills `buffer` with what comes next, whole or not at all.
async fn receive<C, B>(carrier: &C, buffer: B) -> (Result<(), Cut>, B)
where
    C: Carrier + ?Sized,
    B: Buffer<Read>,
{
    let done = carrier.io(Whole, Packet::<Read, _>::new(buffer)).await;
    (done.result().map_err(cut), done.into_buffer())
}

/// Fills `buffer` behind its first `skip` bytes, which stay as they are and count as read.
pub(crate) async fn fill<Io, Param, B>(
    io: &Io,
    param: Param,
    buffer: B,
    skip: u64,
) -> Completed<Read, B>
where
    Io: PacketIo<Read, Param> + ?Sized,
    B: Buffer<Read>,
{
    fill_packet(io, param, Packet::new(buffer), skip).await
}

/// As `fill`, for a packet that somebody may hear of.
async fn fill_packet<Io, Param, B>(
    io: &Io,
    param: Param,
    packet: Packet<Read, B>,
    skip: u64,
) -> Completed<Read, B>
where
    Io: PacketIo<Read, Param> + ?Sized,
    B: Buffer<Read>,
{
    let (mut sent, view) = packet.send();
    let (before, view) = view.split_at(skip);
    before.filled();
    let mut unsent = Some((param, view));
    poll_fn(|cx| {
        while let Some((param, view)) = unsent.take() {
            if let Err(refused) = io.send_io(param, view) {
                unsent = Some((refused.param, refused.view));
                if io.poll_ready(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(())
    })
    .await;
    loop {
        poll_fn(|cx| sent.poll_done(cx)).await;
        match sent.into_completed() {
            Ok(done) => return done,
            Err(under_way) => sent = under_way,
        }
    }
}

/// The most that is read ahead.
const AHEAD_BYTES: usize = 64 << 10;
/// From this length on data is not read ahead, for it would be copied.
const LONG_BYTES: usize = 16 << 10;

/// Frames on their way in. Short ones are read together; of a long one only its first bytes are
/// copied.
pub(crate) struct Ingress<'c, C: ?Sized> {
    carrier: &'c C,
    checked: bool,
    /// What was read ahead: from `start` to `end`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Data is expected that had better not be copied.
    long: bool,
    progress: Arc<Progress>,
}

impl<'c, C: Carrier + ?Sized> Ingress<'c, C> {
    pub(crate) const fn new(carrier: &'c C, checked: bool, progress: Arc<Progress>) -> Self {
        Self { carrier, checked, buffer: Vec::new(), start: 0, end: 0, long: false, progress }
    }

    /// The next `len` bytes, which are a header or a body.
    async fn next(&mut self, len: usize) -> Result<&[u8], Cut> {
        while self.end - self.start < len {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            self.buffer.resize(if self.long { len } else { len.max(AHEAD_BYTES) }, 0);
            let buffer = core::mem::take(&mut self.buffer);
            let done = fill(self.carrier, (), buffer, self.end as u64).await;
            let end = usize::try_from(done.contiguous_bytes()).unwrap_or(self.end);
            let moved = end > self.end;
            self.end = end;
            if moved {
                self.progress.step();
            }
            let result = done.result();
            self.buffer = done.into_buffer();
            if !moved {
                result.map_err(cut)?;
            }
        }
        let at = self.start;
        self.start += len;
        Ok(&self.buffer[at..self.start])
    }

    pub(crate) async fn header(&mut self) -> Result<Header, Cut> {
        let checked = self.checked;
        let bytes = self.next(HEADER_BYTES).await?;
        let bytes: &[u8; HEADER_BYTES] = bytes.try_into().map_err(|_| WireError::Truncated)?;
        let header = header_of(bytes, checked)?;
        self.long = header.data_len as usize >= LONG_BYTES;
        Ok(header)
    }

    /// The body of the header before.
    pub(crate) async fn body(&mut self, header: &Header) -> Result<&[u8], Cut> {
        self.next(header.body_len as usize).await
    }

    /// Moves data that was read ahead; how many bytes that are.
    pub(crate) fn ahead(&mut self, to: &mut [u8]) -> u64 {
        let many = to.len().min(self.end - self.start);
        to[..many].copy_from_slice(&self.buffer[self.start..self.start + many]);
        self.start += many;
        many as u64
    }

    /// Fills `buffer`, whose first bytes were read ahead, with data, whole or not at all.
    pub(crate) async fn data<B: Buffer<Read>>(
        &self,
        buffer: B,
        ahead: u64,
    ) -> (Result<(), Cut>, B) {
        if ahead == buffer.byte_len() {
            return (Ok(()), buffer);
        }
        let mut packet = Packet::new(buffer);
        packet.set_output(Some(self.progress.clone()));
        let done = fill_packet(self.carrier, Whole, packet, ahead).await;
        (done.result().map_err(cut), done.into_buffer())
    }
}

/// The next bytes.
pub(crate) async fn receive_bytes<C: Carrier + ?Sized>(
    carrier: &C,
    len: u32,
) -> Result<Vec<u8>, Cut> {
    if len == 0 {
        return Ok(Vec::new());
    }
    let (result, bytes) = receive(carrier, vec![0; len as usize]).await;
    result.map(|()| bytes)
}

pub(crate) async fn receive_hello<C: Carrier + ?Sized>(carrier: &C) -> Result<Hello, Cut> {
    let bytes = receive_bytes(carrier, 64).await?;
    let bytes: [u8; HELLO_BYTES] = bytes.try_into().map_err(|_| WireError::Truncated)?;
    Ok(Hello::decode(&bytes)?)
}

pub(crate) async fn receive_header<C: Carrier + ?Sized>(
    carrier: &C,
    checked: bool,
) -> Result<Header, Cut> {
    let (result, bytes) = receive(carrier, Inline([0_u8; HEADER_BYTES])).await;
    result?;
    Ok(header_of(&bytes.0, checked)?)
}

fn header_of(bytes: &[u8; HEADER_BYTES], checked: bool) -> Result<Header, WireError> {
    let header = Header::decode(bytes)?;
    if (header.flags & CHECKED != 0) != checked {
        return Err(WireError::BadValue);
    }
    Ok(header)
}

/// CRC-32C of a frame.
fn checksum(header: &Header, body: &[u8], data: &[u8]) -> u32 {
    let bare = Header { checksum: 0, ..*header };
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&bare.encode()), body), data)
}

/// Whether a frame is as it was sent.
pub(crate) fn verify(header: &Header, body: &[u8], data: &[u8]) -> Result<(), WireError> {
    let checked = header.flags & CHECKED != 0;
    if checked && checksum(header, body, data) != header.checksum {
        return Err(WireError::Checksum);
    }
    Ok(())
}

/// A server's next frame, which is no data.
pub(crate) async fn receive_reply<C: Carrier + ?Sized>(
    carrier: &C,
    checked: bool,
) -> Result<Reply, Cut> {
    let header = receive_header(carrier, checked).await?;
    if header.data_len != 0 {
        return Err(WireError::Unasked.into());
    }
    let body = receive_bytes(carrier, header.body_len).await?;
    verify(&header, &body, &[])?;
    Ok(Reply::decode(header.kind, &body)?)
}

/// Bytes after which a batch is sent.
pub(crate) const BATCH_BYTES: usize = 64 << 10;

/// Frames on their way out, in order. Short ones go together.
pub(crate) struct Egress<'c, C: ?Sized> {
    carrier: &'c C,
    checked: bool,
    batch: Vec<u8>,
    progress: Option<Arc<Progress>>,
}

impl<'c, C: Carrier + ?Sized> Egress<'c, C> {
    pub(crate) const fn new(carrier: &'c C, checked: bool) -> Self {
        Self { carrier, checked, batch: Vec::new(), progress: None }
    }

    /// With a count of the parts of what is long. What is short is out, or is not.
    pub(crate) fn counted(self, progress: Arc<Progress>) -> Self {
        Self { progress: Some(progress), ..self }
    }

    /// The header of a frame.
    fn header(&self, about: &Head<'_>, data: &[u8]) -> Result<Header, Cut> {
        let mut header = frame(about.kind, about.id, about.body, data.len() as u64)?;
        header.place = about.place;
        if self.checked {
            header.flags |= CHECKED;
            header.checksum = checksum(&header, about.body, data);
        }
        Ok(header)
    }

    /// Writes the header of a frame without a body to the front of `data`, where there is room
    /// for it.
    pub(crate) fn head_into(&self, about: Head<'_>, data: &mut [u8]) -> Result<(), Cut> {
        debug_assert!(about.body.is_empty(), "there is room for the header alone");
        let (room, data) = data.split_first_chunk_mut().ok_or(WireError::Truncated)?;
        *room = self.header(&about, data)?.encode();
        Ok(())
    }

    /// Adds header and body, and says so of `data`, which must be sent next.
    pub(crate) fn push(&mut self, about: Head<'_>, data: &[u8]) -> Result<(), Cut> {
        let header = self.header(&about, data)?;
        self.batch.extend_from_slice(&header.encode());
        self.batch.extend_from_slice(about.body);
        Ok(())
    }

    /// Adds data as a copy: it is short, or has no address.
    pub(crate) fn push_copy(&mut self, data: &[u8]) {
        self.batch.extend_from_slice(data);
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.batch.extend_from_slice(bytes);
    }

    pub(crate) const fn is_full(&self) -> bool {
        self.batch.len() >= BATCH_BYTES
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Sends what has been added.
    pub(crate) async fn flush(&mut self) -> Result<(), Cut> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = core::mem::take(&mut self.batch);
        let (result, mut batch) = self.send(batch).await;
        batch.clear();
        if batch.capacity() <= 4 * BATCH_BYTES {
            self.batch = batch;
        }
        result
    }

    /// Sends data from where it lies, after everything that was added.
    pub(crate) async fn send<B: Buffer<Write>>(&self, data: B) -> (Result<(), Cut>, B) {
        let long = data.byte_len() >= LONG_BYTES as u64;
        let mut packet = Packet::<Write, _>::new(data);
        if let Some(progress) = self.progress.as_ref().filter(|_| long) {
            packet.set_output(Some(progress.clone()));
        }
        let done = self.carrier.io((), packet).await;
        (done.result().map_err(Cut::Broken), done.into_buffer())
    }
}

/// A frame but for its data.
pub(crate) struct Head<'a> {
    pub(crate) kind: u8,
    pub(crate) id: u64,
    pub(crate) place: u64,
    pub(crate) body: &'a [u8],
}

/// The result of `work`, or `None` if it takes longer than `limit`.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let (mut work, mut timer) = (pin!(work), Timer::after(limit));
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        pin!(&mut timer).poll(cx).map(|_| None)
    })
    .await
}
