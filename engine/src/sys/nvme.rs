//! The calls that ask an NVMe namespace what it is, and that have it carry out one command.
//!
//! Data flow: a descriptor of `/dev/ngXnY` → ioctl → numbers, or bytes to be parsed, or a status.
//! Of the admin commands only identify is sent, which changes nothing.
//!
//! Not here: what the commands are (`nvme::command`), what the bytes say (`nvme::identify`).

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};

use nix::errno::Errno;

use crate::buffer::MemRange;
use crate::nvme::command::Data;
use crate::nvme::identify::IDENTIFY_BYTES;
use crate::nvme::{Command, Status};

mod request {
    //! Four requests of `<linux/nvme_ioctl.h>`.
    nix::ioctl_none_bad!(namespace_id, nix::request_code_none!(b'N', 0x40));
    nix::ioctl_readwrite!(admin, b'N', 0x41, [u8; crate::nvme::Command::BYTES]);
    nix::ioctl_readwrite!(io, b'N', 0x43, [u8; crate::nvme::Command::BYTES]);
    // With a result of 64 bits behind the rest (Linux 5.18).
    nix::ioctl_readwrite!(io_vectored, b'N', 0x49, [u8; crate::nvme::Command::BYTES + 8]);
}

/// The identifier of the namespace that `file` is (`NVME_IOCTL_ID`).
pub(crate) fn nvme_namespace_id(file: &File) -> Result<u32, Errno> {
    // SAFETY: no memory is passed; a descriptor of something else is an ENOTTY.
    let id = unsafe { request::namespace_id(file.as_raw_fd()) }?;
    u32::try_from(id).ok().filter(|&id| id > 0).ok_or(Errno::ENODEV)
}

/// Asks for the identify structure `cns` (0: of namespace `nsid`, 1: of its controller).
/// Needs no privilege beyond the open descriptor (Linux 6.2; `CAP_SYS_ADMIN` before).
pub(crate) fn nvme_identify(
    file: &File,
    nsid: u32,
    cns: u8,
) -> Result<Result<Box<[u8; IDENTIFY_BYTES]>, Status>, Errno> {
    let mut bytes = Box::new([0_u8; IDENTIFY_BYTES]);
    // The kernel finds the bytes by their address alone.
    let addr = bytes.as_mut_ptr().expose_provenance() as u64;
    let data = Data { addr, len: u32::try_from(bytes.len()).unwrap_or(0) };
    let mut words = Command::identify(nsid, cns, data).to_bytes();
    // SAFETY: lifetime: `words` and the bytes it names outlive the call, which does not return
    // before the device has answered or the kernel has given the command up. Aliasing: both are
    // this function's. Bounds: the command names exactly as many bytes as there are.
    let result = unsafe { request::admin(file.as_raw_fd(), &raw mut words) }?;
    Ok(match Status::of_result(result) {
        None => Ok(bytes),
        Some(status) => Err(status),
    })
}

/// Has the namespace carry out `command`, and waits. `memory` is what the command names, if it
/// names any. The result is 0, or a status.
pub(crate) fn nvme_io(
    fd: RawFd,
    command: &Command,
    memory: Option<MemRange>,
) -> Result<Option<Status>, Errno> {
    let named = memory.map_or(0, |memory| memory.addr().addr() as u64);
    assert_eq!(command.data().addr, named, "a command names the memory of its op and no other");
    let mut words = command.to_bytes();
    // SAFETY: lifetime: the slot that pushed the op owns the memory until its completion, which
    // the calling ring posts after this returns. Aliasing: the slot keeps everybody else away.
    // Bounds: the command was built from address and length of one range.
    let result = unsafe { request::io(fd, &raw mut words) }?;
    Ok(Status::of_result(result))
}

/// As [`nvme_io`], where `memory` is in several pieces.
pub(crate) fn nvme_io_vectored(
    fd: RawFd,
    command: &Command,
    memory: Option<MemRange>,
) -> Result<Option<Status>, Errno> {
    let named = memory.map(|it| (it.addr().addr() as u64, u32::from(it.vector_len())));
    let data = command.data();
    assert_eq!(Some((data.addr, data.len)), named, "a command names the pieces of its op");
    let mut words = [0; Command::BYTES + 8];
    words[..Command::BYTES].copy_from_slice(&command.to_bytes());
    // SAFETY: lifetime and aliasing: as in `nvme_io`, for the pieces and for their array.
    // Bounds: the command names as many pieces as the array has.
    let result = unsafe { request::io_vectored(fd, &raw mut words) }?;
    Ok(Status::of_result(result))
}

/// As [`nvme_io`], with bytes of the command's own as its data.
pub(crate) fn nvme_io_with(
    fd: RawFd,
    command: &Command,
    bytes: &[u8],
) -> Result<Option<Status>, Errno> {
    let len = u32::try_from(bytes.len()).map_err(|_| Errno::EINVAL)?;
    // The kernel finds the bytes by their address alone.
    let addr = bytes.as_ptr().expose_provenance() as u64;
    let mut words = command.with_data(Data { addr, len }).to_bytes();
    // SAFETY: lifetime: the bytes are borrowed until the call is over. Aliasing: the command
    // is one that the device reads them for. Bounds: it names exactly as many as there are.
    let result = unsafe { request::io(fd, &raw mut words) }?;
    Ok(Status::of_result(result))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_namespace_answers_no_request() {
        let null = File::open("/dev/null").unwrap();
        assert_eq!(nvme_namespace_id(&null), Err(Errno::ENOTTY));
        assert_eq!(nvme_identify(&null, 1, 1), Err(Errno::ENOTTY));
        let flush = Command::flush(1);
        assert_eq!(nvme_io(null.as_raw_fd(), &flush, None), Err(Errno::ENOTTY));
    }
}
