//! Turns one completion into a verdict: done, rest, retry or fail.
//!
//! Pure: no state, no clock, no system call, so that every errno is a table test. Data flow:
//! CQE result → [`transfer`] or [`flush`] → the shard acts on the [`Verdict`].
//!
//! Not here: what a verdict does to slots and packets (`shard`), how a rest is cut (`plan`).

use nix::errno::Errno;

/// Retries of one range after `EAGAIN` before it is reported; the last goes to a kernel
/// worker (`IOSQE_ASYNC`).
pub const EAGAIN_RETRIES_MAX: u8 = 8;

/// Completions without progress (zero-byte writes) that are tolerated in a row.
pub const STALLS_MAX: u8 = 2;

/// What the shard does next with an op that has completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every byte was transferred.
    Done,
    /// The first `done_bytes` were transferred (0 < done < len); the rest must be issued.
    Rest {
        /// Bytes of this op that are through.
        done_bytes: u32,
    },
    /// The op moved nothing and reported no error; it is tried once more.
    Stalled,
    /// Nothing can be assumed of the range; all of it is issued again.
    Retry {
        /// Hand it to a kernel worker this time: the last attempt.
        force_async: bool,
    },
    /// The file ended after `done_bytes`; those are valid, the rest does not exist.
    EndOfFile {
        /// Bytes of this op that are through.
        done_bytes: u32,
    },
    /// A predecessor in the chain was short or failed; this op never ran (F16).
    ChainBroken,
    /// The op was cancelled; what happened to the range is unknown (F17).
    Cancelled,
    /// The op failed for good.
    Fail(Errno),
}

/// What is known of an op besides its result.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// The op reads (else it writes).
    pub is_read: bool,
    /// It was pushed behind a linked op.
    pub is_follower: bool,
    /// Its cancellation was asked for.
    pub cancel_requested: bool,
    /// Bytes asked for.
    pub len_bytes: u32,
    /// Earlier `EAGAIN`s of this range.
    pub retries: u8,
    /// Earlier completions in a row that moved nothing.
    pub stalls: u8,
}

/// Judges a read or a write. `result` is bytes moved or a negated errno.
///
/// `accept_short` is [`Plant::AcceptShort`](crate::ring::Plant::AcceptShort), false in every
/// product.
#[must_use]
#[inline]
pub fn transfer(result: i32, attempt: Attempt, accept_short: bool) -> Verdict {
    match u32::try_from(result) {
        Ok(moved) if moved == attempt.len_bytes => Verdict::Done,
        Ok(moved) => short_transfer(moved, attempt, accept_short),
        Err(_) => failed_op(result, attempt),
    }
}

/// Judges a flush. Never retried: after a failure the kernel may have marked the lost pages
/// clean, and a second flush would succeed (F37).
#[must_use]
pub fn flush(result: i32, is_follower: bool) -> Verdict {
    match errno_of(result) {
        None => Verdict::Done,
        Some(Errno::ECANCELED) if is_follower => Verdict::ChainBroken,
        // The kernel answers so when it did not start the op; nothing was flushed or lost.
        Some(Errno::EAGAIN | Errno::EINTR) => Verdict::Retry { force_async: false },
        Some(errno) => Verdict::Fail(errno),
    }
}

/// Judges an op on a range, which moves no memory. Doing it twice does no harm, so what was
/// interrupted is tried again, as often as a transfer is.
#[must_use]
pub fn range(result: i32, attempt: Attempt) -> Verdict {
    match result {
        0 => Verdict::Done,
        1.. => Verdict::Fail(Errno::EIO),
        _ => failed_op(result, attempt),
    }
}

#[cold]
fn short_transfer(moved: u32, attempt: Attempt, accept_short: bool) -> Verdict {
    if accept_short && moved > 0 {
        return Verdict::Done;
    }
    if moved > attempt.len_bytes {
        // More than was asked for: no file does this, and believing it would hand out bytes
        // beyond the buffer.
        return Verdict::Fail(Errno::EIO);
    }
    match (moved, attempt.is_read) {
        (0, true) => Verdict::EndOfFile { done_bytes: 0 },
        (0, false) if attempt.stalls + 1 >= STALLS_MAX => Verdict::Fail(Errno::EIO),
        (0, false) => Verdict::Stalled,
        (done_bytes, _) => Verdict::Rest { done_bytes },
    }
}

#[cold]
fn failed_op(result: i32, attempt: Attempt) -> Verdict {
    let errno = errno_of(result).unwrap_or(Errno::EIO);
    match errno {
        Errno::ECANCELED if attempt.cancel_requested => Verdict::Cancelled,
        Errno::ECANCELED if attempt.is_follower => Verdict::ChainBroken,
        Errno::EINTR if attempt.cancel_requested => Verdict::Cancelled,
        // ECANCELED that nobody asked for: a signal reached the worker that ran the op.
        Errno::EAGAIN | Errno::EINTR | Errno::ECANCELED => {
            if attempt.retries >= EAGAIN_RETRIES_MAX {
                Verdict::Fail(errno)
            } else {
                Verdict::Retry { force_async: attempt.retries + 1 == EAGAIN_RETRIES_MAX }
            }
        }
        other => Verdict::Fail(other),
    }
}

fn errno_of(result: i32) -> Option<Errno> {
    (result < 0).then(|| Errno::from_raw(result.checked_neg().unwrap_or(0)))
}

/// What to do when [`Ring::enter`](crate::ring::Ring::enter) itself fails (F21).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnterVerdict {
    /// Call it again.
    Again,
    /// Reap what is ready, then call it again.
    ReapThenAgain,
    /// Nothing in flight can free what the kernel lacks: back off, then call it again, and
    /// give up after [`EAGAIN_RETRIES_MAX`] times.
    BackOff,
    /// The ring is unusable.
    Fatal(Errno),
}

/// The one table of `enter` errors. Waiting on `EAGAIN` with nothing in flight would wait
/// for ever, so the two cases differ.
#[must_use]
pub fn enter_error(errno: Errno, in_flight: u32) -> EnterVerdict {
    match errno {
        Errno::EINTR => EnterVerdict::Again,
        Errno::EBUSY => EnterVerdict::ReapThenAgain,
        Errno::EAGAIN if in_flight > 0 => EnterVerdict::ReapThenAgain,
        Errno::EAGAIN | Errno::ENOMEM => EnterVerdict::BackOff,
        other => EnterVerdict::Fatal(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(is_read: bool) -> Attempt {
        Attempt {
            is_read,
            is_follower: false,
            cancel_requested: false,
            len_bytes: 4096,
            retries: 0,
            stalls: 0,
        }
    }

    #[test]
    fn f11_short_transfer_is_a_rest_and_never_done() {
        for moved in [1, 511, 512, 4095] {
            for is_read in [false, true] {
                let verdict = transfer(moved, attempt(is_read), false);
                let done_bytes = u32::try_from(moved).unwrap();
                assert_eq!(verdict, Verdict::Rest { done_bytes });
            }
        }
        assert_eq!(transfer(4096, attempt(true), false), Verdict::Done);
    }

    #[test]
    fn f12_read_of_zero_is_end_of_file() {
        assert_eq!(transfer(0, attempt(true), false), Verdict::EndOfFile { done_bytes: 0 });
    }

    #[test]
    fn f13_second_write_of_zero_fails() {
        let mut stalled = attempt(false);
        assert_eq!(transfer(0, stalled, false), Verdict::Stalled);
        stalled.stalls = 1;
        assert_eq!(transfer(0, stalled, false), Verdict::Fail(Errno::EIO));
    }

    #[test]
    fn f23_eagain_is_retried_eight_times_the_last_one_async() {
        let mut again = attempt(true);
        for retries in 0..EAGAIN_RETRIES_MAX {
            again.retries = retries;
            let force_async = retries == EAGAIN_RETRIES_MAX - 1;
            assert_eq!(
                transfer(-(Errno::EAGAIN as i32), again, false),
                Verdict::Retry { force_async }
            );
        }
        again.retries = EAGAIN_RETRIES_MAX;
        assert_eq!(transfer(-(Errno::EAGAIN as i32), again, false), Verdict::Fail(Errno::EAGAIN));
    }

    #[test]
    fn f16_cancelled_follower_is_a_broken_chain_not_a_cancel() {
        let mut follower = attempt(false);
        follower.is_follower = true;
        let cancelled = -(Errno::ECANCELED as i32);
        assert_eq!(transfer(cancelled, follower, false), Verdict::ChainBroken);
        assert_eq!(flush(cancelled, true), Verdict::ChainBroken);
        follower.is_follower = false;
        follower.cancel_requested = true;
        assert_eq!(transfer(cancelled, follower, false), Verdict::Cancelled);
    }

    #[test]
    fn more_bytes_than_asked_for_is_an_error() {
        assert_eq!(transfer(4097, attempt(true), false), Verdict::Fail(Errno::EIO));
        assert_eq!(transfer(i32::MIN, attempt(true), false), Verdict::Fail(Errno::UnknownErrno));
    }

    #[test]
    fn f37_failed_flush_is_never_retried() {
        for errno in [Errno::EIO, Errno::ENOSPC, Errno::EDQUOT, Errno::EROFS] {
            assert_eq!(flush(-(errno as i32), false), Verdict::Fail(errno));
        }
    }

    #[test]
    fn f21_enter_errors_follow_the_table() {
        assert_eq!(enter_error(Errno::EINTR, 0), EnterVerdict::Again);
        assert_eq!(enter_error(Errno::EBUSY, 0), EnterVerdict::ReapThenAgain);
        assert_eq!(enter_error(Errno::EAGAIN, 3), EnterVerdict::ReapThenAgain);
        assert_eq!(enter_error(Errno::EAGAIN, 0), EnterVerdict::BackOff);
        assert_eq!(enter_error(Errno::EBADFD, 9), EnterVerdict::Fatal(Errno::EBADFD));
    }

    /// Every errno that has an arm, in each situation that the arm asks about.
    #[test]
    fn errnos_are_judged_by_who_asked_for_what() {
        let usual = attempt(true);
        let follower = Attempt { is_follower: true, ..usual };
        let cancelled = Attempt { cancel_requested: true, ..follower };
        let retry = Verdict::Retry { force_async: false };
        for (errno, alone, linked, asked) in [
            (Errno::ECANCELED, retry, Verdict::ChainBroken, Verdict::Cancelled),
            (Errno::EINTR, retry, retry, Verdict::Cancelled),
            (Errno::EAGAIN, retry, retry, retry),
        ] {
            let result = -(errno as i32);
            for (attempt, expected) in [(usual, alone), (follower, linked), (cancelled, asked)] {
                assert_eq!(transfer(result, attempt, false), expected, "{errno}");
                assert_eq!(range(result, attempt), expected, "{errno}");
            }
            let tired = Attempt { retries: EAGAIN_RETRIES_MAX, ..usual };
            assert_eq!(transfer(result, tired, false), Verdict::Fail(errno));
        }
        for errno in [Errno::EIO, Errno::ENOSPC, Errno::EINVAL, Errno::EOPNOTSUPP, Errno::EBADF] {
            let failed = Verdict::Fail(errno);
            assert_eq!(transfer(-(errno as i32), cancelled, false), failed);
            assert_eq!(range(-(errno as i32), cancelled), failed);
        }
    }

    #[test]
    fn flush_that_was_not_started_is_tried_again_and_one_that_was_is_not() {
        assert_eq!(flush(0, false), Verdict::Done);
        for errno in [Errno::EAGAIN, Errno::EINTR] {
            let again = Verdict::Retry { force_async: false };
            assert_eq!(flush(-(errno as i32), true), again);
        }
        // Nobody asked for it, and no step before it broke: what it has done is unknown.
        let cancelled = Errno::ECANCELED;
        assert_eq!(flush(-(cancelled as i32), false), Verdict::Fail(cancelled));
    }

    #[test]
    fn op_on_a_range_moves_nothing() {
        assert_eq!(range(0, attempt(false)), Verdict::Done);
        assert_eq!(range(1, attempt(false)), Verdict::Fail(Errno::EIO));
        assert_eq!(range(i32::MIN, attempt(false)), Verdict::Fail(Errno::UnknownErrno));
    }

    #[test]
    fn f11_planted_short_transfer_is_done_and_an_empty_one_is_not() {
        assert_eq!(transfer(1, attempt(false), true), Verdict::Done);
        assert_eq!(transfer(0, attempt(false), true), Verdict::Stalled);
    }

    #[test]
    fn f21_enter_without_memory_backs_off() {
        assert_eq!(enter_error(Errno::ENOMEM, 3), EnterVerdict::BackOff);
        assert_eq!(enter_error(Errno::EINTR, 3), EnterVerdict::Again);
        assert_eq!(enter_error(Errno::EBUSY, 3), EnterVerdict::ReapThenAgain);
    }
}
