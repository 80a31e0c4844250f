//! Streams from the outside: positions, cancellation, errors that stay errors.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::cell::{Cell, RefCell};
use std::io::{self, Read as _, Seek, SeekFrom, Write as _};
use std::num::NonZeroUsize;
use std::task::{Context, Poll, Waker};

use mfio_core::mem::Mem;
use mfio_core::stream::{Length, Limits, ReadToEnd, Seekable, SeekableRef, Sequential};
use mfio_core::{
    BackendBusy, BackendHandle, Error, ErrorKind, IoBackend, PacketIo, Read, Refused, View, Write,
    block_on,
};

/// A target of known length that completes when driven.
fn driven(bytes: Vec<u8>) -> Mem {
    Mem::polled(bytes, 4)
}

/// Keeps what it is sent, so that a test decides when and how it ends.
#[derive(Default)]
struct Keeper {
    reads: RefCell<Vec<(u64, View<Read>)>>,
    writes: RefCell<Vec<(u64, View<Write>)>>,
    full: Cell<bool>,
}

impl PacketIo<Read, u64> for Keeper {
    fn send_io(&self, at: u64, view: View<Read>) -> Result<(), Refused<Read>> {
        self.reads.borrow_mut().push((at, view));
        Ok(())
    }
}

impl PacketIo<Write, u64> for Keeper {
    fn send_io(&self, param: u64, view: View<Write>) -> Result<(), Refused<Write>> {
        if self.full.get() {
            return Err(Refused { param, view });
        }
        self.writes.borrow_mut().push((param, view));
        Ok(())
    }

    fn poll_ready(&self, _cx: &mut Context<'_>) -> Poll<()> {
        if self.full.get() { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl PacketIo<Read, ()> for Keeper {
    fn send_io(&self, param: (), view: View<Read>) -> Result<(), Refused<Read, ()>> {
        self.reads.borrow_mut().push((0, view));
        let () = param;
        Ok(())
    }
}

impl PacketIo<Write, ()> for Keeper {
    fn send_io(&self, (): (), view: View<Write>) -> Result<(), Refused<Write, ()>> {
        self.writes.borrow_mut().push((0, view));
        Ok(())
    }
}

impl IoBackend for Keeper {
    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        Ok(None)
    }
}

impl Length for Keeper {
    fn len_bytes(&self) -> Option<u64> {
        None
    }
}

/// Fails everything, as a write-only handle fails reads.
struct Failing(Error);

impl PacketIo<Read, u64> for Failing {
    fn send_io(&self, _at: u64, view: View<Read>) -> Result<(), Refused<Read>> {
        view.fail(self.0);
        Ok(())
    }
}

impl PacketIo<Write, u64> for Failing {
    fn send_io(&self, _at: u64, view: View<Write>) -> Result<(), Refused<Write>> {
        view.fail(self.0);
        Ok(())
    }
}

impl IoBackend for Failing {
    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        Ok(None)
    }
}

const EBADF: i32 = 9;

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn ready<T: std::fmt::Debug>(poll: Poll<T>) -> T {
    match poll {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("pending"),
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

/// C18: neither truncated to what was allocated before, nor asked for ever.
#[test]
fn c18_read_to_end_returns_all_there_is_whatever_the_length() {
    let lens = [0, 1, 64, 4095, 4096, 4097, 8192, 12_288, 100_000, 3 << 20];
    let few = if cfg!(miri) { 6 } else { lens.len() };
    for &len in &lens[..few] {
        let bytes = pattern(len);
        for target in [Mem::from(bytes.clone()), Mem::polled(bytes.clone(), 1)] {
            let (result, read) = block_on(&target, target.read_to_end(0)).unwrap();
            assert_eq!(result, Ok(len as u64));
            assert!(read == bytes, "{len}");
            let (result, read) = block_on(&target, target.read_to_end(50)).unwrap();
            assert_eq!(result, Ok(read.len() as u64));
            assert!(read == bytes[50.min(len)..], "{len}");
        }
    }
}

#[test]
fn c18_read_to_end_grows_geometrically_and_stops_at_the_last_offset() {
    struct Endless(RefCell<Vec<u64>>);
    impl PacketIo<Read, u64> for Endless {
        fn send_io(&self, _at: u64, view: View<Read>) -> Result<(), Refused<Read>> {
            self.0.borrow_mut().push(view.len());
            view.filled();
            Ok(())
        }
    }
    let target = Endless(RefCell::default());
    let none = Mem::default();
    let (result, _) = block_on(&none, target.read_to_end(u64::MAX - 20_000)).unwrap();
    assert_eq!(result, Ok(20_000));
    assert_eq!(*target.0.borrow(), [4096, 4096, 8192, 3616]);
    assert_eq!(block_on(&none, target.read_to_end(u64::MAX)).unwrap().0, Ok(0));
}

/// C19: an error is an error, in every way to read.
#[test]
fn c19_reading_a_write_only_target_is_an_error_and_not_the_end() {
    let target = Failing(Error::os(EBADF));
    let (result, bytes) = block_on(&target, target.read_to_end(0)).unwrap();
    assert_eq!((result, bytes.len()), (Err(Error::os(EBADF)), 0));

    let mut stream = SeekableRef::new(&target);
    let mut buffer = [0; 8];
    assert_eq!(ready(stream.poll_read(&mut cx(), &mut buffer)), Err(Error::os(EBADF)));
    let error = io::Read::read(&mut stream, &mut buffer).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(EBADF));
    assert!(stream.read_to_end(&mut Vec::new()).is_err());
    assert_eq!(stream.position(), 0);
    assert!(io::Write::write(&mut stream, b"x").is_err());
    assert_eq!(stream.position(), 0);
}

#[test]
fn error_behind_some_bytes_comes_after_the_bytes() {
    let keeper = Keeper::default();
    let mut stream = Sequential::new(keeper);
    let mut buffer = [0; 8];
    assert!(stream.poll_read(&mut cx(), &mut buffer).is_pending());
    let (_, view) = stream.get_ref().reads.borrow_mut().pop().unwrap();
    view.fill_from(b"abc").unwrap().fail(Error::os(EBADF));
    assert_eq!(ready(stream.poll_read(&mut cx(), &mut buffer[..2])), Ok(2));
    assert_eq!(ready(stream.poll_read(&mut cx(), &mut buffer[2..])), Ok(1));
    assert_eq!(&buffer[..3], b"abc");
    assert_eq!(ready(stream.poll_read(&mut cx(), &mut buffer)), Err(Error::os(EBADF)));
    // A short read is not the end; nothing at all is.
    assert!(stream.poll_read(&mut cx(), &mut buffer).is_pending());
    let (_, view) = stream.get_ref().reads.borrow_mut().pop().unwrap();
    view.fill_from(b"d").unwrap().fail(ErrorKind::UnexpectedEof);
    assert_eq!(ready(stream.poll_read(&mut cx(), &mut buffer)), Ok(1));
    assert!(stream.poll_read(&mut cx(), &mut buffer).is_pending());
    stream.get_ref().reads.borrow_mut().pop().unwrap().1.fail(ErrorKind::UnexpectedEof);
    assert_eq!(ready(stream.poll_read(&mut cx(), &mut buffer)), Ok(0));
}

#[test]
fn bytes_of_a_cancelled_read_go_to_the_next_reader_and_never_more_than_asked() {
    let mut stream = Seekable::new(Keeper::default());
    let mut large = [0; 6];
    assert!(stream.poll_read(&mut cx(), &mut large).is_pending());
    // That reader leaves; the next asks for less, twice.
    let (at, view) = stream.get_ref().reads.borrow_mut().pop().unwrap();
    assert_eq!((at, view.len()), (0, 6));
    view.fill_from(b"packet");
    let mut small = [0; 4];
    assert_eq!(ready(stream.poll_read(&mut cx(), &mut small)), Ok(4));
    assert_eq!((&small, stream.position()), (b"pack", 4));
    assert_eq!(ready(stream.poll_read(&mut cx(), &mut small)), Ok(2));
    assert_eq!((&small[..2], stream.position()), (&b"et"[..], 6));
    assert_eq!(stream.get_ref().reads.borrow().len(), 0);
}

#[test]
fn pending_read_is_forgotten_by_a_seek_and_its_bytes_show_nowhere() {
    let mut stream = Seekable::new(Keeper::default());
    let mut buffer = [0; 4];
    assert!(stream.poll_read(&mut cx(), &mut buffer).is_pending());
    stream.set_position(100);
    assert!(stream.poll_read(&mut cx(), &mut buffer).is_pending());
    let (_, old) = stream.get_ref().reads.borrow_mut().pop().unwrap();
    old.fill_from(b"old!");
    assert!(stream.poll_read(&mut cx(), &mut buffer).is_pending());
    let (at, new) = stream.get_ref().reads.borrow_mut().pop().unwrap();
    assert_eq!(at, 100);
    new.fill_from(b"new!");
    assert_eq!(ready(stream.poll_read(&mut cx(), &mut buffer)), Ok(4));
    assert_eq!(&buffer, b"new!");
}

#[test]
fn flush_waits_for_writes_in_flight_and_reports_their_error_once() {
    let mut stream = Seekable::new(Keeper::default());
    assert_eq!(ready(stream.poll_write(&mut cx(), b"ab")), Ok(2));
    assert_eq!(ready(stream.poll_write(&mut cx(), b"cd")), Ok(2));
    assert!(stream.poll_flush(&mut cx()).is_pending());
    let writes = stream.get_ref().writes.take();
    assert_eq!(writes.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 2]);
    for (at, view) in writes {
        if at == 0 { view.fail(ErrorKind::NoSpace) } else { view.written() }
    }
    assert_eq!(ready(stream.poll_flush(&mut cx())), Err(ErrorKind::NoSpace.into()));
    assert_eq!(ready(stream.poll_flush(&mut cx())), Ok(()));
}

#[test]
fn writes_are_bounded_and_a_full_target_accepts_nothing() {
    let two = NonZeroUsize::new(2).unwrap();
    let limits = Limits { transfer_bytes_max: two, writes_in_flight_max: two };
    let mut stream = Seekable::with_limits(Keeper::default(), limits);
    stream.get_ref().full.set(true);
    assert!(stream.poll_write(&mut cx(), b"abcde").is_pending());
    stream.get_ref().full.set(false);
    assert_eq!(ready(stream.poll_write(&mut cx(), b"ABCDE")), Ok(2));
    assert_eq!(ready(stream.poll_write(&mut cx(), b"CDE")), Ok(2));
    assert!(stream.poll_write(&mut cx(), b"E").is_pending());
    let (_, view) = stream.get_ref().writes.borrow_mut().remove(0);
    let mut bytes = [0; 2];
    view.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"AB");
    view.written();
    assert_eq!(ready(stream.poll_write(&mut cx(), b"E")), Ok(1));
    // After a seek a write might overlap: it waits for all others.
    stream.set_position(0);
    assert!(stream.poll_write(&mut cx(), b"x").is_pending());
    for (_, view) in stream.get_ref().writes.take() {
        view.written();
    }
    assert_eq!(ready(stream.poll_write(&mut cx(), b"x")), Ok(1));

    let mut last = Seekable::new(Keeper::default());
    last.set_position(u64::MAX - 1);
    assert_eq!(ready(last.poll_write(&mut cx(), b"xy")), Ok(1));
    let error = Err(ErrorKind::OutOfRange.into());
    assert_eq!(ready(last.poll_write(&mut cx(), b"y")), error);
    assert_eq!(ready(last.poll_read(&mut cx(), &mut [0; 2])), Ok(0));
}

#[test]
fn write_without_offsets_follows_the_one_before_or_none() {
    let mut stream = Sequential::new(Keeper::default());
    assert_eq!(ready(stream.poll_write(&mut cx(), b"ab")), Ok(2));
    assert!(stream.poll_write(&mut cx(), b"cd").is_pending());
    stream.get_ref().writes.borrow_mut().pop().unwrap().1.fail(Error::os(EBADF));
    assert_eq!(ready(stream.poll_write(&mut cx(), b"cd")), Err(Error::os(EBADF)));
}

/// C21: whatever knows its backend can be read by `std::io`.
#[test]
fn c21_blocking_std_io_works_on_any_target_that_knows_its_backend() {
    let mut stream = Seekable::new(driven(vec![0; 16]));
    stream.write_all(&pattern(16)).unwrap();
    stream.flush().unwrap();
    // Beyond the end: the part that fits is written, then it is an error.
    assert_eq!(stream.seek(SeekFrom::End(-3)).unwrap(), 13);
    assert_eq!(stream.write(b"wxyz").unwrap(), 3);
    assert_eq!(stream.position(), 16);
    assert_eq!(stream.write(b"z").unwrap_err().kind(), io::ErrorKind::InvalidInput);
    stream.rewind().unwrap();
    let mut all = Vec::new();
    assert_eq!(stream.read_to_end(&mut all).unwrap(), 16);
    assert_eq!((&all[..13], &all[13..]), (&pattern(13)[..], &b"wxy"[..]));
    assert_eq!(stream.seek(SeekFrom::Current(-20)).unwrap_err().kind(), {
        io::ErrorKind::InvalidInput
    });
    assert_eq!(stream.position(), 16);
    assert_eq!(stream.into_inner().snapshot(), all);
}

#[test]
fn end_of_memory_is_known_to_whoever_seeks_it_and_to_whoever_reads_to_it() {
    for target in [Mem::from(pattern(100)), Mem::polled(pattern(100), 1)] {
        assert_eq!(target.len_bytes(), Some(100));
        let mut stream = SeekableRef::new(&target);
        assert_eq!(stream.seek(SeekFrom::End(0)).unwrap(), 100);
        assert_eq!(stream.read(&mut [0; 4]).unwrap(), 0);
        assert_eq!(stream.seek(SeekFrom::End(-30)).unwrap(), 70);
        let mut tail = Vec::new();
        assert_eq!(stream.read_to_end(&mut tail).unwrap(), 30);
        let (result, read) = block_on(&target, target.read_to_end(70)).unwrap();
        assert_eq!((result, &read), (Ok(30), &tail));
        assert_eq!(tail, pattern(100)[70..]);
        assert!(stream.seek(SeekFrom::End(-101)).is_err());
    }
    assert_eq!(Mem::default().len_bytes(), Some(0));
}

#[test]
fn seek_to_the_end_of_a_target_without_length_is_unsupported() {
    let mut stream = Seekable::new(Keeper::default());
    assert_eq!(stream.seek(SeekFrom::Start(7)).unwrap(), 7);
    assert_eq!(stream.seek(SeekFrom::Current(2)).unwrap(), 9);
    let error = stream.seek(SeekFrom::End(0)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
}

#[test]
fn blocking_read_inside_a_task_of_the_same_backend_is_an_error() {
    let target = driven(vec![0; 16]);
    let error = block_on(&target, async {
        io::Read::read(&mut SeekableRef::new(&target), &mut [0; 4]).unwrap_err()
    });
    assert_eq!(error.unwrap().kind(), io::ErrorKind::ResourceBusy);
}

#[test]
fn error_that_says_try_again_does_not_reach_code_that_would() {
    for errno in [4, 11] {
        let error = io::Error::from(Error::os(errno));
        assert_eq!(error.kind(), io::ErrorKind::Other);
        assert!(error.to_string().contains(&errno.to_string()));
    }
}

#[cfg(feature = "futures")]
#[test]
fn futures_traits_read_write_and_seek() {
    use futures_io::{AsyncRead, AsyncSeek, AsyncWrite};
    use std::future::poll_fn;
    use std::pin::Pin;
    let target = driven(vec![0; 8]);
    let mut stream = SeekableRef::new(&target);
    let run = async {
        let mut pin = Pin::new(&mut stream);
        assert_eq!(poll_fn(|cx| AsyncWrite::poll_write(pin.as_mut(), cx, b"packets!")).await?, 8);
        poll_fn(|cx| AsyncWrite::poll_close(pin.as_mut(), cx)).await?;
        let end = SeekFrom::End(-1);
        assert_eq!(poll_fn(|cx| AsyncSeek::poll_seek(pin.as_mut(), cx, end)).await?, 7);
        let mut last = [0; 4];
        assert_eq!(poll_fn(|cx| AsyncRead::poll_read(pin.as_mut(), cx, &mut last)).await?, 1);
        assert_eq!(last[0], b'!');
        poll_fn(|cx| AsyncRead::poll_read(pin.as_mut(), cx, &mut last)).await
    };
    assert_eq!(block_on(&target, run).unwrap().unwrap(), 0);
}

#[cfg(feature = "tokio")]
#[test]
fn tokio_traits_read_write_and_seek() {
    use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
    let target = driven(vec![0; 5000]);
    let bytes = pattern(5000);
    let mut stream = SeekableRef::new(&target);
    let run = async {
        AsyncWriteExt::write_all(&mut stream, &bytes).await?;
        AsyncWriteExt::flush(&mut stream).await?;
        assert_eq!(AsyncSeekExt::seek(&mut stream, SeekFrom::End(-10)).await?, 4990);
        let mut tail = Vec::new();
        AsyncReadExt::read_to_end(&mut stream, &mut tail).await?;
        assert_eq!(tail, bytes[4990..]);
        AsyncSeekExt::rewind(&mut stream).await?;
        let mut all = Vec::new();
        AsyncReadExt::read_to_end(&mut stream, &mut all).await?;
        assert_eq!(all, bytes);
        // What does not fit is an error at the next flush.
        AsyncWriteExt::write_all(&mut stream, b"x").await?;
        AsyncWriteExt::shutdown(&mut stream).await
    };
    let end = block_on(&target, run).unwrap().unwrap_err();
    assert_eq!(end.kind(), io::ErrorKind::InvalidInput);
}
