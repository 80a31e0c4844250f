//! A count that the kernel keeps of one of its tracepoints (`perf_event_open(2)`).
//!
//! Data flow: number of a tracepoint → a counting descriptor, with no samples and no memory →
//! the count, read like a file.
//!
//! Not here: which tracepoint (`metrics::punts`).

use std::fs::File;
use std::os::fd::FromRawFd;

use nix::errno::Errno;

/// `PERF_TYPE_TRACEPOINT`, `PERF_FLAG_FD_CLOEXEC` of `<linux/perf_event.h>`.
const TYPE_TRACEPOINT: u32 = 2;
const FLAG_CLOEXEC: libc::c_ulong = 8;

/// The first version of `struct perf_event_attr`, which every kernel takes.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size_bytes: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    config1: u64,
}

// The kernel knows the version by this size (`PERF_ATTR_SIZE_VER0`).
const _: () = assert!(size_of::<Attributes>() == 64);

/// Bit 1 of the attributes' flags: threads started from now on are counted too.
const INHERIT: u64 = 2;

/// Counts how often the calling thread, and with `inherit` every thread that it starts from now
/// on, meets the tracepoint. A read of eight bytes from the file, by any thread, is the count.
pub(crate) fn count_tracepoint(tracepoint: u64, inherit: bool) -> Result<File, Errno> {
    let attributes = Attributes {
        kind: TYPE_TRACEPOINT,
        size_bytes: 64,
        config: tracepoint,
        flags: if inherit { INHERIT } else { 0 },
        ..Attributes::default()
    };
    let (this_thread, any_cpu, no_group): (libc::pid_t, libc::c_int, libc::c_int) = (0, -1, -1);
    // SAFETY: lifetime: `attributes` outlives the call, which copies it. Aliasing: it is this
    // function's, and only read. Bounds: it is as long as it says.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            this_thread,
            any_cpu,
            no_group,
            FLAG_CLOEXEC,
        )
    };
    let fd = Errno::result(fd)?;
    let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the call has just made it, so nobody else owns it.
    Ok(unsafe { File::from_raw_fd(fd) })
}
