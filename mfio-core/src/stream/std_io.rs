//! The streams as `std::io` knows them, for callers that block.
//!
//! Data flow: call → `block_on` the target → result. A write has been written when it returns.
//!
//! Not here: what is read and written (`cursor`); what other traits need too (`shim`).

use core::future::poll_fn;
use std::io::{self, SeekFrom};

use super::shim::{for_each_positioned, for_each_stream, seek_target};
use super::{Length, Seekable, SeekableRef, Sequential};
use crate::backend::{BackendBusy, IoBackend, block_on};
use crate::error::{Error, ErrorKind};
use crate::io::PacketIo;
use crate::packet::{Read, Write};

impl From<Error> for io::Error {
    /// Keeps the errno where there is one, and the error itself where there is none.
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::UnexpectedEof => io::ErrorKind::UnexpectedEof,
            ErrorKind::OutOfRange | ErrorKind::Misaligned => io::ErrorKind::InvalidInput,
            ErrorKind::NoSpace => io::ErrorKind::StorageFull,
            ErrorKind::Unsupported => io::ErrorKind::Unsupported,
            ErrorKind::Closed => io::ErrorKind::BrokenPipe,
            _ => io::ErrorKind::Other,
        };
        match error.errno().map(Self::from_raw_os_error) {
            // These two ask the caller to try again; the target has given up already.
            Some(os)
                if !matches!(os.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) =>
            {
                os
            }
            _ => Self::new(kind, error),
        }
    }
}

fn busy(busy: BackendBusy) -> io::Error {
    io::Error::new(io::ErrorKind::ResourceBusy, busy)
}

macro_rules! blocking {
    ([$($generics:tt)*] $stream:ty, $Io:ident, $At:ty) => {
        impl<$($generics)*> io::Read for $stream
        where
            $Io: PacketIo<Read, $At> + IoBackend,
        {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let Self { target, cursor } = self;
                let target: &$Io = target;
                let read = poll_fn(|cx| cursor.poll_read(target, cx, buffer));
                Ok(block_on(target, read).map_err(busy)??)
            }
        }

        impl<$($generics)*> io::Write for $stream
        where
            $Io: PacketIo<Write, $At> + IoBackend,
        {
            fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
                let Self { target, cursor } = self;
                let target: &$Io = target;
                Ok(block_on(target, cursor.write_through(target, buffer)).map_err(busy)??)
            }

            fn flush(&mut self) -> io::Result<()> {
                let Self { target, cursor } = self;
                let target: &$Io = target;
                let flush = poll_fn(|cx| cursor.poll_flush(cx));
                Ok(block_on(target, flush).map_err(busy)??)
            }
        }
    };
}

for_each_stream!(blocking);

macro_rules! seek {
    ([$($generics:tt)*] $stream:ty, $Io:ident) => {
        impl<$($generics)*> io::Seek for $stream
        where
            $Io: Length + IoBackend,
        {
            fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
                let Self { target, cursor } = self;
                let target: &$Io = target;
                if let SeekFrom::End(_) = to {
                    // The stream's own writes may move the end.
                    let written = poll_fn(|cx| cursor.poll_written(cx));
                    block_on(target, written).map_err(busy)?;
                }
                let position = seek_target(cursor.position(), || target.len_bytes(), to)?;
                cursor.set_position(position);
                Ok(position)
            }
        }
    };
}

for_each_positioned!(seek);
