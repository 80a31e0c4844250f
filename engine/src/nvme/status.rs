//! What an NVMe device says of a command that it did not carry out.
//!
//! Pure tables. Data flow: the 15 bits of a completion's status field → [`Status`] → a
//! [`Cause`], the errno that the block layer gives for it, and a sentence for people.
//! Numbers are those of the NVM Express Base Specification 2.0, figures 93 to 98.
//!
//! In a passthrough completion a positive result is such a status, and never a number of bytes
//! (F48).
//!
//! Not here: what a failed op means for its packet (`complete`).

use core::fmt;

use nix::errno::Errno;

/// The status field of a completion, without the phase bit: code, type, and the two flags.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(u16);

/// What a status means, as far as a caller can act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The command was carried out.
    Success,
    /// The device has no such command, or not with these fields.
    Unsupported,
    /// The range ends beyond the namespace.
    OutOfRange,
    /// There is no space left in the namespace.
    CapacityExceeded,
    /// The namespace is being formatted or is not ready; the same command may succeed later.
    NotReady,
    /// The command was ended before it was carried out; the range is unknown.
    Aborted,
    /// The namespace, or this range of it, takes no writes now.
    WriteProtected,
    /// Another host holds a reservation.
    Reserved,
    /// The medium failed under a write.
    WriteFault,
    /// The medium failed under a read.
    UnrecoveredRead,
    /// The data do not match the protection information that came with them.
    Protection,
    /// A compare found other data.
    Miscompare,
    /// The blocks were deallocated or never written, and the namespace reports that.
    Unwritten,
    /// A zone is full, closed to writes, or written elsewhere than at its write pointer.
    Zone,
    /// The path to the device was lost.
    Path,
    /// Anything else, a failure inside the device among it.
    Internal,
}

/// Status code types: which table a code is of.
const GENERIC: u16 = 0;
const COMMAND: u16 = 1;
const MEDIA: u16 = 2;
const PATH: u16 = 3;

/// One line per code: type, code, cause, name.
const CODES: [(u16, u16, Cause, &str); 49] = [
    (GENERIC, 0x00, Cause::Success, "success"),
    (GENERIC, 0x01, Cause::Unsupported, "invalid command opcode"),
    (GENERIC, 0x02, Cause::Unsupported, "invalid field in command"),
    (GENERIC, 0x03, Cause::Internal, "command id conflict"),
    (GENERIC, 0x04, Cause::Internal, "data transfer error"),
    (GENERIC, 0x05, Cause::Aborted, "aborted: power loss notification"),
    (GENERIC, 0x06, Cause::Internal, "internal error"),
    (GENERIC, 0x07, Cause::Aborted, "abort requested"),
    (GENERIC, 0x08, Cause::Aborted, "aborted: submission queue deleted"),
    (GENERIC, 0x09, Cause::Aborted, "aborted: failed fused command"),
    (GENERIC, 0x0a, Cause::Aborted, "aborted: missing fused command"),
    (GENERIC, 0x0b, Cause::Unsupported, "invalid namespace or format"),
    (GENERIC, 0x0c, Cause::Internal, "command sequence error"),
    (GENERIC, 0x13, Cause::Unsupported, "invalid PRP offset"),
    (GENERIC, 0x15, Cause::Unsupported, "operation denied"),
    (GENERIC, 0x1c, Cause::Unsupported, "sanitize failed"),
    (GENERIC, 0x1d, Cause::NotReady, "sanitize in progress"),
    (GENERIC, 0x20, Cause::WriteProtected, "namespace is write protected"),
    (GENERIC, 0x21, Cause::NotReady, "command interrupted"),
    (GENERIC, 0x80, Cause::OutOfRange, "LBA out of range"),
    (GENERIC, 0x81, Cause::CapacityExceeded, "capacity exceeded"),
    (GENERIC, 0x82, Cause::NotReady, "namespace not ready"),
    (GENERIC, 0x83, Cause::Reserved, "reservation conflict"),
    (GENERIC, 0x84, Cause::NotReady, "format in progress"),
    (COMMAND, 0x80, Cause::Unsupported, "conflicting attributes"),
    (COMMAND, 0x81, Cause::Protection, "invalid protection information"),
    (COMMAND, 0x82, Cause::WriteProtected, "attempted write to read only range"),
    (COMMAND, 0x83, Cause::Unsupported, "command size limit exceeded"),
    (COMMAND, 0xb8, Cause::Zone, "zone boundary error"),
    (COMMAND, 0xb9, Cause::Zone, "zone is full"),
    (COMMAND, 0xba, Cause::Zone, "zone is read only"),
    (COMMAND, 0xbb, Cause::Zone, "zone is offline"),
    (COMMAND, 0xbc, Cause::Zone, "zone invalid write: not at the write pointer"),
    (COMMAND, 0xbd, Cause::Zone, "too many active zones"),
    (COMMAND, 0xbe, Cause::Zone, "too many open zones"),
    (COMMAND, 0xbf, Cause::Zone, "invalid zone state transition"),
    (MEDIA, 0x80, Cause::WriteFault, "write fault"),
    (MEDIA, 0x81, Cause::UnrecoveredRead, "unrecovered read error"),
    (MEDIA, 0x82, Cause::Protection, "guard check error"),
    (MEDIA, 0x83, Cause::Protection, "application tag check error"),
    (MEDIA, 0x84, Cause::Protection, "reference tag check error"),
    (MEDIA, 0x85, Cause::Miscompare, "compare failure"),
    (MEDIA, 0x86, Cause::WriteProtected, "access denied"),
    (MEDIA, 0x87, Cause::Unwritten, "deallocated or unwritten logical block"),
    (PATH, 0x00, Cause::Path, "internal path error"),
    (PATH, 0x02, Cause::Path, "asymmetric access inaccessible"),
    (PATH, 0x60, Cause::Path, "controller pathing error"),
    (PATH, 0x70, Cause::Path, "host pathing error"),
    (PATH, 0x71, Cause::Aborted, "command aborted by host"),
];

impl Status {
    /// The status in the positive result of a passthrough completion; `None` for 0, which is
    /// success, and for negated errnos.
    #[must_use]
    #[allow(clippy::cast_sign_loss, reason = "15 bits of a positive number")]
    pub const fn of_result(result: i32) -> Option<Self> {
        if result > 0 { Some(Self((result & 0x7fff) as u16)) } else { None }
    }

    /// From the 15 bits as they are in a completion: code, type, retry delay, more, do not retry.
    #[must_use]
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits & 0x7fff)
    }

    /// The 15 bits.
    #[must_use]
    pub const fn to_bits(self) -> u16 {
        self.0
    }

    /// Status code type (0 to 7): which table [`Status::code`] is of.
    #[must_use]
    pub const fn code_type(self) -> u16 {
        self.0 >> 8 & 7
    }

    /// Status code (0 to 255).
    #[must_use]
    pub const fn code(self) -> u16 {
        self.0 & 0xff
    }

    /// The device says that the same command would fail again.
    #[must_use]
    pub const fn do_not_retry(self) -> bool {
        self.0 & 1 << 14 != 0
    }

    /// The same command may succeed a moment later: the device was not ready for it, gave it up
    /// or was not reached, and does not say that it would fail again.
    #[must_use]
    pub fn is_transient(self) -> bool {
        let passes = matches!(self.cause(), Cause::NotReady | Cause::Aborted | Cause::Path);
        passes && !self.do_not_retry()
    }

    fn entry(self) -> Option<&'static (u16, u16, Cause, &'static str)> {
        let this = (self.code_type(), self.code());
        CODES.iter().find(|(code_type, code, ..)| (*code_type, *code) == this)
    }

    /// What it means.
    #[must_use]
    pub fn cause(self) -> Cause {
        match (self.entry(), self.code_type()) {
            (Some((_, _, cause, _)), _) => *cause,
            (None, PATH) => Cause::Path,
            (None, _) => Cause::Internal,
        }
    }

    /// The name that the specification gives it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.entry().map_or("a code that is not in the specification's tables", |entry| entry.3)
    }

    /// The errno that a read or a write of the block device would have had (`blk_status_to_errno`
    /// of Linux 6.12), so that one table of errnos serves both ways to a namespace.
    #[must_use]
    pub fn errno(self) -> Errno {
        match self.cause() {
            Cause::Unsupported => Errno::EOPNOTSUPP,
            Cause::CapacityExceeded => Errno::ENOSPC,
            Cause::OutOfRange | Cause::NotReady => Errno::EREMOTEIO,
            Cause::Reserved => Errno::EBADE,
            Cause::WriteProtected
            | Cause::WriteFault
            | Cause::UnrecoveredRead
            | Cause::Miscompare
            | Cause::Unwritten => Errno::ENODATA,
            Cause::Protection => Errno::EILSEQ,
            Cause::Path => Errno::ENOLINK,
            Cause::Success | Cause::Aborted | Cause::Zone | Cause::Internal => Errno::EIO,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code_type, code) = (self.code_type(), self.code());
        write!(f, "NVMe status {code_type:#x}/{code:#04x}: {}", self.name())?;
        if self.do_not_retry() { f.write_str(" (do not retry)") } else { Ok(()) }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Status({:#06x}: {})", self.0, self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f48_positive_result_is_a_status_and_never_bytes() {
        assert_eq!(Status::of_result(0), None);
        assert_eq!(Status::of_result(-5), None);
        // 4096 looks like a whole block; as a status it is an internal condition of the device.
        for result in 1..=0x7fff {
            let status = Status::of_result(result).unwrap();
            assert_eq!(i32::from(status.to_bits()), result);
            assert!(status.errno() as i32 > 0);
        }
    }

    #[test]
    fn f48_status_words_name_cause_errno_and_retry() {
        let table = [
            (0x4002, Cause::Unsupported, Errno::EOPNOTSUPP),
            (0x4001, Cause::Unsupported, Errno::EOPNOTSUPP),
            (0x4080, Cause::OutOfRange, Errno::EREMOTEIO),
            (0x0081, Cause::CapacityExceeded, Errno::ENOSPC),
            (0x0280, Cause::WriteFault, Errno::ENODATA),
            (0x4281, Cause::UnrecoveredRead, Errno::ENODATA),
            (0x0285, Cause::Miscompare, Errno::ENODATA),
            (0x0282, Cause::Protection, Errno::EILSEQ),
            (0x01bc, Cause::Zone, Errno::EIO),
            (0x0370, Cause::Path, Errno::ENOLINK),
            (0x03ff, Cause::Path, Errno::ENOLINK),
            (0x0006, Cause::Internal, Errno::EIO),
            (0x07ff, Cause::Internal, Errno::EIO),
        ];
        for (bits, cause, errno) in table {
            let status = Status::from_bits(bits);
            assert_eq!((status.cause(), status.errno()), (cause, errno), "{status}");
            assert_eq!(status.do_not_retry(), bits & 0x4000 != 0);
        }
        let text = Status::from_bits(0x4080).to_string();
        assert_eq!(text, "NVMe status 0x0/0x80: LBA out of range (do not retry)");
    }

    #[test]
    fn f23_only_what_may_pass_is_transient() {
        // Not ready; interrupted; aborted; no path; a path that the table does not know.
        for bits in [0x0082, 0x0021, 0x0007, 0x0370, 0x0303] {
            let status = Status::from_bits(bits);
            assert!(status.is_transient(), "{status}");
            let for_good = Status::from_bits(bits | 1 << 14);
            assert!(!for_good.is_transient(), "{for_good}");
        }
        // Opcode; range; medium; miscompare; reservation; the inside of the device.
        for bits in [0x0001, 0x0080, 0x0281, 0x0285, 0x0083, 0x0006] {
            let status = Status::from_bits(bits);
            assert!(!status.is_transient(), "{status}");
        }
    }

    #[test]
    fn each_code_stands_in_the_table_once() {
        let mut codes: Vec<_> = CODES.iter().map(|(kind, code, ..)| (*kind, *code)).collect();
        let count = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), count);
    }
}
