//! File handles of a client.
//!
//! Data flow: packet → queue of the connection; operation → request → reply.
//!
//! Not here: how bytes get to and from the connection (`session`).

use alloc::sync::Arc;
use alloc::vec;
use core::fmt;
use core::task::{Context, Poll};

use mfio_core::{BackendBusy, BackendHandle, IoBackend};
use mfio_core::{PacketId, PacketIo, Read, Refused, View, Write};
use mfio_rt::{Allocate, Error, FileHandle, LockKind, Metadata, Op, SyncLevel, Times};

use super::pending::{ask, strange};
use super::shared::{Opened, Transfer, Way};
use crate::wire::{Reply, Request};

/// An open file at the server. It stays that file: after a reconnect it fails with `ESTALE`.
pub struct NetFile(pub(super) Arc<Opened>);

macro_rules! packet_io {
    ($perms:ident) => {
        impl PacketIo<$perms, u64> for NetFile {
            fn send_io(&self, param: u64, view: View<$perms>) -> Result<(), Refused<$perms>> {
                let (file, way) = (Arc::clone(&self.0), Way::$perms(view));
                match self.0.user.shared.send(Transfer { file, at: param, way }) {
                    Err(Transfer { way: Way::$perms(view), .. }) => Err(Refused { param, view }),
                    _ => Ok(()),
                }
            }

            fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
                self.0.user.shared.poll_room(cx)
            }

            fn reserve(&self, views: usize) -> bool {
                self.0.user.shared.reserve(views)
            }

            fn release(&self, views: usize) {
                self.0.user.shared.release(views);
            }

            fn abandon(&self, packet: PacketId) {
                self.0.user.shared.abandon(packet);
            }
        }
    };
}

packet_io!(Read);
packet_io!(Write);

impl NetFile {
    async fn ask(&self, request: Request, op: Op) -> Result<Reply, Error> {
        ask(request, op, vec![Arc::clone(&self.0)]).await
    }

    async fn done(&self, request: Request, op: Op) -> Result<(), Error> {
        match self.ask(request, op).await? {
            Reply::Done {} => Ok(()),
            _ => Err(strange(op)),
        }
    }

    fn number(&self) -> u64 {
        self.0.number
    }
}

impl FileHandle for NetFile {
    async fn metadata(&self) -> Result<Metadata, Error> {
        match self.ask(Request::FileMetadata { file: self.number() }, Op::Metadata).await? {
            Reply::Facts { facts } => Ok(facts),
            _ => Err(strange(Op::Metadata)),
        }
    }

    async fn sync(&self, level: SyncLevel) -> Result<(), Error> {
        self.done(Request::SyncFile { file: self.number(), level }, Op::Sync).await
    }

    async fn set_len(&self, len: u64) -> Result<(), Error> {
        self.done(Request::SetLen { file: self.number(), len }, Op::SetLen).await
    }

    async fn allocate(&self, at: u64, len: u64, how: Allocate) -> Result<(), Error> {
        self.done(Request::Allocate { file: self.number(), at, len, how }, Op::Allocate).await
    }

    async fn set_permissions(&self, mode: u32) -> Result<(), Error> {
        let request = Request::SetFilePermissions { file: self.number(), mode };
        self.done(request, Op::SetPermissions).await
    }

    async fn set_times(&self, times: Times) -> Result<(), Error> {
        times.check()?;
        self.done(Request::SetFileTimes { file: self.number(), times }, Op::SetTimes).await
    }

    async fn try_lock(&self, kind: LockKind) -> Result<(), Error> {
        self.done(Request::Lock { file: self.number(), kind, wait: false }, Op::Lock).await
    }

    async fn lock(&self, kind: LockKind) -> Result<(), Error> {
        self.done(Request::Lock { file: self.number(), kind, wait: true }, Op::Lock).await
    }

    async fn unlock(&self) -> Result<(), Error> {
        self.done(Request::Unlock { file: self.number() }, Op::Lock).await
    }
}

impl IoBackend for NetFile {
    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        self.0.user.get_backend()
    }
}

impl fmt::Debug for NetFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetFile({})", self.0.number)
    }
}
