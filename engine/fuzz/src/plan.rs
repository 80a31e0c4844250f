//! Cutting and judging: no transfer is too odd to be cut, no result too odd to be judged.
//!
//! Data flow: bytes → offset, length, address, demands → cuts, which must tile the range; a
//! result and an attempt → a verdict, which must not claim more than was moved.
//!
//! Not here: what becomes of a cut (the simulation).

use mfio_core::ErrorKind;
use mfio_engine::complete::{self, Attempt, Verdict};
use mfio_engine::plan::{Demands, first_cut, resume_at, whole_cut};

use crate::bytes::Bytes;

/// Ops that are cut off one range: enough for every kind of cut to come after every other.
const CUTS_MAX: usize = 64;

/// One transfer and one result.
pub fn plan(data: &[u8]) {
    let mut bytes = Bytes(data);
    let demands = demands(&mut bytes);
    let (is_read, offset, len) = (bytes.u8() & 1 == 0, bytes.extreme(), bytes.extreme());
    let address = (bytes.u8() & 3 != 0).then(|| bytes.u64() as usize >> 8);
    tile(is_read, offset, len, address, demands);
    let reached = bytes.u32();
    let resumed = resume_at(reached, demands, false);
    let align = demands.offset_align.max(demands.mem_align);
    assert!(resumed <= reached && reached - resumed < align && resumed % align == 0);
    judge(&mut bytes);
}

fn demands(bytes: &mut Bytes<'_>) -> Demands {
    let offset_align = 1 << (bytes.u8() % 17);
    let unit = |count: u16| {
        offset_align * (u32::from(count) % 0x7fff).max(1).min(0x7fff_f000 / offset_align)
    };
    Demands {
        offset_align,
        mem_align: 1 << (bytes.u8() % 17),
        transfer_bytes_max: unit(bytes.u16()),
        bounce_bytes_max: unit(bytes.u16()),
    }
}

fn tile(is_read: bool, offset: u64, len: u64, address: Option<usize>, demands: Demands) {
    let end = offset.checked_add(len).filter(|end| *end <= i64::MAX as u64);
    let mut at = offset;
    for _ in 0..CUTS_MAX {
        let left = len - (at - offset);
        if left == 0 {
            break;
        }
        let here = address.map(|address| address.wrapping_add((at - offset) as usize));
        let cut = match first_cut(is_read, at, left, here, demands) {
            Ok(cut) => cut,
            Err(ErrorKind::OutOfRange) => return assert!(end.is_none()),
            Err(kind) => return assert_eq!(kind, ErrorKind::Misaligned),
        };
        assert!(end.is_some());
        let mask = u64::from(demands.offset_align) - 1;
        assert_eq!((cut.op_offset | u64::from(cut.op_bytes)) & mask, 0, "aligned");
        assert!(cut.op_bytes <= demands.transfer_bytes_max);
        assert!(!cut.bounce || cut.op_bytes <= demands.bounce_bytes_max);
        assert_eq!(cut.op_offset + u64::from(cut.lead_bytes), at);
        assert!(cut.take_bytes > 0 && u64::from(cut.take_bytes) <= left);
        assert!(u64::from(cut.lead_bytes) + u64::from(cut.take_bytes) <= u64::from(cut.op_bytes));
        if !cut.bounce {
            assert_eq!((cut.take_bytes, cut.lead_bytes), (cut.op_bytes, 0));
            assert!(here.is_some_and(|address| address % demands.mem_align as usize == 0));
        }
        if let Some(here) = here {
            let whole = whole_cut(at, left, here, demands);
            let is_whole = !cut.bounce && u64::from(cut.take_bytes) == left;
            assert_eq!(whole, is_whole.then_some(cut.op_bytes), "the short way agrees");
        }
        at += u64::from(cut.take_bytes);
    }
}

fn judge(bytes: &mut Bytes<'_>) {
    let flags = bytes.u8();
    let attempt = Attempt {
        is_read: flags & 1 != 0,
        is_follower: flags & 2 != 0,
        cancel_requested: flags & 4 != 0,
        len_bytes: bytes.u32(),
        retries: bytes.u8() % (complete::EAGAIN_RETRIES_MAX + 1),
        stalls: bytes.u8() % complete::STALLS_MAX,
    };
    let result = bytes.u32().cast_signed();
    let moved = u32::try_from(result).ok();
    match complete::transfer(result, attempt, false) {
        Verdict::Done => assert_eq!(moved, Some(attempt.len_bytes)),
        Verdict::Rest { done_bytes } => {
            assert!(moved == Some(done_bytes) && done_bytes > 0 && done_bytes < attempt.len_bytes);
        }
        Verdict::EndOfFile { done_bytes } => {
            assert!(attempt.is_read && moved == Some(0) && done_bytes == 0);
        }
        Verdict::Stalled => assert!(!attempt.is_read && moved == Some(0)),
        Verdict::Retry { .. } => assert!(attempt.retries < complete::EAGAIN_RETRIES_MAX),
        Verdict::ChainBroken => assert!(attempt.is_follower && result < 0),
        Verdict::Cancelled => assert!(attempt.cancel_requested && result < 0),
        Verdict::Fail(_) => assert_ne!(moved, Some(attempt.len_bytes)),
    }
    assert_eq!(complete::flush(result, attempt.is_follower) == Verdict::Done, result >= 0);
    assert_eq!(complete::range(result, attempt) == Verdict::Done, result == 0);
}
