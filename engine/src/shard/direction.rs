//! What differs between reading and writing, for code that is the same for both.
//!
//! Data flow: view of a direction → the shard's words for it.
//!
//! Not here: that code (`issue`, `straight`).

use std::mem::ManuallyDrop;

use mfio_core::{Error, Lent, Perms, Read, View, Write};

use super::barrier::Epoch;
use super::body::{Body, copy_out};
use super::core::Ending;
use super::lone::{LoneWay, Staged};
use super::slot::State;
use crate::buffer::ArenaBuf;
use crate::ring::OpKind;

/// What differs between reading and writing.
pub(super) trait Direction: Perms {
    const KIND: OpKind;
    const IS_READ: bool;
    fn lent(lent: Lent<Self>) -> Body
    where
        Self: Sized;
    /// A plain op in its slot; a write was accepted in `epoch`.
    fn short(lent: ManuallyDrop<Lent<Self>>, epoch: Epoch) -> State
    where
        Self: Sized;
    /// An op that is alone, and kept for the next turn.
    fn staged(staged: Staged<Self>) -> LoneWay
    where
        Self: Sized;
    /// Takes the view's bytes into the bounce buffer, if they go that way.
    fn bounced(view: View<Self>, bounce: &mut ArenaBuf) -> Result<Body, Ending>
    where
        Self: Sized;
    fn failed(view: View<Self>, error: Error) -> Ending
    where
        Self: Sized;
    /// The view as it is, to be completed by [`Body::finish`].
    fn plain(view: View<Self>) -> Body
    where
        Self: Sized;
}

impl Direction for Read {
    const KIND: OpKind = OpKind::Read;
    const IS_READ: bool = true;

    #[inline]
    fn lent(lent: Lent<Self>) -> Body {
        Body::ReadInto(lent)
    }

    #[inline(always)]
    fn short(lent: ManuallyDrop<Lent<Self>>, _epoch: Epoch) -> State {
        State::Read(lent)
    }

    #[inline(always)]
    fn staged(staged: Staged<Self>) -> LoneWay {
        LoneWay::Read(staged)
    }

    fn bounced(view: View<Self>, _bounce: &mut ArenaBuf) -> Result<Body, Ending> {
        Ok(Body::BouncedRead(view))
    }

    fn failed(view: View<Self>, error: Error) -> Ending {
        Ending::FailedRead(view, error)
    }

    fn plain(view: View<Self>) -> Body {
        Body::BouncedRead(view)
    }
}

impl Direction for Write {
    const KIND: OpKind = OpKind::Write;
    const IS_READ: bool = false;

    #[inline]
    fn lent(lent: Lent<Self>) -> Body {
        Body::WriteFrom(lent)
    }

    #[inline(always)]
    fn short(lent: ManuallyDrop<Lent<Self>>, epoch: Epoch) -> State {
        State::Write(lent, epoch)
    }

    #[inline(always)]
    fn staged(staged: Staged<Self>) -> LoneWay {
        LoneWay::Write(staged)
    }

    fn bounced(view: View<Self>, bounce: &mut ArenaBuf) -> Result<Body, Ending> {
        let len = usize::try_from(view.len()).unwrap_or(usize::MAX).min(bounce.len());
        match copy_out(&view, &mut bounce[..len]) {
            Ok(()) => Ok(Body::BouncedWrite(view)),
            Err(kind) => Err(Ending::FailedWrite(view, kind.into())),
        }
    }

    fn failed(view: View<Self>, error: Error) -> Ending {
        Ending::FailedWrite(view, error)
    }

    fn plain(view: View<Self>) -> Body {
        Body::BouncedWrite(view)
    }
}
